# SPDX-License-Identifier: Apache-2.0
"""What a user may choose about a network; the same for all of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelOptions:
    """Options of :func:`perception.models.create_segmenter`.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        backend: "auto", "torch", "onnxruntime" or "openvino".
        weights: path of a .safetensors file; empty searches.
        labels: name or path of the label set; empty takes the network's own.
        input_size: (height, width) of the network's input; None takes the network's own.
        num_threads: of the CPU; 0 leaves it to the library.
        precision: "float32", or "bfloat16" (torch and openvino): faster on CPUs with instructions for it, and a few
            unsure pixels in a hundred change their label.
        torch_mode: "channels_last", "contiguous" (PyTorch's usual layout) or "compiled" (needs a C++ compiler, and a
            minute at the first image).
        download: fetch a publisher's weights where they are found nowhere.
    """

    device: str = "auto"
    backend: str = "auto"
    weights: str = ""
    labels: str = ""
    input_size: tuple[int, int] | None = None
    num_threads: int = 0
    precision: str = "float32"
    torch_mode: str = "channels_last"
    download: bool = True
