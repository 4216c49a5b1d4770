# SPDX-License-Identifier: Apache-2.0
"""Scans too large for one window, split by space: halves of boxes, each with the rays that may cross it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.mapping.collection import ScanEntries
from perception.mapping.keys import KEY_ORIGIN, voxels_in

MARGIN = 2.0
"""Voxels by which a box is widened before rays are sorted out: they are walked in other arithmetic."""


@dataclass(frozen=True, slots=True)
class ScanRays:
    """Rays of a whole scan.

    Attributes:
        origin: (3,) float64 in voxels, where voxel k spans k to k + 1.
        ends: (E,) int64 packed keys of end voxels, each once.
        tips: (E, 3) float64 where the rays end, cut at the longest range, in voxels.
        keys: (N, 3) int64 of the scan's entries.
        marks: (N,) bool, whether an entry marks its voxel.
        beyond: points farther than the longest range.
    """

    origin: NDArray[np.float64]
    ends: NDArray[np.int64]
    tips: NDArray[np.float64]
    keys: NDArray[np.int64]
    marks: NDArray[np.bool_]
    beyond: int


def find_rays(
    entries: ScanEntries, origin: NDArray[np.float32], resolution: float, max_range: float, range_limit: np.float32
) -> ScanRays:
    """One ray for each voxel with points."""
    packed = (entries.codes >> 16) & 0xFFFFFFFFFFFF
    keys, ends = _unpacked(packed), np.unique(packed)
    ways = _ways(_unpacked(ends), origin, resolution)
    squared = (ways**2).sum(axis=1)
    start = origin.astype(np.float64) / resolution + KEY_ORIGIN
    with np.errstate(divide="ignore"):
        share = np.where(squared > range_limit, max_range / np.sqrt(squared), 1.0)
    far = _ways(keys[entries.marks], origin, resolution).astype(np.float32)
    beyond = (far[:, 0] * far[:, 0] + far[:, 1] * far[:, 1] + far[:, 2] * far[:, 2]) > range_limit
    tips = start + ways * share[:, None] / resolution
    return ScanRays(start, ends, tips, keys, entries.marks, int(entries.counts[entries.marks][beyond].sum()))


def split(
    box: NDArray[np.int64], rays: ScanRays, max_cells: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Windows of at most so many voxels that cover all rays.

    Args:
        box: (6,) int64 lowest brick and number of bricks per axis.
        rays: of the scan.
        max_cells: voxels.

    Yields:
        window (6,) int64; packed ends of the rays that may cross it; numbers of the marking entries in it.
        Windows without rays are left out.
    """
    stack = [(box, np.arange(len(rays.ends)), np.flatnonzero(rays.marks))]
    while stack:
        window, chosen, rows = stack.pop()
        low, high = window[:3] * 8, (window[:3] + window[3:]) * 8
        chosen = chosen[_crossing(rays, chosen, low - MARGIN, high + MARGIN)]
        if len(chosen) == 0:
            continue
        inside = rays.keys[rows]
        rows = rows[((inside >= low) & (inside < high)).all(axis=1)]
        if voxels_in(window) <= max_cells:
            yield window, rays.ends[chosen], rows
            continue
        axis = int(np.argmax(window[3:]))
        half = int(window[3 + axis]) // 2
        for start, size in ((half, int(window[3 + axis]) - half), (0, half)):
            part = window.copy()
            part[axis] += start
            part[3 + axis] = size
            stack.append((part, chosen, rows))


def _unpacked(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([packed >> 32, (packed >> 16) & 0xFFFF, packed & 0xFFFF], axis=1)


def _ways(keys: NDArray[np.int64], origin: NDArray[np.float32], resolution: float) -> NDArray[np.float64]:
    """From the origin to the float32 centers of voxels, as float32 differences."""
    centers = ((keys - KEY_ORIGIN + 0.5) * resolution).astype(np.float32)
    return (centers - origin).astype(np.float64)


def _crossing(
    rays: ScanRays, chosen: NDArray[np.int64], low: NDArray[np.floating], high: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """Which rays meet a box (slabs)."""
    ways = rays.tips[chosen] - rays.origin
    ways = np.where(np.abs(ways) < 1e-12, 1e-12, ways)
    first, second = (low - rays.origin) / ways, (high - rays.origin) / ways
    enter = np.minimum(first, second).max(axis=1)
    leave = np.maximum(first, second).min(axis=1)
    return np.maximum(enter, 0.0) <= np.minimum(leave, 1.0)
