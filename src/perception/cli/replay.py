# SPDX-License-Identifier: Apache-2.0
"""``perception replay``: run the pipeline over a folder or a bag."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perception.cli.arguments import add_config_arguments, add_labels_argument, add_source_arguments, source_options
from perception.cli.losses import loss_lines
from perception.config import load_config
from perception.errors import InputError


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "replay",
        help="run the pipeline over a recording",
        description="Run the pipeline over a folder of frames or a bag and write the map (map.ot, map.bt), the costmap "
        "for Nav2's map_server, pictures, result.json and the configuration to a folder.",
    )
    parser.add_argument("source", help="folder of frames (7-Scenes, TUM, Redwood …) or a bag (.mcap, .db3, its folder)")
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    add_config_arguments(parser)
    add_labels_argument(parser)
    parser.add_argument(
        "--rerun",
        nargs="?",
        const="",
        metavar="FILE.rrd",
        help="show the run in the Rerun viewer while it goes on, or write a file for it (extra 'viewer')",
    )
    add_source_arguments(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Replay, then print where the results are."""
    from tqdm import tqdm

    from perception.evaluation.run_folder import make_writable
    from perception.replay import Replay
    from perception.sources import open_source

    config = load_config(arguments.config, arguments.set)
    if arguments.output.resolve() == Path(arguments.source).resolve():
        raise InputError(f"--output: expected another folder than the recording's, {arguments.source}")
    options = source_options(arguments, config.cloud.sync_tolerance)
    with open_source(arguments.source, options) as source:
        replay = Replay(source, config, arguments.output, arguments.labels)
        make_writable(arguments.output)
        with contextlib.ExitStack() as stack:
            observe = _observer(arguments.rerun, replay, stack)
            bar = stack.enter_context(tqdm(total=source.frame_count, unit="frame", desc=source.name))
            result = replay.run(bar.update, observe)
        print_summary(result, arguments.output)
    return 0


def _observer(rerun: str | None, replay: Any, stack: contextlib.ExitStack) -> Callable[[Any], object] | None:
    """What each frame is shown to: the Rerun viewer where it was asked for, else nothing."""
    if rerun is None:
        return None
    from perception.report.rerun_log import RerunLog

    log = RerunLog(replay.source.name, Path(rerun) if rerun else None, replay.pipeline.label_set)
    return stack.enter_context(log).following(replay.pipeline)


def print_summary(result: dict[str, Any], output: Path) -> None:
    """The few lines that a person wants to see after a run."""
    stages = ", ".join(f"{name} {times['p50_ms']:.1f}" for name, times in result["stages"].items())
    voxels = result["voxels"]
    print(f"{result['frames']} frames in {result['processing_seconds']:.1f} s; median ms: {stages}")
    for line in loss_lines(result["dropped"], result["warnings"], result["details"]):
        print(line)
    print(f"{voxels['occupied']:,} occupied and {voxels['free']:,} free voxels, {result['memory']['map_mb']:.1f} MB")
    print("most frequent: " + ", ".join(f"{name} {count:,}" for name, count in list(voxels["per_class"].items())[:6]))
    if result["truth"]:
        _print_truth(result["truth"])
    print(f"pictures, map and figures: {output}/")


def _print_truth(truth: dict[str, Any]) -> None:
    from perception.evaluation.truth import spread

    readback = truth["readback"]
    if "single_frames" not in truth:
        print(
            f"labels read back from the map agree with the truth on {readback['agreement']:.1%} of "
            f"{readback['pixels']:,} pixels ({readback['agreement_occupied']:.1%} counting occupied voxels only)"
        )
        return
    print(f"against the truth, {readback['pixels']:,} pixels:")
    shares = truth["by_frame"], readback["agreement_by_frame"]
    for name, scores, by_frame in zip(
        ("single frames", "fused map"), (truth["single_frames"], readback), shares, strict=True
    ):
        low, middle, high = spread(by_frame)
        print(
            f"  {name:13} accuracy {scores['agreement']:.1%}, mIoU {scores['mean_iou']:.3f}; "
            f"by frame {low:.1%} to {high:.1%}, median {middle:.1%}"
        )
    gain = readback["agreement"] - truth["single_frames"]["agreement"]
    print(f"  fusion gives {100 * gain:+.1f} points of accuracy")
