# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes and what they stand on: the only layer that knows rclpy and messages."""

import os
import signal
import sys
from itertools import pairwise


def _runs_node() -> bool:
    """Whether this process is a node: ``python -m perception.ros.NODE``, or the script of that name."""
    words = sys.orig_argv
    modules = [after for word, after in pairwise(words) if word == "-m"]
    script = os.path.basename(sys.argv[0]) if sys.argv else ""
    named = os.path.exists(os.path.join(os.path.dirname(__file__), f"{script}.py"))
    return named or any(module.startswith(f"{__name__}.") for module in modules[:1])


if _runs_node():
    # The imports take a second, and there is nothing to save yet: a signal ends the process without a traceback.
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda *_: os._exit(0))
