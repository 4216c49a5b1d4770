# SPDX-License-Identifier: Apache-2.0
"""The services of a node with a map: octomap_server's, and saving, loading and clearing around the robot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from std_srvs.srv import Empty, Trigger

from perception.errors import InputError, PerceptionError

if TYPE_CHECKING:
    from perception.ros.map_node import MapNode


class MapServices:
    """Answers in the executor's thread; the node keeps that apart from the worker's.

    Args:
        node: a node that is being configured.
    """

    def __init__(self, node: MapNode) -> None:
        from octomap_msgs.srv import BoundingBoxQuery, GetOctomap

        self._node = node
        node.serve(GetOctomap, "octomap_binary", lambda _, response: self._get_octomap(response, True))
        node.serve(GetOctomap, "octomap_full", lambda _, response: self._get_octomap(response, False))
        node.serve(BoundingBoxQuery, "~/clear_bbox", self._clear_bbox)
        node.serve(BoundingBoxQuery, "~/clear_bbx", self._clear_bbx)
        node.serve(Empty, "~/reset", self._reset)
        node.serve(Empty, "~/clear_around_robot", self._clear_around_robot)
        node.serve(Trigger, "~/save_map", lambda _, response: self._answer(response, node.save_configured_map))
        node.serve(Trigger, "~/load_map", lambda _, response: self._answer(response, node.load_configured_map))

    def _get_octomap(self, response: Any, binary: bool) -> Any:
        message = self._node.octomap(binary)
        if message is not None:
            response.map = message
        return response

    def _clear_bbox(self, request: Any, response: Any) -> Any:
        low, high = ((point.x, point.y, point.z) for point in (request.min, request.max))
        self._logged("clear_bbox", lambda: self._node.clear_box(low, high))
        return response

    def _clear_bbx(self, request: Any, response: Any) -> Any:
        self._node.get_logger().warning("~/clear_bbx: a name of ROS 1's octomap_server; use ~/clear_bbox")
        return self._clear_bbox(request, response)

    def _reset(self, request: Any, response: Any) -> Any:
        self._logged("reset", self._node.reset)
        return response

    def _clear_around_robot(self, request: Any, response: Any) -> Any:
        self._logged("clear_around_robot", self._node.clear_around_robot)
        return response

    def _logged(self, name: str, action: Callable[[], str]) -> None:
        """Services without a field for an error tell it to the log."""
        try:
            self._node.get_logger().info(f"{name}: {action()}")
        except InputError as error:
            self._node.get_logger().error(f"{name}: {error}")

    def _answer(self, response: Any, action: Callable[[], str]) -> Any:
        try:
            response.message, response.success = action(), True
        except PerceptionError as error:
            response.message, response.success = str(error), False
            self._node.get_logger().error(response.message)
        return response
