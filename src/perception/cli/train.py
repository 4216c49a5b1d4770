# SPDX-License-Identifier: Apache-2.0
"""``perception train``: train a segmentation network."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "train",
        help="train a segmentation network",
        description="Train a segmentation network from a configuration file: checkpoints, weights, scores and times go "
        "to a folder.",
    )
    parser.add_argument("--config", required=True, type=Path, help="YAML file; config/train_default.yaml is an example")
    parser.add_argument(
        "--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="set one value of the configuration"
    )
    parser.add_argument("--output", type=Path, default=Path("training_output"), help="folder (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Train, then print the scores."""
    from tqdm import tqdm

    from perception.models.base import require
    from perception.training.config import load_training_config

    config = load_training_config(arguments.config, arguments.set)
    require("torch", "training", "training")
    from perception.training.fit import fit

    # Of the processes that torchrun starts, the first one speaks.
    silent = os.environ.get("RANK", "0") != "0"
    with tqdm(desc="train", unit="step", dynamic_ncols=True, disable=silent) as bar:

        def report(step: int, total: int, figures: dict[str, Any]) -> None:
            if bar.total is None:
                # A resumed run begins in the middle, and its speed counts from there.
                bar.total, bar.initial, bar.n = total, step - 1, step - 1
            bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()}, refresh=False)
            bar.update(step - bar.n)

        result = fit(config, arguments.output, arguments.resume, report)
    if not silent:
        print_summary(result, arguments.output)
    return 0


def print_summary(result: dict[str, Any], output: Path) -> None:
    """The few lines that a person wants to see after a run."""
    for entry in result["epochs"][-1:]:
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in entry["seconds"].items())
        print(
            f"epoch {entry['epoch']}: loss {entry['loss']:.4f}, {entry['images_per_s']:.2f} images/s; seconds: {parts}"
        )
        for name, score in entry.get("validation", {}).items():
            print(f"{name}: mIoU {score['mean_iou']:.4f}, accuracy {score['accuracy']:.1%}")
    if result["best_score"] is not None:
        print(f"best score {result['best_score']:.4f} in epoch {result['best_epoch']}")
    print(f"model, checkpoints and figures: {output}/")
