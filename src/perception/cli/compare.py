# SPDX-License-Identifier: Apache-2.0
"""``perception compare``: two evaluations side by side; exit code 2 when a chosen number got worse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perception.errors import InputError

GOT_WORSE = 2


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "compare",
        help="compare evaluated runs",
        description="Compare two evaluations of the same recordings: differences with 95 % bootstrap intervals over "
        "frames (over recordings for numbers that frames do not have). Exit code 2 when a number chosen with --metric "
        "got worse by more than its margin, so that continuous integration fails; 1 where that cannot be told: a wrong "
        "name, a number or a recording that the second evaluation lacks.",
    )
    parser.add_argument("a", type=Path, help="folder of the evaluation to compare with")
    parser.add_argument("b", type=Path, help="folder of the evaluation to judge")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME[=MARGIN]",
        help="fail when this number gets worse by more than the margin, in its unit (default: 0), such as "
        "map.semantic.mean_iou=0.01; the printed table has all names",
    )
    parser.add_argument("--output", type=Path, help="write the comparison as .json, .csv or .md")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, write; 2 when something chosen got worse."""
    from perception.evaluation.run_comparison import compare_folders

    if arguments.output is not None and arguments.output.suffix not in (".json", ".csv", ".md"):
        raise InputError(f"--output: expected a file that ends in .json, .csv or .md, got {arguments.output}")
    found = compare_folders(arguments.a, arguments.b, parse_margins(arguments.metric))
    if not found["metrics"]:
        raise InputError(f"compare: expected a number that both have, {arguments.a} and {arguments.b} have none")
    print(table(found["metrics"]))
    for pair in found["pairs"]:
        if pair["name"] != pair["name_b"]:
            print(f"compared although their names differ: {pair['name']} and {pair['name_b']}")
    for name in found["unpaired"]:
        print(f"not compared, in one evaluation only: {name}")
    if arguments.output is not None:
        _write(arguments.output, found)
    worse = [entry for entry in found["metrics"] if entry["worse"]]
    for entry in worse:
        print(f"worse: {entry['title']} ({entry['name']}) {entry['a']:.4g} → {entry['b']:.4g} {entry['unit']}".rstrip())
    return GOT_WORSE if worse else 0


def parse_margins(texts: list[str]) -> dict[str, float]:
    """Margins by name from ``NAME`` or ``NAME=MARGIN``; raises InputError for a margin that is no number."""
    margins = {}
    for text in texts:
        name, separator, value = text.partition("=")
        try:
            margins[name] = float(value) if separator else 0.0
        except ValueError as error:
            raise InputError(f"--metric: expected NAME=MARGIN with a number, got {text!r}") from error
    return margins


def table(metrics: list[dict[str, Any]]) -> str:
    """The comparison as a Markdown table.

    The interval is around the mean over the pairs, which stands beside it: there every frame counts the same, in the
    difference every pixel.
    """
    rows = [["number", "a", "b", "difference", "mean of pairs (95 % interval)", "pairs", "name", ""], ["---"] * 8]
    for entry in metrics:
        interval = ""
        if entry["low"] is not None:
            interval = f"{_number(entry['mean_difference'], '+')} ({entry['low']:+.4g} … {entry['high']:+.4g})"
        title = f"{entry['title']}, {entry['unit']}" if entry["unit"] else entry["title"]
        numbers = [_number(entry["a"]), _number(entry["b"]), _number(entry["difference"], "+")]
        verdict = "worse" if entry["worse"] else ""
        rows.append([title, *numbers, interval, str(entry["frames"]), entry["name"], verdict])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: float, sign: str = "") -> str:
    """Four digits; all of them before the point of a large number."""
    return f"{value:{sign},.0f}" if abs(value) >= 1e4 else f"{value:{sign}.4g}"


def _write(path: Path, found: dict[str, Any]) -> None:
    from perception.evaluation.run_folder import RowWriter, write_json

    if path.suffix == ".json":
        write_json(path, found)
    elif path.suffix == ".md":
        path.write_text(table(found["metrics"]) + "\n", encoding="utf-8")
    else:
        with RowWriter(path, list(found["metrics"][0])) as writer:
            for entry in found["metrics"]:
                writer.write(entry)
