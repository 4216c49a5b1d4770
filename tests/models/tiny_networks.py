# SPDX-License-Identifier: Apache-2.0
"""Small networks and images that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.labels import LabelClass, LabelSet
from perception.models import deeplab_layers


def photograph(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB."""
    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


def photographs(shared: Path) -> list[NDArray[np.uint8]]:
    """Three rooms by three cameras."""
    folders = ("rgbd/open3d_redwood/color", "rgbd/slambook2_ch5/color")
    paths = [sorted((shared / "data" / folder).iterdir())[0] for folder in folders]
    return [photograph(path) for path in [*paths, shared / "data/label_fusion/labels/frame-000000.color.png"]]


def random_arrays(num_classes: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Tensors of the shipped architecture with numbers of a size that keeps activations alive."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for layer in deeplab_layers.conv_layers(num_classes):
        fan_in = np.prod(layer.weight_shape[1:])
        arrays[f"{layer.name}.weight"] = rng.normal(0, np.sqrt(2 / fan_in), layer.weight_shape).astype(np.float32)
        arrays[f"{layer.name}.bias"] = rng.normal(0, 0.1, layer.outputs).astype(np.float32)
    return arrays


def label_set(count: int, first: int = 0, step: int = 1) -> LabelSet:
    """Classes named a, b, c …"""
    classes = (LabelClass(first + i * step, chr(ord("a") + i), (10 * i, 0, 0)) for i in range(count))
    return LabelSet("letters", tuple(classes))


def onnx_file(
    path: Path, nodes: list[Any], output: Any, size: tuple[Any, Any] = (8, 8), dtype: int = 1, **arrays: Any
) -> Path:
    """Write an ONNX file with one input ``image`` (1, 3, *size) and the given output (name, element type, shape)."""
    from onnx import helper, numpy_helper, save

    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", dtype, [1, 3, *size])],
        [helper.make_tensor_value_info(*output)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    save(model, str(path))
    return path
