# SPDX-License-Identifier: Apache-2.0
"""torchvision's networks, with random weights: structure, size and the place of the logits."""

from __future__ import annotations

import numpy as np
import pytest

from perception.errors import InputError, PerceptionError
from perception.models import create_segmenter
from perception.models.cards import shipped_card
from perception.models.decoding import prepare
from perception.models.weights import save_arrays

torch = pytest.importorskip("torch")
segmentation = pytest.importorskip("torchvision.models.segmentation")
NAMES = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")


def module_with_random_weights(name, path):
    torch.manual_seed(0)
    module = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=21).eval()
    save_arrays(path, {key: value.numpy() for key, value in module.state_dict().items()})
    return module


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_those_of_torchvisions_own_upsampled_output(name, tmp_path):
    module = module_with_random_weights(name, tmp_path / "w.safetensors")
    segmenter = create_segmenter(name, "cpu", weights=str(tmp_path / "w.safetensors"), input_size=(96, 128))
    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)

    result = segmenter(rgb)

    image = prepare(rgb, (96, 128), shipped_card(name).input)
    with torch.inference_mode():
        logits = module(torch.from_numpy(image))["out"][0].numpy()
    best = np.sort(logits, 0)
    clear = best[-1] - best[-2] > 1e-4
    assert clear.mean() > 0.8
    assert (result.labels == logits.argmax(0))[clear].all()
    np.testing.assert_allclose(result.confidence, torch.softmax(torch.from_numpy(logits), 0).amax(0), atol=1e-4)
    assert result.label_set.name == "voc21"


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_what_torchvision_says(name):
    enum = {"lraspp_mobilenet_v3_large": "LRASPP", "deeplabv3_mobilenet_v3_large": "DeepLabV3"}[name]
    published = getattr(segmentation, f"{enum}_MobileNet_V3_Large_Weights").DEFAULT
    card = shipped_card(name)
    assert card.weights is not None
    assert card.weights.url == published.url
    assert f"-{card.weights.url_sha256}.pth" in published.url
    assert published.meta["_file_size"] * 2**20 < card.weights.url_bytes
    assert card.about["parameters"] == published.meta["num_params"]
    transforms = published.transforms()
    np.testing.assert_allclose(np.divide(card.input.mean, 255), transforms.mean)
    np.testing.assert_allclose(np.divide(card.input.std, 255), transforms.std)
    assert [card.input.short_side] == transforms.resize_size
    names = ["background", *published.meta["categories"][1:]]
    from perception.labels import LabelSet

    assert [label.name for label in LabelSet.load(card.labels).classes] == names


def test_weights_that_cannot_be_had_say_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PERCEPTION_WEIGHTS_DIR", raising=False)
    with pytest.raises(
        PerceptionError, match=r"get https://download.pytorch.org/models/lraspp\S+\.pth by other means"
    ) as caught:
        create_segmenter("lraspp_mobilenet_v3_large", "cpu", download=False)
    assert str(tmp_path / "perception" / "weights") in str(caught.value)


def test_weights_are_found_in_the_folder_of_the_environment(tmp_path, monkeypatch):
    card = shipped_card(NAMES[0])
    assert card.weights is not None
    module_with_random_weights(NAMES[0], tmp_path / card.weights.file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PERCEPTION_WEIGHTS_DIR", str(tmp_path))
    assert create_segmenter(NAMES[0], "cpu", download=False).name == NAMES[0]


def test_weights_of_the_other_network_are_refused(tmp_path):
    module_with_random_weights(NAMES[0], tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"expected the \d+ tensors of this network"):
        create_segmenter(NAMES[1], "cpu", weights=str(tmp_path / "w.safetensors"))


def test_other_backends_are_refused():
    with pytest.raises(InputError, match="expected backend torch or auto, got onnxruntime"):
        create_segmenter(NAMES[0], "cpu", backend="onnxruntime")
