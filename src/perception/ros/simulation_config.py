# SPDX-License-Identifier: Apache-2.0
"""Parameters of simulation_node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perception.config import Checked, param

if TYPE_CHECKING:
    from perception.simulation.drive import DriveOptions
    from perception.simulation.scenarios import SceneOptions


@dataclass(frozen=True)
class SimulationConfig(Checked):
    """What is simulated."""

    scene: str = param("house", "house (needs the furniture package), boxes (needs no graphics), or an SDF world")
    seed: int = param(0, "Of the scene, the way and the noise", 0)
    rooms: int = param(0, "Of a house; 0 lets the seed choose", 0, 12)
    classes: str = param("aws_small_house", "Class map of a world: a shipped one, or a YAML file")
    models: str = param("", "Folders where a world's models are looked for, separated by colons")
    moving: str = param("none", "Something that moves", choices=("none", "box", "person", "doors"))
    rate: float = param(10.0, "Frames per second", 0.1, 100.0)
    duration: float = param(120.0, "Of the way; at its end the robot backs up along it, s", 1.0, 3600.0)
    width: int = param(640, "Of the images, pixels", 16, 4096)
    height: int = param(480, "Of the images, pixels", 16, 4096)
    samples: int = param(1, "Per pixel, against jagged edges; more are slower", 1, 16)
    camera_height: float = param(1.0, "Of the camera above the floor, m", 0.5, 1.5)
    camera_pitch: float = param(12.0, "How far the camera looks down, degrees", -45.0, 60.0)
    speed: float = param(0.5, "Of the robot, m/s", 0.05, 3.0)
    depth_noise: float = param(0.0, "Standard deviation of depth at 1 m, m; it grows with the square", 0.0, 1.0)
    edge_dropout: float = param(0.0, "Share of pixels at depth edges without depth", 0.0, 1.0)
    max_range: float = param(10.0, "Depth beyond is infinite, m", 0.1, 100.0)
    drift: float = param(0.0, "Relative error of the odometry, 0.02 is 2 %", 0.0, 0.49)

    def scene_options(self) -> SceneOptions:
        """The scene."""
        from perception.simulation.scenarios import SceneOptions

        models = tuple(folder for folder in self.models.split(":") if folder)
        return SceneOptions(self.scene, self.seed, self.rooms, self.classes, models, self.moving)

    def drive_options(self) -> DriveOptions:
        """The drive."""
        from perception.simulation.drive import DriveOptions
        from perception.simulation.sensor import DepthSensor
        from perception.simulation.trajectory import RobotModel

        return DriveOptions(
            frames=max(2, round(self.duration * self.rate)),
            rate=self.rate,
            width=self.width,
            height=self.height,
            camera_height=self.camera_height,
            camera_pitch_deg=self.camera_pitch,
            seed=self.seed,
            depth=DepthSensor(self.depth_noise, self.edge_dropout, max_range=self.max_range),
            drift=self.drift,
            robot=RobotModel(speed=self.speed),
            samples=self.samples,
        )
