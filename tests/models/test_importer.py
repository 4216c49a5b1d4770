# SPDX-License-Identifier: Apache-2.0
"""``perception weights import``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_networks import onnx_file, random_arrays

from perception.cli.main import main
from perception.errors import InputError
from perception.models.cards import shipped_card
from perception.models.importer import import_network
from perception.models.weights import load_arrays

onnx = pytest.importorskip("onnx")


def full_network(path, grid="asymmetric"):
    """A fixed-size ONNX file as published ones are: logits at the size of the input. Returns its tensors."""
    from perception.models.onnx_graph import build_deeplab

    arrays = random_arrays(5)
    model = onnx.load_from_string(build_deeplab(arrays, 5, 64, 96))
    graph = model.graph
    graph.node[-1].output[0] = "coarse"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"))
    resize = {"mode": "linear", "coordinate_transformation_mode": grid}
    graph.node.append(onnx.helper.make_node("Resize", ["coarse", "", "scales"], ["logits"], **resize))
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info("logits", 1, [1, 5, 64, 96]))
    onnx.save(model, str(path))
    return arrays


def test_import_keeps_every_tensor_under_its_name(tmp_path):
    arrays = full_network(tmp_path / "net.onnx")
    report = import_network(tmp_path / "net.onnx", tmp_path / "x.safetensors", "float32")
    assert (report.num_classes, report.tensors, report.label_agreement) == (5, 120, 1.0)
    found = load_arrays(tmp_path / "x.safetensors")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_half_precision_keeps_biases_and_depthwise_weights_whole(tmp_path):
    arrays = full_network(tmp_path / "net.onnx")
    import_network(tmp_path / "net.onnx", tmp_path / "x.safetensors", "float16")
    found = load_arrays(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(found["stem.bias"], arrays["stem.bias"])
    np.testing.assert_array_equal(found["blocks.3.depthwise.weight"], arrays["blocks.3.depthwise.weight"])
    rounded = arrays["classifier.weight"].astype(np.float16)
    np.testing.assert_array_equal(found["classifier.weight"], rounded.astype(np.float32))


def test_import_refuses_a_network_that_computes_something_else(tmp_path):
    full_network(tmp_path / "net.onnx", grid="half_pixel")
    with pytest.raises(
        InputError, match=r"expected the outputs of DeepLabV3.* they differ by .*; this is another network"
    ):
        import_network(tmp_path / "net.onnx", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_import_of_the_published_file_gives_the_shipped_one(shared, tmp_path, capsys):
    source = shared / "weights" / "deeplabv3_mnv2_ade20k32_fp32_512.onnx"
    if not source.is_file():
        pytest.skip(f"needs {source.name} in ../shared/weights")
    assert main(["weights", "import", str(source), "--output", str(tmp_path / "x.safetensors")]) == 0
    said = capsys.readouterr().out
    card = shipped_card("deeplabv3plus_mobilenetv2")
    assert card.weights is not None
    assert f"sha256 {card.weights.sha256}" in said
    assert "2256272 parameters" in said


def test_import_refuses_what_is_not_that_network(tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07garbage")
    nodes = [onnx.helper.make_node("Conv", ["image", "weight"], ["out"])]
    onnx_file(tmp_path / "tiny.onnx", nodes, ("out", 1, [1, 2, 8, 8]), weight=np.zeros((2, 3, 1, 1), np.float32))
    expected = {
        "bad.onnx": "expected an ONNX file with its weights inside",
        "no.onnx": "expected an ONNX file with its weights inside",
        "tiny.onnx": "expected 60 (DeepLabV3+ on MobileNetV2) or 113 (YOLOX-Nano) convolutions, got 1; another network",
    }
    for name, message in expected.items():
        with pytest.raises(InputError, match=re.escape(message)):
            import_network(tmp_path / name, tmp_path / "x.safetensors")
        assert main(["weights", "import", str(tmp_path / name), "--output", str(tmp_path / "x.safetensors")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_output_needs_the_ending_of_its_format(tmp_path, capsys):
    assert main(["weights", "import", "x.onnx", "--output", str(tmp_path / "x.pth")]) == 1
    assert "expected a file ending in .safetensors" in capsys.readouterr().err
