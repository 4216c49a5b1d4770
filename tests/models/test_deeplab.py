# SPDX-License-Identifier: Apache-2.0
"""The shipped network: the published file, our PyTorch module and our ONNX graph do the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_networks import photographs, random_arrays

from perception.errors import InputError
from perception.models import create_segmenter, deeplab_layers
from perception.models.cards import shipped_card
from perception.models.decoding import decode_logits, prepare
from perception.models.deeplab_segmenter import load_deeplab_arrays
from perception.models.importer import read_deeplab_onnx
from perception.models.onnx_graph import build_deeplab
from perception.models.onnx_runtimes import onnx_session
from perception.models.weights import package_dir

SHIPPED = package_dir() / "deeplabv3plus_mobilenetv2_ade20k32.safetensors"


@pytest.fixture(scope="module")
def published(shared):
    path = shared / "weights" / "deeplabv3_mnv2_ade20k32_fp32_512.onnx"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in ../shared/weights")
    return path


@pytest.fixture(scope="module")
def inputs(shared):
    """Photographs as the network sees them, and one of random numbers."""
    spec = shipped_card("deeplabv3plus_mobilenetv2").input
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 3, 512, 512)).astype(np.float32)
    return [*(prepare(image, (512, 512), spec) for image in photographs(shared)), noise]


@pytest.fixture(scope="module")
def expected(published, inputs):
    session = onnx_session(str(published))
    return [session.run(None, {"image": image})[0] for image in inputs]


def torch_module(arrays, num_classes=32):
    torch = pytest.importorskip("torch")
    from perception.models.deeplab import DeepLabV3Plus

    torch.set_flush_denormal(True)
    module = DeepLabV3Plus(num_classes)
    module.load_arrays(arrays)
    return module.eval()


def test_torch_module_has_the_logits_of_the_published_file(published, inputs, expected):
    torch = pytest.importorskip("torch")
    module = torch_module(read_deeplab_onnx(published))
    for image, logits in zip(inputs, expected, strict=True):
        with torch.inference_mode():
            found = module(torch.from_numpy(image)).numpy()
        assert found.shape == logits.shape
        assert np.abs(logits).max() > 5
        assert np.abs(found - logits).max() < 1e-3


def test_decoded_labels_are_the_argmax_of_the_published_full_size_logits(published, inputs, expected):
    session = onnx_session(build_deeplab(read_deeplab_onnx(published), 32, 512, 512))
    for image, logits in zip(inputs, expected, strict=True):
        coarse = session.run(None, {"image": image})[0][0].transpose(1, 2, 0)
        labels, confidence = decode_logits(coarse, (512, 512), (512, 512), "legacy")
        exponentials = np.exp(logits[0] - logits[0].max(0))
        assert (labels == logits[0].argmax(0)).mean() > 0.9999
        assert np.abs(confidence - 1 / exponentials.sum(0)).max() < 1e-3


def test_half_precision_file_keeps_the_labels_of_the_published_one(inputs, expected):
    session = onnx_session(build_deeplab(load_deeplab_arrays(SHIPPED, 32), 32, 512, 512))
    for image, logits in list(zip(inputs, expected, strict=True))[:-1]:
        coarse = session.run(None, {"image": image})[0][0].transpose(1, 2, 0)
        labels, _ = decode_logits(coarse, (512, 512), (512, 512), "legacy")
        assert (labels == logits[0].argmax(0)).mean() > 0.998


@pytest.mark.parametrize("size", [(96, 160), (240, 320), (16, 16)])
def test_torch_and_onnx_agree_at_other_sizes(size):
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(1).uniform(-1, 1, (1, 3, *size)).astype(np.float32)
    arrays = load_deeplab_arrays(SHIPPED, 32)
    module = torch_module(arrays)
    with torch.inference_mode():
        expected = module.coarse_logits(torch.from_numpy(image)).numpy()
    found = onnx_session(build_deeplab(arrays, 32, *size)).run(None, {"image": image})[0]
    assert found.shape == expected.shape == (1, 32, size[0] // 4, size[1] // 4)
    assert np.abs(expected).max() > 1
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_give_the_labels_of_torch_for_a_photograph(shared, backend):
    pytest.importorskip("torch")
    pytest.importorskip(backend)
    image = photographs(shared)[0]
    by_torch, by_other = (create_segmenter("default", "cpu", backend=name) for name in ("torch", backend))
    assert np.abs(by_torch.logits(image) - by_other.logits(image)).max() < 1e-3
    first, second = by_torch(image), by_other(image)
    assert first.labels.shape == image.shape[:2]
    assert (first.labels == second.labels).mean() > 0.9999
    np.testing.assert_allclose(first.confidence, second.confidence, atol=1e-3)


def test_default_network_sees_the_room_of_a_photograph(shared):
    result = create_segmenter("default", "cpu")(photographs(shared)[0])
    share = {name: float((result.labels == result.label_set[name].id).mean()) for name in ("wall", "floor")}
    # By eye: a white wall behind a rocking chair, a wooden floor over a quarter of the picture, a window on the left.
    assert share["wall"] > 0.3
    assert 0.2 < share["floor"] < 0.3
    assert result.confidence.dtype == np.float32
    assert 0 < result.confidence.min() <= result.confidence.max() < 1


def test_input_size_is_an_option_and_labels_keep_the_size_of_the_image():
    segmenter = create_segmenter("default", "cpu", input_size=(128, 160))
    image = np.random.default_rng(0).integers(0, 256, (90, 77, 3), np.uint8)
    assert segmenter.logits(image).shape == (32, 40, 32)
    assert segmenter(image).labels.shape == (90, 77)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_images_in_one_run_are_labeled_as_one_by_one(shared, backend):
    pytest.importorskip(backend)
    first, second = photographs(shared)[:2]
    images = [first[:300, :400], second[:200, :333], first[100:]]
    segmenter = create_segmenter("default", "cpu", backend=backend, input_size=(96, 128))
    several = segmenter.predict_batch(images)
    for image, found in zip(images, several, strict=True):
        alone = segmenter(image)
        assert found.labels.shape == image.shape[:2] and len(np.unique(alone.labels)) > 1
        assert (found.labels == alone.labels).mean() > 0.9999
        np.testing.assert_allclose(found.confidence, alone.confidence, atol=1e-4)


def test_batch_names_the_image_that_is_wrong():
    segmenter = create_segmenter("default", "cpu", input_size=(32, 32))
    with pytest.raises(InputError, match=r"expected \(H, W, 3\) uint8 RGB, got \(5, 5\)"):
        segmenter.predict_batch([np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5), np.uint8)])


def test_input_size_must_be_a_multiple_of_the_output_stride():
    with pytest.raises(InputError, match="multiples of 16, got 500x512"):
        create_segmenter("default", "cpu", input_size=(512, 500))
    with pytest.raises(InputError, match="multiples of 16"):
        build_deeplab(random_arrays(2), 2, 24, 32)


def test_layers_are_those_of_the_published_network():
    layers = deeplab_layers.conv_layers(32)
    shapes = deeplab_layers.tensor_shapes(32)
    assert len(layers) == 60
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 2_256_272
    assert [layer.name for layer in layers if layer.dilation == 2] == [f"blocks.{i}.depthwise" for i in (14, 15, 16)]
    assert [block for block, data in enumerate(deeplab_layers.BLOCKS) if data.residual] == [
        2,
        4,
        5,
        7,
        8,
        9,
        11,
        12,
        14,
        15,
    ]
    # Even sizes, stride 2: nothing before, one zero after; dilation 2: two on both sides.
    assert deeplab_layers.STEM.padding == (0, 1)
    assert deeplab_layers.BLOCKS[14].layers[1].padding == (2, 2)


def test_module_trains_and_its_weights_load_again():
    torch = pytest.importorskip("torch")
    arrays = random_arrays(3)
    module = torch_module(arrays, 3).train()
    loss = module(torch.rand(1, 3, 32, 32)).square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    saved = {name: value.numpy() for name, value in module.state_dict().items()}
    assert {name: value.shape for name, value in saved.items()} == deeplab_layers.tensor_shapes(3)
    np.testing.assert_array_equal(saved["classifier.weight"], arrays["classifier.weight"])


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bfloat16_changes_few_labels(shared, backend):
    pytest.importorskip(backend)
    image = photographs(shared)[0]
    options = {"backend": backend, "input_size": (128, 128)}
    exact = create_segmenter("deeplabv3plus_mobilenetv2", "cpu", **options)
    rounded = create_segmenter("deeplabv3plus_mobilenetv2", "cpu", precision="bfloat16", **options)
    first, second = exact(image), rounded(image)
    same = first.labels == second.labels
    assert same.mean() > 0.9
    assert same[first.confidence > 0.8].mean() > 0.99
    assert second.confidence.dtype == np.float32


def test_torch_labels_do_not_depend_on_the_memory_layout():
    pytest.importorskip("torch")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    logits = [
        create_segmenter("default", "cpu", backend="torch", input_size=(48, 64), torch_mode=mode).logits(image)
        for mode in ("contiguous", "channels_last")
    ]
    assert np.abs(logits[0]).max() > 1
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)
