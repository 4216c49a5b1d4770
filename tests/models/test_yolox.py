# SPDX-License-Identifier: Apache-2.0
"""The shipped detector: the published file, our PyTorch module and our ONNX graph do the same."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_networks import label_set, photographs

from perception.cli.main import main
from perception.errors import InputError
from perception.models import create_detector, yolox_layers
from perception.models.boxes import letterbox
from perception.models.cards import shipped_card
from perception.models.detector_base import DetectorOptions
from perception.models.importer import read_deeplab_onnx, read_yolox_onnx
from perception.models.onnx_runtimes import onnx_session
from perception.models.weights import package_dir
from perception.models.yolox_detector import MAX_CANDIDATES, YoloXDetector, grid, load_yolox_arrays
from perception.models.yolox_graph import build_yolox

SHIPPED = package_dir() / "yolox_nano_coco.safetensors"


@pytest.fixture(scope="module")
def published(shared):
    path = shared / "weights" / "yolox_nano.onnx"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in ../shared/weights")
    return path


@pytest.fixture(scope="module")
def inputs(shared):
    """Photographs as the network sees them, and one of random numbers."""
    noise = np.random.default_rng(0).uniform(0, 255, (1, 3, 416, 416)).astype(np.float32)
    return [*(letterbox(image, (416, 416))[0] for image in photographs(shared)), noise]


@pytest.fixture(scope="module")
def expected(published, inputs):
    session = onnx_session(str(published))
    return [session.run(None, {"images": image})[0] for image in inputs]


def torch_module(arrays, num_classes=80):
    torch = pytest.importorskip("torch")
    from perception.models.yolox import YoloX

    torch.set_flush_denormal(True)
    module = YoloX(num_classes)
    module.load_arrays(arrays)
    return module.eval()


def scores_of(objects):
    return (objects[..., 4:5] * objects[..., 5:]).max(-1)


def test_torch_module_gives_what_the_published_file_gives(published, inputs, expected):
    torch = pytest.importorskip("torch")
    module = torch_module(read_yolox_onnx(published))
    for image, objects in zip(inputs, expected, strict=True):
        with torch.inference_mode():
            found = module(torch.from_numpy(image)).numpy()
        assert found.shape == objects.shape == (1, 3549, 85)
        assert np.abs(objects).max() > 2
        assert np.abs(found - objects).max() < 1e-3


def test_onnx_graph_gives_what_the_published_file_gives(published, inputs, expected):
    session = onnx_session(build_yolox(read_yolox_onnx(published), 80, 416, 416))
    for image, objects in zip(inputs, expected, strict=True):
        assert np.abs(session.run(None, {"image": image})[0] - objects).max() < 1e-3


def test_half_precision_file_moves_scores_by_less_than_a_hundredth(inputs, expected):
    session = onnx_session(build_yolox(load_yolox_arrays(SHIPPED, 80), 80, 416, 416))
    for image, objects in zip(inputs, expected, strict=True):
        found = session.run(None, {"image": image})[0]
        assert np.abs(scores_of(found) - scores_of(objects)).max() < 0.01
        sure = scores_of(objects) > 0.3
        assert (found[sure][:, 5:].argmax(1) == objects[sure][:, 5:].argmax(1)).all()
        assert np.abs(found[sure][:, :4] - objects[sure][:, :4]).max(initial=0) < 0.05


@pytest.mark.parametrize("size", [(96, 160), (320, 224), (32, 32)])
def test_torch_and_onnx_agree_at_other_sizes(size):
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(1).uniform(0, 255, (1, 3, *size)).astype(np.float32)
    arrays = load_yolox_arrays(SHIPPED, 80)
    with torch.inference_mode():
        by_torch = torch_module(arrays)(torch.from_numpy(image)).numpy()
    by_onnx = onnx_session(build_yolox(arrays, 80, *size)).run(None, {"image": image})[0]
    assert by_onnx.shape == by_torch.shape == (1, len(grid(size)[0]), 85)
    assert np.abs(by_onnx - by_torch).max() < 1e-3


def test_both_backends_find_the_same_objects(shared):
    pytest.importorskip("torch")
    image = photographs(shared)[1]
    first, second = (create_detector("default", "cpu", backend=backend)(image) for backend in ("torch", "onnxruntime"))
    assert len(first) > 3
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_allclose(first.boxes, second.boxes, atol=0.1)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-3)


def test_chairs_around_the_dining_table_of_a_photograph_are_found(shared):
    found = create_detector("default", "cpu")(photographs(shared)[1])
    names = [found.label_set.name_of(int(label)) for label in found.labels]
    # By eye: a high wing chair left of the middle, wooden chairs on both sides of a long table that fills the right.
    assert names.count("chair") >= 4
    assert "dining table" in names
    left, top, right, bottom = found.boxes[0]
    assert names[0] == "chair"
    assert (abs(left - 106) < 20, abs(top - 143) < 20, abs(right - 208) < 20, abs(bottom - 290) < 20) == (True,) * 4
    assert (np.diff(found.scores) <= 0).all()


def test_letterbox_keeps_the_shape_and_pads_with_gray():
    rgb = np.zeros((480, 640, 3), np.uint8)
    rgb[...] = (10, 20, 30)
    image, scale = letterbox(rgb, (416, 416))
    assert (image.shape, image.dtype, scale) == ((1, 3, 416, 416), np.float32, 0.65)
    np.testing.assert_array_equal(image[0, :, 0, 0], [30, 20, 10])
    np.testing.assert_array_equal(image[0, :, 311, 415], [30, 20, 10])
    assert (image[0, :, 312:] == 114).all()


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1)])
def test_extreme_shapes_fit_into_the_input(shape):
    image, _ = letterbox(np.full((*shape, 3), 7, np.uint8), (64, 64))
    assert image.shape == (1, 3, 64, 64)
    assert image[0, 0, 0, 0] == 7


def fake_detector(objects, size=(64, 64), count=2, **options):
    """A detector whose network says ``objects``."""
    return YoloXDetector("fake", "cpu", label_set(count), size, lambda _: objects, DetectorOptions(**options))


def test_cells_decode_to_boxes_by_hand():
    # 64×64: 8×8 cells of stride 8, then 4×4 of 16, then 2×2 of 32. Cell 64 + 1·4 + 2 is row 1, column 2 of stride 16.
    objects = np.zeros((84, 1, 7), np.float32)
    objects[70, 0] = [0.5, 0.25, np.log(2), np.log(0.5), 0.9, 0.1, 0.8]
    found = fake_detector(objects)(np.zeros((128, 128, 3), np.uint8))
    # Center ((2 + 0.5)·16, (1 + 0.25)·16) = (40, 20), size (32, 8), then twice as large in the image of twice the size.
    np.testing.assert_allclose(found.boxes, [[48, 32, 112, 48]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.72], atol=1e-6)
    assert found.labels.tolist() == [1]


def test_overlapping_boxes_of_one_class_leave_the_surest():
    objects = np.zeros((84, 1, 7), np.float32)
    objects[:3, 0] = [[0.5, 0.5, 1, 1, 0.9, 1, 0], [-0.4, 0.5, 1, 1, 0.8, 1, 0], [-1.5, 0.5, 1, 1, 0.7, 0, 1]]
    found = fake_detector(objects)(np.zeros((64, 64, 3), np.uint8))
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-6)


def test_classes_that_are_not_wanted_do_not_hide_others():
    objects = np.zeros((84, 1, 7), np.float32)
    objects[0, 0] = [0.5, 0.5, 1, 1, 0.9, 0.9, 0.5]
    image = np.zeros((64, 64, 3), np.uint8)
    assert fake_detector(objects)(image).labels.tolist() == [0]
    assert fake_detector(objects, classes=("b",))(image).labels.tolist() == [1]
    with pytest.raises(InputError, match="has no class 'z'"):
        fake_detector(objects, classes=("z",))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros((84, 1, 6), np.float32), r"expected objects \(84, 1, 7\) as label set 'letters' has classes"),
        (np.zeros((10**6, 1, 7), np.float32), r"got \(1000000, 1, 7\)"),
        (np.zeros((0,), np.float32), r"got \(0,\)"),
        (np.full((84, 1, 7), np.nan, np.float32), "expected finite objects, got NaN or infinity"),
        (np.full((84, 1, 7), np.inf, np.float32), "expected finite objects, got NaN or infinity"),
        (np.full((84, 1, 7), 2.0, np.float32), "expected scores from 0 to 1"),
    ],
)
def test_what_is_no_detection_is_refused(answer, message):
    with pytest.raises(InputError, match=message):
        fake_detector(answer)(np.zeros((64, 64, 3), np.uint8))


def test_objects_everywhere_are_bounded():
    rng = np.random.default_rng(0)
    cells = len(grid((640, 640))[0])
    assert cells > 4 * MAX_CANDIDATES
    objects = rng.uniform(0.8, 1, (cells, 1, 7)).astype(np.float32)
    objects[:, 0, 2:4] = -3
    found = fake_detector(objects, (640, 640), max_detections=50)(np.zeros((640, 640, 3), np.uint8))
    assert len(found) == 50
    objects[:, 0, :2], objects[:, 0, 2:4] = 0, 1e30
    huge = fake_detector(objects, (640, 640))(np.zeros((640, 640, 3), np.uint8))
    # A box of each class and stride: before they are cut at the image, those of other strides differ by more than half.
    np.testing.assert_array_equal(huge.boxes, [[0, 0, 640, 640]] * 6)


def test_input_size_must_be_a_multiple_of_the_largest_stride():
    with pytest.raises(InputError, match="multiples of 32, got 400x416"):
        create_detector("default", "cpu", input_size=(416, 400))
    with pytest.raises(InputError, match="multiples of 32"):
        build_yolox(load_yolox_arrays(SHIPPED, 80), 80, 416, 100)
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="multiples of 32"):
        torch_module(load_yolox_arrays(SHIPPED, 80))(torch.zeros(1, 3, 40, 32))


def test_boxes_of_one_object_agree_between_input_sizes(shared):
    image = photographs(shared)[1]
    small, large = (create_detector("default", "cpu", input_size=size)(image) for size in ((416, 416), (480, 640)))
    chair = large.boxes[large.labels == large.label_set["chair"].id]
    overlap = np.minimum(small.boxes[0, 2:], chair[:, 2:]) - np.maximum(small.boxes[0, :2], chair[:, :2])
    area = np.prod(small.boxes[0, 2:] - small.boxes[0, :2])
    assert (np.prod(np.maximum(overlap, 0), 1) / area).max() > 0.8


def test_import_of_the_published_file_gives_the_shipped_one(published, tmp_path, capsys):
    assert main(["weights", "import", str(published), "--output", str(tmp_path / "x.safetensors")]) == 0
    said = capsys.readouterr().out
    card = shipped_card("yolox_nano")
    assert card.weights is not None
    assert f"sha256 {card.weights.sha256}" in said
    assert "904463 parameters" in said
    assert card.about["parameters"] == 904463
    assert (tmp_path / "x.safetensors").read_bytes() == SHIPPED.read_bytes()
    with pytest.raises(InputError, match="expected 60 convolutions, got 113; another network"):
        read_deeplab_onnx(published)


def test_layers_are_those_of_the_published_network():
    layers = yolox_layers.conv_layers(80)
    assert len(layers) == 113
    assert len({layer.name for layer in layers}) == 113
    assert sum(int(np.prod(shape)) for shape in yolox_layers.tensor_shapes(80).values()) == 904_463
    assert {layer.groups for layer in layers if layer.kernel == 1} == {1}
    assert [layer.name for layer in layers if layer.kernel == 3 and layer.groups == 1] == ["backbone.stem"]


def test_module_trains_and_its_weights_load_again():
    torch = pytest.importorskip("torch")
    from perception.models.yolox import YoloX

    torch.manual_seed(0)
    module = YoloX(3).train()
    module(torch.rand(1, 3, 64, 64) * 255).square().mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    saved = {name: value.numpy() for name, value in module.state_dict().items()}
    assert {name: value.shape for name, value in saved.items()} == yolox_layers.tensor_shapes(3)


def test_image_is_not_changed_and_gray_has_no_objects():
    detector = create_detector("default", "cpu")
    image = np.full((480, 640, 3), 128, np.uint8)
    assert len(detector(image)) == 0
    assert (image == 128).all()
    assert len(detector(cv2.resize(image, (37, 911)))) == 0
