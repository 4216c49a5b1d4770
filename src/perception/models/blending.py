# SPDX-License-Identifier: Apache-2.0
"""A network between two others of the same layers.

Source: Wortsman et al., Robust fine-tuning of zero-shot models, 2022: between a network and its fine-tuned copy lie
networks that keep most of what the first knew and have most of what the second learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.models.importer import rounded
from perception.models.weights import check_arrays, load_arrays, save_arrays


def blend(
    first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]], share: float
) -> dict[str, NDArray[np.float32]]:
    """Tensor by tensor (1 − share) · first + share · second.

    Args:
        first: tensors by name.
        second: tensors of the same names and shapes.
        share: of the second, 0 to 1.

    Raises:
        InputError: other tensors, or a share outside of 0 to 1.
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"share: expected 0 to 1, got {share}")
    check_arrays(second, {name: array.shape for name, array in first.items()}, "to blend with")
    return {
        name: ((1.0 - share) * array.astype(np.float64) + share * second[name].astype(np.float64)).astype(np.float32)
        for name, array in first.items()
    }


def blend_files(first: Path, second: Path, share: float, target: Path, dtype: str = "float16") -> int:
    """Blend two .safetensors files into a third, in half precision as shipped networks are, or in float32.

    Returns:
        How many numbers the network has.

    Raises:
        InputError: a file cannot be read, they do not fit together, or another dtype.
        PerceptionError: the target cannot be written.
    """
    if dtype not in ("float16", "float32"):
        raise InputError(f"dtype: expected float16 or float32, got {dtype!r}")
    arrays = blend(load_arrays(first), load_arrays(second), share)
    save_arrays(target, rounded(arrays) if dtype == "float16" else arrays)
    return sum(array.size for array in arrays.values())
