# SPDX-License-Identifier: Apache-2.0
"""Feeds /tf and /tf_static into a TransformBuffer; the same code with ROS 2 from apt and from PyPI, which lacks tf2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from perception.errors import InputError
from perception.ros.conversions import stamp_to_ns, transform_stamped_to_transform
from perception.tf_buffer import TransformBuffer

QUEUE_DEPTH = 100


class WatchedTransforms(TransformBuffer):
    """A transform buffer that tells when something came."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._tell = changed

    def insert(self, *args: Any, **kwargs: Any) -> None:
        """As TransformBuffer's."""
        super().insert(*args, **kwargs)
        self._tell()


class TransformListener:
    """Subscribes to transforms on behalf of a node.

    A transform that makes no sense is dropped and counted, and what is known stays; a node shows the two attributes
    in its diagnostics.

    Args:
        node: a node or lifecycle node; its executor calls back.
        buffer: receives the transforms.
        callback_group: of both subscriptions; None takes the node's own.

    Attributes:
        buffer: as given.
        rejected: number of transforms dropped.
        last_error: why the last one was dropped; empty when none was.
    """

    def __init__(self, node: Node, buffer: TransformBuffer, callback_group: Any = None) -> None:
        # Imported here: the message package may be missing where only conversions are used.
        from tf2_msgs.msg import TFMessage

        self.buffer = buffer
        self.rejected = 0
        self.last_error = ""
        self._node = node
        self._subscriptions = [
            node.create_subscription(TFMessage, topic, callback, _qos(durability), callback_group=callback_group)
            for topic, callback, durability in (
                ("/tf", self._on_tf, DurabilityPolicy.VOLATILE),
                ("/tf_static", self._on_tf_static, DurabilityPolicy.TRANSIENT_LOCAL),
            )
        ]

    def destroy(self) -> None:
        """Unsubscribe; the buffer keeps what it has."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def _on_tf(self, message: Any) -> None:
        self._insert(message, static=False)

    def _on_tf_static(self, message: Any) -> None:
        self._insert(message, static=True)

    def _insert(self, message: Any, static: bool) -> None:
        for stamped in message.transforms:
            parent, child = stamped.header.frame_id, stamped.child_frame_id
            try:
                transform = transform_stamped_to_transform(stamped)
                self.buffer.insert(parent, child, stamp_to_ns(stamped.header.stamp), transform, static)
            except InputError as error:
                self.rejected += 1
                self.last_error = f"{child} to {parent}: {error}"


def _qos(durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(depth=QUEUE_DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
