# SPDX-License-Identifier: Apache-2.0
"""What a robot sees on a drive: frames with true labels and poses, and the odometry that it would have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelSet
from perception.simulation.boxes import BoxRoom, default_camera
from perception.simulation.poses import BODY_T_OPTICAL, pose
from perception.simulation.renderer import Renderer, View
from perception.simulation.scene import Scene
from perception.simulation.sensor import DepthSensor
from perception.simulation.trajectory import (
    STEP_S,
    RobotModel,
    Trajectory,
    drifting_odometry,
    free_space,
    plan_drive,
)
from perception.simulation.voxels import VoxelMap, voxelize
from perception.types import Frame, LabelImage

START_NS = 1_700_000_000_000_000_000
"""Stamp of the beginning: not zero, which means "the latest" to tf2."""
Draw = Callable[[PinholeCamera, Transform, float], View]
"""Draws what a camera sees at a time in seconds."""


@dataclass(frozen=True)
class DriveOptions:
    """How a drive is recorded.

    Attributes:
        frames: how many.
        rate: frames per second.
        width: pixels.
        height: pixels.
        camera_height: of the camera above the floor, 0.5 to 1.5 m.
        camera_pitch_deg: how far it looks down, degrees.
        seed: of the way, the drift and the noise.
        depth: errors of the depth camera.
        drift: relative error of the odometry; 0 is perfect.
        stamp_jitter_s: frames come up to this much early or late, seconds; stamps and poses are those of the moment.
        robot: its size and speed.
        samples: per pixel, against jagged edges.
    """

    frames: int = 100
    rate: float = 10.0
    width: int = 640
    height: int = 480
    camera_height: float = 1.0
    camera_pitch_deg: float = 12.0
    seed: int = 0
    depth: DepthSensor = field(default_factory=DepthSensor)
    drift: float = 0.0
    stamp_jitter_s: float = 0.0
    robot: RobotModel = field(default_factory=RobotModel)
    samples: int = 4

    def __post_init__(self) -> None:
        if self.frames < 1 or not self.rate > 0:
            raise InputError(f"drive: expected at least 1 frame and a positive rate, got {self.frames} at {self.rate}")
        if not 0.5 <= self.camera_height <= 1.5:
            raise InputError(f"camera height: expected 0.5 to 1.5 m, got {self.camera_height}")
        if not 0 <= self.drift < 0.5:
            raise InputError(f"drift: expected 0 to 0.5, got {self.drift}")
        if not 0 <= self.stamp_jitter_s < 0.5 / self.rate:
            raise InputError(f"stamp jitter: expected less than half a frame, got {self.stamp_jitter_s} s")


@dataclass(frozen=True, slots=True)
class SimulatedFrame:
    """A frame and what only a simulation knows: ``instances`` (H, W) int32, −1 for none, and exact ``depth``."""

    frame: Frame
    instances: NDArray[np.int32]
    depth: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Drive:
    """A drive through a scene, ready to be recorded.

    Attributes:
        name: of the scene.
        label_set: of the labels.
        trajectory: ``map_T_base`` over time.
        odometry: ``odom_T_base`` over time.
        options: how it is recorded.
        voxels: the true map of what rests.
        draw: draws what a camera sees; None until there is a renderer.
        scene: instances, lights, sources.
    """

    name: str
    label_set: LabelSet
    trajectory: Trajectory
    odometry: Trajectory
    options: DriveOptions
    voxels: VoxelMap
    draw: Draw | None
    scene: Scene

    @property
    def camera(self) -> PinholeCamera:
        """Intrinsics of color and depth."""
        return default_camera(self.options.width, self.options.height)

    @property
    def base_T_camera_link(self) -> Transform:
        """Where the camera's body sits on the robot."""
        return pose((0.1, 0.0, self.options.camera_height), pitch=np.deg2rad(self.options.camera_pitch_deg))

    def map_T_camera(self, seconds: float) -> Transform:
        """Pose of the optical frame."""
        return self.trajectory.at(seconds) @ self.base_T_camera_link @ BODY_T_OPTICAL

    def map_T_odom(self, seconds: float) -> Transform:
        """The correction that a localization without error would give."""
        return self.trajectory.at(seconds) @ self.odometry.at(seconds).inverse()

    def times(self) -> NDArray[np.float64]:
        """(frames,) seconds of the frames."""
        options = self.options
        times = np.arange(options.frames) / options.rate
        if options.stamp_jitter_s > 0:
            rng = np.random.default_rng((options.seed, 1))
            times = times + rng.uniform(-options.stamp_jitter_s, options.stamp_jitter_s, len(times))
        return np.clip(times, 0.0, self.trajectory.duration)

    def frames(self) -> Iterator[SimulatedFrame]:
        """Draw the frames, one after the other; the same options give the same frames."""
        rng = np.random.default_rng((self.options.seed, 2))
        for seconds in self.times().tolist():
            yield self.frame_at(seconds, rng)

    def frame_at(self, seconds: float, rng: np.random.Generator) -> SimulatedFrame:
        """Draw what the camera sees at a time of the drive.

        Args:
            seconds: from 0 to the trajectory's duration.
            rng: of the depth camera's errors.
        """
        assert self.draw is not None, "a drive without a renderer"
        map_T_camera = self.map_T_camera(seconds)
        view = self.draw(self.camera, map_T_camera, seconds)
        labels = LabelImage.certain(view.labels, self.label_set)
        measured = self.options.depth.measure(view.depth, rng)
        frame = Frame(stamp_ns(seconds), view.color, measured, self.camera, map_T_camera, labels=labels)
        return SimulatedFrame(frame, view.instances, view.depth)

    def odometry_velocity(self, seconds: float) -> tuple[float, float, float]:
        """What the odometry says of the robot's motion, in its own frame: m/s forward and left, rad/s."""
        before = max(seconds - STEP_S, 0.0)
        if seconds <= before:
            return 0.0, 0.0, 0.0
        moved = self.odometry.at(before).inverse() @ self.odometry.at(seconds)
        turned = float(np.arctan2(moved.rotation[1, 0], moved.rotation[0, 0]))
        forward, left, _ = (moved.translation / (seconds - before)).tolist()
        return forward, left, turned / (seconds - before)


