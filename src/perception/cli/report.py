# SPDX-License-Identifier: Apache-2.0
"""``perception report``: one page about runs of ``perception evaluate``, and the same data as files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "report",
        help="make a page about evaluated runs",
        description="Write one HTML page that needs no network (scores, comparison, worst frames, curves, the octree "
        "in three dimensions, costmaps) and beside it the same numbers as JSON, CSV and Markdown.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folders of evaluate or sweep")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Write the files and say where they are."""
    from perception.report.write import write_report

    for path in write_report(arguments.runs, arguments.output):
        size = path.stat().st_size
        print(f"{path} ({size / 1e6:.1f} MB)" if size >= 1e6 else f"{path} ({size / 1e3:.0f} kB)")
    return 0
