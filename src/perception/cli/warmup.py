# SPDX-License-Identifier: Apache-2.0
"""``perception warmup``: compile all kernels and load the network once, so that nodes start quickly."""

from __future__ import annotations

import argparse
import time
from typing import Any

from perception.cli.arguments import add_config_arguments
from perception.config import load_config


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser("warmup", help="fill the caches", description=__doc__)
    add_config_arguments(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Warm up and say how long it took."""
    from perception.pipeline import PerceptionPipeline

    start = time.perf_counter()
    PerceptionPipeline.from_config(load_config(arguments.config, arguments.set)).warm_up()
    print(f"ready after {time.perf_counter() - start:.1f} s")
    return 0
