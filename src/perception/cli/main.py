# SPDX-License-Identifier: Apache-2.0
"""Entry point of the command line; the only place that turns errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from perception import __version__
from perception.errors import PerceptionError
from perception.process import tune

COMMANDS = {
    "demo": "replay a recorded sequence and show what comes out",
    "replay": "run the pipeline over a folder or a bag: map, costmap, pictures, figures",
    "evaluate": "score the pipeline on recordings: labels, map, costmap, time, memory",
    "report": "make a page about evaluated runs, complete in one file",
    "view": "show a map, a run or a recording: in Rerun, or as a page",
    "info": "say what is in a map file, a bag or a folder of frames",
    "bench": "measure speed against OctoMap's own library",
    "simulate": "record a drive through a scene with known truth",
    "train": "train a segmentation network",
    "compare": "compare evaluated runs; fails when a chosen number got worse",
    "merge": "add maps of several robots or recordings together",
    "sweep": "evaluate many networks and parameters on many recordings, resumable",
    "record": "write what the pipeline makes of a recording into a new bag",
    "score": "score networks on a scene with known truth and on photographs",
    "weights": "import or blend network weights",
    "bringup": "start the ROS 2 nodes and their lifecycle without ros2 launch",
    "snapshot": "draw the live map, costmaps and clouds into pictures",
    "play": "publish a bag's messages in real time with /clock",
    "doctor": "say what is wrong with the installation and the running graph",
    "warmup": "compile all kernels now, so that the first frame does not wait",
}
"""Name of each command (its module in this package) and its line in the overview."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parsed, run = _parse(arguments)
    tune()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if parsed.debug:
        logging.getLogger("perception").setLevel(logging.DEBUG)
    try:
        return run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    except (PerceptionError, OSError) as error:
        if parsed.debug:
            raise
        print(f"perception: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _parse(arguments: list[str]):
    parser = argparse.ArgumentParser(
        prog="perception", description="Camera frames in, semantic octree and costmap out."
    )
    parser.add_argument("--version", action="version", version=f"perception {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error and debug messages")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in arguments if not word.startswith("-")), None)
    runners = {}
    for name, summary in COMMANDS.items():
        # Only the module of the named command is imported: the overview must not wait for kernels or ROS.
        if name == named:
            module = importlib.import_module(f"perception.cli.{name}")
            command = module.add_parser(subparsers)
            command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
            runners[name] = module.run
        else:
            subparsers.add_parser(name, help=summary)
    parsed = parser.parse_args(arguments)
    return parsed, runners[parsed.command]
