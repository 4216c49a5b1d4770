# SPDX-License-Identifier: Apache-2.0
"""``perception play``: publish a bag's messages as they were recorded, with /clock."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from perception.errors import InputError, MissingDependencyError
from perception.ros.prefix import shared_memory_profile


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "play",
        help="publish a bag",
        description="Publish the messages of a bag on ROS 2 in (scaled) real time, with /clock. Nodes that shall live "
        "in the bag's time need use_sim_time.",
    )
    parser.add_argument("bag", type=Path, help="bag (.mcap, .db3, its folder)")
    parser.add_argument("--rate", type=float, default=1.0, help="times real time; 0 for as fast as possible")
    parser.add_argument("--start", type=float, default=0.0, help="skip so many seconds")
    parser.add_argument("--duration", type=float, help="stop after so many seconds of the bag")
    parser.add_argument("--loop", action="store_true", help="begin again at the end")
    parser.add_argument("--topic", action="append", default=[], help="publish only this topic; may be repeated")
    parser.add_argument("--remap", action="append", default=[], metavar="FROM:=TO", help="publish under another name")
    parser.add_argument("--clock-rate", type=float, default=100.0, help="messages of /clock per second; 0 for none")
    parser.add_argument(
        "--wait-for", type=float, default=0.0, metavar="SECONDS", help="wait so long for a subscriber of each topic"
    )
    parser.add_argument(
        "--wait-topic", action="append", default=[], metavar="TOPIC", help="of this topic alone; may be repeated"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Play; 0 at the end of the bag or on Ctrl-C."""
    os.environ.update(shared_memory_profile())
    try:
        from perception.ros.player import PlayOptions, play
    except ImportError as error:
        raise MissingDependencyError(f"play needs ROS 2: {error}") from error

    names = {}
    for text in arguments.remap:
        source, separator, target = text.partition(":=")
        if not separator:
            raise InputError(f"--remap: expected FROM:=TO, got {text!r}")
        names[source] = target
    options = PlayOptions(
        rate=arguments.rate,
        start_s=arguments.start,
        duration_s=arguments.duration,
        loop=arguments.loop,
        topics=tuple(arguments.topic),
        names=names,
        clock_rate=arguments.clock_rate,
        wait_s=arguments.wait_for,
        wait_topics=tuple(arguments.wait_topic),
    )
    count = play(arguments.bag, options)
    print(f"{count} messages published")
    return 0
