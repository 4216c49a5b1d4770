# SPDX-License-Identifier: Apache-2.0
"""The parts of a report that show one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.run_identity import flattened
from perception.report.charts import Series, line_chart, reliability_chart, without_gaps
from perception.report.comparison import HEADLINES
from perception.report.page import text
from perception.report.pictures import classes_in, label_uri, photo_uri, read_picture
from perception.report.runs import ReportRun
from perception.report.tables import card, cell, color_legend, number, sentences, table, words

STAGES = ("read", "prepare", "segment", "cloud", "insert", "costmap", "frame")

MAX_FAILURES = 50
"""Named in the page."""


def overview(run: ReportRun) -> str:
    """What was run, the headline numbers, and what is missing or went wrong."""
    summary, source = run.summary, run.summary.get("source", {})
    network = summary.get("network") or {"truth": "the recording's own labels", "none": "no labels"}.get(
        str(summary.get("labels")), "–"
    )
    facts = [
        f"{source.get('name', run.source)} ({source.get('kind', 'recording')})",
        f"{number(source.get('frames'))} frames over {number(source.get('recording_seconds'), 's')}",
        str(network),
    ]
    tiles = [_tile(summary["scalars"][name]) for name in HEADLINES if name in summary.get("scalars", {})]
    trouble = [f"Not scored: {line}" for line in summary.get("not_scored", [])]
    if source.get("complete") is False:
        trouble.append(f"The recording is not complete: {source.get('note') or 'it breaks off'}.")
    details = source.get("details") or {}
    for what in ("dropped", "warnings"):
        for reason, count in (source.get(what) or {}).items():
            if details.get(reason) and details[reason] == source.get("note"):
                continue  # What broke off was said above.
            example = f" ({details[reason]})" if reason in details else ""
            trouble.append(f"{'Frames dropped' if what == 'dropped' else 'Warning'}: {count} × {reason}{example}")
    content = f"<p>{text(' · '.join(facts))}</p>" + f'<div class="tiles">{"".join(tiles)}</div>'
    return card(f"Summary: {run.name}", content + (f"<h3>Notes</h3>{sentences(trouble)}" if trouble else ""))


def failed(failures: Sequence[tuple[str, str]]) -> str:
    """What could not be evaluated at all; empty text where nothing failed."""
    lines = [" ".join((why if why.startswith(what) else f"{what}: {why}").split()) for what, why in failures]
    lines, more = lines[:MAX_FAILURES], lines[MAX_FAILURES:]
    if more:
        lines.append(f"{len(more)} more; the files beside this page name them all")
    return card("Not evaluated", sentences(lines), "failed")


def _tile(scalar: dict[str, Any]) -> str:
    value = number(scalar.get("value"), str(scalar.get("unit") or ""))
    return f'<div class="tile"><b>{value}</b><span>{text(scalar.get("title", ""))}</span></div>'


def frames(run: ReportRun, limit: int) -> str:
    """The worst frames (evenly spread ones without a truth) with what was seen, true, said and wrong."""
    blocks, labels = [], []
    for entry in (run.summary.get("worst") or [])[:limit]:
        block, images = _frame(run, entry)
        blocks.append(block)
        labels += images
    if not blocks:
        return ""
    legend = color_legend(classes_in(labels, run.label_set)) if labels and run.label_set else ""
    scored = any(entry.get("score") is not None for entry in run.summary["worst"])
    red = " Errors: wrong pixels are red, what the truth does not name is dark." if scored else ""
    intro = f'<p class="caption">Pictures are made smaller; black has no label.{red}</p>{legend}'
    title = "Worst frames" if scored else "Frames, evenly spread"
    return card(title, f'{intro}<div class="frames">{"".join(blocks)}</div>')


def _frame(run: ReportRun, entry: dict[str, Any]) -> tuple[str, list[NDArray[np.uint8]]]:
    """HTML of one frame, and its pictures in the colors of the classes."""
    figures, labels = [], []
    for key, title in (
        ("color", "image"), ("overlay", "labels over the image"), ("labels", "labels"), ("truth", "truth"),
        ("error", "errors"),
    ):  # fmt: skip
        path = run.file(str(entry[key])) if entry.get(key) else None
        if path is None:
            continue
        image = read_picture(path)
        flat = key in ("labels", "truth", "error")
        if key in ("labels", "truth"):
            labels.append(image)
        uri, kind = (label_uri(image), ' class="pixels"') if flat else (photo_uri(image), "")
        alt, (height, width) = f"{title} of frame {entry.get('frame')}", image.shape[:2]
        figures.append(
            f'<figure><img src="{uri}"{kind} alt="{text(alt)}" width="{width}" height="{height}">'
            f"<figcaption>{title}</figcaption></figure>"
        )
    scores = [
        f"{title} {number(entry[key])}"
        for key, title in (("score", "pixel accuracy"), ("mean_iou", "mean IoU"))
        if entry.get(key) is not None
    ]
    scores += [f"{seconds:.2f} s after the first"] if (seconds := _seconds(run, entry)) is not None else []
    head = f"<b>Frame {number(entry.get('frame'))}</b> {text(' · '.join(scores))}"
    return f'<div class="frame"><p>{head}</p><div class="pictures">{"".join(figures)}</div></div>', labels


def _seconds(run: ReportRun, entry: dict[str, Any]) -> float | None:
    """When a frame was, after the first one; None where nobody knows."""
    first = run.run.frames[0].get("stamp_ns") if run.run.frames else None
    stamp = entry.get("stamp_ns")
    return (stamp - first) / 1e9 if isinstance(stamp, int) and isinstance(first, int) else None


def frame_times(run: ReportRun) -> tuple[NDArray[np.float64], str]:
    """Horizontal axis of a run's curves: seconds since its first frame, or numbers of frames where stamps go back."""
    stamps = [row.get("stamp_ns") for row in run.run.frames]
    known = [stamp for stamp in stamps if isinstance(stamp, int)]
    if known and len(known) == len(stamps):
        seconds = np.array([(stamp - known[0]) / 1e9 for stamp in known], np.float64)
        if (np.diff(seconds) >= 0).all() and seconds[-1] > 0:
            return seconds, "time in the recording, s"
    return np.arange(len(stamps), dtype=np.float64), "frame, number"


