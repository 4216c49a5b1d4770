# SPDX-License-Identifier: Apache-2.0
"""Colors of clouds as classes of a map without labels: what octomap_server's ``colored_map`` shows. Without ROS.

A voxel takes the color that most of its points had, by the rules of label fusion, in 32 steps per channel; so a changed
thing changes its color, and no voxel shows a mixture that nobody saw.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.cloud_codec import PointFields

BITS = 5
STEP = 256 >> BITS


class ColorPalette:
    """Stands in for a label set where a map shows colors.

    Attributes:
        num_classes: number of colors.
        classes: none: colors have no names and no costs.
    """

    num_classes = 1 << 3 * BITS
    classes: tuple[Any, ...] = ()

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """(num_classes, 3) uint8 RGB, the middle of each step; never white, which OctoMap reads as no color."""
        ids = np.arange(self.num_classes)
        channels = [(ids >> shift & (1 << BITS) - 1) * STEP + STEP // 2 for shift in (2 * BITS, BITS, 0)]
        return np.stack(channels, axis=1).astype(np.uint8)

    @cached_property
    def decay_s(self) -> NDArray[np.float32]:
        """(num_classes,) float32: no color fades."""
        return np.full(self.num_classes, np.inf, np.float32)

    def ids_of(self, colors: NDArray[np.uint8]) -> NDArray[np.int32]:
        """(N,) int32 ids of (N, 3) uint8 colors."""
        steps = colors.astype(np.int32) // STEP
        return steps[:, 0] << 2 * BITS | steps[:, 1] << BITS | steps[:, 2]

    def label(self, cloud: PointFields) -> PointFields:
        """A cloud with its colors in the place of labels; without either where it has no colors."""
        labels = None if cloud.colors is None else self.ids_of(cloud.colors)
        return replace(cloud, labels=labels, confidence=None)
