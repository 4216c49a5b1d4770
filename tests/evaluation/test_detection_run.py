# SPDX-License-Identifier: Apache-2.0
"""A detector over a recording, from the command line."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main
from perception.evaluation.run_folder import load_run
from perception.labels import LabelSet
from perception.simulation.boxes import synthetic_room_frames
from perception.sources.bag_writer import BagWriter

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))
from detections import write_objects


class SeesScattered:
    """Finds what :func:`scattered` says of the image whose number is in its first pixel."""

    name, device, label_set = "sees_scattered", "cpu", LabelSet.load("coco")

    def __call__(self, rgb):
        return scattered(int(rgb[0, 0, 0]))[1]

    def warm_up(self):
        return None


def build_detector(device="cpu"):
    return SeesScattered()


def scattered(image):
    """True boxes and classes of an image, and what is found: the same a little off, some missed, some made up."""
    rng = np.random.default_rng(image)
    corners = rng.uniform([30, 30], [400, 260], (6, 2))
    true = np.hstack([corners, corners + rng.uniform(20, 180, (6, 2))]).astype(np.float32)
    labels = rng.choice([56, 57], 6)
    found = np.vstack([true + rng.normal(0, 6, true.shape), true[:2] + np.array([30, 0, 30, 0])])[1:].astype(np.float32)
    return (true, labels), (found, rng.uniform(0.1, 1, 7).astype(np.float32), np.append(labels, labels[:2])[1:])


def test_detector_is_scored_against_the_objects_of_a_bag_as_pycocotools_does(tmp_path):
    coco = pytest.importorskip("pycocotools.coco").COCO()
    evaluator_type = pytest.importorskip("pycocotools.cocoeval").COCOeval
    names = {56: "chair", 57: "couch"}
    truth, found = [], []
    with BagWriter(tmp_path / "bag") as bag:
        for image, frame in enumerate(synthetic_room_frames(4, 640, 480)):
            (boxes, labels), (seen, scores, seen_labels) = scattered(image)
            color = frame.color.copy()
            color[0, 0] = image
            bag.write_frame(replace(frame, color=color))
            objects = []
            for (left, top, right, bottom), label in zip(boxes.tolist(), labels.tolist(), strict=True):
                box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
                objects.append(((*box, 0.0), {names[label]: 1.0}))
                entry = {"image_id": image + 1, "category_id": label, "bbox": [left, top, *box[2:]], "iscrowd": 0}
                truth.append(entry | {"id": len(truth) + 1, "area": box[2] * box[3]})
            write_objects(bag, "/camera/ground_truth/detections", frame.stamp_ns + 1_000_000, objects)
            for (left, top, right, bottom), score, label in zip(seen, scores, seen_labels, strict=True):
                box = [float(left), float(top), float(right - left), float(bottom - top)]
                found.append({"image_id": image + 1, "category_id": int(label), "bbox": box, "score": float(score)})
    command = ["evaluate", str(tmp_path / "bag"), "--labels", "none", "--held-out", "0", "--no-report"]
    assert main([*command, "--detector", f"{__name__}:build_detector", "--output", str(tmp_path / "out")]) == 0
    categories = [{"id": label, "name": name} for label, name in names.items()]
    coco.dataset = {"images": [{"id": i} for i in range(1, 5)], "annotations": truth, "categories": categories}
    coco.createIndex()
    evaluator = evaluator_type(coco, coco.loadRes(found), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    scored = load_run(tmp_path / "out").summary["detection"]
    assert scored["images"] == 4 and scored["objects"] == 24
    assert list(scored["coco"].values()) == pytest.approx(
        [value if value >= 0 else None for value in evaluator.stats.tolist()], abs=1e-6
    )
    assert 0.1 < scored["coco"]["AP"] < 0.9
