# SPDX-License-Identifier: Apache-2.0
"""The ``main`` of every executable: runs a node, and ends it in time when a signal comes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions, install_signal_handlers

from perception.errors import PerceptionError

RCLError = rclpy_implementation.RCLError
SWITCH_INTERVAL_S = 0.0005
"""A thread that runs Python gives way after this; Python's own 5 ms are a sixth of a frame at 30 Hz."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
"""Numbers of glibc's mallopt."""
MALLOC_OPTIONS = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 256 << 20, M_TOP_PAD: 64 << 20, M_ARENA_MAX: 2}
"""A frame needs the same megabytes as the one before. As glibc comes, it gives them back to the system in between, and
every frame pays for thousands of page faults: more than half of its latency."""


def keep_memory() -> bool:
    """Let the process reuse the memory of its arrays; False where the C library is not glibc."""
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in MALLOC_OPTIONS.items())


def run_node(node_class: Callable[[], Node], arguments: list[str] | None = None) -> int:
    """Run a node until it is told to end; the ``main`` of every executable.

    Returns:
        Exit code: 0 after SIGINT, SIGTERM or a shutdown, 1 when the node could not be made.
    """
    # While the node loads there is nothing to save, and compilers do not like to be interrupted; afterwards rclpy's
    # handlers wake the executor.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_memory()
    node = None
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = node_class()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        install_signal_handlers(SignalHandlerOptions.ALL)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException, SystemExit):
        pass
    except (PerceptionError, RCLError) as error:
        rclpy.logging.get_logger("perception").fatal(" ".join(str(error).split()))  # pyright: ignore[reportAttributeAccessIssue]
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()  # pyright: ignore[reportPrivateImportUsage]
    return 0
