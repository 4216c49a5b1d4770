# SPDX-License-Identifier: Apache-2.0
"""Conversions between ROS messages and maps: occupancy grids, their updates, and octrees.

The same rules hold as in :mod:`perception.ros.conversions`: reading needs attributes alone, writing shares the array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nav_msgs.msg import OccupancyGrid
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from perception.costmap.grid import GridGeometry
from perception.errors import InputError
from perception.image_codec import as_bytes
from perception.ros.conversions import make_header, records_to_point_cloud2
from perception.types import CostGrid


def cost_grid_to_occupancy_grid(grid: CostGrid, frame_id: str, stamp_ns: int) -> OccupancyGrid:
    """A cost grid to nav_msgs/OccupancyGrid: raw costs 0–100, −1 unknown."""
    message = OccupancyGrid(header=make_header(frame_id, stamp_ns))
    message.info.map_load_time = message.header.stamp
    message.info.resolution = float(grid.resolution)
    message.info.height, message.info.width = grid.data.shape
    message.info.origin.position.x, message.info.origin.position.y = (float(value) for value in grid.origin)
    message._data = np.ascontiguousarray(grid.data, np.int8).reshape(-1)  # pyright: ignore[reportAttributeAccessIssue]
    return message


def cost_grid_to_update(grid: CostGrid, rectangle: tuple[int, int, int, int], frame_id: str, stamp_ns: int) -> Any:
    """A part of a cost grid to map_msgs/OccupancyGridUpdate.

    Args:
        grid: the whole grid.
        rectangle: (column, row, columns, rows) of the part.
        frame_id: of the grid.
        stamp_ns: nanoseconds.

    Raises:
        InputError: the rectangle is empty or not within the grid.
    """
    from map_msgs.msg import OccupancyGridUpdate

    x, y, width, height = rectangle
    rows, columns = grid.data.shape
    if not (0 <= x < x + width <= columns and 0 <= y < y + height <= rows):
        raise InputError(f"grid update: expected a part of {columns}x{rows} cells, got {width}x{height} at ({x}, {y})")
    message = OccupancyGridUpdate(header=make_header(frame_id, stamp_ns), x=x, y=y, width=width, height=height)
    message._data = np.ascontiguousarray(grid.data[y : y + height, x : x + width], np.int8).reshape(-1)  # pyright: ignore[reportAttributeAccessIssue]
    return message


def occupancy_grid_to_cost_grid(message: Any) -> CostGrid:
    """nav_msgs/OccupancyGrid to a cost grid; values outside of 0–100 are unknown, as the message defines.

    Raises:
        InputError: the size contradicts the data, or the grid is rotated against its frame.
    """
    info, origin = message.info, _origin_of(message.info)
    cells = as_bytes(message.data).view(np.int8)
    height, width = int(info.height), int(info.width)
    if height * width == 0 or cells.size != height * width:
        raise InputError(f"occupancy grid: expected {width}x{height} = {width * height} cells, got {cells.size}")
    costs = np.where((cells >= 0) & (cells <= 100), cells, np.int8(-1)).reshape(height, width)
    return CostGrid(costs, float(info.resolution), origin)


def grid_geometry_of(info: Any) -> GridGeometry:
    """nav_msgs/MapMetaData to the place of the cells.

    Raises:
        InputError: no cells, too many, no resolution, or a grid that is rotated against its frame.
    """
    return GridGeometry(float(info.resolution), int(info.width), int(info.height), _origin_of(info))


def values_to_point_cloud2(
    points: NDArray[np.floating], values: NDArray[np.floating], frame_id: str, stamp_ns: int
) -> PointCloud2:
    """(N, 3) points, meters, and (N,) values to sensor_msgs/PointCloud2 with x, y, z and intensity."""
    records = np.empty(len(points), [(name, "<f4") for name in ("x", "y", "z", "intensity")])
    for axis, name in enumerate("xyz"):
        records[name] = points[:, axis]
    records["intensity"] = values
    return records_to_point_cloud2(records, frame_id, stamp_ns)


def _origin_of(info: Any) -> tuple[float, float]:
    q = info.origin.orientation
    # Some publishers leave the quaternion at zero; that is no rotation either.
    if max(abs(q.x), abs(q.y), abs(q.z)) > 1e-6 or not np.isfinite((q.x, q.y, q.z, q.w)).all():
        raise InputError(f"occupancy grid: expected an origin without rotation, got {(q.x, q.y, q.z, q.w)}")
    origin = float(info.origin.position.x), float(info.origin.position.y)
    if not np.isfinite(origin).all():
        raise InputError(f"occupancy grid: expected a finite origin, got {origin}")
    return origin


def octree_bytes_to_octomap(
    data: bytes, tree_type: str, resolution: float, binary: bool, frame_id: str, stamp_ns: int
) -> Any:
    """The data section of a .bt or .ot file to octomap_msgs/Octomap.

    Args:
        data: the nodes, without the file's header.
        tree_type: OctoMap class, such as "OcTree" or "ColorOcTree".
        resolution: meters.
        binary: data came from the binary form.
        frame_id: frame of the map.
        stamp_ns: stamp of the last scan, nanoseconds.
    """
    from octomap_msgs.msg import Octomap

    message = Octomap(header=make_header(frame_id, stamp_ns), binary=binary, id=tree_type, resolution=float(resolution))
    message._data = as_bytes(data).view(np.int8)  # pyright: ignore[reportAttributeAccessIssue]
    return message


def octomap_to_bytes(message: Any) -> NDArray[np.uint8]:
    """The nodes of an octomap_msgs/Octomap: the data section of a .bt or .ot file."""
    return as_bytes(message.data)
