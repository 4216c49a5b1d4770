# SPDX-License-Identifier: Apache-2.0
"""Evaluates networks and parameters on many recordings: a grid of cells, each a run folder, resumed where it stopped.

A cell's folder is named by the hash of its configuration, its recording and the version; where it holds a finished run
of that hash, the cell is not run again. Every cell runs in a process of its own, so that one that dies costs nothing
but itself, and its peak of memory is its own.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from perception.config import PerceptionConfig, load_config, to_dict
from perception.errors import InputError, PerceptionError
from perception.evaluate import EvaluationOptions, evaluate
from perception.evaluation import run_folder as files
from perception.evaluation.recordings import find_recordings
from perception.evaluation.run_key import fingerprint, run_key
from perception.evaluation.run_scores import ScoreOptions
from perception.sources import SourceOptions
from perception.yaml_text import load_yaml

KEYS = ("sources", "networks", "parameters", "settings", "labels", "config", "scores", "reading")
ATTEMPTS = 3
"""A cell whose process was killed is started this often in all."""
MAX_CELLS = 100_000
DONE, FAILED, OPEN = "done", "failed", "open"
Progress = Callable[["Cell", str, str], object]
"""Called with a cell, its status, and why it failed."""


@dataclass(frozen=True)
class Cell:
    """One evaluation of a sweep.

    Attributes:
        key: hash of all that its outcome depends on.
        source: bag or folder.
        network: name of the network.
        parameters: values of the swept parameters by name.
        config: parameters of the pipeline.
        options: how the recording is read and scored.
    """

    key: str
    source: Path
    network: str
    parameters: Mapping[str, Any]
    config: PerceptionConfig
    options: EvaluationOptions

    @property
    def folder(self) -> str:
        """Its run folder, below the sweep's."""
        return f"{files.CELLS}/{self.key[:16]}"