def stamp_ns(seconds: float) -> int:
    """Stamp of a time of the drive, nanoseconds."""
    return START_NS + round(seconds * 1e9)


def drive_through(scene: Scene, renderer: Renderer, options: DriveOptions) -> Drive:
    """Plan a drive through a rendered scene.

    Raises:
        InputError: the robot fits nowhere.
    """
    return replace(plan_through(scene, options), draw=renderer.render)


def plan_through(scene: Scene, options: DriveOptions) -> Drive:
    """Plan a drive through a scene that nothing draws yet.

    Raises:
        InputError: the robot fits nowhere.
    """
    voxels = voxelize(scene)
    rng = np.random.default_rng((options.seed, 0))
    space = free_space(scene, options.robot, voxels)
    trajectory = plan_drive(space, options.robot, options.frames / options.rate + 0.5, rng)
    odometry = drifting_odometry(trajectory, options.drift, rng)
    return Drive(scene.name, scene.label_set, trajectory, odometry, options, voxels, None, scene)


def drive_around(room: BoxRoom, options: DriveOptions) -> Drive:
    """A drive around a room of boxes, drawn without any graphics library."""
    rng = np.random.default_rng((options.seed, 0))
    steps = int((options.frames / options.rate + 0.5) / STEP_S)
    seconds = np.arange(steps, dtype=np.float64) * STEP_S
    positions, yaw = room.path(seconds * options.robot.speed)
    # To the left of the way, into the room, as the robot's own front.
    trajectory = Trajectory(seconds, positions[:, 0], positions[:, 1], np.unwrap(yaw) + np.deg2rad(30))
    scene = room.scene()

    def draw(camera: PinholeCamera, map_T_camera: Transform, seconds: float) -> View:
        color, depth, labels = room.render(camera, map_T_camera)
        return View(color, depth, labels, np.full(depth.shape, -1, np.int32))

    odometry = drifting_odometry(trajectory, options.drift, rng)
    return Drive(scene.name, room.label_set, trajectory, odometry, options, voxelize(scene), draw, scene)
