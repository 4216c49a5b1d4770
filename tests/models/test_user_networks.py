# SPDX-License-Identifier: Apache-2.0
"""Networks of users: functions and ONNX files. What they answer is not trusted."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from tiny_networks import label_set, onnx_file

from perception.errors import InputError
from perception.models import Segmenter, create_segmenter
from perception.models.onnx_model import LABEL_ONLY_CONFIDENCE
from perception.types import LabelImage

RED = np.zeros((6, 8, 3), np.uint8)
RED[:, 4:, 0] = 255


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A module of a user's, with networks that keep and break the protocol."""
    (tmp_path / "toy_networks.py").write_text(
        "import numpy as np\n"
        "from perception.labels import LabelClass, LabelSet\n"
        "from perception.types import LabelImage\n"
        "from perception.types import LabelImage\n"
        "SET = LabelSet('toy', (LabelClass(0, 'dark', (0, 0, 0)), LabelClass(3, 'red', (255, 0, 0))))\n"
        "class Toy:\n"
        "    label_set = SET\n"
        "    def __init__(self, answer=None): self.answer, self.warm = answer, 0\n"
        "    def warm_up(self): self.warm += 1\n"
        "    def __call__(self, rgb):\n"
        "        labels = np.where(rgb[:, :, 0] > 127, 3, 0)\n"
        "        good = (labels, np.full(labels.shape, 0.75, np.float32))\n"
        "        return good if self.answer is None else self.answer(rgb, *good)\n"
        "def build(device): return Toy()\n"
        "def image(device): return Toy(lambda rgb, l, c: LabelImage(l, c, SET))\n"
        "def other(device): return Toy(lambda rgb, l, c: LabelImage(l, c, LabelSet('other', SET.classes)))\n"
        "def certain(device): return Toy(lambda rgb, l, c: (l, np.round(c)))\n"
        "def unknown(device): return Toy(lambda rgb, l, c: (l + 1, c))\n"
        "def cut(device): return Toy(lambda rgb, l, c: (l[1:], c[1:]))\n"
        "def real(device): return Toy(lambda rgb, l, c: (l * 1.0, c))\n"
        "def loud(device): return Toy(lambda rgb, l, c: (l, c + 1))\n"
        "def nan(device): return Toy(lambda rgb, l, c: (l, c * np.nan))\n"
        "def alone(device): return Toy(lambda rgb, l, c: l)\n"
        "def fails(device): raise RuntimeError('out of luck')\n"
        "def nothing(device): return None\n"
        "def bare(device): return lambda rgb: (np.zeros(rgb.shape[:2], int), np.full(rgb.shape[:2], 0.5))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "toy_networks"
    sys.modules.pop("toy_networks", None)


@pytest.mark.parametrize("function", ["build", "image"])
def test_function_of_a_user_labels_images(toy, function):
    segmenter = create_segmenter(f"{toy}:{function}", "cpu")
    assert isinstance(segmenter, Segmenter)
    result = segmenter(RED)
    assert isinstance(result, LabelImage)
    assert result.labels.tolist() == [[0] * 4 + [3] * 4] * 6
    assert (result.confidence == 0.75).all()
    assert result.confidence.dtype == np.float32
    assert segmenter.name == f"{toy}:{function}"


def test_certainty_of_one_is_moved_inside_the_open_interval(toy):
    confidence = create_segmenter(f"{toy}:certain", "cpu")(RED).confidence
    assert confidence.max() < 1
    assert confidence.min() > 0.999


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("unknown", r"network toy_networks:unknown: expected ids of label set 'toy', \[0, 3\] or -1, got \[1, 4\]"),
        ("cut", r"expected labels \(6, 8\) of integers, got \(5, 8\)"),
        ("real", r"of integers, got \(6, 8\) float64"),
        ("loud", "expected confidence from 0 to 1"),
        ("nan", "expected confidence from 0 to 1, got NaN"),
        ("other", "expected labels of set 'toy', got a LabelImage of another set, 'other'"),
        ("alone", r"expected a LabelImage or a pair \(labels, confidence\), got ndarray"),
    ],
)
def test_wrong_answers_of_a_users_network_are_refused(toy, function, message):
    with pytest.raises(InputError, match=message):
        create_segmenter(f"{toy}:{function}", "cpu")(RED)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("toy_networks:fails", r"fails\(device='cpu'\) failed \(out of luck\)"),
        ("toy_networks:nothing", "expected a callable with a LabelSet as its attribute 'label_set'.* got NoneType"),
        ("toy_networks:bare", "expected a callable with a LabelSet"),
        ("toy_networks:absent", "cannot import it .*absent"),
        ("no_such_module:f", "cannot import it"),
        (":f", "cannot import it"),
        ("toy_networks:", "cannot import it"),
    ],
)
def test_wrong_functions_are_named(toy, spec, message):
    with pytest.raises(InputError, match=message):
        create_segmenter(spec, "cpu")


def test_label_set_of_a_bare_function_comes_from_the_option(toy):
    result = create_segmenter(f"{toy}:bare", "cpu", labels="ade20k32")(RED)
    assert result.label_set.name == "ade20k32"


