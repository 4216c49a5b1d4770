# SPDX-License-Identifier: Apache-2.0
"""Two live ROS nodes for tests; this host only, in a domain of their own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Helpers beside the tests are imported by name.
sys.path.insert(0, str(Path(__file__).parent))

PROFILE = Path(__file__).resolve().parents[2] / "config" / "fastdds_shm.xml"
DOMAIN_ID = 40 + os.getpid() % 60


class NodePair:
    """A node that offers, a node that asks, and the executor of both."""

    def __init__(self, context: Any) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = context
        self.offering = rclpy.create_node("offering", context=context)
        self.asking = rclpy.create_node("asking", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.offering)
        self.executor.add_node(self.asking)

    def spin_until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.05)
        return condition()

    def close(self) -> None:
        self.executor.shutdown()
        self.offering.destroy_node()
        self.asking.destroy_node()


@pytest.fixture(scope="module")
def nodes() -> Iterator[NodePair]:
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(PROFILE))
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=DOMAIN_ID)
        pair = NodePair(context)
        yield pair
        pair.close()
        context.try_shutdown()
