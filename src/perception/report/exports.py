# SPDX-License-Identifier: Apache-2.0
"""The numbers of a report as JSON, CSV and Markdown, for programs and for text editors."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from perception.atomic_file import atomic_write
from perception.evaluation.run_folder import plain
from perception.evaluation.scalars import BY_NAME
from perception.report.comparison import Difference, recording_means
from perception.report.runs import ReportRun

FORMAT = 1
CLASS_COLUMNS = ("run", "source", "variant", "scores", "id", "name", "pixels", "predicted", "accuracy", "precision",
                 "iou", "single_iou", "fused_iou", "true", "ap")  # fmt: skip
FRAME_TABLES = ("index", "stamp_ns", "dropped", "pixel_accuracy", "mean_iou", "confidence", "single_accuracy",
                "fused_accuracy", "fused_mean_iou", "frame_ms", "rss_mb", "map_mb")  # fmt: skip


def write_exports(
    runs: Sequence[ReportRun],
    differences: Sequence[Difference],
    page: Path,
    failures: Sequence[tuple[str, str]] = (),
) -> list[Path]:
    """Write the files beside a page.

    Args:
        runs: of the report.
        differences: between them.
        page: whose name the files take: report.json, report.md, report_scalars.csv, report_classes.csv,
            report_frames.csv and, of several runs, report_means.csv and report_differences.csv.
        failures: what could not be evaluated, and why.
    """
    written = []

    def save(suffix: str, content: str) -> None:
        path = page.with_name(f"{page.stem}{suffix}")
        atomic_write(path, [content.encode("utf-8")])
        written.append(path)

    save(".json", json.dumps(plain(as_json(runs, differences, failures)), indent=1, allow_nan=False) + "\n")
    save(".md", as_markdown(runs, differences, failures))
    save(
        "_scalars.csv", as_csv(("run", "source", "variant", "name", "title", "value", "unit", "better"), _scalars(runs))
    )
    save("_classes.csv", as_csv(CLASS_COLUMNS, _classes(runs)))
    save("_frames.csv", as_csv(("run", "source", "variant", *FRAME_TABLES), _frames(runs)))
    means = [asdict(one) for one in recording_means(runs)]
    if means:
        save("_means.csv", as_csv(tuple(means[0]), means))
    if differences:
        rows = [{**one.as_dict(), "sources": "; ".join(one.sources)} for one in differences]
        save("_differences.csv", as_csv(tuple(rows[0]), rows))
    return written


def as_json(
    runs: Sequence[ReportRun], differences: Sequence[Difference], failures: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """All summaries, means over recordings, differences and failures."""
    return {
        "format": FORMAT,
        "runs": [
            {"name": run.name, "source": run.source, "variant": run.variant, "summary": run.summary} for run in runs
        ],
        "means": [asdict(one) for one in recording_means(runs)],
        "differences": [one.as_dict() for one in differences],
        "failed": [{"what": what, "error": error} for what, error in failures],
    }


def _about(run: ReportRun) -> dict[str, Any]:
    return {"run": run.name, "source": run.source, "variant": run.variant}


def _scalars(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    return [
        {**_about(run), "name": name, **{key: one.get(key) for key in ("title", "value", "unit", "better")}}
        for run in runs
        for name, one in (run.summary.get("scalars") or {}).items()
    ]


def _classes(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    rows = []
    for run in runs:
        summary = run.summary
        parts = {
            "segmentation": summary.get("segmentation") or {},
            "fusion": summary.get("fusion") or {},
            "map": (summary.get("map") or {}).get("semantic") or {},
            "detection": (summary.get("detection") or {}).get("voc") or {},
        }
        rows += [
            {**_about(run), "scores": part, **entry}
            for part, content in parts.items()
            for entry in content.get("classes") or []
        ]
    return rows


def _frames(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    return [{**_about(run), **row} for run in runs for row in run.run.frames]


def as_csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """A table with a head; keys that are no column are left out, None is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return file.getvalue()


def as_markdown(
    runs: Sequence[ReportRun], differences: Sequence[Difference], failures: Sequence[tuple[str, str]] = ()
) -> str:
    """Headline numbers of all runs, their means, differences, failures, and the scores per class of each run."""
    names = list(dict.fromkeys(name for run in runs for name in run.summary.get("scalars") or {}))
    titles = {name: one for run in runs for name, one in (run.summary.get("scalars") or {}).items()}
    lines = ["# Evaluation", ""]
    rows = []
    for name in names:
        unit = f", {titles[name]['unit']}" if titles[name].get("unit") else ""
        rows.append([f"{titles[name].get('title', name)}{unit}", *(_shown(run.run.scalar(name)) for run in runs)])
    lines += _table(["number", *(run.name for run in runs)], rows)
    lines += _means(runs)
    if failures:
        lines += ["", "## Not evaluated", "", *(f"- {_plain(what)}: {_plain(error)}" for what, error in failures)]
    if differences:
        lines += ["", "## Paired differences", ""]
        cells = [
            [
                one.title,
                one.b,
                f"{one.frames} {one.pairs}",
                _shown(one.difference),
                f"too few {one.pairs}" if one.low is None else f"{_shown(one.low)} to {_shown(one.high)}",
                one.verdict,
            ]
            for one in differences
        ]
        lines += [f"Against {_plain(differences[0].a)}; 95 % intervals by the moving block bootstrap.", ""]
        lines += _table(["metric", "run", "pairs", "difference", "95 % interval", "verdict"], cells)
    for run in runs:
        entries = (run.summary.get("segmentation") or {}).get("classes") or []
        scored = [entry for entry in entries if entry.get("iou") is not None]
        if scored:
            lines += ["", f"## Classes: {_plain(run.name)}", ""]
            cells = [
                [entry.get("name"), *(_shown(entry.get(k)) for k in ("iou", "accuracy", "precision"))]
                for entry in scored
            ]
            lines += _table(["class", "IoU", "recall", "precision"], cells)
        if run.summary.get("not_scored"):
            lines += ["", f"Not scored ({_plain(run.name)}):", ""]
            lines += [f"- {_plain(line)}" for line in run.summary["not_scored"]]
    return "\n".join(lines) + "\n"


def _means(runs: Sequence[ReportRun]) -> list[str]:
    """Lines of the means over recordings; none of a single one."""
    means = {(one.metric, one.variant): one for one in recording_means(runs)}
    if not means:
        return []
    variants = list(dict.fromkeys(variant for _, variant in means))
    rows = [
        [
            BY_NAME[metric].title,
            means[metric, variants[0]].recordings,
            *(_shown(means[metric, v].value) for v in variants),
        ]
        for metric in dict.fromkeys(metric for metric, _ in means)
    ]
    names = [variant or "all runs" for variant in variants]
    return ["", "## Means over recordings", "", *_table(["number", "recordings", *names], rows)]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_plain(value) for value in line) + " |" for line in lines]


def _plain(value: Any) -> str:
    """Text that Markdown leaves alone, in one line."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>|#" else letter for letter in text)


def _shown(value: Any) -> str:
    return "n/a" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