def column(run: ReportRun, name: str) -> NDArray[np.float64]:
    """(N,) values of a column of ``frames.csv``, NaN where there is none."""
    values = [row.get(name) for row in run.run.frames]
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], np.float64)


def curves(run: ReportRun) -> str:
    """Scores, latency and memory over the run, and the table of stages."""
    times, axis = frame_times(run)
    if not len(times):
        return ""

    def series(*parts: tuple[str, str]) -> list[Series]:
        return [
            Series(title, times, column(run, name), f"--run-{number}") for number, (name, title) in enumerate(parts)
        ]

    stages = series(*((f"{stage}_ms", stage) for stage in STAGES if stage != "frame"))
    # Dashed over the longest stage, which it nearly covers.
    stages.append(Series("whole frame", times, column(run, "frame_ms"), "--text", True))
    scores = series(("pixel_accuracy", "pixel accuracy"), ("mean_iou", "mean IoU"))
    fusion = series(("single_accuracy", "single images"), ("fused_accuracy", "fused map"))
    # Of long runs only every so many frames are scored against the finished map.
    fusion = [without_gaps(one) for one in fusion]
    segmentation = run.summary.get("segmentation") or {}
    charts = [
        line_chart("Scores of single images against the truth", scores, axis, "", (0.0, 1.0)),
        line_chart("Pixel accuracy before and after fusion, same pixels", fusion, axis, "", (0.0, 1.0)),
        line_chart("Mean confidence of the labels", series(("confidence", "confidence")), axis, "", (0.0, 1.0)),
        line_chart("Time per stage (logarithmic)", stages, axis, "ms", logarithmic=True),
        reliability_chart(segmentation.get("calibration") or [], segmentation.get("expected_calibration_error")),
        line_chart("Memory of the whole process", series(("rss_mb", "process")), axis, "MB"),
        line_chart("Memory of the map", series(("map_mb", "map")), axis, "MB"),
    ]
    return card("Curves", f'<div class="charts">{"".join(charts)}</div>{_stage_table(run)}')


def _stage_table(run: ReportRun) -> str:
    timing = run.summary.get("timing") or {}
    stages: dict[str, Any] = timing.get("stages") or {}
    longest = max((float(stage.get("p50_ms") or 0) for name, stage in stages.items() if name != "frame"), default=0)
    rows = []
    for name in [name for name in STAGES if name in stages] + [name for name in stages if name not in STAGES]:
        stage = stages[name]
        times = [stage.get(f"{key}_ms") for key in ("mean", "p50", "p95", "p99", "max")]
        share = 0.0 if name == "frame" or not longest else float(times[1] or 0) / longest
        cells = [cell(value, "ms", "heat" if i == 1 else "") for i, value in enumerate(times)]
        cells[1] = cells[1].replace("<td ", f'<td style="--share:{share:.3f}" ', 1)
        rows.append([words("whole frame" if name == "frame" else name), cell(stage.get("count")), *cells])
    lines = [
        f"{title}: {number(timing[key], unit)}"
        for key, title, unit in (
            ("processing_seconds", "Pipeline and reading", "s"),
            ("scoring_seconds", "scoring", "s"),
            ("warm_up_seconds", "warming up", "s"),
            ("real_time_factor", "real-time factor", ""),
            ("dropped_frames", "frames dropped", ""),
        )
        if timing.get(key) is not None
    ]
    note = f'<p class="caption">{text("; ".join(lines))}.</p>' if lines else ""
    head = ["stage", "frames", "mean", "p50", "p95", "p99", "max"]
    return f"<h3>Latency</h3>{table(head, rows)}{note}" if rows else ""


def details(run: ReportRun) -> str:
    """All headline numbers, the parameters, the recording and the machine."""
    scalars = run.summary.get("scalars") or {}
    numbers = [
        [
            words(one.get("title", name)),
            cell(one.get("value"), str(one.get("unit") or "")),
            words(one.get("better", "")),
        ]
        for name, one in scalars.items()
    ]
    config = [[words(name), _fact(value)] for name, value in flattened(run.summary.get("config") or {}).items()]
    about = {key: run.summary.get(key) for key in ("name", "created", "perception", "key", "labels", "network")}
    about.update(flattened({"source": {k: v for k, v in run.summary.get("source", {}).items() if k != "details"}}))
    about.update(flattened({"machine": run.summary.get("machine") or {}}))
    facts = [[words(name), _fact(value)] for name, value in about.items() if value not in (None, "", {}, [])]
    parts = (
        ("All numbers", table(["number", "value", "better"], numbers, left=(0, 2))),
        ("Parameters", table(["parameter", "value"], config, left=(0, 1))),
        ("Recording and machine", table(["", ""], facts)),
    )
    folded = "".join(f"<details><summary>{title}</summary>{content}</details>" for title, content in parts if content)
    return card("Details", folded)


def _fact(value: Any) -> str:
    """A cell of a value as it was given; a dash for an empty one."""
    if isinstance(value, float):
        return words(f"{value:.9g}")
    return words("–" if value in ("", {}, [], None) else value)
