# SPDX-License-Identifier: Apache-2.0
"""``perception bench``: speed and memory, measured against OctoMap's own library in the same run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perception.cli import bench_model
from perception.cli.arguments import add_source_arguments, source_options
from perception.config import PerceptionConfig
from perception.errors import InputError

COLUMNS = (
    ("scans", "scans", "{:d}"),
    ("points", "points", "{:,.0f}"),
    ("resolution", "voxel m", "{:g}"),
    ("ours", "ours ms", "{:.2f}"),
    ("octomap_discretized", "OctoMap discretized ms", "{:.1f}"),
    ("octomap_default", "OctoMap default ms", "{:.1f}"),
    ("speedup_discretized", "ratio", "{:.1f}"),
    ("speedup_default", "ratio default", "{:.1f}"),
    ("pointwise_known", "default: other voxels", "{:.2%}"),
    ("pointwise_states", "other states", "{:.3%}"),
    ("bytes_per_voxel_ours", "ours B/voxel", "{:.1f}"),
    ("bytes_per_voxel_octomap", "ColorOcTree B/voxel", "{:.1f}"),
    ("equal", "equal", "{}"),
)
"""Key of a result, heading and format of each column."""

ROS_SECONDS = 10.0


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser("bench", help="measure speed", description=__doc__)
    parser.add_argument(
        "what",
        choices=("map", "operations", "fuzz-map", "memory", "model", "ros"),
        help="map: insertion of scans; operations: queries, rays, files, costmap and growth of a map against their "
        "bounds; fuzz-map: damaged map files; memory: of a long replay; model: a network on its backends; ros: latency "
        "of the live nodes",
    )
    parser.add_argument("--frames", help="folder or bag to take scans from; a synthetic room when absent")
    parser.add_argument("--resolution", type=float, nargs="+", default=[0.05, 0.02], help="edges of voxels, m")
    parser.add_argument("--max-range", type=float, default=5.0, help="longest ray, m; -1 for no limit")
    parser.add_argument("--count", type=int, default=20, help="use at most so many frames")
    parser.add_argument("--passes", type=int, default=3, help="how often all scans are inserted into new maps")
    parser.add_argument("--labels", default="auto", choices=("auto", "truth", "network", "none"), help="who labels")
    parser.add_argument("--lidar", action="store_true", help="a scan of 64 x 2048 rays up to 80 m in place of a camera")
    parser.add_argument(
        "--graph", action="append", help="ros: costmap, geometry, labels, network, split labels, split network"
    )
    parser.add_argument("--seconds", type=float, help="ros: how long to play a camera (10 s); memory: the run (600 s)")
    parser.add_argument("--rate", type=float, default=30.0, help="ros, memory: frames per second of 640x480 pixels")
    parser.add_argument("--mutations", type=int, default=100_000, help="fuzz-map: how many files to damage and read")
    parser.add_argument("--output", type=Path, help="folder for the figures as JSON (map: and a plot)")
    add_source_arguments(parser)
    bench_model.add_arguments(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Measure and print the table."""
    if arguments.what == "model":
        return bench_model.run(arguments)
    if arguments.what == "ros":
        return _run_ros(arguments)
    if arguments.what == "memory":
        from perception.cli.bench_memory import run_memory

        return run_memory(arguments)
    from perception.cli.bench_operations import run_fuzz, run_operations

    if arguments.what == "fuzz-map":
        return run_fuzz(arguments)
    scans, name, classes = _scans(arguments)
    if arguments.what == "operations":
        return run_operations(arguments, scans, name, classes)
    from perception.mapping.benchmark import run_benchmark

    results = []
    for resolution in arguments.resolution:
        result = run_benchmark(scans, resolution, arguments.max_range, max(classes, 1), arguments.passes)
        results.append({"source": name, **result})
        print(f"{name}, {resolution:g} m done", flush=True)
    print(table(results))
    seconds = max(result["compile_seconds"] for result in results)
    print(f"first use (compiled, or loaded from the cache), not in the figures above: {seconds:.1f} s")
    if arguments.output:
        _write(arguments.output, results)
    return 0 if all(result["equal"] for result in results) else 1


