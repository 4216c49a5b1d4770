# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over the pixels of a depth image. Imported only when a cloud is made."""

from __future__ import annotations

import numpy as np

from perception.depth_kernels import lift_row, pick_row_labels
from perception.numba_cache import inner, njit


@njit(cache=True, nogil=True)
def far_side_of_edges(depth, ratio, radius):
    """Pixels that lie behind a depth edge.

    A pixel is behind an edge when one of its four neighbors has a measured depth that is nearer by more than
    ``ratio`` of the nearer depth. A wider ``radius`` adds the surroundings that are as far as that pixel or farther.

    Args:
        depth: (H, W) float32, meters; neighbors that are not positive and finite are no edge.
        ratio: share of the nearer depth.
        radius: 1 or more, pixels.

    Returns:
        (H, W) uint8, 1 behind an edge.
    """
    height, width = depth.shape
    mask = np.zeros((height, width), np.uint8)
    scale = np.float32(1.0 + ratio)
    for v in range(height):
        row, behind = depth[v], mask[v]
        if v > 0:
            _mark_behind(row, depth[v - 1], scale, behind)
        if v + 1 < height:
            _mark_behind(row, depth[v + 1], scale, behind)
        _mark_behind(row[1:], row[:-1], scale, behind[1:])
        _mark_behind(row[:-1], row[1:], scale, behind[:-1])
    if radius > 1:
        _widen_to_the_far_side(depth, scale, radius - 1, mask)
    return mask


@inner
def _mark_behind(row, neighbors, scale, behind):
    """Set where a pixel is behind its neighbor; bitwise, so that the loop has no branches, and false for NaN."""
    for u in range(row.shape[0]):
        z, near = row[u], neighbors[u]
        behind[u] |= np.uint8((near > 0) & (z > near * scale) & (z < np.inf))


@inner
def _widen_to_the_far_side(depth, scale, margin, mask):
    height, width = depth.shape
    for v in range(height):
        for u in range(width):
            if mask[v, u] != 1:
                continue
            for y in range(max(v - margin, 0), min(v + margin + 1, height)):
                for x in range(max(u - margin, 0), min(u + margin + 1, width)):
                    # 2 marks what was added here, so that it does not spread again.
                    if mask[y, x] == 0 and depth[y, x] * scale >= depth[v, u]:
                        mask[y, x] = 2


@njit(cache=True, nogil=True)
def find_moving(labels, confidence, moves, least):
    """Pixels of classes that move.

    Args:
        labels: (H, W) int32, −1 for none.
        confidence: (H, W) float32.
        moves: (C + 1,) uint8, label −1 first, then each class.
        least: float32, pixels with less confidence do not count.

    Returns:
        (H, W) uint8, and whether there is any.
    """
    height, width = labels.shape
    mask = np.empty((height, width), np.uint8)
    found = np.uint8(0)
    for v in range(height):
        for u in range(width):
            moving = moves[labels[v, u] + 1] & np.uint8(confidence[v, u] >= least)
            mask[v, u] = moving
            found |= moving
    return mask, found != 0


