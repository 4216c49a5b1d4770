# SPDX-License-Identifier: Apache-2.0
"""Compiled: a row of a depth image to points. Clouds and the octree both start here, so they agree in every bit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perception.numba_cache import inlined, inner
from perception.types import DepthScan


class DepthRows(NamedTuple):
    """A depth image and which of its pixels count; see types.DepthScan."""

    depth: np.ndarray
    """(H, W) float32, meters."""
    ray_x: np.ndarray
    """(ceil(W / stride),) float32 x at depth 1 of every stride-th column's ray."""
    ray_y: np.ndarray
    """(H,) float32."""
    moving: np.ndarray
    """(H, W) uint8, or (0, 0)."""
    limits: np.ndarray
    """(3,) float32: nearest range, farthest range, length of rays without return."""
    stride: int
    clear_infinite: bool
    clear_zero: bool


class PixelLabels(NamedTuple):
    """What is known of each pixel; see types.DepthScan. All are (0, 0) when there are no labels."""

    labels: np.ndarray
    """(H, W) int32."""
    confidence: np.ndarray
    """(H, W) float32."""
    unsure: np.ndarray
    """(H, W) uint8 or (0, 0)."""
    least: np.float32
    """labels with less confidence do not count"""


class RowBuffers(NamedTuple):
    """What one row gives, for rows of up to W pixels."""

    z: np.ndarray
    """(W,) float32, depth of every stride-th pixel."""
    plain: np.ndarray
    """(W,) int32, whether they are points."""
    points: np.ndarray
    """(3, W) float32, x, y and z in the optical frame."""
    clear: np.ndarray
    """(W, 3) float32, optical frame: ends of rays without return or beyond the farthest range."""
    movers: np.ndarray
    """(W, 3) float32, points on things that move."""
    columns: np.ndarray
    """(W,) int32, column in the image of each point."""


def depth_rows(scan: DepthScan) -> DepthRows:
    """A scan as the kernels take it."""
    limits = np.array([scan.min_range, scan.max_range, scan.empty_length], np.float32)
    ray_x = np.ascontiguousarray(scan.ray_x[:: scan.stride])
    clears = bool(scan.clear_no_return), bool(scan.clear_zero)
    return DepthRows(scan.depth, ray_x, scan.ray_y, scan.moving, limits, scan.stride, *clears)


def pixel_labels(scan: DepthScan) -> PixelLabels:
    """The labels of a scan as the kernels take them."""
    return PixelLabels(scan.labels, scan.confidence, scan.unsure, np.float32(scan.min_confidence))


def make_row_buffers(columns: int) -> RowBuffers:
    """Room for rows of so many pixels."""
    z, plain, where = np.empty(columns, np.float32), np.empty(columns, np.int32), np.empty(columns, np.int32)
    clear, movers = (np.empty((columns, 3), np.float32) for _ in range(2))
    return RowBuffers(z, plain, np.empty((3, columns), np.float32), clear, movers, where)


@inner
def _find_points(z, ray_x, square_y, nearest, farthest, plain):
    """Which pixels are points within the limits, and how many; without a branch, so that it vectorizes."""
    count = np.int32(0)
    for u in range(len(plain)):
        i = np.uint64(u)
        # Squares spare the roots.
        square = z[i] * z[i] * (ray_x[i] * ray_x[i] + square_y + np.float32(1.0))
        inside = (z[i] > 0) & (z[i] < np.inf) & (square <= farthest * farthest) & (square >= nearest * nearest)
        plain[i] = np.int32(inside)
        count += np.int32(inside)
    return count


@inner
def _set_points(rows, y, z, buffers, start, stop, count):
    """Store the points of neighboring pixels [start, stop) behind the ``count`` that are there."""
    points, ray_x, columns = buffers.points, rows.ray_x, buffers.columns
    to_x, to_y, to_z = points[0], points[1], points[2]
    for i in range(stop - start):
        pixel, place = np.uint64(start + i), np.uint64(count + i)
        to_x[place], to_y[place], to_z[place] = ray_x[pixel] * z[pixel], y * z[pixel], z[pixel]
    for i in range(stop - start):
        columns[np.uint64(count + i)] = np.int32((start + i) * rows.stride)


@inlined
def _set_point(points, place, x, y, z):
    points[place, 0], points[place, 1], points[place, 2] = x * z, y * z, z


@inner
def lift_row(rows, v, buffers):
    """Points, ends of clearing rays and moving points of row ``v``, into the buffers; how many of each."""
    columns, stride, y = len(rows.ray_x), rows.stride, rows.ray_y[v]
    nearest, farthest, empty_length = rows.limits[0], rows.limits[1], rows.limits[2]
    z, plain, line = buffers.z[:columns], buffers.plain[:columns], rows.depth[v]
    for u in range(columns):
        z[u] = line[np.uint64(u * stride)]
    found = _find_points(z, rows.ray_x, y * y, nearest, farthest, plain)
    if rows.moving.size > 0:
        for u in range(columns):
            plain[u] &= np.int32(rows.moving[v, u * stride] == 0)
    elif found == columns:
        none = np.int64(0)
        _set_points(rows, y, z, buffers, none, columns, none)
        return np.int64(columns), none, none
    n = m = p = u = np.int64(0)
    while u < columns:
        start = u
        while u < columns and plain[np.uint64(u)]:
            u += 1
        if u > start:
            _set_points(rows, y, z, buffers, start, u, n)
            n += u - start
        while u < columns and not plain[np.uint64(u)]:
            x, depth = rows.ray_x[u], z[u]
            square = x * x + y * y + np.float32(1.0)
            if not (depth > 0 and depth < np.inf):
                clears = (depth == np.inf and rows.clear_infinite) or (depth == 0 and rows.clear_zero)
                if empty_length > 0 and clears:
                    _set_point(buffers.clear, m, x, y, empty_length / np.sqrt(square))
                    m += 1
            elif depth * depth * square > farthest * farthest:
                _set_point(buffers.clear, m, x, y, farthest / np.sqrt(square))
                m += 1
            elif depth * depth * square >= nearest * nearest:
                _set_point(buffers.movers, p, x, y, depth)
                p += 1
            u += 1
    return n, m, p


@inner
def pick_row_labels(known, v, columns, count, labels, confidence):
    """Label and confidence of the points of row ``v`` in these columns; −1 and 0 where the label does not count."""
    ids, sureness = known.labels[v], known.confidence[v]
    for i in range(count):
        u = np.uint64(columns[i])
        sure = (ids[u] >= 0) & (sureness[u] >= known.least)
        labels[i] = ids[u] if sure else np.int32(-1)
        confidence[i] = sureness[u] if sure else np.float32(0.0)
    if known.unsure.size > 0:
        unsure = known.unsure[v]
        for i in range(count):
            if unsure[np.uint64(columns[i])]:
                labels[i], confidence[i] = np.int32(-1), np.float32(0.0)
