# SPDX-License-Identifier: Apache-2.0
"""Whether a network is as often right as it says: expected calibration error and the reliability diagram behind it.

Source: Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, 2017, equations 2, 3 and 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15


class Calibration:
    """Counts predictions by confidence, in bins of equal width: (low, high], the first one with 0.

    Args:
        bins: number of bins from 0 to 1.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.count: NDArray[np.int64] = np.zeros(bins, np.int64)
        self._right: NDArray[np.int64] = np.zeros(bins, np.int64)
        self._confidence: NDArray[np.float64] = np.zeros(bins, np.float64)

    def add(self, truth: NDArray[np.integer], predicted: NDArray[np.integer], confidence: NDArray[np.floating]) -> None:
        """Count pixels.

        Args:
            truth: class ids of any shape; negative ones are not counted.
            predicted: ids of the same shape; pixels without a label (negative) are not counted.
            confidence: probability of the predicted label, 0 to 1.
        """
        counted = (truth >= 0) & (predicted >= 0)
        sure, right = confidence[counted].astype(np.float64), (truth == predicted)[counted]
        bins = len(self.count)
        place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
        self.count += np.bincount(place, minlength=bins)
        self._right += np.bincount(place[right], minlength=bins)
        self._confidence += np.bincount(place, sure, bins)

    def error(self) -> float:
        """Mean difference between accuracy and confidence of the bins, weighted by their pixels; NaN without any."""
        total = self.count.sum()
        return float(np.abs(self._right - self._confidence).sum() / total) if total else float("nan")

    def rows(self) -> list[dict[str, Any]]:
        """The bins: low, high, count, and mean confidence and accuracy (None for an empty bin)."""
        edges = np.linspace(0, 1, len(self.count) + 1)
        return [
            {
                "low": float(low),
                "high": float(high),
                "count": int(count),
                "confidence": float(sure / count) if count else None,
                "accuracy": float(right / count) if count else None,
            }
            for low, high, count, right, sure in zip(
                edges, edges[1:], self.count, self._right, self._confidence, strict=False
            )
        ]
