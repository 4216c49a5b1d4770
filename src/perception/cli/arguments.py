# SPDX-License-Identifier: Apache-2.0
"""Options that commands have in common, with one name, default and help text each."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.errors import InputError
from perception.sources.base import TOPIC_ROLES, UP_ROTATIONS, SourceOptions


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--set``, which load_config takes."""
    parser.add_argument("--config", type=Path, help="YAML file of parameters")
    parser.add_argument("--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="set one parameter")


def add_labels_argument(parser: argparse.ArgumentParser) -> None:
    """``--labels``: where the labels of a recording's images come from."""
    parser.add_argument(
        "--labels", default="network", choices=("network", "truth", "none"), help="who labels the images"
    )


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that choose among what a recording holds; the same for every command that reads one."""
    group = parser.add_argument_group("recording")
    group.add_argument("--source-config", help="description of a folder: a YAML file, or the name of a shipped one")
    group.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="ROLE=/TOPIC",
        help=f"topic of a bag; roles: {', '.join(TOPIC_ROLES)}",
    )
    group.add_argument("--fixed-frame", default="", help="frame of the map (default: root of the transform tree)")
    group.add_argument("--poses", help="TUM trajectory of the camera in place of recorded poses")
    group.add_argument("--odometry", default="", help="topic of nav_msgs/Odometry in place of /tf")
    group.add_argument("--extrinsics", help="YAML file of fixed transforms that the bag lacks")
    group.add_argument("--up", default="+z", choices=sorted(UP_ROTATIONS), help="axis of recorded poses that points up")
    group.add_argument("--start", type=float, default=0.0, help="skip so many seconds")
    group.add_argument("--duration", type=float, help="stop after so many seconds")
    group.add_argument("--every", type=int, default=1, help="use every n-th image")


def source_options(arguments: argparse.Namespace, tolerance_s: float) -> SourceOptions:
    """The options that :func:`add_source_arguments` declared."""
    topics = {}
    for text in arguments.topic:
        role, separator, topic = text.partition("=")
        if not separator:
            raise InputError(f"--topic: expected ROLE=/topic, got {text!r}")
        if role in topics:
            raise InputError(f"--topic: expected one topic for {role}, got {topics[role]} and {topic}")
        topics[role] = topic
    return SourceOptions(
        config=arguments.source_config,
        topics=topics,
        fixed_frame=arguments.fixed_frame,
        poses=arguments.poses,
        odometry=arguments.odometry,
        extrinsics=arguments.extrinsics,
        start_s=arguments.start,
        duration_s=arguments.duration,
        every=arguments.every,
        tolerance_s=tolerance_s,
        up=arguments.up,
    )


def parse_size(text: str, option: str) -> tuple[int, int]:
    """(height, width) in pixels of a text such as 640x480; raises InputError, which names the option, for others."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 8192 and 0 < int(height) <= 8192):
        raise InputError(f"{option}: expected WIDTHxHEIGHT in pixels, at most 8192, got {text!r}")
    return int(height), int(width)
