# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

pytest.importorskip("nav_msgs", reason="needs ROS 2 (nav_msgs)")

from rclpy.serialization import deserialize_message, serialize_message

from perception.errors import InputError
from perception.ros import map_conversions
from perception.types import CostGrid

# Row 0 is the lowest y.
GRID = CostGrid(np.array([[0, 10, 100], [-1, 50, 99]], np.int8), 0.05, (-1.5, 2.0))


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def test_cost_grid_is_sent_row_by_row_with_its_geometry():
    message = over_the_wire(map_conversions.cost_grid_to_occupancy_grid(GRID, "map", 3_000_000_001))
    assert (message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec) == ("map", 3, 1)
    assert (message.info.width, message.info.height) == (3, 2)
    assert message.info.resolution == pytest.approx(0.05)
    assert (message.info.origin.position.x, message.info.origin.position.y) == (-1.5, 2.0)
    assert message.info.origin.orientation.w == 1.0
    assert list(message.data) == [0, 10, 100, -1, 50, 99]


def test_occupancy_grid_reads_back_and_undefined_values_are_unknown():
    message = map_conversions.cost_grid_to_occupancy_grid(GRID, "map", 0)
    message._data = np.array([0, 101, 100, -1, -128, 127], np.int8)
    grid = map_conversions.occupancy_grid_to_cost_grid(over_the_wire(message))
    assert grid.data.tolist() == [[0, -1, 100], [-1, -1, -1]]
    assert grid.origin == GRID.origin and grid.resolution == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("info.width", 4, "4x2 = 8 cells, got 6"),
        ("info.height", 2**32 - 1, "got 6"),
        ("info.resolution", float("nan"), "resolution"),
        ("info.resolution", 0.0, "resolution"),
        ("info.origin.orientation.z", 0.5, "without rotation"),
        ("info.origin.orientation.w", float("nan"), "without rotation"),
        ("info.origin.position.x", float("inf"), "finite origin"),
    ],
)
def test_contradicting_occupancy_grids_are_refused(path, value, words):
    message = map_conversions.cost_grid_to_occupancy_grid(GRID, "map", 0)
    *parents, name = path.split(".")
    target = message
    for parent in parents:
        target = getattr(target, parent)
    setattr(target, name, value)
    with pytest.raises(InputError, match=words):
        map_conversions.occupancy_grid_to_cost_grid(message)


def test_update_holds_the_rectangle():
    pytest.importorskip("map_msgs", reason="needs map_msgs: pip install ./src/ros_msgs")
    message = over_the_wire(map_conversions.cost_grid_to_update(GRID, (1, 0, 2, 2), "map", 0))
    assert (message.x, message.y, message.width, message.height) == (1, 0, 2, 2)
    assert list(message.data) == [10, 100, 50, 99]


@pytest.mark.parametrize("rectangle", [(0, 0, 4, 1), (-1, 0, 1, 1), (0, 1, 1, 2), (1, 1, 0, 1)])
def test_update_outside_of_the_grid_is_refused(rectangle):
    pytest.importorskip("map_msgs", reason="needs map_msgs: pip install ./src/ros_msgs")
    with pytest.raises(InputError, match="expected a part of 3x2 cells"):
        map_conversions.cost_grid_to_update(GRID, rectangle, "map", 0)


def test_octree_bytes_travel_unchanged():
    pytest.importorskip("octomap_msgs", reason="needs octomap_msgs: pip install ./src/ros_msgs")
    data = bytes(range(256))
    message = over_the_wire(map_conversions.octree_bytes_to_octomap(data, "ColorOcTree", 0.05, False, "map", 9))
    assert (message.id, message.resolution, message.binary, message.header.frame_id) == (
        "ColorOcTree",
        0.05,
        False,
        "map",
    )
    assert map_conversions.octomap_to_bytes(message).tobytes() == data
