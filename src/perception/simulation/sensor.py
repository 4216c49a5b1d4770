# SPDX-License-Identifier: Apache-2.0
"""What a real depth camera makes of exact depth: noise, lost edges, limits of range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError

EDGE_RATIO = 0.05
"""Neighbors that differ by more than this share of the nearer depth are at an edge."""


@dataclass(frozen=True)
class DepthSensor:
    """Errors of a depth camera; the default has none but its range.

    Attributes:
        noise: standard deviation at 1 m, meters; it grows with the square of the depth. 0.0014 is a Kinect's
            (Khoshelham and Oude Elberink, 2012).
        edge_dropout: probability that a pixel at a depth edge has no measurement (0).
        min_range: nearer is −inf, meters along the optical axis.
        max_range: farther is +inf.
    """

    noise: float = 0.0
    edge_dropout: float = 0.0
    min_range: float = 0.0
    max_range: float = 50.0

    def __post_init__(self) -> None:
        if not (self.noise >= 0 and 0 <= self.edge_dropout <= 1 and 0 <= self.min_range < self.max_range):
            raise InputError(
                f"depth sensor: expected noise >= 0, edge dropout 0 to 1 and min_range < max_range, got {self}"
            )

    def measure(self, depth: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """What the sensor gives for the true (H, W) depth in meters, as REP 117 has it: ±inf beyond its range."""
        result = depth.copy()
        near = np.isfinite(depth)
        if self.noise > 0:
            sigma = self.noise * np.where(near, depth, 0) ** 2
            result = (result + sigma * rng.standard_normal(depth.shape)).astype(np.float32)
        result[depth > self.max_range] = np.inf
        result[depth < self.min_range] = -np.inf
        if self.edge_dropout > 0:
            lost = depth_edges(depth) & (rng.random(depth.shape) < self.edge_dropout)
            result[lost] = 0.0
        return result


def depth_edges(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(H, W) pixels with a neighbor whose depth differs by more than :data:`EDGE_RATIO` of the nearer one."""
    edges = np.zeros(depth.shape, np.bool_)
    for axis in (0, 1):
        first = depth[:-1] if axis == 0 else depth[:, :-1]
        second = depth[1:] if axis == 0 else depth[:, 1:]
        with np.errstate(invalid="ignore"):
            step = np.abs(second - first) > EDGE_RATIO * np.minimum(first, second)
        if axis == 0:
            edges[:-1] |= step
            edges[1:] |= step
        else:
            edges[:, :-1] |= step
            edges[:, 1:] |= step
    return edges
