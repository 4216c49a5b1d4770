# SPDX-License-Identifier: Apache-2.0
"""Which runs are of the same recording, and what each was run with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from perception.evaluation.run_folder import Run


def recordings(runs: Sequence[Run]) -> list[str]:
    """What tells the recordings of runs apart: equal for runs of one place, or of the same contents wherever they were.

    Of different parts of a recording, or read otherwise, it differs.
    """
    parents: dict[str, str] = {}

    def root(mark: str) -> str:
        while parents.setdefault(mark, mark) != mark:
            mark = parents[mark]
        return mark

    marks = [_marks(run) for run in runs]
    for first, *others in marks:
        for mark in others:
            parents[root(mark)] = root(first)
    return [root(first) for first, *_ in marks]


def _marks(run: Run) -> list[str]:
    """Place and contents of the recording as far as they are known, each with how it was read."""
    source = _mapping(run, "source")
    known = [[name, source.get(name)] for name in ("path", "fingerprint") if source.get(name)] or [["unknown", None]]
    return [json.dumps([*mark, source.get("options")], sort_keys=True) for mark in known]


def settings(run: Run) -> dict[str, Any]:
    """Network and all parameters, names joined by dots."""
    summary = run.summary
    flat = {"network": summary.get("network") or f"labels: {summary.get('labels')}"}
    flat.update(flattened(_mapping(run, "config")))
    flat.pop("segmentation.model", None)
    return flat


def differing(choices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings that are not the same in all."""
    names = sorted({name for setting in choices for name in setting})
    return [name for name in names if len({json.dumps(setting.get(name)) for setting in choices}) > 1]


def _mapping(run: Run, name: str) -> Mapping[str, Any]:
    value = run.summary.get(name)
    return value if isinstance(value, Mapping) else {}


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with the names of its levels joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flattened(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
