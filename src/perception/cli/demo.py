# SPDX-License-Identifier: Apache-2.0
"""``perception demo``: the main job, camera frames to semantic map and costmap, on the sample in the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perception.errors import InputError

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
"""A recorded drive through a furnished house, with true labels; see its README.md for the command that made it."""


# Nothing in the sample changes, so that a voxel may get surer of its label than where rooms are tidied.
OPTIONS = ("--set", "octomap.max_label_score=30")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "demo",
        help="replay the sample that comes with the package",
        description="Replay a short drive of a robot through a furnished house: the shipped network labels the images, "
        "the octree fuses them, the costmap is projected from it. All is compared with the truth.",
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the results")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Replay the sample and list the pictures."""
    from perception.cli import main

    bag = next(SAMPLE.glob("*.mcap"), None)
    if bag is None:
        raise InputError(f"{SAMPLE}: expected the sample of the package (a .mcap), found none")
    print("The first run compiles the kernels, which takes most of a minute.", flush=True)
    code = main.main(["replay", str(bag), *OPTIONS, "--output", str(arguments.output)])
    if code == 0:
        print("Look at:")
        for picture in sorted(arguments.output.resolve().glob("*.png")):
            print(f"  {picture}")
        print("Your own recording: perception replay FOLDER_OR_BAG --output OUT")
    return code
