# SPDX-License-Identifier: Apache-2.0
"""simulation_node: a robot that drives through a scene with known truth, as a camera driver and odometry show it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, Image

from perception.errors import PerceptionError
from perception.geometry import Transform
from perception.ros.conversions import (
    array_to_image,
    camera_to_camera_info,
    label_set_to_label_info,
    labels_to_image,
    odometry_to_message,
    transform_to_transform_stamped,
)
from perception.ros.node import PerceptionNode, latched_qos, run_node
from perception.simulation.drive import Drive, SimulatedFrame
from perception.simulation.poses import BODY_T_OPTICAL
from perception.simulation.scenarios import drawing, plan

BASE, CAMERA, OPTICAL = "base_link", "camera_link", "camera_optical_frame"
OUTPUT_DEPTH = 5
JOIN_TIMEOUT_S = 2.0


class SimulationNode(PerceptionNode):
    """Publishes image, depth, camera_info, odom, /tf and the true labels; frame k is the same at every start.

    A frame has the time of the node's clock at which it is drawn. A machine that cannot keep up shows the same frames
    more slowly.
    """

    parameter_groups = ("simulation",)

    def __init__(self, **node_arguments: Any) -> None:
        self._drive: Drive | None = None
        self._thread: Thread | None = None
        self._ended = Event()
        self._next = 0
        super().__init__("simulation_node", **node_arguments)

    def load(self) -> None:
        """Build the scene and plan the way through it."""
        from perception.simulation.requirements import create_context

        config = self.parameters.config("simulation")
        self._drive = plan(config.scene_options(), config.drive_options())
        if self._drive.draw is None:
            # Where nothing can be drawn, configuration fails, not the thread of an active node.
            create_context().release()

    def setup(self) -> None:
        """Advertise the topics of a camera driver, the odometry and the truth."""
        from tf2_msgs.msg import TFMessage
        from vision_msgs.msg import LabelInfo

        drive = self._scenario()
        self._image: Publisher = self.advertise(Image, "image", OUTPUT_DEPTH)
        self._depth: Publisher = self.advertise(Image, "depth", OUTPUT_DEPTH)
        self._info: Publisher = self.advertise(CameraInfo, "camera_info", OUTPUT_DEPTH)
        self._labels: Publisher = self.advertise(Image, "ground_truth/labels", OUTPUT_DEPTH)
        self._odometry: Publisher = self.advertise(Odometry, "odom", 10)
        self._tf: Publisher = self.advertise(TFMessage, "/tf", 100)
        label_info: Publisher = self.advertise(LabelInfo, "ground_truth/label_info", latched_qos())
        static: Publisher = self.advertise(TFMessage, "/tf_static", latched_qos())
        now = self.now_ns()
        label_info.publish(label_set_to_label_info(drive.label_set, "", now))
        fixed = (
            (drive.base_T_camera_link, BASE, CAMERA),
            (BODY_T_OPTICAL, CAMERA, OPTICAL),
            (Transform.identity(), BASE, "base_footprint"),
        )
        static.publish(TFMessage(transforms=[transform_to_transform_stamped(*link, now) for link in fixed]))
        self._next = 0

    def start(self) -> None:
        """Begin to draw, in a thread of its own: OpenGL's context belongs to one."""
        self._ended = Event()
        self._thread = Thread(target=self._run, args=(self._ended,), name="renderer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the frame it is at."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT_S)
            self._thread = None

    def teardown(self) -> None:
        """Forget the scene."""
        self._drive = None

    def details(self) -> Mapping[str, Any]:
        """What is simulated."""
        drive = self._drive
        return {} if drive is None else {"scene": drive.name, "frame": self._next}

    def _scenario(self) -> Drive:
        if self._drive is None:
            raise PerceptionError("simulation_node: no scene is loaded; the log says why")
        return self._drive

    def _run(self, ended: Event) -> None:
        try:
            with drawing(self._scenario()) as drive:
                due = time.monotonic()
                while not ended.is_set():
                    self._show(drive)
                    # Late frames are not made up for: two in a row would tell of a motion that never was.
                    due = max(due + 1 / drive.options.rate, time.monotonic())
                    ended.wait(due - time.monotonic())
        except PerceptionError as error:
            self.get_logger().error(str(error))
        except Exception as error:
            if self.context.ok() and not ended.is_set():
                self._log("renderer", error)

    def _show(self, drive: Drive) -> None:
        """Draw and publish the next frame."""
        seconds, direction = there_and_back(self._next / drive.options.rate, drive.trajectory.duration)
        # Noise depends on the number of the frame alone, so that frame k is the same whenever it is drawn.
        drawn = drive.frame_at(seconds, np.random.default_rng((drive.options.seed, 3, self._next)))
        stamp_ns = self.now_ns()
        self._publish_motion(drive, seconds, direction, stamp_ns)
        self._publish_images(drive, drawn, stamp_ns)
        self._next += 1
        self.done(stamp_ns)

    def _publish_motion(self, drive: Drive, seconds: float, direction: int, stamp_ns: int) -> None:
        from tf2_msgs.msg import TFMessage

        odom_T_base = drive.odometry.at(seconds)
        chain = [
            transform_to_transform_stamped(drive.map_T_odom(seconds), "map", "odom", stamp_ns),
            transform_to_transform_stamped(odom_T_base, "odom", BASE, stamp_ns),
        ]
        self._tf.publish(TFMessage(transforms=chain))
        forward, left, turn = (direction * value for value in drive.odometry_velocity(seconds))
        self._odometry.publish(odometry_to_message(odom_T_base, (forward, left, turn), "odom", BASE, stamp_ns))

    def _publish_images(self, drive: Drive, drawn: SimulatedFrame, stamp_ns: int) -> None:
        frame = drawn.frame
        assert frame.labels is not None
        self._info.publish(camera_to_camera_info(frame.camera, OPTICAL, stamp_ns))
        if self._image.get_subscription_count():
            self._image.publish(array_to_image(frame.color, "rgb8", OPTICAL, stamp_ns))
        if self._depth.get_subscription_count():
            self._depth.publish(array_to_image(frame.depth, "32FC1", OPTICAL, stamp_ns))
        if self._labels.get_subscription_count():
            count = drive.label_set.num_classes
            self._labels.publish(labels_to_image(frame.labels.labels, count, OPTICAL, stamp_ns))


def there_and_back(seconds: float, duration: float) -> tuple[float, int]:
    """Time on a way that is driven to its end and back for ever, and the direction, 1 or −1."""
    phase = seconds % (2 * duration)
    return (phase, 1) if phase <= duration else (2 * duration - phase, -1)


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    return run_node(SimulationNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
