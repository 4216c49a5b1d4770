# SPDX-License-Identifier: Apache-2.0
"""Scans of a spinning LiDAR on a street of boxes, ray-cast with NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BEAMS, COLUMNS = 64, 2048
ELEVATION_DEG = (-25.0, 3.0)
"""Lowest and highest beam."""
SENSOR_HEIGHT = 1.8
RANGE = 80.0
STEP = 0.5
"""Meters driven between scans."""


def synthetic_lidar_scans(
    count: int, seed: int = 0, noise: float = 0.02
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """Scans of 64 × 2048 beams of a sensor that drives along x between houses and cars.

    Args:
        count: number of scans.
        seed: of the street and the noise.
        noise: standard deviation of the range, meters.

    Yields:
        (N, 3) float32 points in the map frame, meters, of the beams that met something within 80 m, and the sensor's
        (3,) position.
    """
    rng = np.random.default_rng(seed)
    lower, upper = _street(rng)
    directions = _directions()
    for number in range(count):
        origin = np.array([STEP * number, 0.0, SENSOR_HEIGHT])
        ranges = _cast(origin, directions, lower, upper)
        ranges = ranges + rng.normal(0.0, noise, len(ranges))
        hit = ranges < RANGE
        yield (origin + directions[hit] * ranges[hit, None]).astype(np.float32), origin


def _street(rng: np.random.Generator, boxes: int = 80) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of houses at 8–40 m and of cars at 3–7 m from the way, on both sides."""
    is_house = np.arange(boxes) % 2 == 0
    side = rng.choice([-1.0, 1.0], boxes)
    distance = np.where(is_house, rng.uniform(8, 40, boxes), rng.uniform(3, 7, boxes))
    size = np.where(is_house[:, None], rng.uniform((6, 6, 4), (20, 15, 12), (boxes, 3)), (4.2, 1.8, 1.5))
    center = np.stack([rng.uniform(-80, 120, boxes), side * (distance + size[:, 1] / 2), size[:, 2] / 2], axis=1)
    return center - size / 2, center + size / 2


def _directions() -> NDArray[np.float64]:
    """(64 · 2048, 3) unit vectors."""
    elevation = np.radians(np.linspace(*ELEVATION_DEG, BEAMS))[:, None]
    azimuth = np.linspace(0, 2 * np.pi, COLUMNS, endpoint=False)[None]
    parts = (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation) + 0 * azimuth)
    return np.stack(parts, axis=-1).reshape(-1, 3)


def _cast(
    origin: NDArray[np.float64], directions: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Range to the ground z = 0 or the nearest box, +inf for neither (slab method)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / directions
        nearest = np.where(directions[:, 2] < 0, -origin[2] * inverse[:, 2], np.inf)
        for low, high in zip(lower, upper, strict=True):
            first, second = (low - origin) * inverse, (high - origin) * inverse
            enter = np.minimum(first, second).max(axis=1)
            leave = np.maximum(first, second).min(axis=1)
            nearest = np.where((enter > 0) & (enter <= leave), np.minimum(nearest, enter), nearest)
    return nearest
