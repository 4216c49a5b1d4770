# SPDX-License-Identifier: Apache-2.0
"""``perception bench model``: a network's speed, memory and agreement with PyTorch on every installed backend."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import parse_size
from perception.errors import InputError

if TYPE_CHECKING:
    from perception.models.benchmark import Result

COLUMNS = (
    ("variant", "backend", "{}"),
    ("frame_ms", "frame ms", "{:.1f}"),
    ("frame_p95_ms", "p95", "{:.1f}"),
    ("network_ms", "network ms", "{:.1f}"),
    ("load_s", "load s", "{:.1f}"),
    ("peak_memory_mb", "peak MB", "{:.0f}"),
    ("agreement", "pixels as torch", "{:.2%}"),
)
"""Key of a result, heading and format of each column after the input size."""
DEFAULT_SIZES = ["512x512", "384x384", "256x256"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``bench model``."""
    parser.add_argument("network", nargs="?", default="default", help="model: registry name, or a network of yours")
    parser.add_argument(
        "--input-size", nargs="+", default=DEFAULT_SIZES, metavar="WIDTHxHEIGHT", help="model: sizes to measure"
    )
    parser.add_argument(
        "--backend", nargs="+", help="model: only these rows of the table (torch eager is the reference)"
    )
    parser.add_argument("--repeats", type=int, default=30, help="model: timed runs of each")
    parser.add_argument("--num-threads", type=int, default=0, help="model: CPU threads; 0 leaves it to the libraries")
    parser.add_argument("--json", type=Path, help="model: write the results here too")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; rows appear as they are measured."""
    from perception.cli.bench import open_frames
    from perception.models.benchmark import VARIANTS, benchmark_segmenter, to_dict

    sizes = [parse_size(text, "--input-size") for text in arguments.input_size]
    names = [variant.name for variant in VARIANTS]
    wanted = [names[0], *(arguments.backend or names[1:])]
    if set(wanted) - set(names):
        raise InputError(f"--backend: expected some of {names}, got {arguments.backend}")
    variants = [variant for variant in VARIANTS if variant.name in wanted]
    frames, source, _ = open_frames(arguments)
    images = [frame.color for frame, _ in zip(frames, range(arguments.count), strict=False) if frame.color is not None]
    print(f"{arguments.network}, {len(images)} images of {source}\n")
    print("\n".join(heading()))
    results = []
    for result in benchmark_segmenter(
        arguments.network,
        sizes,
        images,
        variants=variants,
        repeats=arguments.repeats,
        num_threads=arguments.num_threads,
    ):
        results.append(result)
        print(row(result), flush=True)
    print("\n".join(["", *summary(results)]))
    if arguments.json:
        data = {"network": arguments.network, "source": source, "results": [to_dict(result) for result in results]}
        arguments.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    if all(result.skipped for result in results):
        raise InputError(f"network {arguments.network}: nothing could be measured ({results[0].skipped})")
    return 0


def heading() -> list[str]:
    """The first two lines of the Markdown table."""
    names = ["input", *(title for _, title, _ in COLUMNS)]
    return [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]


def row(result: Result) -> str:
    """A line of the Markdown table."""
    values = [getattr(result, key) for key, _, _ in COLUMNS]
    cells = ["–" if value is None else form.format(value) for value, (_, _, form) in zip(values, COLUMNS, strict=True)]
    if result.skipped:
        cells[1:] = [f"not measured: {result.skipped}", *[""] * (len(cells) - 2)]
    return f"| {result.width}x{result.height} | {' | '.join(cells)} |"


def summary(results: Sequence[Result]) -> list[str]:
    """For each size what the network costs, and the fastest backend that may stand in for PyTorch."""
    from perception.models.benchmark import REQUIRED_AGREEMENT, fastest_that_agrees

    lines = []
    for size in dict.fromkeys((result.width, result.height) for result in results):
        rows = [result for result in results if (result.width, result.height) == size]
        parts: list[str] = []
        costs = next((result.costs for result in rows if result.costs), None)
        if costs:
            parts.append(
                f"{costs.parameters / 1e6:.3g} M parameters, {costs.flops / 1e9:.3g} GFLOPs, "
                f"{costs.bytes_moved / 1e6:.0f} MB moved"
            )
        best: Any = fastest_that_agrees(rows)
        if best:
            parts.append(f"fastest that agrees to {REQUIRED_AGREEMENT:.1%}: {best.variant}, {best.frame_ms:.1f} ms")
        if parts:
            lines.append(f"{size[0]}x{size[1]}: {'; '.join(parts)}")
    return lines
