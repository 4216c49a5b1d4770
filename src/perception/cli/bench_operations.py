# SPDX-License-Identifier: Apache-2.0
"""``perception bench operations`` and ``bench fuzz-map``: each figure of the map beside the bound set for it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.evaluation.map_figures import Figure
    from perception.mapping.benchmark import BenchmarkScan

FAR_SCANS = ((0.05, 80.0, 2000), (0.01, 300.0, 20))
"""Resolution in meters, distance in meters and rays of the scans whose memory is measured."""


def run_operations(arguments: argparse.Namespace, scans: list[BenchmarkScan], name: str, classes: int) -> int:
    """Measure queries, rays, messages, files, costmap and growth on a map of the scans; 1 when a bound is missed."""
    from perception.costmap import warm_up as warm_up_costmap
    from perception.mapping import warm_up

    warm_up()
    warm_up_costmap()
    figures = []
    print(f"{name}, {arguments.resolution[0]:g} m")
    for figure in _figures(scans, arguments.resolution[0], classes):
        figures.append(figure)
        print(line(figure), flush=True)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        path = arguments.output / "bench_operations.json"
        result = {"source": name, "resolution": arguments.resolution[0], "figures": [f.as_dict() for f in figures]}
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written: {path}")
    return 0 if all(figure.met for figure in figures) else 1


def _figures(scans: list[BenchmarkScan], resolution: float, classes: int) -> Iterator[Figure]:
    from perception.evaluation import map_figures, map_growth
    from perception.labels import LabelSet

    label_set = LabelSet.load("ade20k32")
    tree = map_figures.build_map(scans, resolution, max(classes, label_set.num_classes))
    yield from map_figures.query_figures(tree)
    yield from map_figures.ray_figures(tree, scans)
    yield from map_figures.message_figures(tree, label_set)
    tree = map_figures.spread_map(scans, resolution, tree.num_classes)
    yield from map_figures.file_figures(tree, label_set)
    del tree
    yield from map_growth.costmap_figures()
    yield from map_growth.flatness_figures(scans[0].points, scans[0].origin)
    yield from map_growth.far_scan_figures(FAR_SCANS)


def line(figure: Figure) -> str:
    """One figure as a line of text."""
    sign = "≥" if figure.at_least else "≤"
    verdict = "met" if figure.met else "MISSED"
    return f"{figure.name:40} {figure.value:10.2f} {figure.unit} ({sign} {figure.bound:g}, {verdict}): {figure.how}"


def run_fuzz(arguments: argparse.Namespace) -> int:
    """Read damaged map files; 1 when one of them gave anything but a map or a clear error."""
    from perception.evaluation.map_fuzz import fuzz

    result: dict[str, Any] = fuzz(arguments.mutations)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "fuzz_map.json").write_text(text + "\n", encoding="utf-8")
    return 1 if result["failures"] else 0
