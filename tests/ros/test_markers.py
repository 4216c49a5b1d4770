# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

pytest.importorskip("visualization_msgs", reason="needs ROS 2 (visualization_msgs)")

from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from visualization_msgs.msg import Marker, MarkerArray

from perception.errors import InputError
from perception.ros.markers import serialize_cubes


def test_cubes_are_grouped_by_name_and_size():
    centers = np.array([[0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9.0]])
    sizes = np.array([0.1, 0.2, 0.1, 0.1])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [51, 102, 153]], np.uint8)
    data = serialize_cubes(centers, sizes, colors, "map", 5_000_000_007, np.array([1, 0, 1, 0]), ("floor", "wall"), 0.5)
    clear, *cubes = deserialize_message(data, MarkerArray).markers
    assert clear.action == Marker.DELETEALL
    assert all((m.type, m.action, m.header.frame_id) == (Marker.CUBE_LIST, Marker.ADD, "map") for m in cubes)
    assert all((m.header.stamp.sec, m.header.stamp.nanosec, m.pose.orientation.w) == (5, 7, 1.0) for m in cubes)
    assert [(m.ns, m.id, m.scale.x, m.scale.z) for m in cubes] == [
        ("floor", 0, 0.1, 0.1),
        ("floor", 1, 0.2, 0.2),
        ("wall", 0, 0.1, 0.1),
    ]
    assert [[(p.x, p.y, p.z) for p in m.points] for m in cubes] == [[(7, 8, 9)], [(1, 2, 3)], [(0, 0, 0), (4, 5, 6)]]
    color = cubes[0].colors[0]
    assert np.allclose((color.r, color.g, color.b, color.a), (0.2, 0.4, 0.6, 0.5))


def test_no_cubes_clear_the_display():
    data = serialize_cubes(np.empty((0, 3)), np.empty(0), np.empty((0, 3), np.uint8), "map", 0)
    assert [m.action for m in deserialize_message(data, MarkerArray).markers] == [Marker.DELETEALL]


@given(
    count=st.integers(0, 30),
    names=st.lists(st.text("aé_", max_size=9), min_size=1, max_size=4, unique=True),
    frame=st.sampled_from(["", "m", "map", "odom", "öde"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_markers_read_back_whatever_their_alignment(count, names, frame, seed):
    rng = np.random.default_rng(seed)
    centers, sizes = rng.normal(size=(count, 3)), rng.choice([0.1, 0.2, 0.4], count)
    colors, groups = rng.integers(0, 256, (count, 3), dtype=np.uint8), rng.integers(0, len(names), count)
    data = serialize_cubes(centers, sizes, colors, frame, seed, groups, names)
    message = deserialize_message(data, MarkerArray)
    # Bytes of padding are anything in rclpy's own stream, so lengths are compared and values read back.
    assert len(serialize_message(message)) == len(data)
    for marker in message.markers[1:]:
        members = [i for i in range(count) if names[groups[i]] == marker.ns and sizes[i] == marker.scale.y]
        shown = [(p.x, p.y, p.z) for p in marker.points]
        assert shown == [tuple(center) for center in centers[members]]
        assert [round(c.g * 255) for c in marker.colors] == colors[members, 1].tolist()
    assert sum(len(marker.points) for marker in message.markers) == count


def test_arrays_of_other_lengths_and_groups_without_name_are_refused():
    centers, sizes, colors = np.zeros((2, 3)), np.ones(2), np.zeros((2, 3), np.uint8)
    with pytest.raises(InputError, match=r"got \(2, 3\), \(3,\)"):
        serialize_cubes(centers, np.ones(3), colors, "map", 0)
    with pytest.raises(InputError, match="expected groups 0 to 0, got 0 to 1"):
        serialize_cubes(centers, sizes, colors, "map", 0, np.array([0, 1]))