@dataclass(frozen=True)
class Plan:
    """What a sweep is made of.

    Attributes:
        sources: recordings.
        networks: names of networks; empty takes the configuration's.
        parameters: values to try by dotted name.
        settings: fixed values by dotted name.
        options: how recordings are read and scored.
        config: YAML file that the settings are laid over, or None.
    """

    sources: Sequence[Path]
    networks: Sequence[str] = ()
    parameters: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: EvaluationOptions = field(default_factory=EvaluationOptions)
    config: Path | None = None

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a YAML file; paths in it are relative to it.

        Keys: ``sources`` (list of recordings, or of folders of such), ``networks`` (list), ``parameters`` (name: list
        of values), ``settings`` (name: value), ``labels``, ``config`` (file), ``scores`` (fields of ScoreOptions),
        ``reading`` (of SourceOptions).

        Raises:
            InputError: unreadable, unknown keys, wrong values.
        """
        path = Path(path)
        try:
            data = load_yaml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"sweep {path}: cannot be read ({str(error).splitlines()[0]})") from error
        if not isinstance(data, dict) or set(data) - set(KEYS) or not data.get("sources"):
            got = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
            raise InputError(f"sweep {path}: expected 'sources' and some of {list(KEYS)}, got {got}")
        _check_kinds(path, data)
        beside, described = path.parent, (data.get("reading") or {}).get("config") is not None
        scores = {**(data.get("scores") or {})}
        if "class_mapping" in scores:
            scores["class_mapping"] = beside / str(scores["class_mapping"])
        try:
            options = EvaluationOptions(
                str(data.get("labels", "network")),
                scores=ScoreOptions(**scores),
                source=SourceOptions(**(data.get("reading") or {})),
            )
        except TypeError as error:
            raise InputError(f"sweep {path}: {error}") from error
        return cls(
            [path for name in data["sources"] for path in find_recordings(beside / str(name), described)],
            [str(name) for name in data.get("networks") or ()],
            data.get("parameters") or {},
            data.get("settings") or {},
            options,
            beside / str(data["config"]) if data.get("config") else None,
        )

    def cells(self) -> list[Cell]:
        """Every combination of recording, network and parameters.

        Raises:
            InputError: an unknown parameter, a wrong value, a missing recording, or more than 100 000 cells.
        """
        names = list(self.parameters)
        count = len(self.sources) * max(len(self.networks), 1)
        for values in self.parameters.values():
            count *= len(values)
        if not 0 < count <= MAX_CELLS:
            raise InputError(f"sweep: expected 1 to {MAX_CELLS} cells, got {count}")
        grid = list(itertools.product(self.networks or [""], *self.parameters.values()))
        variants = [self._variant(network, dict(zip(names, values, strict=True))) for network, *values in grid]
        cells: dict[str, Cell] = {}
        for source in self.sources:
            if not source.exists():
                raise InputError(f"{source}: no such file or folder")
            mark = fingerprint(source)
            for parameters, config in variants:
                key = run_key(mark, to_dict(config), asdict(self.options))
                network = config.segmentation.model if self.options.labels == "network" else self.options.labels
                cells[key] = Cell(key, source, network, parameters, config, self.options)
        return list(cells.values())

    def _variant(self, network: str, parameters: dict[str, Any]) -> tuple[dict[str, Any], PerceptionConfig]:
        changes = {**self.settings, **parameters}
        if network:
            changes["segmentation.model"] = network
        overrides = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
        return parameters, load_config(self.config, overrides)


def run_sweep(
    cells: Sequence[Cell],
    output: str | Path,
    jobs: int = 1,
    ray_address: str | None = None,
    progress: Progress = lambda cell, status, error: None,
) -> dict[str, Any]:
    """Run the cells that are not finished.

    Args:
        cells: of :meth:`Plan.cells`.
        output: folder of the sweep; ``sweep.json`` in it is up to date after every cell.
        jobs: processes at a time on this machine.
        ray_address: of a Ray cluster ("local" starts one here) that runs the cells in place of local processes.
        progress: called for each cell that is done or failed.

    Returns:
        What ``sweep.json`` holds.

    Raises:
        InputError: jobs is below 1; the output holds something else, or is in a recording.
        MissingDependencyError: Ray is asked for and not installed.
    """
    if jobs < 1:
        raise InputError(f"jobs: expected at least 1, got {jobs}")
    output = Path(output)
    files.expect_outside(output, {cell.source for cell in cells})
    files.claim_folder(output, files.SWEEP)
    states = {cell.key: (DONE if is_done(output, cell) else OPEN, "") for cell in cells}
    by_key = {cell.key: cell for cell in cells}
    result = _record(output, cells, states)
    waiting = [cell for cell in cells if states[cell.key][0] == OPEN]
    if ray_address is None:
        outcomes = run_locally(waiting, output, jobs)
    else:
        from perception.sweep_ray import run_on_ray

        outcomes = run_on_ray(waiting, output, jobs, ray_address)
    for key, error in outcomes:
        states[key] = (FAILED, error) if error else (DONE, "")
        progress(by_key[key], *states[key])
        result = _record(output, cells, states)
    return result


def is_done(output: Path, cell: Cell) -> bool:
    """Whether the folder of a cell holds its finished run."""
    summary = output / cell.folder / files.SUMMARY
    if not summary.is_file():
        return False
    try:
        return files.read_json(summary).get("cell") == cell.key
    except InputError:
        return False


def run_cell(cell: Cell, folder: Path) -> None:
    """Evaluate a cell into its folder; the summary that marks it as finished names the cell."""
    summary = evaluate(cell.source, folder, cell.config, cell.options)
    summary |= {"cell": cell.key, "parameters": dict(cell.parameters)}
    files.write_json(folder / files.SUMMARY, summary)


def run_locally(cells: Sequence[Cell], output: Path, jobs: int) -> Iterator[tuple[str, str]]:
    """Run cells in processes; yields the key of each that ended and why it failed ("" for those that did not)."""
    context = multiprocessing.get_context("spawn")
    waiting = [(cell, 1) for cell in reversed(cells)]
    running: list[tuple[Any, Any, Cell, int]] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell, attempt = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_in_process, args=(cell, output / cell.folder, sender))
                process.start()
                sender.close()
                running.append((process, receiver, cell, attempt))
            time.sleep(0.05)
            for entry in [entry for entry in running if not entry[0].is_alive()]:
                running.remove(entry)
                process, receiver, cell, attempt = entry
                error = _outcome(process, receiver)
                if error is None and attempt < ATTEMPTS:
                    waiting.append((cell, attempt + 1))
                else:
                    yield cell.key, _killed(attempt) if error is None else error
    finally:
        for process, *_ in running:
            process.terminate()


def _in_process(cell: Cell, folder: Path, sender: Any) -> None:
    try:
        run_cell(cell, folder)
        sender.send("")
    except PerceptionError as error:
        sender.send(str(error))
    except Exception as error:  # a bug in one cell must not look like a killed process
        sender.send(f"{type(error).__name__}: {error}")


def _outcome(process: Any, receiver: Any) -> str | None:
    """What a process said, None when it died before it could say anything."""
    process.join()
    try:
        return receiver.recv() if receiver.poll() else None
    except EOFError:
        return None
    finally:
        receiver.close()


def _killed(attempts: int) -> str:
    return f"its process was killed {attempts} times"


def _record(output: Path, cells: Sequence[Cell], states: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Write ``sweep.json``."""
    result = {
        "format": files.FORMAT,
        "cells": [
            {
                "key": cell.key,
                "folder": cell.folder,
                "network": cell.network,
                "parameters": dict(cell.parameters),
                "source": str(cell.source),
                "status": states[cell.key][0],
                "error": states[cell.key][1],
            }
            for cell in cells
        ],
    }
    files.write_json(output / files.SWEEP, result)
    return result


def _check_kinds(path: Path, data: Mapping[str, Any]) -> None:
    kinds: dict[str, type] = {
        "sources": list, "networks": list, "parameters": dict, "settings": dict, "scores": dict, "reading": dict,
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(data.get(name) or kind(), kind):
            raise InputError(f"sweep {path}: expected {name} to be a {kind.__name__}, got {data[name]!r}")
    for name, values in (data.get("parameters") or {}).items():
        if not isinstance(values, list) or not values:
            raise InputError(f"sweep {path}: expected {name} to be a list of values, got {values!r}")