def test_own_warm_up_is_used_where_there_is_one(toy):
    segmenter = create_segmenter(f"{toy}:build", "cpu")
    segmenter.warm_up()
    assert segmenter._predict.warm == 1  # pyright: ignore
    create_segmenter(f"{toy}:bare", "cpu", labels="voc21").warm_up()


onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
FLOAT, UINT8, INT64 = 1, 2, 7


@pytest.fixture
def letters(tmp_path):
    """A label set file with ids 5 and 7."""
    path = tmp_path / "letters.yaml"
    path.write_text(yaml.safe_dump(label_set(2, 5, 2).to_dict()))
    return str(path)


def brightness(path, size=(6, 8), channels=2, **options):
    """Logits: minus the red channel, and the red channel."""
    weight = np.zeros((channels, 3, 1, 1), np.float32)
    weight[:2, 0, 0, 0] = -1, 1
    nodes = [onnx.helper.make_node("Conv", ["image", "weight"], ["logits"], **options)]
    return str(onnx_file(path, nodes, ("logits", FLOAT, [1, channels, None, None]), size, weight=weight))


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "openvino"])
def test_onnx_file_gives_labels_by_the_users_label_set(tmp_path, letters, caplog, backend):
    pytest.importorskip("onnxruntime" if backend == "auto" else backend)
    segmenter = create_segmenter(brightness(tmp_path / "net.onnx"), "cpu", labels=letters, backend=backend)
    result = segmenter(RED)
    assert result.labels.tolist() == [[5] * 4 + [7] * 4] * 6
    # ImageNet: (255 − 123.675) / 58.395 = 2.249; softmax of ±2.249.
    np.testing.assert_allclose(result.confidence[0, 7], 1 / (1 + np.exp(-2 * 2.2489)), atol=1e-4)
    assert "no model card beside it" in caplog.text
    assert segmenter(np.zeros((30, 31, 3), np.uint8)).labels.shape == (30, 31)


def test_model_card_beside_an_onnx_file_says_normalization_labels_and_output(tmp_path, letters):
    path = brightness(tmp_path / "net.onnx", ("h", "w"))
    card = {
        "labels": "letters.yaml",
        "output": "logits",
        "input": {"mean": [254.0] * 3, "std": [1.0] * 3, "height": 6, "width": 8},
    }
    (tmp_path / "net.card.yaml").write_text(yaml.safe_dump(card))
    result = create_segmenter(path, "cpu")(RED)
    assert set(np.unique(result.labels)) == {5, 7}
    np.testing.assert_allclose(result.confidence[0, 7], 1 / (1 + np.exp(-2.0)), atol=1e-4)
    (tmp_path / "net.card.yaml").write_text("colour: 1\n")
    with pytest.raises(InputError, match=r"unknown keys \['colour'\]"):
        create_segmenter(path, "cpu")


def test_probabilities_stay_as_they_are(tmp_path, letters):
    nodes = [
        onnx.helper.make_node("Mul", ["image", "zero"], ["nothing"]),
        onnx.helper.make_node("Conv", ["nothing", "weight", "bias"], ["out"]),
    ]
    arrays = {
        "zero": np.float32(0),
        "weight": np.zeros((2, 3, 1, 1), np.float32),
        "bias": np.array([0.2, 0.8], np.float32),
    }
    path = onnx_file(tmp_path / "net.onnx", nodes, ("out", FLOAT, [1, 2, 6, 8]), (6, 8), **arrays)
    (tmp_path / "net.card.yaml").write_text("output: probabilities\n")
    result = create_segmenter(str(path), "cpu", labels=letters)(RED)
    assert (result.labels == 7).all()
    np.testing.assert_allclose(result.confidence, 0.8, atol=1e-5)


def red_labels(path, low, high, shape=(1, 6, 8)):
    """A network with bytes in and labels out: ``high`` where red exceeds 127."""
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["real"], to=FLOAT),
        onnx.helper.make_node("Slice", ["real", "from", "to", "axis"], ["red"]),
        onnx.helper.make_node("Greater", ["red", "half"], ["is_red"]),
        onnx.helper.make_node("Where", ["is_red", "high", "low"], ["wide"]),
        onnx.helper.make_node("Reshape", ["wide", "shape"], ["labels"]),
    ]
    arrays = {"from": np.array([0]), "to": np.array([1]), "axis": np.array([1]), "half": np.float32(127)}
    arrays |= {"high": np.array(high), "low": np.array(low), "shape": np.array(shape)}
    return str(onnx_file(path, nodes, ("labels", INT64, list(shape)), (6, 8), UINT8, **arrays))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("shape", [(1, 6, 8), (1, 1, 6, 8), (6, 8)])
def test_onnx_file_with_labels_out_and_bytes_in(tmp_path, letters, shape, backend):
    pytest.importorskip(backend)
    segmenter = create_segmenter(red_labels(tmp_path / "net.onnx", 5, 7, shape), "cpu", labels=letters, backend=backend)
    result = segmenter(np.repeat(np.repeat(RED, 2, 0), 2, 1))
    assert result.labels.tolist() == [[5] * 8 + [7] * 8] * 12
    np.testing.assert_allclose(result.confidence, LABEL_ONLY_CONFIDENCE)
    segmenter.warm_up()


