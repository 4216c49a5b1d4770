# SPDX-License-Identifier: Apache-2.0
"""``perception sweep``: evaluate networks and parameters on many recordings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

SHOWN = (
    "segmentation.mean_iou",
    "fusion.single.mean_iou",
    "fusion.fused.mean_iou",
    "fusion.single.pixel_accuracy",
    "fusion.fused.pixel_accuracy",
    "map.semantic.mean_iou",
    "map.occupancy.f1",
    "costmap.false_free_rate",
    "timing.stages.frame.p50_ms",
    "memory.peak_process_mb",
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "sweep",
        help="evaluate networks and parameters on many recordings",
        description="Evaluate every combination of recordings, networks and parameters that a YAML file names (keys: "
        "sources, networks, parameters, settings, labels, config, scores, reading). Cells that are finished are not "
        "run again: the same command goes on where it stopped.",
    )
    parser.add_argument("config", type=Path, help="YAML file of the sweep")
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run on a Ray cluster; 'local' starts one here with --jobs workers"
    )
    parser.add_argument("--list", action="store_true", help="only say which cells there are and which are finished")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the cells that are left; 1 when one failed."""
    from perception.sweep import DONE, FAILED, Cell, Plan, is_done, run_sweep

    cells = Plan.load(arguments.config).cells()
    left = [cell for cell in cells if not is_done(arguments.output, cell)]
    print(f"{len(cells)} cells, {len(cells) - len(left)} finished before")
    if arguments.list:
        for cell in cells:
            print(f"  {'open' if cell in left else DONE}: {_describe(cell)} ({cell.folder})")
        return 0

    def report(cell: Cell, status: str, error: str) -> None:
        print(f"  {status}: {_describe(cell)}{f' ({error})' if error else ''}", flush=True)

    result = run_sweep(cells, arguments.output, arguments.jobs, arguments.ray, report)
    rows = table_rows(arguments.output, result)
    _write(arguments.output, rows)
    print(markdown(rows))
    print(f"results: {arguments.output}/sweep.json, sweep.csv, {len(rows)} run folders")
    return 1 if any(cell["status"] == FAILED for cell in result["cells"]) else 0


def table_rows(output: Path, result: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per finished cell: recording, network, parameters and the headline numbers."""
    from perception.evaluation.run_folder import load_run

    rows = []
    for cell in result["cells"]:
        if cell["status"] == "done":
            run = load_run(output / cell["folder"], frames=False)
            numbers = {name: scalar["value"] for name, scalar in run.summary["scalars"].items()}
            rows.append({"source": run.name, "network": cell["network"], **cell["parameters"], **numbers})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table of what was varied and a few headline numbers."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    varied = [name for name in names if name in ("source", "network") or not _is_scalar(name)]
    columns = [*varied, *(name for name in SHOWN if name in names)]
    lines = [columns, ["---"] * len(columns)]
    lines += [[_text(row.get(name)) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_scalar(name: str) -> bool:
    from perception.evaluation.scalars import BY_NAME

    return name in BY_NAME


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _describe(cell: Any) -> str:
    values = ", ".join(f"{name}={value}" for name, value in cell.parameters.items())
    return f"{cell.source.name}, {cell.network}{f', {values}' if values else ''}"


def _write(output: Path, rows: list[dict[str, Any]]) -> None:
    from perception.evaluation.run_folder import RowWriter

    names = list(dict.fromkeys(name for row in rows for name in row))
    with RowWriter(output / "sweep.csv", names) as writer:
        for row in rows:
            writer.write(row)
