# SPDX-License-Identifier: Apache-2.0
"""simulation_node on live topics, in the scene of boxes, which needs no graphics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("vision_msgs.msg", reason="needs vision_msgs")

from nav_msgs.msg import Odometry
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import LabelInfo

from perception.errors import MissingDependencyError
from perception.ros import simulation_node
from perception.ros.conversions import (
    camera_info_to_camera,
    image_to_color,
    image_to_depth,
    image_to_labels,
    transform_stamped_to_transform,
)
from perception.ros.node import latched_qos
from perception.ros.simulation_config import SimulationConfig
from perception.ros.simulation_node import SimulationNode, there_and_back
from perception.simulation import requirements
from perception.simulation.scenarios import MOVING, plan

SMALL = {"simulation.scene": "boxes", "simulation.width": 80, "simulation.height": 60, "simulation.drift": 0.1}
TOPICS = {"image": Image, "depth": Image, "camera_info": CameraInfo, "ground_truth/labels": Image, "odom": Odometry}


@pytest.fixture
def start(nodes):
    """Makes a configured simulation node."""
    started = []

    def make(**parameters):
        overrides = [Parameter(name, value=value) for name, value in {**SMALL, **parameters}.items()]
        node = SimulationNode(context=nodes.offering.context, parameter_overrides=overrides)
        nodes.executor.add_node(node)
        started.append(node)
        return node, node.trigger_configure()

    yield make
    for node in started:
        nodes.executor.remove_node(node)
        node.destroy_node()


def record(nodes, node, frames):
    """Messages by topic, from activation until there are so many of each."""
    received = {name: [] for name in (*TOPICS, "/tf")}
    subscriptions = [
        nodes.asking.create_subscription(kind, name, received[name].append, 50)
        for name, kind in (*TOPICS.items(), ("/tf", TFMessage))
    ]
    # Whoever comes late misses frames: all are known before the first is drawn.
    assert nodes.spin_until(lambda: all(node.count_subscribers(name) for name in received))
    node.trigger_activate()
    assert nodes.spin_until(lambda: all(len(messages) >= frames for messages in received.values()))
    node.trigger_deactivate()
    for subscription in subscriptions:
        nodes.asking.destroy_subscription(subscription)
    return received


def by_stamp(messages):
    return {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in messages}


def test_frames_are_those_of_the_drive_with_poses_at_their_stamps(nodes, start):
    node, _ = start()
    received = record(nodes, node, 3)
    config = SimulationConfig(scene="boxes", width=80, height=60, drift=0.1)
    drive = plan(config.scene_options(), config.drive_options())
    transforms = {}
    for message in received["/tf"]:
        for entry in message.transforms:
            stamp = entry.header.stamp.sec, entry.header.stamp.nanosec
            transforms[stamp, entry.child_frame_id] = transform_stamped_to_transform(entry)
    depths, labels, infos, odometry = (
        by_stamp(received[name]) for name in ("depth", "ground_truth/labels", "camera_info", "odom")
    )
    whole = [stamp for stamp in by_stamp(received["image"]) if stamp in depths and stamp in labels and stamp in infos]
    assert len(whole) >= 2
    for stamp in whole[:2]:
        map_T_base = transforms[stamp, "odom"] @ transforms[stamp, "base_link"]
        # Which frame of the drive it is, the pose says.
        index = int(
            np.argmin([np.abs(drive.trajectory.at(k / 10).matrix - map_T_base.matrix).sum() for k in range(60)])
        )
        expected = drive.frame_at(index / 10, np.random.default_rng(0)).frame
        assert map_T_base.matrix == pytest.approx(drive.trajectory.at(index / 10).matrix, abs=1e-6)
        assert transforms[stamp, "base_link"].matrix == pytest.approx(drive.odometry.at(index / 10).matrix, abs=1e-6)
        assert np.array_equal(image_to_color(by_stamp(received["image"])[stamp]), expected.color)
        assert np.array_equal(image_to_depth(depths[stamp]), expected.depth)
        assert np.array_equal(image_to_labels(labels[stamp]), expected.labels.labels)
        assert camera_info_to_camera(infos[stamp]).matrix == pytest.approx(drive.camera.matrix)
        pose = odometry[stamp].pose.pose.position
        assert (pose.x, pose.y) == pytest.approx(tuple(drive.odometry.at(index / 10).translation[:2]), abs=1e-6)


def test_a_late_subscriber_learns_the_classes_and_where_the_camera_sits(nodes, start):
    node, _ = start()
    infos, statics = [], []
    nodes.asking.create_subscription(LabelInfo, "ground_truth/label_info", infos.append, latched_qos())
    nodes.asking.create_subscription(TFMessage, "/tf_static", statics.append, latched_qos())
    assert nodes.spin_until(lambda: bool(infos and statics))
    names = {int(entry.class_id): entry.class_name for entry in infos[-1].class_map}
    assert names == {label.id: label.name for label in node._scenario().label_set.classes}
    links = {entry.child_frame_id: transform_stamped_to_transform(entry) for entry in statics[-1].transforms}
    optical = links["camera_link"] @ links["camera_optical_frame"]
    assert optical.translation == pytest.approx((0.1, 0.0, 1.0))
    # 12° down: the camera looks along (cos 12°, 0, −sin 12°).
    assert optical.rotation[:, 2] == pytest.approx((0.978148, 0.0, -0.207912), abs=1e-6)


def test_deactivation_ends_the_thread_and_activation_goes_on_where_it_was(nodes, start):
    node, _ = start()
    record(nodes, node, 2)
    assert node._thread is None
    reached = node._next
    assert reached >= 2
    record(nodes, node, 1)
    assert node._next > reached


@pytest.mark.parametrize(
    "wrong", [{"simulation.scene": "nowhere"}, {"simulation.scene": "missing.sdf"}, {"simulation.moving": "box"}]
)
def test_a_scene_that_cannot_be_is_refused_at_configuration(start, wrong):
    _, result = start(**wrong)
    assert result == TransitionCallbackReturn.FAILURE


def test_a_machine_that_cannot_draw_is_told_at_configuration(start, monkeypatch):
    def no_driver():
        raise MissingDependencyError("simulation cannot open EGL")

    config = SimulationConfig(scene="boxes")
    rendered = replace(plan(config.scene_options(), config.drive_options()), draw=None)
    monkeypatch.setattr(simulation_node, "plan", lambda scene, drive: rendered)
    monkeypatch.setattr(requirements, "create_context", no_driver)
    _, result = start()
    assert result == TransitionCallbackReturn.FAILURE


def test_the_way_is_driven_there_and_back():
    assert there_and_back(3.0, 10.0) == (3.0, 1)
    assert there_and_back(13.0, 10.0) == (7.0, -1)
    assert there_and_back(23.0, 10.0) == (3.0, 1)


def test_choices_of_moving_things_are_those_of_the_scenes():
    config = SimulationConfig.__dataclass_fields__["moving"]
    assert config.metadata["choices"] == MOVING
