# SPDX-License-Identifier: Apache-2.0
"""``perception demo``: the main job on a recorded sequence, twice: with its true labels and with the network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perception.errors import InputError

SEQUENCE = Path(__file__).resolve().parents[4] / "shared" / "data" / "label_fusion" / "labels"
SETTINGS = ["octomap.resolution=0.01", "octomap.sensor_model.max_range=3.0"]


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser("demo", help="replay a recorded sequence", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the results")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Replay the sequence and list the pictures."""
    from perception.cli import main

    if not SEQUENCE.is_dir():
        raise InputError(
            "demo: the recorded sequence (../shared/data/label_fusion/labels) is not beside this repository; "
            "run your own with: python -m perception replay FOLDER_OR_BAG --output OUT"
        )
    for labels in ("truth", "network"):
        print(f"\n== {SEQUENCE.parent.name}, labels: {labels} ==", flush=True)
        command = ["replay", str(SEQUENCE), "--source-config", "label_fusion_labels", "--labels", labels]
        for setting in SETTINGS:
            command += ["--set", setting]
        code = main.main([*command, "--output", str(arguments.output / labels)])
        if code:
            return code
    print("\nlook at:")
    for picture in sorted(arguments.output.resolve().rglob("*.png")):
        if picture.name != "costmap.png":
            print(f"  {picture}")
    return 0
