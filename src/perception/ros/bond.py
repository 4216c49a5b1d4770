# SPDX-License-Identifier: Apache-2.0
"""The heartbeat by which Nav2's lifecycle manager sees that an active node lives.

The manager breaks the whole bring-up off when no heartbeat comes within its ``bond_timeout`` after activation. All it
needs is the messages of the ``bond`` package, which this module publishes itself: bondpy starts threads of its own and
raises in the node's executor once a manager comes back under another instance.
"""

from __future__ import annotations

import uuid
from importlib.util import find_spec
from typing import Any

from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]
from rclpy.node import Node

TOPIC = "bond"
"""In the namespace of the node, as Nav2's nodes and managers have it."""
TIMEOUT_S = 4.0
"""What Nav2's nodes tell; the manager goes by its own."""
QUEUE_DEPTH = 5


def is_available() -> bool:
    """Whether the messages of the ``bond`` package are installed."""
    try:
        return find_spec("bond.msg") is not None
    except (ImportError, ValueError):
        return False


class ManagerBond:
    """Publishes heartbeats while it exists; the executor must spin, so a node that hangs falls silent.

    Args:
        node: an active node; its name is the bond's id.
        period_s: time between heartbeats.
    """

    def __init__(self, node: Node, period_s: float) -> None:
        from bond.msg import Status

        self._node, self._make = node, Status
        self._period_s = period_s
        self._instance_id = str(uuid.uuid4())
        self._publisher = node.create_publisher(Status, TOPIC, QUEUE_DEPTH)
        # Real time: a manager waits in real time, also where a simulation stands still.
        self._timer = node.create_timer(period_s, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._beat()

    def end(self) -> None:
        """Tell the other side that the node stops on purpose."""
        self._node.destroy_timer(self._timer)
        if self._node.context.ok():
            self._publisher.publish(self._status(False))
        self._node.destroy_publisher(self._publisher)

    def _beat(self) -> None:
        if self._publisher.get_subscription_count():
            self._publisher.publish(self._status(True))

    def _status(self, active: bool) -> Any:
        status = self._make(id=self._node.get_name(), instance_id=self._instance_id, active=active)
        status.header.stamp = self._node.get_clock().now().to_msg()
        status.heartbeat_timeout, status.heartbeat_period = TIMEOUT_S, self._period_s
        return status
