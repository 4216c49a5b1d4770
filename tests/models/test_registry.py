# SPDX-License-Identifier: Apache-2.0
"""Names, options and missing libraries."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from perception.config import SegmentationConfig
from perception.errors import InputError, MissingDependencyError
from perception.models import SEGMENTERS, Segmenter, create_segmenter, segmenter_from_config
from perception.models.backends import CPU_ORDER, choose_backend, torch_device
from perception.models.base import check_image
from perception.models.onnx_runtimes import open_onnx


def hide(monkeypatch, *modules):
    """As if these were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in modules else find(name, *rest))
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


def test_unknown_names_and_options_are_listed():
    with pytest.raises(
        InputError, match=r"network 'unet': expected one of \['deeplabv3_mobilenet_v3_large', 'deeplabv3plus"
    ):
        create_segmenter("unet")
    with pytest.raises(InputError, match=r"unknown options \['sise'\]; expected some of"):
        create_segmenter("default", sise=3)


def test_default_is_the_shipped_network():
    assert SEGMENTERS["default"] is SEGMENTERS["deeplabv3plus_mobilenetv2_rooms"]
    segmenter = create_segmenter("default", "cpu", input_size=(64, 64))
    assert isinstance(segmenter, Segmenter)
    shown = segmenter.name, segmenter.device, segmenter.label_set.name
    assert shown == ("deeplabv3plus_mobilenetv2_rooms", "cpu", "ade20k32")
    assert create_segmenter("deeplabv3plus_mobilenetv2", "cpu", input_size=(64, 64)).name == "deeplabv3plus_mobilenetv2"
    segmenter.warm_up()


def test_configuration_builds_the_same_segmenter():
    segmenter = segmenter_from_config(
        SegmentationConfig(device="cpu", input_width=64, input_height=32, min_confidence=0.999)
    )
    assert segmenter is not None
    result = segmenter(np.full((40, 50, 3), 90, np.uint8))
    assert (result.labels == -1).all()
    assert segmenter_from_config(SegmentationConfig(model="none")) is None
    with pytest.raises(InputError, match="expected both or neither, got 64 and 0"):
        segmenter_from_config(SegmentationConfig(input_width=64))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        None,
    ],
)
def test_other_images_than_rgb_bytes_are_refused(image):
    with pytest.raises(InputError, match=r"image: expected \(H, W, 3\) uint8 RGB, got"):
        check_image(image)


def test_auto_on_the_cpu_takes_the_first_installed_backend_of_the_stated_order(monkeypatch):
    pytest.importorskip("torch")
    hidden = []
    for name in (name for name in CPU_ORDER if importlib.util.find_spec(name) is not None):
        hide(monkeypatch, *hidden)
        assert choose_backend("auto", "cpu") == (name, "cpu")
        assert choose_backend("torch", "cpu") == ("torch", "cpu")
        hidden.append(name)
    assert CPU_ORDER == ("onnxruntime", "openvino", "torch")


def test_auto_on_a_gpu_is_torch():
    pytest.importorskip("torch")
    assert choose_backend("auto", "cuda:1") == ("torch", "cuda:1")


def test_auto_with_bfloat16_passes_over_onnx_runtime_which_refuses_it(monkeypatch):
    pytest.importorskip("torch")
    hide(monkeypatch, "openvino")
    assert choose_backend("auto", "cpu", "bfloat16") == ("torch", "cpu")
    with pytest.raises(InputError, match="bfloat16 with openvino or torch, got 'bfloat16'"):
        choose_backend("onnxruntime", "cpu", "bfloat16")
    with pytest.raises(InputError, match=r"precision: expected float32.*got 'int4'"):
        choose_backend("auto", "cpu", "int4")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", "auto:1", ""])
def test_unknown_devices_are_refused(device):
    with pytest.raises(InputError, match="device: expected auto, cpu, cuda or cuda:N, got"):
        choose_backend("auto", device)


def test_unknown_backend_is_refused():
    with pytest.raises(InputError, match="backend: expected auto, torch, onnxruntime, openvino, got 'tvm'"):
        choose_backend("tvm", "cpu")


def test_gpu_that_is_not_there_is_an_error():
    torch = pytest.importorskip("torch")
    number = torch.cuda.device_count()
    with pytest.raises(InputError, match=f"device cuda:{number}: expected a GPU, PyTorch sees {number}"):
        torch_device(f"cuda:{number}")
    runtime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        with pytest.raises(InputError, match="device cuda: this ONNX Runtime cannot use a GPU"):
            open_onnx(b"", "onnxruntime", "cuda")


def test_missing_libraries_name_the_extra(monkeypatch):
    hide(monkeypatch, "torch", "onnxruntime", "openvino")
    with pytest.raises(MissingDependencyError, match=r"got none of them: pip install 'perception\[onnx\]'"):
        create_segmenter("default", "cpu")
    with pytest.raises(MissingDependencyError, match=r"needs torch: pip install 'perception\[torch\]'"):
        create_segmenter("default", "cpu", backend="torch")
    with pytest.raises(MissingDependencyError, match=r"needs onnxruntime: pip install 'perception\[onnx\]'"):
        create_segmenter("default", "cpu", backend="onnxruntime")
    with pytest.raises(MissingDependencyError, match=r"needs openvino: pip install 'perception\[openvino\]'"):
        create_segmenter("default", "cpu", backend="openvino")
    with pytest.raises(MissingDependencyError, match=r"lraspp_mobilenet_v3_large needs torch: pip install"):
        create_segmenter("lraspp_mobilenet_v3_large", "cpu")


def test_default_network_runs_without_torch():
    pytest.importorskip("onnxruntime")
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['torchvision'] = None\n"
        "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n in ('torch', 'torchvision') else f(n, *a)\n"
        "import numpy as np; from perception.models import create_segmenter\n"
        "result = create_segmenter(input_size=(64, 64))(np.zeros((30, 40, 3), np.uint8))\n"
        "print(result.labels.shape, result.label_set.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(30, 40) ade20k32"


def test_importing_the_models_loads_no_heavy_library():
    code = (
        "import sys, perception.models\n"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'numba', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert done.stdout.strip() == "[]"
