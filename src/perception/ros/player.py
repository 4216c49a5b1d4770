# SPDX-License-Identifier: Apache-2.0
"""Publishes a bag's messages without decoding them: serialized data goes from the file to the middleware."""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from perception.errors import InputError
from perception.ros.conversions import ns_to_stamp
from perception.sources.bag_reader import BagReader, Topic

log = logging.getLogger(__name__)

LATCHED_TYPES = frozenset({"vision_msgs/msg/LabelInfo", "nav_msgs/msg/OccupancyGrid", "octomap_msgs/msg/Octomap"})
LATCHED_TOPICS = frozenset({"/tf_static", "/map", "/robot_description"})
QUEUE_DEPTH = 100
DRAIN_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class PlayOptions:
    """How a bag is played.

    Attributes:
        rate: times real time; 0 for as fast as possible.
        start_s: seconds of the bag to skip.
        duration_s: seconds of the bag to play; None for all.
        loop: begin again at the end, for ever.
        topics: names to publish; empty for all.
        names: other names to publish topics under.
        clock_rate: messages of /clock per second of real time; 0 for none.
        wait_s: how long to wait until each topic has a subscriber.
        wait_topics: topics of the bag that this counts for; empty for all that are published.
    """

    rate: float = 1.0
    start_s: float = 0.0
    duration_s: float | None = None
    loop: bool = False
    topics: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    clock_rate: float = 100.0
    wait_s: float = 0.0
    wait_topics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rate", "start_s", "clock_rate", "wait_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name}: expected a number of at least 0, got {value}")


def play(path: Path, options: PlayOptions) -> int:
    """Publish a bag; returns the number of messages.

    Raises:
        InputError: the bag cannot be read, or holds nothing that can be published.
    """
    reader = BagReader(path)
    # A context of its own: the caller may have one already.
    context = rclpy.Context()  # pyright: ignore[reportPrivateImportUsage]
    rclpy.init(context=context)
    node = rclpy.create_node("perception_player", context=context, start_parameter_services=False)
    try:
        return _Player(reader, node, options).run()
    except KeyboardInterrupt:
        return 0
    finally:
        reader.close()
        node.destroy_node()
        context.try_shutdown()


class _Player:
    def __init__(self, reader: BagReader, node: Node, options: PlayOptions) -> None:
        self._reader, self._options = reader, options
        self._publishers: dict[str, Any] = {}
        for topic in reader.topics.values():
            if topic.name == "/clock" or (options.topics and topic.name not in options.topics):
                continue
            publisher = _publisher(node, topic, options.names.get(topic.name, topic.name))
            if publisher is not None:
                self._publishers[topic.name] = publisher
        if not self._publishers:
            wanted = f"; asked for {list(options.topics)}" if options.topics else ""
            raise InputError(f"bag: nothing to publish among {sorted(reader.topics)}{wanted}")
        self._clock = node.create_publisher(Clock, "/clock", 10) if options.clock_rate > 0 else None
        self._next_clock = 0.0

    def run(self) -> int:
        self._wait_for_subscribers()
        count = 0
        while True:
            count += self._run_once()
            if not self._options.loop:
                break
        for publisher in self._publishers.values():
            _drain(publisher)
        return count

    def _run_once(self) -> int:
        options = self._options
        first = self._reader.start_ns + round(options.start_s * 1e9)
        stop = None if options.duration_s is None else first + round(options.duration_s * 1e9)
        began, count = time.monotonic(), 0
        for topic, log_ns, raw in self._reader.messages(set(self._publishers), first, stop):
            self._sleep_until(began, first, log_ns)
            self._publishers[topic].publish(bytes(raw))
            count += 1
        return count

    def _sleep_until(self, began: float, first_ns: int, log_ns: int) -> None:
        """Let time pass until a message is due, telling it on /clock meanwhile."""
        rate = self._options.rate
        while True:
            now = time.monotonic()
            due = began + (log_ns - first_ns) / 1e9 / rate if rate > 0 else now
            self._tell_time(now, log_ns if due <= now else log_ns - round((due - now) * rate * 1e9), due <= now)
            if due <= now:
                return
            next_tick = self._next_clock if self._clock is not None else due
            time.sleep(max(min(due, next_tick) - now, 0))

    def _tell_time(self, now: float, stamp_ns: int, at_message: bool) -> None:
        # As fast as possible has no real time to divide: each message brings its time.
        if self._clock is None or (now < self._next_clock and not (at_message and self._options.rate == 0)):
            return
        self._clock.publish(Clock(clock=ns_to_stamp(max(stamp_ns, 0))))
        self._next_clock = now + 1 / self._options.clock_rate

    def _wait_for_subscribers(self) -> None:
        deadline = time.monotonic() + self._options.wait_s
        wanted = self._options.wait_topics
        waiting = {name for name in self._publishers if not wanted or name in wanted}
        while waiting and time.monotonic() < deadline:
            waiting = {name for name in waiting if not self._publishers[name].get_subscription_count()}
            time.sleep(0.05)
        if waiting and self._options.wait_s:
            log.warning("no subscriber of %s", ", ".join(sorted(waiting)))


def _publisher(node: Node, topic: Topic, name: str) -> Any:
    package, _, kind = topic.type.split("/") if topic.type.count("/") == 2 else ("", "", topic.type)
    try:
        message_type = getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError, ValueError):
        log.warning("%s: messages of type %s are not installed; not published", topic.name, topic.type)
        return None
    latched = topic.name in LATCHED_TOPICS or topic.type in LATCHED_TYPES
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    # Reliable serves reliable and best effort subscribers alike.
    qos = QoSProfile(depth=QUEUE_DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
    return node.create_publisher(message_type, name, qos)


def _drain(publisher: Any) -> None:
    """Wait until reliable subscribers have everything; the writer's history ends with the process."""
    from rclpy.duration import Duration

    publisher.wait_for_all_acked(Duration(seconds=DRAIN_TIMEOUT_S))
