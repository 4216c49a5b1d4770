# SPDX-License-Identifier: Apache-2.0
"""The ``main`` of every executable: runs a node, and ends it in time when a signal comes."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from threading import Thread
from time import sleep

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from perception.errors import PerceptionError
from perception.process import tune

RCLError = rclpy_implementation.RCLError
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
END_TIMEOUT_S = 4.0
"""How long the end of a node that does not say may take; launch files kill after ten seconds."""


class Ending:
    """Waits for the first SIGINT or SIGTERM; further ones change nothing.

    rclpy's own handlers invalidate the context at once, wherever the node is in its work: what it is at fails then, and
    a node that was asked to end says that it failed. Here the executor goes on until it comes to ``begun``; the node
    ends with everything in place.

    Args:
        node: whose end it is; ``end_timeout_s`` says how long it may take.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.begun: Future = Future()
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        Thread(target=self._wait, name="signals", daemon=True).start()
        # Python's handlers run in the main thread, which may wait in C for long; the descriptor wakes the thread above.
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in ENDING_SIGNALS:
            signal.signal(number, lambda *_: None)

    def _wait(self) -> None:
        while self._read.recv(1)[0] not in ENDING_SIGNALS:
            pass
        self.begun.set_result(None)
        # A library that holds a thread, or a machine that has no time, must not keep a robot from starting anew.
        sleep(getattr(self._node, "end_timeout_s", END_TIMEOUT_S))
        os._exit(0)


def run_node(node_class: Callable[[], Node], arguments: list[str] | None = None) -> int:
    """Run a node until it is told to end; the ``main`` of every executable.

    Returns:
        Exit code: 0 after SIGINT, SIGTERM or a shutdown, 1 when the node could not be made.
    """
    # While the node loads there is nothing to save, and compilers do not like to be interrupted.
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))
    tune()
    node, ending = None, None
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = node_class()
        ending = Ending(node)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin_until_future_complete(ending.begun)
    except (KeyboardInterrupt, ExternalShutdownException, SystemExit):
        pass
    except (PerceptionError, RCLError) as error:
        rclpy.logging.get_logger("perception").fatal(" ".join(str(error).split()))  # pyright: ignore[reportAttributeAccessIssue]
        return 1
    finally:
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()  # pyright: ignore[reportPrivateImportUsage]
    if ending is not None and ending.begun.done():
        # Python's own end would wait for the threads of libraries and free what the system frees faster.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0
