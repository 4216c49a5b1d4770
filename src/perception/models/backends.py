# SPDX-License-Identifier: Apache-2.0
"""Where and by what a network is run: PyTorch on any device, or OpenVINO or ONNX Runtime without PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError, MissingDependencyError
from perception.models.base import require
from perception.models.network import Run, RunBatch
from perception.models.options import ModelOptions

BACKENDS = ("torch", "onnxruntime", "openvino")
CPU_ORDER = ("onnxruntime", "openvino", "torch")
"""On the CPU "auto" is the first of these that is installed, as measured with the shipped network on 2 cores: alone,
OpenVINO takes 3 to 6 % less time than ONNX Runtime, beside other work 20 to 30 % more; PyTorch takes half as long
again. In float32 all three label more than 99.9 % of the pixels alike."""
PRECISIONS = ("float32", "bfloat16")
_NEEDED = {"torch": ("torch",), "onnxruntime": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
"""The modules that a backend needs; the onnx package builds the graphs of the shipped networks."""
EXTRAS = {"torch": "torch", "onnxruntime": "onnx", "openvino": "openvino"}
"""The extra of this package that installs a backend."""


def choose_backend(backend: str = "auto", device: str = "auto", precision: str = "float32") -> tuple[str, str]:
    """Settle what "auto" means on this machine.

    Args:
        backend: "auto", "torch", "onnxruntime" or "openvino". On a GPU auto is torch, on the CPU the first of
            ``CPU_ORDER`` that is installed.
        device: "auto" (a GPU if PyTorch sees one, else the CPU), "cpu", "cuda" or "cuda:N".
        precision: "float32" or "bfloat16", which ONNX Runtime does not have.

    Returns:
        Backend and device, neither of them "auto".

    Raises:
        InputError: unknown backend, device or precision, or a GPU that is not there.
        MissingDependencyError: no backend is installed.
    """
    kind, _, number = device.partition(":")
    if backend not in ("auto", *BACKENDS):
        raise InputError(f"backend: expected auto, {', '.join(BACKENDS)}, got {backend!r}")
    if kind not in ("auto", "cpu", "cuda") or (":" in device and not (kind == "cuda" and number.isdigit())):
        raise InputError(f"device: expected auto, cpu, cuda or cuda:N, got {device!r}")
    if precision not in PRECISIONS or (precision != "float32" and backend == "onnxruntime"):
        raise InputError(f"precision: expected float32, or bfloat16 with openvino or torch, got {precision!r}")
    if device == "auto":
        device = "cuda" if backend in ("auto", "torch") and _cuda_devices() > 0 else "cpu"
    if backend != "auto":
        return backend, device
    order = [name for name in CPU_ORDER if precision == "float32" or name != "onnxruntime"]
    backend = next(filter(has_backend, order), "") if device == "cpu" else "torch"
    if not backend or not has_backend(backend):
        extra = "torch" if device != "cpu" else "onnx" if "onnxruntime" in order else "openvino"
        raise MissingDependencyError(
            f"networks need OpenVINO, ONNX Runtime or PyTorch, got none of them: pip install 'perception[{extra}]'"
        )
    return backend, device


def has_backend(name: str) -> bool:
    """Whether everything that a backend needs is installed."""
    return all(importlib.util.find_spec(module) is not None for module in _NEEDED[name])


def require_backend(name: str) -> None:
    """Raise MissingDependencyError, which names the extra, unless a backend's modules can be imported."""
    for module in _NEEDED[name]:
        require(module, EXTRAS[name], f"the {name} backend")


def _cuda_devices() -> int:
    # Importing torch takes seconds: only where there is a sign of a GPU (NVIDIA, Jetson, AMD, WSL).
    signs = ("nvidia0", "nvidiactl", "nvhost-ctrl", "nvgpu", "kfd", "dxg")
    if importlib.util.find_spec("torch") is None or not any(Path("/dev", sign).exists() for sign in signs):
        return 0
    return require("torch", "torch", "device auto").cuda.device_count()


def torch_device(device: str) -> Any:
    """A torch.device; raises InputError when PyTorch does not see that GPU."""
    torch = require("torch", "torch", "the torch backend")
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device}: expected a GPU, PyTorch sees {torch.cuda.device_count()}")
    return found


def torch_run(module: Any, forward: Callable[[Any], Any], device: str, options: ModelOptions | None = None) -> Run:
    """Run a PyTorch module on one image; arguments as :func:`torch_run_batch`."""
    run = torch_run_batch(module, forward, device, options)
    return lambda image: run(image)[0]


def torch_run_batch(
    module: Any, forward: Callable[[Any], Any], device: str, options: ModelOptions | None = None
) -> RunBatch:
    """Run a PyTorch module on any number of images.

    Args:
        module: moved to the device and switched to evaluation here.
        forward: its method that takes (N, 3, height, width) and gives (N, C, h, w).
        device: as returned by :func:`choose_backend`.
        options: ``num_threads`` (PyTorch knows one number per process), ``precision`` and ``torch_mode``.
    """
    torch = require("torch", "torch", "the torch backend")
    options = options or ModelOptions()
    place = torch_device(device)
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    layout = torch.contiguous_format if options.torch_mode == "contiguous" else torch.channels_last
    module.to(device=place, memory_format=layout).eval()
    if options.torch_mode == "compiled":
        forward = torch.compile(forward)
    rounds = options.precision == "bfloat16"

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        if place.type == "cpu":
            # Denormal numbers make some networks several times slower; the switch belongs to the calling thread.
            torch.set_flush_denormal(True)
        with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=rounds):
            tensor = torch.from_numpy(images).to(place).contiguous(memory_format=layout)
            return forward(tensor).permute(0, 2, 3, 1).float().cpu().numpy()

    return run