def _run_ros(arguments: argparse.Namespace) -> int:
    from perception.ros.latency import GRAPHS, HEADING, run_latency_bench, summary

    wanted = arguments.graph or list(GRAPHS)
    for graph in wanted:
        if graph not in GRAPHS:
            raise InputError(f"--graph: expected one of {', '.join(GRAPHS)}, got {graph!r}")
    stages = []
    print(HEADING)
    for graph in wanted:
        result = run_latency_bench(graph, arguments.seconds or ROS_SECONDS, arguments.rate)
        print(summary(result), flush=True)
        parts = "; ".join(f"{name} {text}" for name, text in result.stages.items())
        stages.append(f"{graph}, ms p50, p95: {parts}")
    print("\n".join(["", *stages]))
    return 0


def table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    rows = [[heading for _, heading, _ in COLUMNS], ["---"] * len(COLUMNS)]
    for result in results:
        rows.append(["–" if result.get(key) is None else form.format(result[key]) for key, _, form in COLUMNS])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _scans(arguments: argparse.Namespace) -> tuple[list[Any], str, int]:
    """Scans to insert, where they come from, and how many classes their labels have."""
    from perception.mapping.benchmark import BenchmarkScan
    from perception.pipeline import PerceptionPipeline, registered

    if arguments.lidar:
        from perception.simulation.lidar import synthetic_lidar_scans

        scans = [BenchmarkScan(points, origin) for points, origin in synthetic_lidar_scans(arguments.count)]
        return scans, "synthetic LiDAR", 0
    frames, name, truth = open_frames(arguments)
    who = arguments.labels if arguments.labels != "auto" else "truth" if truth else "network"
    config = PerceptionConfig()
    pipeline = PerceptionPipeline.from_config(config) if who == "network" else PerceptionPipeline(config, None, truth)
    scans = []
    for frame in frames:
        frame = registered(frame)
        labels = None if who == "none" else pipeline.segment(frame)
        cloud = pipeline.lift(frame, labels)
        given = (None, None) if labels is None else (cloud.labels, cloud.confidence)
        scans.append(BenchmarkScan(frame.map_T_camera.apply(cloud.points), frame.map_T_camera.translation, *given))
        if len(scans) == arguments.count:
            break
    return scans, name, pipeline.label_set.num_classes if pipeline.label_set and who != "none" else 0


def open_frames(arguments: argparse.Namespace) -> tuple[Iterator[Any], str, Any]:
    """Frames, their name, and the label set of their truth."""
    if arguments.count < 1:
        raise InputError(f"--count: expected at least 1, got {arguments.count}")
    if arguments.frames is None:
        from perception.labels import LabelSet
        from perception.simulation.boxes import synthetic_room_frames

        return synthetic_room_frames(arguments.count), "synthetic room", LabelSet.load("ade20k32")
    from perception.sources import open_source

    source = open_source(arguments.frames, source_options(arguments, PerceptionConfig().cloud.sync_tolerance))
    return iter(source), source.name, source.label_set


def _write(folder: Path, results: list[dict[str, Any]]) -> None:
    from perception.evaluation.pictures import bar_chart

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench_map.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    groups = [f"{result['source']}\n{result['resolution']:g} m" for result in results]
    series = {
        "perception, with labels": [result["ours"] for result in results],
        "OctoMap, discretized": [result["octomap_discretized"] for result in results],
        "OctoMap, default": [result["octomap_default"] for result in results],
    }
    bar_chart(folder / "bench_map.png", "Time to insert one scan (median)", "ms", groups, series)
    print(f"written: {folder}/bench_map.json, {folder}/bench_map.png")
