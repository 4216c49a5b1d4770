# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("tf2_msgs", reason="needs tf2_msgs: pip install ./src/ros_msgs")

from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from perception.errors import TransformError
from perception.geometry import Transform
from perception.ros.conversions import transform_to_transform_stamped
from perception.ros.transforms import TransformListener
from perception.tf_buffer import TransformBuffer

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def shifted(x: float) -> Transform:
    return Transform.from_translation_quaternion((x, 0, 0), (0, 0, 0, 1))


@pytest.fixture
def listening(nodes):
    buffer = TransformBuffer()
    listener = TransformListener(nodes.asking, buffer)
    yield nodes, buffer, listener
    listener.destroy()


@pytest.fixture
def publisher(listening):
    nodes, _, _ = listening
    made = nodes.offering.create_publisher(TFMessage, "/tf", 10)
    assert nodes.spin_until(lambda: made.get_subscription_count() == 1)
    yield made
    nodes.offering.destroy_publisher(made)


def test_moving_transforms_are_interpolated_at_the_asked_stamp(listening, publisher):
    nodes, buffer, _ = listening
    for stamp_ns, x in ((1_000_000_000, 1.0), (2_000_000_000, 3.0)):
        publisher.publish(TFMessage(transforms=[transform_to_transform_stamped(shifted(x), "map", "base", stamp_ns)]))

    def arrived() -> bool:
        try:
            return bool(buffer.lookup("map", "base", 1_250_000_000))
        except TransformError:
            return False

    assert nodes.spin_until(arrived)
    assert buffer.lookup("map", "base", 1_250_000_000).translation.tolist() == [1.5, 0, 0]


def test_static_transforms_published_before_the_listener_started_arrive(nodes):
    publisher = nodes.offering.create_publisher(TFMessage, "/tf_static", LATCHED)
    publisher.publish(TFMessage(transforms=[transform_to_transform_stamped(shifted(0.5), "base", "camera", 0)]))
    buffer = TransformBuffer()
    listener = TransformListener(nodes.asking, buffer)
    assert nodes.spin_until(lambda: "camera" in buffer.frames())
    # Static: good at any time.
    assert buffer.lookup("base", "camera", 123456789).translation.tolist() == [0.5, 0, 0]
    listener.destroy()
    nodes.offering.destroy_publisher(publisher)


def test_senseless_transforms_are_dropped_and_counted_and_the_good_ones_kept(listening, publisher):
    nodes, buffer, listener = listening
    not_unit = TransformStamped(child_frame_id="a")
    not_unit.header.frame_id = "map"
    not_unit.transform.rotation.w = 2.0
    not_finite = transform_to_transform_stamped(shifted(0), "map", "b", 0)
    not_finite.transform.translation.x = float("nan")
    itself = transform_to_transform_stamped(shifted(0), "c", "c", 0)
    good = transform_to_transform_stamped(shifted(2.0), "map", "base", 7)
    loop = transform_to_transform_stamped(shifted(2.0), "base", "map", 7)
    publisher.publish(TFMessage(transforms=[not_unit, not_finite, itself, good, loop]))
    assert nodes.spin_until(lambda: listener.rejected == 4)
    assert listener.last_error.startswith("map to base: ") and "loop" in listener.last_error
    assert buffer.frames() == {"map", "base"}
    assert np.array_equal(buffer.lookup("map", "base", 7).translation, (2, 0, 0))


def test_destroyed_listener_unsubscribes(nodes):
    before = nodes.asking.count_subscribers("/tf")
    listener = TransformListener(nodes.asking, TransformBuffer())
    assert nodes.spin_until(lambda: nodes.asking.count_subscribers("/tf") == before + 1)
    listener.destroy()
    assert nodes.spin_until(lambda: nodes.asking.count_subscribers("/tf") == before)
