# SPDX-License-Identifier: Apache-2.0
"""Compiled steps of the projection. Imported only when a costmap is made.

Columns come in tiles of 8 x 8, the footprint of a brick. A tile is given by its place (column, row of tiles) in the
grid; column c of tile t is entry 64 t + c of ``offsets``, with c = 8 · (y & 7) + (x & 7), and its occupied voxels are
``keys[offsets[i]:offsets[i + 1]]`` in any order. Heights are voxel keys in 24.8 fixed point, so that the same cells
give the same bits whatever else is computed with them.
"""

from __future__ import annotations

import numpy as np

from perception.numba_cache import inner, njit

TILE = 8
TILE_COLUMNS = TILE * TILE
FIXED = 256
"""Fixed point units per voxel."""
NO_HEIGHT = 1 << 28
"""Height of a cell without a surface."""
LETHAL = 254
RAW_LETHAL = 100
RAW_UNKNOWN = -1


@njit(cache=True, nogil=True, inline="always")
def _grow(box, x, y):
    box[0], box[1] = min(box[0], x), min(box[1], y)
    box[2], box[3] = max(box[2], x + 1), max(box[3], y + 1)


@njit(cache=True, nogil=True, inline="always")
def _empty_box():
    box = np.empty(4, np.int64)
    box[0], box[1], box[2], box[3] = NO_HEIGHT, NO_HEIGHT, -1, -1
    return box


@njit(cache=True, nogil=True)
def find_lowest(tiles, offsets, keys, labels, costs, lowest):
    """Lowest voxel of each column that may be ground: every class but the lethal ones.

    Args:
        tiles: (T, 2) int64 column and row of each tile.
        offsets: (64 T + 1,) int64.
        keys: (V,) int32 z keys.
        labels: (V,) int32, −1 for none.
        costs: (C + 1,) uint8 Nav2 cost of label − 1 first, then of each class.
        lowest: (H, W) int32 keys, changed in place.

    Returns:
        (4,) int64 box x0, y0, x1, y1 (ends excluded) around the cells that changed.
    """
    box = _empty_box()
    for t in range(tiles.shape[0]):
        for c in range(TILE_COLUMNS):
            x, y = tiles[t, 0] * TILE + (c & 7), tiles[t, 1] * TILE + (c >> 3)
            value = np.int32(NO_HEIGHT)
            for i in range(offsets[t * TILE_COLUMNS + c], offsets[t * TILE_COLUMNS + c + 1]):
                if costs[labels[i] + 1] < LETHAL and keys[i] < value:
                    value = keys[i]
            if value != lowest[y, x]:
                lowest[y, x] = value
                _grow(box, x, y)
    return box


@njit(cache=True, nogil=True)
def find_supported(lowest, x0, y0, x1, y1, supported):
    """Height that three columns of each 3 x 3 neighborhood reach.

    Args:
        lowest: (H, W) int32 keys.
        x0: box of the cells to renew.
        y0: see x0.
        x1: see x0, excluded.
        y1: see x0, excluded.
        supported: (H, W) int32 fixed point, changed in place.

    Returns:
        (4,) int64 box around the cells that changed.
    """
    height, width = lowest.shape
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    box = _empty_box()
    columns, rows = x1 - x0, y1 - y0
    if columns <= 0 or rows <= 0:
        return box
    # A border without surface all around: the loops below then have no branches.
    field = np.full((rows + 2, columns + 2), NO_HEIGHT, np.int32)
    left, top, right, bottom = max(x0 - 1, 0), max(y0 - 1, 0), min(x1 + 1, width), min(y1 + 1, height)
    field[top - y0 + 1 : bottom - y0 + 1, left - x0 + 1 : right - x0 + 1] = lowest[top:bottom, left:right]
    ordered = np.empty((3, columns + 2), np.int32)
    values = np.empty(columns, np.int32)
    for row in range(rows):
        _sort_columns(field[row], field[row + 1], field[row + 2], ordered)
        _third_smallest(ordered[0], ordered[1], ordered[2], values)
        for column in range(columns):
            value = np.int32(values[column] * FIXED) if values[column] < NO_HEIGHT else np.int32(NO_HEIGHT)
            if value != supported[y0 + row, x0 + column]:
                supported[y0 + row, x0 + column] = value
                _grow(box, x0 + column, y0 + row)
    return box


@inner
def _sort_columns(above, middle, below, ordered):
    """Order three rows column by column, the smallest first."""
    for i in range(above.shape[0]):
        low, high = min(above[i], middle[i]), max(above[i], middle[i])
        ordered[0, i] = min(low, below[i])
        ordered[1, i] = max(low, min(high, below[i]))
        ordered[2, i] = max(high, below[i])


