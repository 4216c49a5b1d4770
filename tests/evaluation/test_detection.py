# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import json

import cv2
import numpy as np
import pytest

from perception.errors import InputError
from perception.evaluation.detection import DetectionScores, TrueObjects, average_precision, box_iou
from perception.evaluation.true_objects import boxes_of, object_reader
from perception.labels import LabelClass, LabelSet
from perception.types import Detections

pytest.importorskip("pycocotools")
SET = LabelSet("two", (LabelClass(0, "chair", (9, 9, 9)), LabelClass(1, "couch", (8, 8, 8))))


def found(boxes, scores, labels, masks=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes, np.array(scores, np.float32), np.array(labels, np.int32), SET, masks)


def truth(boxes, labels, **more):
    return TrueObjects(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int32), **more)


def test_average_precision_equals_hand_computed_area():
    # Right, wrong, right of four: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 2/4.
    value = average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 4)
    assert value == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 3)
    assert average_precision(np.zeros(0), np.zeros(0, bool), 0) is None
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0.0


def test_overlap_of_boxes_equals_hand_computed_value():
    assert box_iou([0, 0, 2, 2], [1, 1, 2, 2]) == pytest.approx(1 / 7)
    assert box_iou([0, 0, 1, 1], [1, 0, 1, 1]) == 0.0


def test_perfect_objects_score_one_and_missed_classes_lower_the_mean():
    scores = DetectionScores(SET)
    boxes = [[0, 0, 50, 50], [60, 60, 100, 100]]
    scores.add(truth(boxes, [0, 1]), found(boxes[:1], [0.9], [0]))
    result = scores.summary()
    assert result is not None
    assert result["coco"]["AP"] == pytest.approx(0.5) and result["coco"]["AR100"] == pytest.approx(0.5)
    assert result["voc"]["mAP50"] == pytest.approx(0.5)
    assert result["voc"]["classes"] == [{"name": "chair", "ap": 1.0}, {"name": "couch", "ap": 0.0}]
    assert result["masks"] is None
    assert result["coco"]["APs"] is None


def test_object_found_twice_counts_as_wrong_once():
    scores = DetectionScores(SET)
    box = [0, 0, 50, 50]
    scores.add(truth([box, [100, 0, 150, 50]], [0, 0]), found([box, box], [0.9, 0.8], [0, 0]))
    result = scores.summary()
    assert result is not None and result["voc"]["mAP50"] == pytest.approx(0.5)


def test_ignored_objects_need_not_be_found_and_may_be():
    scores = DetectionScores(SET)
    boxes = [[0, 0, 50, 50], [60, 60, 100, 100]]
    given = truth(boxes, [0, 0], ignored=np.array([False, True]))
    scores.add(given, found(boxes, [0.5, 0.9], [0, 0]))
    result = scores.summary()
    assert result is not None
    assert result["coco"]["AP"] == pytest.approx(1.0) and result["voc"]["mAP50"] == pytest.approx(1.0)


def test_nothing_found_scores_zero_and_nothing_there_none():
    scores = DetectionScores(SET)
    scores.add(truth([[0, 0, 9, 9]], [0]), found([], [], []))
    result = scores.summary()
    assert result is not None and result["coco"]["AP"] == 0.0 and result["voc"]["mAP50"] == 0.0
    empty = DetectionScores(SET)
    empty.add(truth([], []), found([[0, 0, 5, 5]], [0.5], [0]))
    assert empty.summary() is None


def random_images(count=6):
    rng = np.random.default_rng(0)
    for _ in range(count):
        corner = rng.uniform(0, 60, (8, 2))
        boxes = np.hstack([corner, corner + rng.uniform(10, 60, (8, 2))]).astype(np.float32)
        moved = boxes + rng.normal(0, 4, boxes.shape).astype(np.float32)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        yield boxes, moved, rng.integers(0, 2, 8), rng.uniform(0.1, 0.9, 8)


