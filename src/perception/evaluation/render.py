# SPDX-License-Identifier: Apache-2.0
"""Draws voxels into images without a window or a GPU: orthographic, with a z-buffer.

All leaves of one size look the same under an orthographic view, so each size is drawn once, as a stamp of pixels with
depth and shade, and the stamp is copied to every leaf. The result is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.numba_cache import njit

BACKGROUND = (250, 250, 252)
STRAY = 0.15
"""Voxels may stand out from 99 % of the others by this share of their larger extent; what is farther away is cut."""
FACE_SHADES = (0.72, 0.86, 1.0)
"""Brightness of faces across x, y and z: the top is the brightest."""


@dataclass(frozen=True)
class View:
    """An orthographic view.

    Attributes:
        azimuth_deg: where the eye is, counterclockwise from the map's x axis seen from above.
        elevation_deg: above the horizon; 90 looks straight down with y up.
        width: pixels.
        height: pixels.
    """

    azimuth_deg: float = -60.0
    elevation_deg: float = 35.0
    width: int = 1200
    height: int = 900

    def axes(self) -> NDArray[np.float64]:
        """(3, 3) rows: right, down and away from the eye, in map coordinates."""
        azimuth, elevation = np.radians(self.azimuth_deg), np.radians(self.elevation_deg)
        toward = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        return np.stack([right, np.cross(right, toward), -toward])


TOP_VIEW = View(azimuth_deg=-90.0, elevation_deg=90.0)


def render_voxels(
    centers: NDArray[Any], sizes: NDArray[Any], colors: NDArray[np.uint8], view: View
) -> tuple[NDArray[np.uint8], float]:
    """Draw cubes.

    Args:
        centers: (N, 3) meters.
        sizes: (N,) edges, meters.
        colors: (N, 3) uint8 RGB.
        view: from where; the cubes are fitted into it.

    Returns:
        The (H, W, 3) uint8 picture and its scale in pixels per meter.
    """
    image = np.empty((view.height, view.width, 3), np.uint8)
    image[:] = BACKGROUND
    if len(centers) == 0:
        return image, 1.0
    axes = view.axes()
    screen = np.asarray(centers, np.float64) @ axes.T
    half = float(np.max(sizes)) / 2 * np.abs(axes).sum(axis=1)
    # A few stray voxels far away must not shrink the rest to a dot.
    low = np.percentile(screen, 0.5, axis=0, method="lower")
    high = np.percentile(screen, 99.5, axis=0, method="higher")
    reach = STRAY * float((high - low)[:2].max())
    low, high = np.maximum(screen.min(axis=0), low - reach) - half, np.minimum(screen.max(axis=0), high + reach) + half
    scale = 0.94 * min(view.width / (high[0] - low[0]), view.height / (high[1] - low[1]))
    offset = np.array([view.width, view.height]) / 2 - scale * (low[:2] + high[:2]) / 2
    depth = np.full((view.height, view.width), np.inf)
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        pixels = screen[chosen, :2] * scale + offset
        _stamp(image, depth, pixels, screen[chosen, 2], colors[chosen], *_stamp_of(axes, float(size), scale))
    return image, float(scale)


def _stamp_of(axes: NDArray[Any], size: float, scale: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Pixels of one cube around its center: (P, 2) offsets, (P,) depth and (P,) shade."""
    reach = int(np.ceil(size * scale * 0.9)) + 1
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    # The line of sight through a pixel enters the cube at the last of the three slabs that it meets.
    enter = np.full(u.shape, -np.inf)
    leave = np.full(u.shape, np.inf)
    face = np.zeros(u.shape, np.int64)
    for axis in range(3):
        start = u / scale * axes[0, axis] + v / scale * axes[1, axis]
        direction = axes[2, axis]
        if abs(direction) < 1e-9:
            leave = np.where(np.abs(start) > size / 2, -np.inf, leave)
            continue
        near = (-np.sign(direction) * size / 2 - start) / direction
        far = (np.sign(direction) * size / 2 - start) / direction
        face = np.where(near > enter, axis, face)
        enter, leave = np.maximum(enter, near), np.minimum(leave, far)
    shade = np.asarray(FACE_SHADES)[face]
    inside = enter < leave
    inside[reach, reach] = True
    return _with_rim(u, v, inside, enter, shade, size)


def _with_rim(
    u: NDArray[Any], v: NDArray[Any], inside: NDArray[Any], depth: NDArray[Any], shade: NDArray[Any], size: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Add a rim of one pixel, farther away than the cube: it shows only in the seams that rounding leaves."""
    parts = [(u[inside], v[inside], depth[inside], shade[inside])]
    # The corners as well: four voxels that meet in a point would leave a hole there.
    for du, dv in [(du, dv) for du in (-1, 0, 1) for dv in (-1, 0, 1) if du or dv]:
        rim = inside & ~np.roll(inside, (-dv, -du), axis=(0, 1))
        parts.append((u[rim] + du, v[rim] + dv, depth[rim] + size / 2, shade[rim]))
    columns, rows, depths, shades = (np.concatenate(part) for part in zip(*parts, strict=True))
    return np.stack([columns, rows], axis=1), depths, shades


@njit(cache=True, nogil=True)
def _stamp(image, depth, pixels, distances, colors, offsets, stamp_depth, stamp_shade):
    height, width = depth.shape
    for i in range(len(pixels)):
        x, y = int(np.floor(pixels[i, 0] + 0.5)), int(np.floor(pixels[i, 1] + 0.5))
        for j in range(len(offsets)):
            u, v = x + offsets[j, 0], y + offsets[j, 1]
            if 0 <= u < width and 0 <= v < height:
                z = distances[i] + stamp_depth[j]
                if z < depth[v, u]:
                    depth[v, u] = z
                    for c in range(3):
                        image[v, u, c] = np.uint8(colors[i, c] * stamp_shade[j])