def test_onnx_labels_outside_of_the_set_are_refused(tmp_path, letters):
    segmenter = create_segmenter(red_labels(tmp_path / "net.onnx", 5, 6), "cpu", labels=letters)
    with pytest.raises(InputError, match=r"expected ids of label set 'letters', \[5, 7\] or -1, got \[6\]"):
        segmenter(RED)


def test_onnx_with_other_channels_than_the_label_set_is_refused(tmp_path, letters):
    segmenter = create_segmenter(brightness(tmp_path / "net.onnx", channels=3), "cpu", labels=letters)
    with pytest.raises(
        InputError, match=r"expected logits \(h, w, 2\) as label set 'letters' has classes, got \(6, 8, 3\)"
    ):
        segmenter(RED)


def test_onnx_with_logits_that_are_not_finite_is_refused(tmp_path, letters):
    nodes = [
        onnx.helper.make_node("Conv", ["image", "weight"], ["raw"]),
        onnx.helper.make_node("Log", ["raw"], ["logits"]),
    ]
    weight = -np.ones((2, 3, 1, 1), np.float32)
    path = onnx_file(tmp_path / "net.onnx", nodes, ("logits", FLOAT, [1, 2, 6, 8]), (6, 8), weight=weight)
    with pytest.raises(InputError, match="expected finite logits, got NaN"):
        create_segmenter(str(path), "cpu", labels=letters)(np.full((6, 8, 3), 250, np.uint8))


def test_onnx_input_of_another_size_than_the_file_fixes_is_refused(tmp_path, letters):
    path = brightness(tmp_path / "net.onnx")
    with pytest.raises(InputError, match="expected input size 8x6, got 20x10"):
        create_segmenter(path, "cpu", labels=letters, input_size=(10, 20))
    free = create_segmenter(brightness(tmp_path / "free.onnx", ("h", "w")), "cpu", labels=letters, input_size=(10, 20))
    assert free.logits(RED).shape == (10, 20, 2)  # pyright: ignore


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected a label set, give 'labels'"),
        ({"labels": "letters"}, "label set 'letters': expected one of"),
        ({"labels": "voc21", "backend": "torch"}, "expected backend onnxruntime, openvino or auto, got torch"),
    ],
)
def test_onnx_file_without_what_it_needs_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        create_segmenter(brightness(tmp_path / "net.onnx"), "cpu", **options)


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "openvino"])
def test_files_that_are_no_onnx_are_refused(tmp_path, backend):
    pytest.importorskip("onnxruntime" if backend == "auto" else backend)
    with pytest.raises(InputError, match="expected an ONNX file, found none"):
        create_segmenter(str(tmp_path / "no.onnx"), "cpu", labels="voc21")
    whole = Path(brightness(tmp_path / "net.onnx")).read_bytes()
    for data in (b"", b"not a network", whole[:40]):
        (tmp_path / "bad.onnx").write_bytes(data)
        with pytest.raises(InputError, match=r"bad.onnx: expected a valid ONNX model"):
            create_segmenter(str(tmp_path / "bad.onnx"), "cpu", labels="voc21", backend=backend)


def test_onnx_with_another_input_than_an_image_is_refused(tmp_path):
    nodes = [onnx.helper.make_node("Identity", ["image"], ["out"])]
    path = onnx_file(tmp_path / "net.onnx", nodes, ("out", INT64, [1, 3, 6, 8]), (6, 8), INT64)
    with pytest.raises(InputError, match=r"expected one input \(1, 3, height, width\) of float or uint8, got int64"):
        create_segmenter(str(path), "cpu", labels="voc21")


def test_auto_goes_on_to_the_next_backend_when_one_does_not_take_the_file(tmp_path, letters, caplog, monkeypatch):
    pytest.importorskip("openvino")
    from perception.models import onnx_runtimes

    def refuse(*_):
        raise InputError("network net.onnx: no such operator")

    monkeypatch.setattr(onnx_runtimes, "OnnxRuntimeNetwork", refuse)
    path = brightness(tmp_path / "net.onnx")
    assert create_segmenter(path, "cpu", labels=letters)(RED).labels.tolist() == [[5] * 4 + [7] * 4] * 6
    assert "no such operator; trying openvino" in caplog.text
    with pytest.raises(InputError, match="no such operator"):
        create_segmenter(path, "cpu", labels=letters, backend="onnxruntime")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_one_onnx_network_serves_two_threads(tmp_path, letters, backend):
    pytest.importorskip(backend)
    segmenter = create_segmenter(brightness(tmp_path / "net.onnx"), "cpu", labels=letters, backend=backend)
    images = [np.full((6, 8, 3), value, np.uint8) for value in (0, 255)] * 50
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda image: set(segmenter(image).labels.ravel().tolist()), images))
    assert found == [{5}, {7}] * 50
