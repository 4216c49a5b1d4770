# SPDX-License-Identifier: Apache-2.0
"""Where and by what a network is run: PyTorch on any device, or ONNX Runtime without PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError, MissingDependencyError
from perception.models.base import require
from perception.models.network import Run


def choose_backend(backend: str = "auto", device: str = "auto") -> tuple[str, str]:
    """Settle what "auto" means on this machine.

    Args:
        backend: "auto", "torch" or "onnx". On a GPU auto is torch; on the CPU it is onnx where ONNX Runtime is
            installed, else torch.
        device: "auto" (a GPU if PyTorch sees one, else the CPU), "cpu", "cuda" or "cuda:N".

    Returns:
        Backend "torch" or "onnx", and device.

    Raises:
        InputError: unknown backend or device, or a GPU that is not there.
        MissingDependencyError: no backend is installed.
    """
    kind, _, number = device.partition(":")
    if backend not in ("auto", "torch", "onnx"):
        raise InputError(f"backend: expected auto, torch or onnx, got {backend!r}")
    if kind not in ("auto", "cpu", "cuda") or (":" in device and not (kind == "cuda" and number.isdigit())):
        raise InputError(f"device: expected auto, cpu, cuda or cuda:N, got {device!r}")
    if device == "auto":
        device = "cuda" if backend != "onnx" and _cuda_devices() > 0 else "cpu"
    if backend == "auto":
        backend = "torch" if device != "cpu" or not has_onnx() else "onnx"
        if backend == "torch" and importlib.util.find_spec("torch") is None:
            extra = "onnx" if device == "cpu" else "torch"
            raise MissingDependencyError(
                f"networks need ONNX Runtime or PyTorch, got neither: pip install 'perception[{extra}]'"
            )
    return backend, device


def has_onnx() -> bool:
    """Whether ONNX Runtime, and the onnx package that builds graphs for it, are installed."""
    return all(importlib.util.find_spec(module) is not None for module in ("onnx", "onnxruntime"))


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


def torch_run(module: Any, forward: Callable[[Any], Any], device: str, num_threads: int = 0) -> Run:
    """Run a PyTorch module.

    Args:
        module: moved to the device and switched to evaluation here.
        forward: its method that takes (1, 3, height, width) and gives (1, C, h, w).
        device: as returned by :func:`choose_backend`.
        num_threads: of the CPU; 0 leaves PyTorch's setting. PyTorch knows one number per process.
    """
    torch = require("torch", "torch", "the torch backend")
    place = torch_device(device)
    if num_threads:
        torch.set_num_threads(num_threads)
    module.to(device=place, memory_format=torch.channels_last).eval()

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        if place.type == "cpu":
            # Denormal numbers make some networks several times slower; the switch belongs to the calling thread.
            torch.set_flush_denormal(True)
        with torch.inference_mode():
            tensor = torch.from_numpy(image).to(place).contiguous(memory_format=torch.channels_last)
            return forward(tensor)[0].permute(1, 2, 0).float().cpu().numpy()

    return run


def onnx_session(model: bytes | str, device: str = "cpu", num_threads: int = 0) -> Any:
    """An ONNX Runtime session.

    Args:
        model: serialized model, or path of a file.
        device: "cpu", or "cuda" with the GPU build of ONNX Runtime.
        num_threads: of the CPU; 0 leaves it to the library.

    Raises:
        InputError: no valid model, or a GPU that ONNX Runtime cannot use.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    runtime = require("onnxruntime", "onnx", "the onnx backend")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            raise InputError(f"device {device}: this ONNX Runtime cannot use a GPU; use backend torch or device cpu")
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.partition(":")[2] or "0"}))
    try:
        return runtime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        what = model if isinstance(model, str) else "graph"
        raise InputError(f"network {what}: expected a valid ONNX model ({str(error).splitlines()[0]})") from error
