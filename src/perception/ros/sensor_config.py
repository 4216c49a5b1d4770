# SPDX-License-Identifier: Apache-2.0
"""Parameters of what nodes take in: which cameras and clouds, how much of it, and what goes straight to obstacles."""

from __future__ import annotations

from dataclasses import dataclass

from perception.config import Checked, param


@dataclass(frozen=True)
class CamerasConfig(Checked):
    """What pipeline_node listens to."""

    cameras: str = param(
        "",
        "Names of cameras, separated by commas: the topics of each have its name before theirs (front/image); "
        "empty for one camera without a name",
    )
    label_source: str = param(
        "network", "Who labels the images: the network, or whoever publishes labels", choices=("network", "topic")
    )
    use_color: bool = param(
        True, "Take image even where no network needs it; it only colors labeled_points then and costs time"
    )
    batch_cameras: bool = param(
        False,
        "Frames of several cameras that wait at the same time go through the network in one run, where it can "
        "(PyTorch); on CPUs that gains nothing",
    )
    cloud_label_age: float = param(
        0.0,
        "Points of clouds and scans take the label of the pixel that shows them, from images at most so much older or "
        "newer, s; 0 for off",
        0.0,
    )


@dataclass(frozen=True)
class CloudInputConfig(Checked):
    """How clouds and laser scans come in."""

    cloud_topics: str = param(
        "",
        "Further topics of clouds, separated by commas; topic@frame where a cloud is in another frame than its sensor",
    )
    scan_topics: str = param("", "Topics of laser scans, separated by commas; topic@frame as above")
    scan_no_return: bool = param(True, "Beams of a laser scan at +inf clear up to its range_max")
    min_range: float = param(0.0, "Points of clouds and scans nearer than this to the sensor are ignored, m", 0.0)
    no_return: str = param(
        "inf",
        "Pixels of an organized cloud that clear up to sensor_model.max_range: at +inf (inf), without coordinates too "
        "(nan; glass and black surfaces are among them: unsafe), or none",
        choices=("none", "inf", "nan"),
    )


@dataclass(frozen=True)
class ObstacleConfig(Checked):
    """obstacle_points and clearing_points, which come of every depth image and wait for no label."""

    stride: int = param(2, "Use every n-th pixel of depth in both directions", 1, 64)
    max_label_age: float = param(0.5, "Labels of moving things count for depth up to so much newer, s; 0 for off", 0.0)


@dataclass(frozen=True)
class BudgetConfig(Checked):
    """How much of the computer mapping may take; what is left out is counted."""

    max_rate: float = param(0.0, "Most frames mapped per second of each camera or topic; 0 for no limit", 0.0)
    max_load: float = param(1.0, "Most of its time that the mapping thread works; frames beyond are skipped", 0.01, 1.0)
    max_age: float = param(0.0, "Frames older than this when their turn comes are dropped, s; 0 for no limit", 0.0)
    max_points: int = param(0, "Most points of a frame: of more, every n-th is taken; 0 for no limit", 0)
    still_distance: float = param(
        0.0, "A sensor that moved less than this since its last frame is standing still, m; 0 maps every frame", 0.0
    )
    still_angle: float = param(0.02, "Neither is it standing still when it turned by more than this, rad", 0.0, 3.2)
    still_period: float = param(1.0, "While standing still, one frame is mapped in this time, s", 0.0, 3600.0)
