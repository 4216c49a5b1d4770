# SPDX-License-Identifier: Apache-2.0
"""``perception snapshot``: pictures of the live map, costmaps and clouds, without a screen."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perception.errors import InputError


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser("snapshot", help="draw what the nodes publish", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("snapshot"), help="folder for the pictures")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to wait for topics that bring nothing")
    parser.add_argument("--namespace", default="", help="of the robot's topics")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Subscribe, wait, draw."""
    from perception.ros.snapshot import run_snapshot

    files = run_snapshot(arguments.output, arguments.seconds, arguments.namespace)
    if not files:
        raise InputError(f"no topic brought anything in {arguments.seconds:g} s: do the nodes run, in this domain?")
    print("\n".join(map(str, files)))
    return 0
