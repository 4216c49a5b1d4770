# SPDX-License-Identifier: Apache-2.0
"""Names, options, suppression, users' detectors, instance masks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from tiny_networks import label_set

from perception.config import DetectionConfig
from perception.errors import InputError
from perception.models import DETECTORS, Detector, create_detector, detector_from_config, label_image_of
from perception.models.boxes import box_iou, suppress
from perception.models.detector_base import DetectorOptions, checked_detections
from perception.models.detectors import UserDetector
from perception.models.instances import InstanceSegmenter
from perception.types import Detections, LabelImage

IMAGE = np.zeros((48, 64, 3), np.uint8)
LETTERS = label_set(3)


def random_boxes(rng, count, span=100.0):
    corner, size = rng.uniform(0, span, (count, 2)), rng.uniform(0.1, span / 2, (count, 2))
    return np.hstack([corner, corner + size]).astype(np.float32)


def test_overlap_by_hand():
    others = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [2, 0, 4, 2], [1, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(box_iou(others[0], others), [1, 1 / 7, 0, 0, 0])
    assert box_iou(np.zeros(4, np.float32), np.zeros((1, 4), np.float32)).tolist() == [0]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 200), threshold=st.floats(0.05, 0.95))
def test_suppression_keeps_what_torchvision_keeps(seed, count, threshold):
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision.ops")
    rng = np.random.default_rng(seed)
    # Whole numbers and distant scores: rounding must not decide.
    boxes = np.round(random_boxes(rng, count)).astype(np.float32)
    scores, labels = rng.permutation(count).astype(np.float32) / 256, rng.integers(0, 4, count)
    expected = ops.batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), threshold).numpy()
    found = suppress(boxes, scores, labels, threshold, 1000)
    overlaps = np.array([box_iou(box, boxes) for box in boxes])
    if not np.isclose(overlaps, threshold, atol=1e-5).any():
        np.testing.assert_array_equal(found, expected)


def test_suppression_stops_at_the_count():
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 500), rng.uniform(size=500).astype(np.float32)
    full = suppress(boxes, scores, np.arange(500), 0.5, 1000)
    assert len(full) == 500
    np.testing.assert_array_equal(suppress(boxes, scores, np.arange(500), 0.5, 7), full[:7])


def test_unknown_names_and_options_are_listed():
    with pytest.raises(InputError, match=r"network 'yolo': expected one of \['default', 'fasterrcnn_mobilenet"):
        create_detector("yolo")
    with pytest.raises(InputError, match=r"unknown options \['treshold'\]; expected some of"):
        create_detector("default", treshold=3)
    with pytest.raises(InputError, match="score_threshold: expected 0 to 1, got 3"):
        create_detector("default", score_threshold=3)
    with pytest.raises(InputError, match="max_detections: expected at least 1, got 0"):
        create_detector("default", max_detections=0)


def test_default_is_the_shipped_network():
    assert DETECTORS["default"] is DETECTORS["yolox_nano"]
    detector = create_detector("default", "cpu", input_size=(64, 64))
    assert isinstance(detector, Detector)
    assert (detector.name, detector.device, detector.label_set.name) == ("yolox_nano", "cpu", "coco")
    detector.warm_up()


def test_configuration_has_the_defaults_of_the_options_and_builds_the_same_detector():
    config, options = DetectionConfig(), DetectorOptions()
    for name in ("device", "backend", "score_threshold", "iou_threshold", "max_detections", "num_threads"):
        assert getattr(config, name) == getattr(options, name)
    detector = detector_from_config(
        DetectionConfig(device="cpu", input_width=64, input_height=32, classes="person, chair", score_threshold=0.7)
    )
    assert detector.options == DetectorOptions(  # type: ignore[attr-defined]
        device="cpu", input_size=(32, 64), classes=("person", "chair"), score_threshold=0.7
    )
    with pytest.raises(InputError, match="expected both or neither, got 64 and 0"):
        detector_from_config(DetectionConfig(input_width=64))
    with pytest.raises(InputError, match="has no class 'persn'"):
        detector_from_config(DetectionConfig(device="cpu", classes="persn"))


def test_default_detector_runs_without_torch():
    pytest.importorskip("onnxruntime")
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['torchvision'] = None\n"
        "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n in ('torch', 'torchvision') else f(n, *a)\n"
        "import numpy as np; from perception.models import create_detector\n"
        "result = create_detector(input_size=(64, 64))(np.zeros((30, 40, 3), np.uint8))\n"
        "print(len(result), result.label_set.name)"
    )
    environment = {**os.environ, "PYTHONPATH": "src"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0 coco"


def detections(boxes, scores, labels, masks=None, **options):
    boxes, scores = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
    return checked_detections(
        boxes, scores, np.array(labels, np.int64), LETTERS, (48, 64), "fake", DetectorOptions(**options), masks
    )


def test_kept_objects_are_cut_at_the_image_and_sorted():
    found = detections(
        [[-5, 10, 20, 90], [1, 1, 2, 2], [70, 5, 90, 9], [5, 5, 5, 9], [3, 3, 4, 4]],
        [0.5, 0.9, 0.99, 0.98, 0.1],
        [0, 2, 1, 1, 1],
    )
    np.testing.assert_array_equal(found.boxes, [[1, 1, 2, 2], [0, 10, 20, 48]])
    assert found.labels.tolist() == [2, 0]
    assert detections([[0, 0, 1, 1]] * 2, [1, 1], [0, 2], classes=("c",)).labels.tolist() == [2]
    assert 0.99 < detections([[0, 0, 1, 1]], [1], [0]).scores[0] < 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "expected Detections or .boxes, scores, labels., got NoneType"),
        ((1, 2), "expected Detections or .boxes, scores, labels., got tuple"),
        ((1, 2, 3), r"expected boxes \(N, 4\), scores \(N,\) and labels \(N,\), got \(\), \(\) and \(\)"),
        ((np.zeros((2, 5)), np.zeros(2), np.zeros(2, int)), r"got \(2, 5\), \(2,\) and \(2,\)"),
        ((np.zeros((2, 4)), np.zeros(3), np.zeros(2, int)), r"got \(2, 4\), \(3,\) and \(2,\)"),
        ((np.zeros((1, 4)), np.zeros(1), np.zeros(1)), "expected .* integer labels"),
        ((np.array([["a"] * 4]), np.zeros(1), np.zeros(1, int)), "expected boxes of numbers"),
        ((np.full((1, 4), np.nan), np.zeros(1), np.zeros(1, int)), "expected finite boxes"),
        ((np.zeros((1, 4)), np.array([np.nan]), np.zeros(1, int)), "expected scores from 0 to 1"),
        ((np.zeros((1, 4)), np.array([1.5]), np.zeros(1, int)), "expected scores from 0 to 1"),
        ((np.zeros((1, 4)), np.zeros(1), np.array([7])), r"expected ids of label set 'letters'.* got \[7\]"),
        (
            Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), label_set(2)),
            "got Detections of another set",
        ),
    ],
)
def test_wrong_answers_of_a_users_detector_are_refused(answer, message):
    with pytest.raises(InputError, match=message):
        UserDetector("mine:make", "cpu", lambda rgb: answer, LETTERS)(IMAGE)


def test_masks_of_another_size_are_refused():
    boxes, scores, labels = np.ones((1, 4), np.float32), np.full(1, 0.9, np.float32), np.zeros(1, int)
    for masks in (np.ones((1, 4, 4), bool), np.ones((2, 48, 64), bool), np.ones((1, 48, 64), np.uint8)):
        answer = Detections(boxes, scores, labels, LETTERS)
        object.__setattr__(answer, "masks", masks)
        with pytest.raises(InputError, match=r"expected masks \(1, 48, 64\) bool"):
            UserDetector("mine:make", "cpu", lambda rgb, answer=answer: answer, LETTERS)(IMAGE)


def test_a_million_boxes_are_cut_to_the_surest_in_time():
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 10**6, 40), rng.uniform(size=10**6)
    detector = UserDetector("mine:make", "cpu", lambda rgb: (boxes, scores, np.ones(10**6, int)), LETTERS)
    start = time.perf_counter()
    found = detector(IMAGE)
    assert time.perf_counter() - start < 5
    assert len(found) == 100
    np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][:100], atol=1e-6)


def test_a_users_detector_is_made_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_detector.py").write_text(
        "import numpy as np\n"
        "from perception.labels import LabelSet\n"
        "def make(device):\n"
        "    def predict(rgb):\n"
        "        return np.array([[1, 2, 30, 40]]), np.array([0.8]), np.array([3])\n"
        "    predict.label_set = LabelSet.load('coco')\n"
        "    return predict\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    detector = create_detector("my_detector:make", "cpu")
    detector.warm_up()
    assert detector(IMAGE).boxes.tolist() == [[1, 2, 30, 40]]
    with pytest.raises(InputError, match="cannot import it"):
        create_detector("my_detector:missing")


def with_masks(spans, scores, labels, size=(4, 6)):
    masks = np.zeros((len(spans), *size), bool)
    for mask, (start, stop) in zip(masks, spans, strict=True):
        mask[:, start:stop] = True
    boxes = np.array([[start, 0, stop, size[0]] for start, stop in spans], np.float32)
    return Detections(boxes, np.array(scores, np.float32), np.array(labels), LETTERS, masks)


def test_masks_become_labels_with_the_surest_on_top():
    found = label_image_of(with_masks([(0, 3), (2, 5)], [0.9, 0.6], [1, 2]), (4, 6))
    assert found.labels[0].tolist() == [1, 1, 1, 2, 2, -1]
    np.testing.assert_allclose(found.confidence[0, :5], [0.9, 0.9, 0.9, 0.6, 0.6])
    assert 0 < found.confidence[0, 5] < 1e-6


def test_masks_are_painted_over_labels_by_name_of_the_class():
    from perception.labels import LabelClass, LabelSet

    rooms = LabelSet("rooms", (LabelClass(0, "wall", (1, 1, 1)), LabelClass(5, "b", (2, 2, 2))))
    background = LabelImage.certain(np.zeros((4, 6), np.int32), rooms, 0.5)
    found = label_image_of(with_masks([(0, 2), (3, 5)], [0.9, 0.6], [1, 2]), (4, 6), background)
    assert found.labels[0].tolist() == [5, 5, 0, 0, 0, 0]
    assert found.label_set is rooms
    assert (background.labels == 0).all()


def test_boxes_without_masks_label_nothing():
    plain = Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32) / 2, np.zeros(1, int), LETTERS)
    with pytest.raises(InputError, match="expected instance masks, got boxes only"):
        label_image_of(plain, (4, 6))
    with pytest.raises(InputError, match=r"masks: expected \(5, 6\) as the image"):
        label_image_of(with_masks([(0, 1)], [0.5], [0]), (5, 6))


def test_a_detector_with_masks_is_a_segmenter():
    answer = with_masks([(0, 32)], [0.75], [2], (48, 64))
    segmenter = InstanceSegmenter(UserDetector("mine:make", "cpu", lambda rgb: answer, LETTERS))
    found = segmenter(IMAGE)
    assert (found.labels[:, :32] == 2).all()
    assert (found.labels[:, 32:] == -1).all()
