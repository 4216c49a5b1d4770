# SPDX-License-Identifier: Apache-2.0
"""Runs the cells of a sweep on a Ray cluster.

A worker evaluates into a folder of its own and sends the files back, so that machines need no common disk for results;
recordings must be at the same path on all of them. A worker that is killed is replaced by Ray, which runs its cell
again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from perception.errors import MissingDependencyError, PerceptionError
from perception.evaluation import run_folder as files
from perception.sweep import ATTEMPTS, Cell, run_cell


def run_on_ray(cells: Sequence[Cell], output: Path, jobs: int, address: str) -> Iterator[tuple[str, str]]:
    """Run cells on a cluster; yields the key of each that ended and why it failed ("" for those that did not).

    Args:
        cells: to run.
        output: folder of the sweep.
        jobs: workers of a cluster that is started here; of one that exists, Ray decides.
        address: of a running cluster, or "local".

    Raises:
        MissingDependencyError: Ray is not installed.
        PerceptionError: the cluster cannot be reached.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise MissingDependencyError(f"--ray needs ray: pip install 'perception[ray]' ({error})") from error
    own = not ray.is_initialized()
    if own:
        _connect(ray, jobs, address)
    try:
        task = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_evaluate)
        waiting = {task.remote(cell): cell for cell in cells}
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            cell = waiting.pop(ready)
            try:
                error, content = ray.get(ready)
            except RayError as failure:
                yield cell.key, f"its worker died {ATTEMPTS} times ({str(failure).splitlines()[0]})"
                continue
            if not error:
                unpack(output / cell.folder, content)
            yield cell.key, error
    finally:
        if own:
            ray.shutdown()


def _connect(ray: Any, jobs: int, address: str) -> None:
    # A sweep tells nobody that it runs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its own 30 s are too short where all cores are busy.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    try:
        if address == "local":
            ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False)
        else:
            ray.init(address=address, log_to_driver=False)
    except Exception as error:  # Ray raises plain ones, too
        what = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise PerceptionError(f"Ray cluster {address}: cannot be reached ({what})") from error


def _evaluate(cell: Cell) -> tuple[str, dict[str, bytes]]:
    """What a worker does: an error or "", and the files of the run folder by their path in it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_cell(cell, Path(folder))
        except PerceptionError as error:
            return str(error), {}
        except Exception as error:  # a bug in one cell must not look like a killed worker
            return f"{type(error).__name__}: {error}", {}
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return "", {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def unpack(folder: Path, content: dict[str, bytes]) -> None:
    """Write the files of a run folder, the summary that marks it as finished last."""
    from perception.atomic_file import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    files.begin(folder, files.SUMMARY)
    for name in sorted(content, key=lambda name: name == files.SUMMARY):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, [content[name]])
    (folder / files.BEGUN).unlink()
