# SPDX-License-Identifier: Apache-2.0
"""Small run folders with known numbers, and with names that would do harm in a page that did not escape them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.costmap.files import write_costmap
from perception.evaluation.run_folder import FRAME_COLUMNS, PATH_COLUMNS, RowWriter
from perception.labels import LabelSet
from perception.mapping import SemanticOcTree, SensorModel
from perception.types import CostGrid

HOSTILE = '<img src="http://evil.example/x" onerror="window.broken=1">&"\'</script><script>window.broken=1</script>'
LABELS = LabelSet.from_dict(
    {
        "name": "room",
        "classes": [
            {"id": 0, "name": "floor", "color": [120, 90, 60]},
            {"id": 1, "name": "wall", "color": [60, 160, 220]},
            {"id": 2, "name": HOSTILE, "color": [220, 60, 60]},
        ],
    }
)
FRAMES = 40


def room_map() -> SemanticOcTree:
    """A floor of 2 x 2 m, a wall of 1 m height along x = 2, and a box on the floor, at 10 cm."""
    tree = SemanticOcTree(0.1, SensorModel(max_range=10.0), LABELS.num_classes)
    steps = np.arange(0.05, 2.0, 0.1)
    floor = np.array([[x, y, -0.05] for x in steps for y in steps])
    wall = np.array([[2.05, y, z] for y in steps for z in np.arange(0.05, 1.0, 0.1)])
    box = np.array([[x, y, 0.25] for x in (0.85, 0.95, 1.05) for y in (0.85, 0.95, 1.05)])
    for label, points in enumerate((floor, wall, box)):
        for _ in range(2):
            tree.insert_cloud(points, (0.5, 1.0, 2.0), np.full(len(points), label), np.full(len(points), 0.9))
    return tree


def write_run(folder: Path, accuracy: float = 0.8, network: str = "first", source: str = "bag", **summary: Any) -> Path:
    """A run folder whose frames have an accuracy around a value, the same deviations for every run."""
    folder.mkdir(parents=True)
    deviations = 0.05 * np.sin(np.arange(FRAMES))
    with (
        RowWriter(folder / "frames.csv", FRAME_COLUMNS) as frames,
        RowWriter(folder / "path.csv", PATH_COLUMNS) as path,
    ):
        for i in range(FRAMES):
            stamp, x = 1_000_000_000 * i, 0.2 + 0.04 * i
            frames.write(
                {"index": i, "stamp_ns": stamp, "pixel_accuracy": accuracy + deviations[i], "mean_iou": accuracy - 0.2,
                 "frame_ms": 20.0 + i % 3, "segment_ms": 15.0, "rss_mb": 300.0, "map_mb": 1.0 + 0.01 * i}
            )  # fmt: skip
            path.write({"stamp_ns": stamp, "x": x, "y": 1.0, "z": 0.6, "qx": 0, "qy": 0, "qz": 0, "qw": 1})
    room_map().write(folder / "map.ot", LABELS)
    costs = np.full((24, 24), -1, np.int8)
    costs[2:22, 2:22], costs[10:13, 10:13], costs[5, 5] = 0, 100, 50
    write_costmap(folder / "costmap", CostGrid(costs, 0.1, (-0.2, -0.2)))
    _write_pictures(folder / "worst")
    (folder / "confusion.csv").write_text(
        'truth\\predicted,floor,wall,unlabeled\nfloor,90,10,0\nwall,5,95,0\n', encoding="utf-8"
    )  # fmt: skip
    content = {**_summary(accuracy, network, source), **summary}
    (folder / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _write_pictures(folder: Path) -> None:
    folder.mkdir()
    for name in ("color", "overlay", "labels", "truth", "error"):
        image = np.zeros((48, 64, 3), np.uint8)
        image[:24], image[24:] = LABELS.colors[1], LABELS.colors[0]
        cv2.imwrite(str(folder / f"000_{name}.png"), image[..., ::-1])


def _summary(accuracy: float, network: str, source: str) -> dict[str, Any]:
    classes = [
        {"id": c.id, "name": c.name, "pixels": 1000 * (c.id + 1), "predicted": 900, "accuracy": accuracy,
         "precision": accuracy, "iou": accuracy - 0.1 * c.id}
        for c in LABELS.classes
    ]  # fmt: skip
    pictures = {name: f"worst/000_{name}.png" for name in ("color", "overlay", "labels", "truth", "error")}
    return {
        "format": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "name": source,
        "network": network,
        "labels": "network",
        "config": {"octomap": {"resolution": 0.1}, "segmentation": {"model": network}},
        "label_set": LABELS.to_dict(),
        "source": {"name": source, "path": f"/data/{source}", "kind": "bag", "frames": FRAMES,
                   "recording_seconds": 39.0, "dropped": {HOSTILE: 3}, "warnings": {}, "details": {HOSTILE: HOSTILE}},
        "not_scored": [f"no boxes: {HOSTILE}"],
        "scalars": {
            "segmentation.pixel_accuracy": {"value": accuracy, "better": "higher", "unit": "", "title": "Accuracy"},
            "timing.stages.frame.p50_ms": {"value": 21.0, "better": "lower", "unit": "ms", "title": "Time of a frame"},
        },
        "segmentation": {"classes": classes, "calibration": [
            {"low": 0.5, "high": 1.0, "count": 10, "confidence": 0.75, "accuracy": 0.7}]},
        "timing": {"stages": {"frame": {"count": 40, **dict.fromkeys(("mean_ms", "p50_ms", "p95_ms", "max_ms"), 21)}}},
        "voxels": {"per_class": {"floor": 400, "wall": 200}},
        "worst": [{"rank": 0, "frame": 7, "stamp_ns": 7_000_000_000, "score": 0.4, "mean_iou": 0.3, **pictures}],
    }  # fmt: skip
