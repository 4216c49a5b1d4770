# SPDX-License-Identifier: Apache-2.0
"""ONNX models on ONNX Runtime and on OpenVINO behind one small interface; neither needs PyTorch."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.models.base import require


@dataclass(frozen=True)
class Port:
    """An input or output of a model.

    Attributes:
        name: in the file.
        dtype: NumPy's name of the element type, "float32" say; the library's own where NumPy has none.
        shape: None where a dimension is free.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class OnnxNetwork(Protocol):
    """A loaded ONNX model."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """The first output for the one input; raises InputError where the library fails. May be called by threads."""
        ...


def open_onnx(
    model: bytes | str, backend: str, device: str = "cpu", num_threads: int = 0, precision: str = "float32"
) -> OnnxNetwork:
    """Load a model.

    Args:
        model: serialized, or path of a file.
        backend: "onnxruntime" or "openvino".
        device: "cpu", or "cuda" for the GPU build of ONNX Runtime.
        num_threads: of the CPU; 0 leaves it to the library.
        precision: "float32", or "bfloat16" (OpenVINO; about half a per cent of a number's size is lost).

    Raises:
        InputError: no valid model, or a device or precision that this backend does not have.
        MissingDependencyError: the library is not installed.
    """
    if backend == "openvino":
        return OpenVinoNetwork(model, device, num_threads, precision)
    if precision != "float32":
        raise InputError(f"precision {precision}: expected backend openvino or torch, got {backend}")
    return OnnxRuntimeNetwork(model, device, num_threads)


class OnnxRuntimeNetwork:
    """:class:`OnnxNetwork` on ONNX Runtime; arguments as :func:`open_onnx`."""

    def __init__(self, model: bytes | str, device: str = "cpu", num_threads: int = 0) -> None:
        self._name = _name(model)
        self._session = onnx_session(model, device, num_threads)
        self.inputs = tuple(_runtime_port(port) for port in self._session.get_inputs())
        self.outputs = tuple(_runtime_port(port) for port in self._session.get_outputs())

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """See :class:`OnnxNetwork`."""
        try:
            return self._session.run([self.outputs[0].name], {self.inputs[0].name: array})[0]
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise _failed(self._name, array, error) from error


class OpenVinoNetwork:
    """:class:`OnnxNetwork` on OpenVINO; arguments as :func:`open_onnx`."""

    def __init__(
        self, model: bytes | str, device: str = "cpu", num_threads: int = 0, precision: str = "float32"
    ) -> None:
        openvino = require("openvino", "openvino", "the openvino backend")
        if device != "cpu":
            raise InputError(f"device {device}: expected cpu with backend openvino")
        self._name = _name(model)
        self._lock = threading.Lock()  # a request serves one thread at a time
        # Without the hint OpenVINO rounds to bfloat16 or half precision wherever the CPU has instructions for it.
        # Pinned threads wait for their core while another program uses it.
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
            "CPU_DENORMALS_OPTIMIZATION": True,
            "ENABLE_CPU_PINNING": False,
        }
        if num_threads:
            options["INFERENCE_NUM_THREADS"] = num_threads
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(model), "CPU", options)
            self.inputs = tuple(_openvino_port(port) for port in self._compiled.inputs)
            self.outputs = tuple(_openvino_port(port) for port in self._compiled.outputs)
            self._request = self._compiled.create_infer_request()
        except Exception as error:  # OpenVINO raises RuntimeError and what its frontends raise
            raise InputError(f"network {self._name}: expected a valid ONNX model ({_line(error)})") from error

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """See :class:`OnnxNetwork`."""
        with self._lock:
            try:
                self._request.infer({0: array}, share_inputs=True)
                return np.array(self._request.get_output_tensor(0).data)
            except Exception as error:
                raise _failed(self._name, array, error) from error


def onnx_session(model: bytes | str, device: str = "cpu", num_threads: int = 0) -> Any:
    """An ONNX Runtime session; arguments and errors as :func:`open_onnx`."""
    runtime = require("onnxruntime", "onnx", "the onnxruntime backend")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Threads that spin while they wait for each other gain 3 % alone and cost a quarter beside the map's: whoever they
    # wait for needs their core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            raise InputError(f"device {device}: this ONNX Runtime cannot use a GPU; use backend torch or device cpu")
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.partition(":")[2] or "0"}))
    try:
        return runtime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise InputError(f"network {_name(model)}: expected a valid ONNX model ({_line(error)})") from error


def _runtime_port(port: Any) -> Port:
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    # Free dimensions are None or a name.
    shape = tuple(length if isinstance(length, int) else None for length in port.shape)
    return Port(port.name, str({"float": "float32", "double": "float64"}.get(kind, kind)), shape)


def _openvino_port(port: Any) -> Port:
    element, shape = port.get_element_type(), port.get_partial_shape()
    try:
        dtype = np.dtype(element.to_dtype()).name
    except RuntimeError:
        dtype = element.get_type_name()
    lengths = () if shape.rank.is_dynamic else tuple(d.get_length() if d.is_static else None for d in shape)
    return Port(str(port.get_any_name()), str(dtype), lengths)


def _name(model: bytes | str) -> str:
    return model if isinstance(model, str) else "graph"


def _line(error: Exception) -> str:
    """The line of a long message that says most: OpenVINO's begin with places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next(
        (line for line in lines if not line.startswith(("Exception from", "Check "))), lines[0] if lines else ""
    )


def _failed(name: str, array: NDArray[Any], error: Exception) -> InputError:
    return InputError(f"network {name}: failed on input {array.shape} ({_line(error)})")
