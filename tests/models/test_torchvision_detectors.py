# SPDX-License-Identifier: Apache-2.0
"""torchvision's detectors, with random weights: the same answer as torchvision's own networks."""

from __future__ import annotations

import numpy as np
import pytest

from perception.errors import InputError, PerceptionError
from perception.labels import LabelSet
from perception.models import SEGMENTERS, create_detector, create_segmenter
from perception.models.cards import shipped_card
from perception.models.detector_base import DetectorOptions
from perception.models.torchvision_detectors import FROZEN_BATCH_NORM_EPSILON, NAMES, TorchvisionDetector, create_module
from perception.models.weights import save_arrays

torch = pytest.importorskip("torch")
models = pytest.importorskip("torchvision.models")
FAST = ("fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large")
COCO = LabelSet.load("coco")


def random_network(name, num_classes=91):
    """torchvision's own random numbers, with statistics that are not those of a fresh batch norm."""
    torch.manual_seed(0)
    module = create_module(name, num_classes)
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith(("running_mean", "box_predictor.cls_score.weight")):
            value.normal_(0, 0.1)
    return module


def saved(module, path):
    save_arrays(path, {key: value.numpy() for key, value in module.state_dict().items()})
    return str(path)


def published_network(name, monkeypatch, state):
    """torchvision's network as it is made for its published weights, which here are others."""
    enum = models.get_model_weights(name)
    monkeypatch.setattr(enum, "get_state_dict", lambda self, *args, **kwargs: state)
    return models.get_model(name, weights=enum.DEFAULT).eval()


@pytest.mark.parametrize("name", FAST)
def test_answer_is_that_of_torchvisions_own_network(name, monkeypatch, tmp_path):
    module = random_network(name)
    size = None if name.startswith("ssd") else (64, 96)
    weights = saved(module, tmp_path / "w.safetensors")
    detector = create_detector(
        name, "cpu", weights=weights, score_threshold=0.012, iou_threshold=0.5, max_detections=40, input_size=size
    )
    network = published_network(name, monkeypatch, module.state_dict())
    place = getattr(network, "roi_heads", network)
    place.score_thresh, place.nms_thresh, place.detections_per_img = 0.012, 0.5, 40
    if size:
        network.transform.min_size, network.transform.max_size = (64,), 96
    rgb = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)

    found = detector(rgb)

    with torch.inference_mode():
        expected = network([torch.from_numpy(rgb).permute(2, 0, 1).float() / 255])[0]
    names = models.get_model_weights(name).DEFAULT.meta["categories"]
    has_size = (expected["boxes"][:, 2:] > expected["boxes"][:, :2]).all(1).tolist()
    known = [index for index, label in enumerate(expected["labels"]) if names[label] != "N/A" and has_size[index]]
    assert len(known) >= 5
    np.testing.assert_allclose(found.scores, expected["scores"][known], atol=1e-5)
    assert [COCO.name_of(label) for label in found.labels] == [names[expected["labels"][index]] for index in known]
    np.testing.assert_allclose(found.boxes, expected["boxes"][known], atol=0.01)


@pytest.mark.parametrize("name", sorted(FROZEN_BATCH_NORM_EPSILON))
def test_batch_norm_is_frozen_as_in_torchvisions_own_network(name, monkeypatch):
    ours = create_module(name, len(models.get_model_weights(name).DEFAULT.meta["categories"]))
    theirs = published_network(name, monkeypatch, ours.state_dict())
    norms = [
        {key: module.eps for key, module in network.named_modules() if "BatchNorm" in type(module).__name__}
        for network in (ours, theirs)
    ]
    assert norms[0] == norms[1]
    assert len(norms[0]) > 40
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in ours.modules())


def fake_detector(answer, **options):
    """A detector around a module that says ``answer``."""
    tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in answer.items()}
    ids = np.array([-1, 0, 2], np.int32)
    return TorchvisionDetector("fake", "cpu", COCO, ids, lambda images: [dict(tensors)], DetectorOptions(**options))


def answer(**others):
    plain = {"boxes": [[1, 2, 30, 40], [5, 5, 50, 45]], "scores": [0.5, 0.9], "labels": [1, 2]}
    dtypes = {"boxes": np.float32, "scores": np.float32, "labels": np.int64}
    return {**{key: np.array(value, dtypes[key]) for key, value in plain.items()}, **others}


