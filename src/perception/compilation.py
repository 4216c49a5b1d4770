# SPDX-License-Identifier: Apache-2.0
"""Compile the kernels of a replay on two cores: one process takes what builds a map, the other what reads it.

Numba compiles one function at a time in a process, but processes share its cache. ``python -m perception.compilation``
is the second one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """While the caller compiles what takes clouds in, let a second process compile the rest; waits for it at the end.

    Does nothing where the kernels have been compiled before, or on a single core. A second process that fails costs
    time, not the run: the caller compiles what it then finds missing.
    """
    marker = _marker()
    if marker.exists() or (os.cpu_count() or 1) < 2:
        yield
        return
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(marker.parent)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [_source_folder(), os.environ.get("PYTHONPATH")]))
    helper = subprocess.Popen(
        [sys.executable, "-m", "perception.compilation"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        if helper.wait() == 0:
            with contextlib.suppress(OSError):
                marker.touch()
    finally:
        helper.kill()
        helper.wait()


def main() -> int:
    """Compile what reads a map, makes clouds and draws; the second process runs this."""
    from perception import cloud, costmap, mapping

    costmap.warm_up_reading()
    mapping.warm_up_reading()
    cloud.warm_up()
    _draw_something()
    return 0


def _draw_something() -> None:
    """Compile what draws voxels, and let matplotlib look for its fonts, which takes seconds the first time."""
    from perception.evaluation.pictures import octree_pictures

    cube = np.zeros((1, 3), np.float32), np.ones(1, np.float32), np.full(1, -1, np.int32)
    with tempfile.TemporaryDirectory() as folder:
        octree_pictures(Path(folder), cube, None, 1.0)


def _marker() -> Path:
    """File in numba's cache that says that the second process need not run."""
    import numba

    from perception.numba_cache import source_digest

    return Path(numba.config.CACHE_DIR) / f"replay-{source_digest()}"  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]


def _source_folder() -> str:
    return str(Path(__file__).resolve().parents[1])


if __name__ == "__main__":
    sys.exit(main())