def test_boxes_equal_torchmetrics():
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchmetrics.detection")
    metric, scores = detection.MeanAveragePrecision(iou_type="bbox", backend="pycocotools"), DetectionScores(SET)
    for boxes, moved, labels, sure in random_images():
        scores.add(truth(boxes, labels), found(moved, sure, labels))
        ids = torch.from_numpy(labels)
        guess = {"boxes": torch.from_numpy(moved), "scores": torch.from_numpy(sure.astype(np.float32)), "labels": ids}
        metric.update([guess], [{"boxes": torch.from_numpy(boxes), "labels": ids}])
    with contextlib.redirect_stdout(io.StringIO()):
        expected = metric.compute()
    result = scores.summary()
    assert result is not None
    assert 0.2 < result["coco"]["AP"] < 0.9
    for ours, theirs in (("AP", "map"), ("AP50", "map_50"), ("AP75", "map_75"), ("AR100", "mar_100"), ("AR1", "mar_1")):
        assert result["coco"][ours] == pytest.approx(float(expected[theirs]), abs=1e-5)
    # COCO samples the curve at 101 recalls, VOC integrates it: close, not equal.
    assert result["voc"]["mAP50"] == pytest.approx(result["coco"]["AP50"], abs=0.02)


def test_masks_are_scored_by_their_own_overlap():
    mask = np.zeros((1, 100, 100), np.bool_)
    mask[0, 10:60, 10:60] = True
    half = mask.copy()
    half[0, 35:] = False
    scores = DetectionScores(SET)
    # Same boxes, half of the mask: IoU 0.5 is enough for one of the ten thresholds.
    scores.add(truth(boxes_of(mask), [0], masks=mask), found(boxes_of(mask), [0.9], [0], half))
    result = scores.summary()
    assert result is not None
    assert result["coco"]["AP"] == pytest.approx(1.0)
    assert result["masks"]["AP50"] == pytest.approx(1.0) and result["masks"]["AP"] == pytest.approx(0.1)


def test_instance_images_become_objects(tmp_path):
    ids = np.full((40, 50), 65535, np.uint16)
    ids[5:25, 10:30], ids[30:32, 40:42], ids[0:4] = 0, 1, 2
    cv2.imwrite(str(tmp_path / "frame-000000.instance.png"), ids)
    names = [{"name": "a", "class": "sofa"}, {"name": "b", "class": "chair"}, {"name": "c", "class": "wall"}]
    (tmp_path / "instances.json").write_text(json.dumps(names))
    (tmp_path / "classes.yaml").write_text("truth: {sofa: couch}")
    read, mapping = object_reader(tmp_path, None, SET, tmp_path / "classes.yaml")
    objects = read(tmp_path / "frame-000000.color.png")
    assert objects is not None and objects.ignored is not None and objects.masks is not None
    assert objects.labels.tolist() == [1, 0] and objects.boxes.tolist() == [[10, 5, 30, 25], [40, 30, 42, 32]]
    assert objects.ignored.tolist() == [False, True] and objects.masks.sum() == 404
    assert mapping.unmapped_truth == ["wall"]
    assert read(tmp_path / "frame-000001.color.png") is None


def test_coco_annotations_become_objects(tmp_path):
    polygon = [[10, 10, 30, 10, 30, 30, 10, 30]]
    data = {
        "images": [{"id": 7, "file_name": "images/a.png", "width": 60, "height": 50}],
        "categories": [{"id": 3, "name": "chair"}, {"id": 4, "name": "zebra"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0,
             "segmentation": polygon},
            {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0},
        ],
    }  # fmt: skip
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    read, mapping = object_reader(tmp_path, path, SET, None)
    objects = read(tmp_path / "a.png")
    assert objects is not None and objects.masks is not None
    assert objects.labels.tolist() == [0] and objects.boxes.tolist() == [[10, 10, 30, 30]]
    assert objects.masks.sum() == 400
    assert mapping.unmapped_truth == ["zebra"] and read(tmp_path / "b.png") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"name": "a"}]', '{"images": 3}'])
def test_damaged_annotations_are_refused(text, tmp_path):
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(InputError):
        object_reader(tmp_path, tmp_path / "instances.json", SET, None)
    if text not in ("[]", "{}"):
        with pytest.raises(InputError):
            object_reader(tmp_path, None, SET, None)
