# SPDX-License-Identifier: Apache-2.0
"""``perception info``: what is in a map file, a bag or a folder of frames."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import InputError

MAP_SUFFIXES = (".ot", ".bt")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "info",
        help="say what is in a map or a recording",
        description="Say what is in a map file, a bag or a folder of "
        "frames: size, resolution and classes of a map; topics, times and counts of a recording.",
    )
    parser.add_argument("file", type=Path, help="map (.ot, .bt), bag, or folder of frames")
    parser.add_argument("--source-config", help="description of a folder: a YAML file, or the name of a shipped one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Describe the file."""
    path: Path = arguments.file
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix in MAP_SUFFIXES:
        facts = describe_map(path)
    else:
        from perception.sources import SourceOptions, describe

        facts = describe(path, SourceOptions(config=arguments.source_config))
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return 0


def describe_map(path: Path) -> dict[str, Any]:
    """Facts about a map file; raises InputError when it is damaged."""
    from perception.mapping.octomap_io import read_map

    content = read_map(path)
    leaves = content.leaves
    sizes = content.resolution * 2.0 ** (16 - leaves.depths.astype(np.float64))
    volumes = 8 ** (16 - leaves.depths.astype(np.int64))
    occupied = leaves.log_odds >= 0
    facts: dict[str, Any] = {
        "kind": f"{content.tree_id}, {'occupied and free only' if content.binary else 'log-odds'}",
        "resolution_m": content.resolution,
        "leaves": len(sizes),
        "occupied_voxels": int(volumes[occupied].sum()),
        "free_voxels": int(volumes[~occupied].sum()),
    }
    if len(sizes):
        lower = (leaves.keys.astype(np.float64) - 32768) * content.resolution
        facts["lower_m"] = [round(float(value), 3) for value in lower.min(axis=0)]
        facts["upper_m"] = [round(float(value), 3) for value in (lower + sizes[:, None]).max(axis=0)]
    if content.labels is not None:
        facts["labels"] = content.labels.metadata
    return facts


def _print(facts: dict[str, Any]) -> None:
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{name}:")
            for entry in value:
                print("  " + "  ".join(str(part) for part in entry.values()))
        elif isinstance(value, dict):
            print(f"{name}:")
            for inner, part in value.items():
                print(f"  {inner}: {_classes(part) if inner == 'label_set' else part}")
        else:
            print(f"{name:<{width}}  {value}")


def _classes(label_set: Any) -> str:
    """Ids and names of a label set that a file describes."""
    try:
        return f"{label_set['name']}: " + ", ".join(f"{entry['id']} {entry['name']}" for entry in label_set["classes"])
    except (KeyError, TypeError):
        return str(label_set)