def test_masks_are_cut_at_one_half_and_follow_their_boxes():
    masks = np.zeros((2, 1, 48, 64), np.float32)
    masks[0, 0, :, :10], masks[1, 0, :, 20:] = 0.6, 0.4
    found = fake_detector(answer(masks=masks))(np.zeros((48, 64, 3), np.uint8))
    assert found.masks is not None
    assert found.labels.tolist() == [2, 0]
    assert found.masks[1].sum() == 48 * 10
    assert not found.masks[0].any()
    with pytest.raises(InputError, match=r"expected masks \(2, 50, 64\) bool"):
        fake_detector(answer(masks=masks))(np.zeros((50, 64, 3), np.uint8))


def test_keypoints_have_place_and_probability():
    keypoints = np.tile(np.array([7, 8, 1], np.float32), (2, 17, 1))
    logits = np.zeros((2, 17), np.float32)
    logits[1] = 1000
    found = fake_detector(answer(keypoints=keypoints, keypoints_scores=logits))(np.zeros((48, 64, 3), np.uint8))
    assert found.keypoints is not None
    np.testing.assert_allclose(found.keypoints[0, 3], [7, 8, 1], atol=1e-6)
    np.testing.assert_allclose(found.keypoints[1, 3], [7, 8, 0.5], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([1, 91])}, "expected labels 0 to 2, got others"),
        ({"labels": np.array([1, -2])}, "expected labels 0 to 2, got others"),
        ({"scores": np.array([np.nan, 0.5], np.float32)}, "expected scores from 0 to 1"),
        ({"boxes": np.full((2, 4), np.inf, np.float32)}, "expected finite boxes"),
        ({"boxes": np.zeros((3, 4), np.float32)}, r"got \(3, 4\), \(2,\) and \(2,\)"),
    ],
)
def test_wrong_answers_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        fake_detector(answer(**changes))(np.zeros((48, 64, 3), np.uint8))


def test_background_and_unknown_classes_are_dropped():
    found = fake_detector(answer(labels=np.array([0, 1])))(np.zeros((48, 64, 3), np.uint8))
    assert found.labels.tolist() == [0]


def test_a_network_with_masks_is_a_segmenter_too():
    name = "maskrcnn_resnet50_fpn_v2"
    assert name in SEGMENTERS
    with pytest.raises(PerceptionError, match="expected a file at nowhere"):
        create_segmenter(name, "cpu", weights="nowhere")


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_what_torchvision_says(name):
    published = models.get_model_weights(name).DEFAULT
    card = shipped_card(name)
    assert card.weights is not None
    assert card.weights.url == published.url
    assert published.url.endswith(f"-{card.weights.url_sha256}.pth")
    assert published.meta["_file_size"] * 2**20 < card.weights.url_bytes
    assert card.about["parameters"] == published.meta["num_params"]
    figures = [str(value) for value in published.meta["_metrics"]["COCO-val2017"].values()]
    assert all(figure in card.about["accuracy"] for figure in figures)
    known = {label.name for label in COCO.classes}
    assert set(published.meta["categories"]) - known <= {"__background__", "N/A", "no person"}


def test_own_classes_follow_the_background(tmp_path):
    weights = saved(random_network(FAST[0], 1 + 21), tmp_path / "w.safetensors")
    options = {"weights": weights, "labels": "voc21", "score_threshold": 0.045, "input_size": (64, 64)}
    found = create_detector(FAST[0], "cpu", **options)(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    assert len(found)
    assert found.label_set.name == "voc21"


def test_what_cannot_be_done_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PERCEPTION_WEIGHTS_DIR", raising=False)
    with pytest.raises(PerceptionError, match=r"get https://download.pytorch.org/models/ssdlite\S+\.pth by other"):
        create_detector(FAST[1], "cpu", download=False)
    with pytest.raises(InputError, match="expected backend torch or auto, got onnxruntime"):
        create_detector(FAST[0], "cpu", backend="onnxruntime")
    with pytest.raises(InputError, match="has no class 'unicorn'"):
        create_detector(FAST[0], "cpu", classes=("unicorn",))
    weights = saved(create_module(FAST[1], 91), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="its input size is fixed"):
        create_detector(FAST[1], "cpu", weights=weights, input_size=(64, 64))
    with pytest.raises(InputError, match=r"expected the \d+ tensors of this network"):
        create_detector(FAST[0], "cpu", weights=weights)
