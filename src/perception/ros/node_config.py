# SPDX-License-Identifier: Apache-2.0
"""Parameters that only nodes have, and which groups of parameters there are."""

from __future__ import annotations

from dataclasses import dataclass

from perception.config import (
    BoxConfig,
    Checked,
    CloudConfig,
    CloudFilterConfig,
    CostmapConfig,
    DetectionConfig,
    OctomapConfig,
    OctomapServerConfig,
    SegmentationConfig,
    param,
)
from perception.ros.map_config import (
    CostmapGridConfig,
    FilterMaskConfig,
    JumpConfig,
    LocalMapConfig,
    MapOutputConfig,
)
from perception.ros.sensor_config import BudgetConfig, CamerasConfig, CloudInputConfig, ObstacleConfig
from perception.ros.simulation_config import SimulationConfig
from perception.self_filter import SelfFilterConfig


@dataclass(frozen=True)
class InputConfig(Checked):
    """How images come in."""

    image_transport: str = param("raw", "Transport of image", choices=("raw", "compressed"))
    depth_transport: str = param("raw", "Transport of depth", choices=("raw", "compressed", "compressedDepth"))
    rectified: bool = param(False, "Images are rectified already: take P of camera_info, ignore its distortion")
    depth_registered: bool = param(
        True, "Depth has the pixels of image; if false, depth_camera_info and TF register it"
    )
    sync_queue_size: int = param(30, "Messages kept per topic while others of the same time are missing", 1, 1000)


@dataclass(frozen=True)
class LabelInputConfig(Checked):
    """How labels come in from another node."""

    label_set: str = param(
        "", "What incoming labels mean: a shipped set or a YAML file; empty takes label_info and the set that fits it"
    )
    use_confidence: bool = param(True, "Wait for label_confidence; if false, labels count as certain")


@dataclass(frozen=True)
class DetectionOutputConfig(Checked):
    """What comes of the objects found in an image."""

    use_3d: bool = param(False, "Take depth and transforms too and publish boxes in the map frame")
    use_tracking: bool = param(True, "Number the boxes over time (needs norfair)")


@dataclass(frozen=True)
class HealthConfig(Checked):
    """How a node shows that it lives and judges its own state; every node has these."""

    bond_heartbeat_period: float = param(
        0.1, "Time between heartbeats to Nav2's lifecycle manager while active, s; 0 for none", 0.0, 60.0
    )
    input_timeout: float = param(3.0, "An active node without input for this long is in error, s", 0.1, 3600.0)


GROUPS: dict[str, tuple[type, str]] = {
    "segmentation": (SegmentationConfig, "segmentation."),
    "cloud": (CloudConfig, "cloud."),
    "costmap": (CostmapConfig, "costmap."),
    "octomap": (OctomapConfig, ""),
    "server": (OctomapServerConfig, ""),
    "input": (InputConfig, ""),
    "label_input": (LabelInputConfig, ""),
    "cloud_filter": (CloudFilterConfig, ""),
    "cloud_input": (CloudInputConfig, ""),
    "cameras": (CamerasConfig, ""),
    "obstacles": (ObstacleConfig, "obstacles."),
    "self_filter": (SelfFilterConfig, "self_filter."),
    "budget": (BudgetConfig, "budget."),
    "output": (MapOutputConfig, ""),
    "jump": (JumpConfig, "map_jump."),
    "grid": (CostmapGridConfig, "costmap."),
    "filters": (FilterMaskConfig, "filters."),
    "local_map": (LocalMapConfig, "local_map."),
    "detection": (DetectionConfig, "detection."),
    "boxes": (BoxConfig, "boxes."),
    "simulation": (SimulationConfig, "simulation."),
    "detection_output": (DetectionOutputConfig, ""),
    "health": (HealthConfig, ""),
}
"""Name of each group: its class, and what stands before its names. A parameter has one name, whichever node has it;
those of octomap_server have octomap_server's names."""

RENAMED = {"cloud.sync_tolerance": "sync_tolerance", "cloud.transform_timeout": "transform_timeout"}
"""Parameters of a group that belong to the node as a whole."""

CHANGEABLE = (
    "cloud.",
    "input_timeout",
    "transform_timeout",
    "min_range",
    "no_return",
    "scan_no_return",
    "cloud_label_age",
    "obstacles.",
    "budget.",
    "segmentation.min_confidence",
    "max_depth",
    "point_cloud_",
    "occupancy_",
    "filter_",
    "ground_filter.",
    "compress_map",
    "incremental_2D_projection",
    "sensor_model.",
    "min_x_size",
    "min_y_size",
    "use_height_map",
    "color.",
    "color_factor",
    "color_free.",
    "publish_free_space",
    "octomap_path",
    "map_publish_rate",
    "costmap_publish_rate",
    "costmap_full_period",
    "distance_field_range",
    "clear_radius",
    "save_path",
    "autosave_period",
    "map_jump.",
    "filters.",
    "costmap.",
    "classes.",
)
"""Beginnings of the names that may change while a node runs; the others wait until it is cleaned up."""

ROS1_NAMES = {
    "sensor_model.min_range": "min_range",
    "height_map": "use_height_map",
    "incremental_2d_projection": "incremental_2D_projection",
    "pointcloud_min_x": "point_cloud_min_x",
    "pointcloud_max_x": "point_cloud_max_x",
    "pointcloud_min_y": "point_cloud_min_y",
    "pointcloud_max_y": "point_cloud_max_y",
    "pointcloud_min_z": "point_cloud_min_z",
    "pointcloud_max_z": "point_cloud_max_z",
    "filter_ground": "filter_ground_plane",
    "ground_filter_distance": "ground_filter.distance",
    "ground_filter_angle": "ground_filter.angle",
    "ground_filter_plane_distance": "ground_filter.plane_distance",
}
"""Names of ROS 1's octomap_server, slashes written as dots, and today's."""
