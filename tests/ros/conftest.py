# SPDX-License-Identifier: Apache-2.0
"""Live ROS nodes for tests; this host only, and each test file in a domain that nobody else uses."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Helpers and toy networks beside the tests are imported by name.
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

if TYPE_CHECKING:
    from ros_bench import Bench

SOURCE = HERE.parents[1] / "src"
PROFILE = HERE.parents[1] / "config" / "fastdds_shm.xml"
DOMAINS = range(1, 102)
"""Domains whose ports lie below those that Linux gives to clients; 0 is everybody's."""
_turns = itertools.count(os.getpid() * 37)


def reserve_domain() -> tuple[int, socket.socket]:
    """A domain that no other test process has, and what keeps it reserved until it is closed.

    A TCP port in the domain's range stands for it: DDS uses UDP.
    """
    for turn in itertools.islice(_turns, 3 * len(DOMAINS)):
        domain = DOMAINS[turn % len(DOMAINS)]
        lock = socket.socket()
        try:
            lock.bind(("127.0.0.1", 7400 + 250 * domain))
        except OSError:
            lock.close()
        else:
            return domain, lock
    raise OSError(f"expected a free ROS domain among {DOMAINS}")


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

    def spin_until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.05)
        return condition()

    def close(self) -> None:
        self.executor.shutdown()
        self.offering.destroy_node()
        self.asking.destroy_node()


@pytest.fixture(scope="module")
def ros_environment() -> Iterator[dict[str, str]]:
    """Environment of processes that belong to the graph of this test file."""
    domain, lock = reserve_domain()
    with lock:
        yield {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCE), str(HERE), os.environ.get("PYTHONPATH")])),
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE),
        }


@pytest.fixture(scope="module")
def nodes(ros_environment: dict[str, str]) -> Iterator[NodePair]:
    """Two nodes of this test file's graph."""
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
            patch.setenv(name, ros_environment[name])
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=int(ros_environment["ROS_DOMAIN_ID"]))
        pair = NodePair(context)
        yield pair
        pair.close()
        context.try_shutdown()


@pytest.fixture
def bench(nodes: NodePair) -> Iterator[Bench]:
    """Runs nodes under test in this process and talks to them."""
    from ros_bench import Bench

    bench = Bench(nodes.context)
    yield bench
    bench.close()
