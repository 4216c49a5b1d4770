# SPDX-License-Identifier: Apache-2.0
"""Pictures of what RViz would show, drawn from the messages themselves: for robots without a screen, and for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray

from perception.atomic_file import atomic_write
from perception.errors import InputError
from perception.evaluation.render import TOP_VIEW, View, render_voxels
from perception.labels import LabelSet
from perception.ros.conversions import image_to_color, point_cloud2_to_points
from perception.ros.label_source import label_set_from_info
from perception.ros.map_conversions import occupancy_grid_to_cost_grid
from perception.ros.node import latched_qos, sensor_qos

LABEL_INFO = "label_info"
POINT_SIZE = 0.03
"""Edge of the cube that stands for a point, meters."""
PLAIN = (90, 120, 200)
UNKNOWN_GRAY = 190
UNLABELED_GRAY = 150
ADD = 0


def marker_voxels(message: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
    """Cubes of a visualization_msgs/MarkerArray: centers (M, 3) meters, edges (M,) meters, colors (M, 3) uint8."""
    shown = [marker for marker in message.markers if marker.action == ADD and marker.points]
    if not shown:
        return np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3), np.uint8)
    centers = [[(point.x, point.y, point.z) for point in marker.points] for marker in shown]
    colors = [[(c.r, c.g, c.b) for c in (marker.colors or [marker.color] * len(marker.points))] for marker in shown]
    edges = [np.full(len(marker.points), marker.scale.x) for marker in shown]
    return np.concatenate(centers), np.concatenate(edges), np.rint(np.concatenate(colors) * 255).astype(np.uint8)


def draw_markers(message: Any, view: View) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 picture of a MarkerArray's cubes."""
    return render_voxels(*marker_voxels(message), view)[0]


def draw_cloud(message: Any, view: View, optical: bool = False, label_set: LabelSet | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 picture of a PointCloud2.

    Args:
        message: the cloud.
        view: from where.
        optical: z is forward in it.
        label_set: points with a class have its color, those without are gray; None shows the cloud's own colors.
    """
    fields = point_cloud2_to_points(message)
    finite = np.isfinite(fields.points).all(axis=1)
    points = fields.points[finite]
    if optical:
        points = np.stack([points[:, 2], -points[:, 0], -points[:, 1]], axis=1)
    colors = np.full((len(points), 3), PLAIN, np.uint8) if fields.colors is None else fields.colors[finite]
    if label_set is not None and fields.labels is not None:
        labels = fields.labels[finite]
        labeled = (labels >= 0) & (labels < label_set.num_classes)
        colors = np.where(labeled[:, None], label_set.colorize(labels), np.uint8(UNLABELED_GRAY))
    return render_voxels(points, np.full(len(points), POINT_SIZE), colors, view)[0]


def draw_grid(message: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 picture of an OccupancyGrid, y up: white is free, red costs, black is lethal, gray unknown."""
    data = occupancy_grid_to_cost_grid(message).data
    share = np.linspace(0, 1, 101)
    table = np.stack([255 - 40 * share, 250 * (1 - share), 235 * (1 - share)], axis=1).astype(np.uint8)
    table[0], table[100] = (255, 255, 255), (25, 20, 30)
    image = np.full((*data.shape, 3), UNKNOWN_GRAY, np.uint8)
    image[data >= 0] = table[data[data >= 0]]
    scale = max(1, 800 // max(data.shape))
    return np.flipud(image).repeat(scale, axis=0).repeat(scale, axis=1)


def drawings(label_set: LabelSet | None = None) -> dict[str, tuple[Any, Callable[[Any], NDArray[np.uint8]]]]:
    """By topic: the message's type and what draws it; labeled points in the colors of their classes where known."""
    from nav_msgs.msg import OccupancyGrid
    from sensor_msgs.msg import Image, PointCloud2
    from visualization_msgs.msg import MarkerArray

    return {
        "occupied_cells_vis_array": (MarkerArray, lambda message: draw_markers(message, View())),
        "free_cells_vis_array": (MarkerArray, lambda message: draw_markers(message, View())),
        "octomap_point_cloud_centers": (PointCloud2, lambda message: draw_cloud(message, TOP_VIEW)),
        "labeled_points": (PointCloud2, lambda message: draw_cloud(message, View(-150), True, label_set)),
        "projected_map": (OccupancyGrid, draw_grid),
        "semantic_costmap": (OccupancyGrid, draw_grid),
        "semantic_costmap_local": (OccupancyGrid, draw_grid),
        "keepout_filter_mask": (OccupancyGrid, draw_grid),
        "speed_filter_mask": (OccupancyGrid, draw_grid),
        "label_legend": (Image, image_to_color),
        "overlay": (Image, image_to_color),
    }


def save_snapshot(node: Any, spin_once: Callable[[], None], folder: Path, seconds: float) -> list[Path]:
    """Wait for what is published and write one picture for each topic that brought something.

    Args:
        node: subscribes; relative topics are in its namespace.
        spin_once: lets the node's executor work for a moment.
        folder: where to write; made when absent.
        seconds: how long to wait for topics that bring nothing.

    Returns:
        The files, named as the topics.
    """
    from vision_msgs.msg import LabelInfo

    newest: dict[str, Any] = {}
    types = {LABEL_INFO: LabelInfo, **{topic: kind for topic, (kind, _) in drawings().items()}}
    subscriptions = []
    for topic, message_type in types.items():
        # What sensors send is best effort; maps are latched.
        qos = sensor_qos() if topic in ("labeled_points", "overlay") else latched_qos()
        keep = lambda message, topic=topic: newest.__setitem__(topic, message)  # noqa: E731
        subscriptions.append(node.create_subscription(message_type, topic, keep, qos))
    deadline = time.monotonic() + seconds
    while len(newest) < len(types) and time.monotonic() < deadline:
        spin_once()
    for subscription in subscriptions:
        node.destroy_subscription(subscription)
    folder.mkdir(parents=True, exist_ok=True)
    table, written = drawings(_label_set(newest.pop(LABEL_INFO, None))), []
    for topic, message in newest.items():
        written.append(folder / f"{topic}.png")
        atomic_write(written[-1], [_png(table[topic][1](message))])
    return sorted(written)


def run_snapshot(folder: Path, seconds: float, namespace: str = "") -> list[Path]:
    """:func:`save_snapshot` with a node of its own."""
    rclpy.init()
    node = rclpy.create_node("perception_snapshot", namespace=namespace)
    try:
        return save_snapshot(node, lambda: rclpy.spin_once(node, timeout_sec=0.1), folder, seconds)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()  # pyright: ignore[reportPrivateImportUsage]


def _label_set(info: Any) -> LabelSet | None:
    """The classes of a LabelInfo; None where there is none, or none that is right."""
    try:
        return None if info is None else label_set_from_info(info)
    except InputError:
        return None


def _png(picture: NDArray[np.uint8]) -> bytes:
    import cv2

    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