@njit(cache=True, nogil=True)
def lift_pixels(rows, known, buffers):
    """Turn pixels into labeled points and ends of clearing rays in one pass over the image.

    Args:
        rows: the image, see depth_kernels.DepthRows.
        known: its labels, see depth_kernels.PixelLabels.
        buffers: for its rows.

    Returns:
        points (N, 3) float32, pixels (N,) int32 row-major, labels (N,) int32, −1 for none, confidence (N,) float32, 0
        there, clear points (M, 3) float32, moving points (P, 3) float32.
    """
    height, width = rows.depth.shape
    capacity = ((height + rows.stride - 1) // rows.stride) * len(rows.ray_x)
    points, clear = np.empty((capacity, 3), np.float32), np.empty((capacity, 3), np.float32)
    movers = np.empty((capacity if rows.moving.size > 0 else 0, 3), np.float32)
    pixels = np.empty(capacity, np.int32)
    labels, confidence = np.full(capacity, -1, np.int32), np.zeros(capacity, np.float32)
    n = m = p = 0
    for v in range(0, height, rows.stride):
        found, empty, moved = lift_row(rows, v, buffers)
        for axis in range(3):
            points[n : n + found, axis] = buffers.points[axis, :found]
        for i in range(found):
            pixels[n + i] = v * width + buffers.columns[i]
        if known.labels.size > 0:
            pick_row_labels(known, v, buffers.columns, found, labels[n:], confidence[n:])
        clear[m : m + empty] = buffers.clear[:empty]
        movers[p : p + moved] = buffers.movers[:moved]
        n, m, p = n + found, m + empty, p + moved
    return points[:n], pixels[:n], labels[:n], confidence[:n], clear[:m], movers[:p]


@njit(cache=True, nogil=True)
def pick_colors(pixels, color):
    """(N, 3) uint8 color of each point, of (H, W, 3) uint8."""
    flat = color.reshape(-1, 3)
    picked = np.empty((pixels.shape[0], 3), np.uint8)
    for i in range(pixels.shape[0]):
        pixel = pixels[i]
        picked[i, 0], picked[i, 1], picked[i, 2] = flat[pixel, 0], flat[pixel, 1], flat[pixel, 2]
    return picked


@njit(cache=True, nogil=True)
def warp_depth(depth, homography, offset, height, width):
    """Forward-warp a depth image into another camera, nearest surface first.

    Each pixel is drawn as the bounding box of its four corners, so that a coarser image leaves no holes.

    Args:
        depth: (h, w) float32, meters: positive, +inf for no return, 0 for no measurement, NaN and −inf are dropped.
        homography: (3, 3) float64, K_color · R · K_depth⁻¹: pixel of the depth image to that of a point far away.
        offset: (3,) float64, K_color · t: its shift at depth 1.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (height, width) float32: depth along the color camera's axis; where no surface falls, +inf or 0 of the rays
        in that direction; NaN where nothing falls.
    """
    rows, columns = depth.shape
    result = np.full((height, width), np.nan, np.float32)
    for v in range(rows):
        for u in range(columns):
            z = np.float64(depth[v, u])
            measured = z > 0 and z < np.inf
            if not (measured or z == np.inf or z == 0):
                continue
            # Without a surface only the direction is known: the offset has no part in it.
            near, shift = (z, 1.0) if measured else (1.0, 0.0)
            x0, x1, y0, y1 = _pixel_box(u, v, near, shift, homography, offset, height, width)
            value = np.float32(z)
            if measured:
                axis = homography[2]
                value = np.float32((axis[0] * u + axis[1] * v + axis[2]) * z + offset[2])
            for y in range(y0, y1 + 1):
                for x in range(x0, x1 + 1):
                    old = result[y, x]
                    if measured:
                        if not (old > 0 and old <= value):
                            result[y, x] = value
                    elif np.isnan(old) or (old == 0 and value > 0):
                        result[y, x] = value
    return result


@njit(cache=True, nogil=True, inline="always")
def _pixel_box(u, v, z, shift, homography, offset, height, width):
    """First and last column and row whose centers a pixel covers in the other image; empty when behind the camera."""
    # A tenth of a pixel closes the seams between the boxes of a slanted surface.
    margin = 0.1
    left, right, top, bottom, nearest = 1e6, -1e6, 1e6, -1e6, 1e6
    for corner in range(4):
        x, y = u - 0.5 + (corner & 1), v - 0.5 + (corner >> 1)
        w = (homography[2, 0] * x + homography[2, 1] * y + homography[2, 2]) * z + shift * offset[2]
        scale = 1.0 / w if w > 0.01 else 0.0
        a = ((homography[0, 0] * x + homography[0, 1] * y + homography[0, 2]) * z + shift * offset[0]) * scale
        b = ((homography[1, 0] * x + homography[1, 1] * y + homography[1, 2]) * z + shift * offset[1]) * scale
        left, right, top, bottom = min(left, a), max(right, a), min(top, b), max(bottom, b)
        nearest = min(nearest, w)
    if nearest <= 0.01:
        return 0, -1, 0, -1
    left, top = max(left - margin, 0.0), max(top - margin, 0.0)
    right, bottom = min(right + margin, width - 1.0), min(bottom + margin, height - 1.0)
    if right < left or bottom < top:
        return 0, -1, 0, -1
    return int(np.ceil(left)), int(np.floor(right)), int(np.ceil(top)), int(np.floor(bottom))
