# SPDX-License-Identifier: Apache-2.0
"""``perception record``: write what the pipeline makes of a recording into a new bag."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from perception.cli.arguments import add_config_arguments, add_labels_argument, add_source_arguments, source_options
from perception.cli.losses import loss_lines
from perception.config import load_config
from perception.errors import InputError


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "record",
        help="write the pipeline's outputs into a new bag",
        description="Run the pipeline over a recording and write labels, overlay, labeled cloud, octomap, costmap and "
        "the camera's pose into a new bag that RViz and Foxglove play.",
    )
    parser.add_argument("source", help="folder of frames or a bag")
    parser.add_argument("--output", required=True, type=Path, help="folder of the new bag; must not exist")
    add_config_arguments(parser)
    add_labels_argument(parser)
    parser.add_argument("--storage", default="mcap", choices=("mcap", "sqlite3"), help="default: %(default)s")
    parser.add_argument("--uncompressed", action="store_true", help="do not pack the bag with zstd")
    parser.add_argument("--map-period", type=float, default=1.0, help="write the map every so many seconds")
    parser.add_argument("--images", action="store_true", help="write color and depth, too: the bag plays alone")
    add_source_arguments(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Record, then say what and where."""
    from tqdm import tqdm

    from perception.record import RecordOptions, record
    from perception.sources import open_source

    config = load_config(arguments.config, arguments.set)
    options = RecordOptions(
        arguments.labels, arguments.storage, not arguments.uncompressed, arguments.map_period, arguments.images
    )
    if arguments.output.exists():
        raise InputError(f"--output: expected a new folder, {arguments.output} exists already")
    with (
        open_source(arguments.source, source_options(arguments, config.cloud.sync_tolerance)) as source,
        tqdm(total=source.frame_count, unit="frame", desc=source.name) as bar,
    ):
        try:
            result = record(source, arguments.output, config, options, bar.update)
        except KeyboardInterrupt:
            if arguments.output.is_dir():
                print(
                    f"perception: interrupted; {arguments.output}/ holds what was recorded until then", file=sys.stderr
                )
            raise
    for line in loss_lines(result["dropped"], result["warnings"], result["details"]):
        print(line)
    print(f"{result['frames']} frames: {arguments.output}/")
    return 0