@inner
def _third_smallest(first, second, third, values):
    """Third smallest of three neighboring ordered columns.

    Of two ordered lists a and b together the second smallest is min(a₂, b₂, max(a₁, b₁)) and the third smallest
    min(a₃, b₃, max(a₁, b₂), max(a₂, b₁)).
    """
    for i in range(values.shape[0]):
        a1, a2, a3 = first[i], second[i], third[i]
        b1, b2, b3 = first[i + 1], second[i + 1], third[i + 1]
        c1, c2, c3 = first[i + 2], second[i + 2], third[i + 2]
        m1 = min(a1, b1)
        m2 = min(min(a2, b2), max(a1, b1))
        m3 = min(min(a3, b3), min(max(a1, b2), max(a2, b1)))
        values[i] = min(min(m3, c3), min(max(m1, c2), max(m2, c1)))


@njit(cache=True, nogil=True)
def find_ground(supported, x0, y0, x1, y1, reach, slope, ground, dirty):
    """Local ground: the lowest supported height nearby plus what the steepest slope climbs on the way.

    The minimum of ``supported[v, u] + slope · (|x − u| + |y − v|)`` over all cells within ``reach`` columns and rows,
    by axis and in steps of 1, 2, 4, … (any distance is a sum of them, so the result is exact).

    Args:
        supported: (H, W) int32 fixed point.
        x0: box of the cells to renew.
        y0: see x0.
        x1: see x0, excluded.
        y1: see x0, excluded.
        reach: cells.
        slope: fixed point voxels per cell.
        ground: (H, W) int32 fixed point, changed in place.
        dirty: (H / 8, W / 8) uint8, set to 1 for tiles whose ground changed.
    """
    height, width = supported.shape
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    left, top = max(x0 - reach, 0), max(y0 - reach, 0)
    right, bottom = min(x1 + reach, width), min(y1 + reach, height)
    field = supported[top:bottom, left:right].copy()
    other = np.empty_like(field)
    done, step = 0, 1
    while done < reach:
        step = min(step, reach - done)
        _spread_rows(field, step, np.int32(step * slope), other)
        _spread_columns(other, step, np.int32(step * slope), field)
        done += step
        step = done + 1
    for y in range(y0, y1):
        for x in range(x0, x1):
            value = min(field[y - top, x - left], np.int32(NO_HEIGHT))
            if value != ground[y, x]:
                ground[y, x] = value
                dirty[y // TILE, x // TILE] = 1


@inner
def _spread_rows(source, step, rise, target):
    height = source.shape[0]
    for y in range(height):
        above, below = source[max(y - step, 0)], source[min(y + step, height - 1)]
        # At the border the row itself stands in for the one that is missing: with the rise it never is the lowest.
        if y < step:
            above = source[y]
        if y + step >= height:
            below = source[y]
        row, result = source[y], target[y]
        for x in range(row.shape[0]):
            result[x] = min(row[x], min(above[x], below[x]) + rise)


@inner
def _spread_columns(source, step, rise, target):
    height, width = source.shape
    for y in range(height):
        row, result = source[y], target[y]
        if width <= 2 * step:
            for x in range(width):
                left, right = row[x - step] if x >= step else row[x], row[x + step] if x + step < width else row[x]
                result[x] = min(row[x], min(left, right) + rise)
            continue
        for x in range(step):
            result[x] = min(row[x], row[x + step] + rise)
        left, middle, right = row[: width - 2 * step], row[step : width - step], row[2 * step :]
        inner = result[step : width - step]
        for x in range(width - 2 * step):
            inner[x] = min(middle[x], min(left[x], right[x]) + rise)
        for x in range(width - step, width):
            result[x] = min(row[x], row[x - step] + rise)


@njit(cache=True, nogil=True)
def mark_filled(tiles, offsets, filled):
    """Set ``filled`` (H / 8, W / 8) uint8 to whether a tile of the list has a voxel."""
    for t in range(tiles.shape[0]):
        filled[tiles[t, 1], tiles[t, 0]] = offsets[(t + 1) * TILE_COLUMNS] > offsets[t * TILE_COLUMNS]


@njit(cache=True, nogil=True)
def find_rest(tiles, dirty, unsettled, filled):
    """Tiles to classify besides those of the list, (K, 2) int64: with a voxel, and new ground or a cost in the balance.

    Args:
        tiles: (T, 2) int64, taken out.
        dirty: (H / 8, W / 8) uint8 whether the ground changed; overwritten.
        unsettled: (H / 8, W / 8) uint8, see ``classify``.
        filled: (H / 8, W / 8) uint8 whether there is a voxel: columns without one are unknown whatever the ground is.
    """
    for t in range(tiles.shape[0]):
        dirty[tiles[t, 1], tiles[t, 0]] = 2
    rows, columns = dirty.shape
    rest = np.empty((rows * columns, 2), np.int64)
    count = 0
    for row in range(rows):
        for column in range(columns):
            wanted = (dirty[row, column] == 1 or unsettled[row, column] != 0) and filled[row, column] != 0
            if wanted and dirty[row, column] != 2:
                rest[count, 0], rest[count, 1] = column, row
                count += 1
    return rest[:count]


@njit(cache=True, nogil=True)
def classify(tiles, offsets, keys, labels, probabilities, ground, costs, traversable, raw, limits, grid, unsettled):
    """Cost of each column of the tiles.

    Args:
        tiles: (T, 2) int64 column and row of each tile.
        offsets: (64 T + 1,) int64.
        keys: (V,) int32 z keys.
        labels: (V,) int32, −1 for none.
        probabilities: (V,) float32 of the label.
        ground: (H, W) int32 fixed point.
        costs: (C + 1,) uint8 Nav2 cost of label −1 first, then of each class.
        traversable: (C + 1,) bool in the same order.
        raw: (255,) int8 Nav2 cost to grid value.
        limits: step (fixed point), robot height (fixed point), least probability of a traversable label.
        grid: (H, W) int8, changed in place.
        unsettled: (H / 8, W / 8) uint8, set to whether a probability decides a cell of the tile: that may change
            without any change of a state or a best class.

    Returns:
        (4,) int64 box around the cells that changed.
    """
    box = _empty_box()
    for t in range(tiles.shape[0]):
        open_tile = False
        for c in range(TILE_COLUMNS):
            x, y = tiles[t, 0] * TILE + (c & 7), tiles[t, 1] * TILE + (c >> 3)
            start, end = offsets[t * TILE_COLUMNS + c], offsets[t * TILE_COLUMNS + c + 1]
            value = np.int8(RAW_UNKNOWN)
            if end > start:
                local = np.int64(ground[y, x])
                cost, asked = _column_cost(keys, labels, probabilities, start, end, local, costs, traversable, limits)
                open_tile |= asked
                if cost >= 0:
                    value = raw[cost]
            if value != grid[y, x]:
                grid[y, x] = value
                _grow(box, x, y)
        unsettled[tiles[t, 1], tiles[t, 0]] = open_tile
    return box


@njit(cache=True, nogil=True)
def _column_cost(keys, labels, probabilities, start, end, ground, costs, traversable, limits):
    """Nav2 cost of one column, −1 where it is unknown; and whether a probability had a say in it."""
    step, robot, least = limits
    asked = False
    if ground >= NO_HEIGHT:
        # No neighbor says where the ground is: the lowest thing seen here has to be it.
        ground = np.int64(keys[start:end].min()) * FIXED
    top = labeled = np.int64(-NO_HEIGHT)
    surface = np.int64(costs[0])
    through = np.int64(-1)
    blocked = False
    for i in range(start, end):
        height = np.int64(keys[i]) * FIXED - ground
        label = labels[i] + 1
        if height > robot:
            continue
        if height <= step:
            top = max(top, height)
            if label > 0 and height > labeled:
                labeled, surface = height, np.int64(costs[label])
            continue
        if not traversable[label]:
            return np.int64(LETHAL), False
        asked = True
        if probabilities[i] >= least:
            through = max(through, np.int64(costs[label]))
        else:
            blocked = True
    if blocked:
        return np.int64(LETHAL), asked
    # A floor that lies more than a step below the ground around it is a hole.
    if top < -step:
        return through, asked
    return max(surface, through), asked


@njit(cache=True, nogil=True)
def take_highest(grid, x_starts, x_ends, y_starts, y_ends):
    """Highest value of a block of cells for each cell of another grid; −1 outside.

    Args:
        grid: (h, w) int8.
        x_starts: (W,) int64 first column of each block.
        x_ends: (W,) int64 last column + 1.
        y_starts: (H,) int64.
        y_ends: (H,) int64.

    Returns:
        (H, W) int8.
    """
    height, width = grid.shape
    result = np.full((y_starts.shape[0], x_starts.shape[0]), RAW_UNKNOWN, np.int8)
    for j in range(y_starts.shape[0]):
        for v in range(max(y_starts[j], 0), min(y_ends[j], height)):
            for i in range(x_starts.shape[0]):
                for u in range(max(x_starts[i], 0), min(x_ends[i], width)):
                    result[j, i] = max(result[j, i], grid[v, u])
    return result


@njit(cache=True, nogil=True)
def above_ground(points, matrix, heights, place, bounds):
    """Points between two heights above the ground under them.

    Args:
        points: (N, 3) float32, camera frame.
        matrix: (3, 4) float64, map_T_camera.
        heights: (H, W) float32 ground, meters in the map frame, NaN where there is none; (0, 0) for none at all.
        place: x and y of the corner of ``heights`` in meters, cells per meter.
        bounds: step and robot height above the ground, height of the ground where ``heights`` has none; meters.

    Returns:
        (K, 3) float32, camera frame.
    """
    rows, columns = heights.shape
    left, bottom, cells = place
    low, high, base = bounds
    result = np.empty((points.shape[0], 3), np.float32)
    count = 0
    for i in range(points.shape[0]):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        height = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
        ground = base
        if rows > 0:
            u = np.floor((matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3] - left) * cells)
            v = np.floor((matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3] - bottom) * cells)
            if 0 <= u < columns and 0 <= v < rows:
                known = np.float64(heights[int(v), int(u)])
                ground = known if known == known else base
        if low < height - ground <= high:
            result[count, 0], result[count, 1], result[count, 2] = points[i, 0], points[i, 1], points[i, 2]
            count += 1
    return result[:count]
