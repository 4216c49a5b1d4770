# SPDX-License-Identifier: Apache-2.0
"""``perception demo``: the main job, camera frames to semantic map and costmap, on recorded sequences."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
SHELF = DATA / "label_fusion" / "labels"
ROOM = DATA / "rgbd" / "open3d_redwood"
SHELF_OPTIONS = ["--source-config", "label_fusion_labels", "--set", "octomap.resolution=0.01"]
ROOM_OPTIONS = ["--up", "+y", "--set", "octomap.resolution=0.02", "--set", "octomap.sensor_model.max_range=5"]
SYNTHETIC_FRAMES = 60


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser("demo", help="replay recorded sequences", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the results")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Replay the sequences and list the pictures."""
    from perception.cli import main

    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    for title, name, command in _runs(output):
        print(f"\n== {title} ==", flush=True)
        code = main.main(["replay", *command, "--output", str(output / name)])
        if code:
            return code
    print("\nLook at:")
    for picture in sorted(output.resolve().rglob("*.png")):
        print(f"  {picture}")
    return 0


def _runs(output: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Title, folder and arguments of each replay."""
    if ROOM.is_dir():
        yield "living room, labels by the network", "room", [str(ROOM), *ROOM_OPTIONS]
    if SHELF.is_dir():
        yield "shelf, its true labels", "shelf_truth", [str(SHELF), *SHELF_OPTIONS, "--labels", "truth"]
        yield "shelf, labels by the network", "shelf_network", [str(SHELF), *SHELF_OPTIONS]
        return
    print(
        "The recorded sequence (../shared/data/label_fusion/labels) is not beside this repository: a room made of "
        "boxes takes its place.\nYour own recording: python -m perception replay FOLDER_OR_BAG --output OUT"
    )
    yield "synthetic room, its true labels", "synthetic", [str(_synthetic_bag(output)), "--labels", "truth"]


def _synthetic_bag(output: Path) -> Path:
    from perception.simulation.boxes import synthetic_room_frames
    from perception.sources.bag_writer import write_bag

    path = output / "synthetic_room"
    if not path.exists():
        write_bag(path, synthetic_room_frames(SYNTHETIC_FRAMES))
    return path
