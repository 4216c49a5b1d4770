# SPDX-License-Identifier: Apache-2.0
"""The parts of a report that show one run."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.evaluation.run_folder import CONFUSION, COSTMAP, TRUE_COSTMAP
from perception.report.charts import Series, line_chart, reliability_chart
from perception.report.colors import FREE_COLOR, LETHAL_COLOR, UNKNOWN_COLOR, cost_table
from perception.report.page import data, text
from perception.report.pictures import (
    classes_in,
    costmap_picture,
    costmap_window,
    label_uri,
    photo_uri,
    read_picture,
)
from perception.report.runs import ReportRun, flattened
from perception.report.tables import (
    card,
    cell,
    class_cell,
    color_legend,
    heat_cell,
    number,
    sentences,
    swatch,
    table,
    words,
)

from perception.costmap.files import read_costmap  # isort: skip

STAGES = ("read", "prepare", "segment", "cloud", "insert", "costmap", "frame")
HEADLINES = (
    "segmentation.mean_iou",
    "segmentation.pixel_accuracy",
    "fusion.fused.mean_iou",
    "map.semantic.mean_iou",
    "map.occupancy.f1",
    "held_out.accuracy",
    "costmap.false_free_rate",
    "detection.coco.AP",
    "timing.stages.frame.p50_ms",
    "timing.real_time_factor",
    "memory.peak_process_mb",
    "memory.map_mb",
)
MAX_CONFUSION = 40
"""Classes in a confusion matrix; the most frequent ones."""


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
            example = f" ({details[reason]})" if reason in details else ""
            trouble.append(f"{'Frames dropped' if what == 'dropped' else 'Warning'}: {count} × {reason}{example}")
    content = f"<p>{text(' · '.join(facts))}</p>" + f'<div class="tiles">{"".join(tiles)}</div>'
    return card(f"Summary: {run.name}", content + (f"<h3>Notes</h3>{sentences(trouble)}" if trouble else ""))


def _tile(scalar: dict[str, Any]) -> str:
    value = number(scalar.get("value"), str(scalar.get("unit") or ""))
    return f'<div class="tile"><b>{value}</b><span>{text(scalar.get("title", ""))}</span></div>'


def classes(run: ReportRun) -> str:
    """Scores of every class, of single images, of the fused map and of voxels, with the confusion matrix."""
    summary = run.summary
    single = _by_name((summary.get("segmentation") or {}).get("classes"))
    fused = _by_name((summary.get("fusion") or {}).get("classes"))
    voxels = _by_name(((summary.get("map") or {}).get("semantic") or {}).get("classes"))
    precision = _by_name(((summary.get("detection") or {}).get("voc") or {}).get("classes"))
    mapped = (summary.get("voxels") or {}).get("per_class") or {}
    names = sorted(
        dict.fromkeys([*single, *fused, *voxels, *precision, *mapped]),
        key=lambda name: (-(single.get(name, {}).get("pixels") or 0), -(mapped.get(name) or 0)),
    )
    colors = {label.name: label.color for label in run.label_set.classes} if run.label_set else {}
    columns: list[tuple[str, Any]] = []
    if single:
        columns += [("true pixels", lambda n: cell(single.get(n, {}).get("pixels")))]
        columns += [
            (title, lambda n, key=key: heat_cell(single.get(n, {}).get(key)))
            for title, key in (("IoU, images", "iou"), ("recall", "accuracy"), ("precision", "precision"))
        ]
    if fused:
        columns += [
            ("IoU before fusion", lambda n: heat_cell(fused.get(n, {}).get("single_iou"))),
            ("IoU fused", lambda n: heat_cell(fused.get(n, {}).get("fused_iou"))),
        ]
    if voxels:
        columns += [("IoU, voxels", lambda n: heat_cell(voxels.get(n, {}).get("iou")))]
    if precision:
        columns += [("AP, boxes", lambda n: heat_cell(precision.get(n, {}).get("ap")))]
    columns += [("voxels in the map", lambda n: cell(mapped.get(n)))]
    rows = [[class_cell(name, colors.get(name)), *(make(name) for _, make in columns)] for name in names]
    content = table(["class", *(title for title, _ in columns)], rows, "A click on a head sorts.", sortable=True)
    return card("Classes", content + _mapping_notes(summary) + _confusion(run, colors))


def _by_name(entries: Sequence[dict[str, Any]] | None) -> dict[str, dict[str, Any]]:
    return {str(entry.get("name")): entry for entry in entries or []}


def _mapping_notes(summary: dict[str, Any]) -> str:
    truth = summary.get("truth") or {}
    lines = []
    for key, whose in (("unmapped_truth", "truth"), ("unmapped_network", "network")):
        if truth.get(key):
            lines.append(f"Classes of the {whose} without a counterpart: {', '.join(map(str, truth[key]))}.")
    return sentences(lines)


def _confusion(run: ReportRun, colors: dict[str, Any]) -> str:
    path = run.file(CONFUSION)
    if path is None:
        return ""
    names, predicted, counts = read_confusion(path)
    total = counts.sum(axis=1)
    shown = [i for i in np.argsort(-total, kind="stable")[:MAX_CONFUSION] if total[i] > 0]
    # Columns in the order of the rows, then what else was predicted.
    order = [predicted.index(names[i]) for i in shown if names[i] in predicted]
    order += [j for j in range(len(predicted)) if j not in order and counts[shown, j].sum() > 0]
    rows = []
    for i in shown:
        cells = []
        for j in order:
            share = float(counts[i, j] / total[i])
            kind = "heat" if names[i] == predicted[j] else "miss"
            shown_text = f"{100 * share:.0f}" if share >= 0.005 else ""
            title = f"{names[i]} called {predicted[j]}: {100 * share:.1f} %, {counts[i, j]:,} pixels"
            cells.append(f'<td class="{kind}" style="--share:{share:.3f}" title="{text(title)}">{shown_text}</td>')
        mark = swatch(colors[names[i]]) if names[i] in colors else ""
        rows.append(f'<tr><th scope="row">{mark}{text(names[i])}</th><td>{int(total[i]):,}</td>{"".join(cells)}</tr>')
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{text(predicted[j])}</th>' for j in order)
    return (
        "<h3>Confusion</h3><p class='caption'>Rows: truth, with its pixels. Columns: what was said, in percent of the "
        "row; blue is right, red is wrong.</p><div class='scroll'><table class='confusion'><thead><tr><th></th>"
        f'<th scope="col">pixels</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def read_confusion(path: Any) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Names of the true classes, names of the predicted ones, and (T, P) counts of ``confusion.csv``.

    Raises:
        InputError: not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = list(csv.reader(file))
        counts = np.array([[int(value) for value in row[1:]] for row in rows], np.int64)
        counts = counts.reshape(len(rows), len(head) - 1)
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        raise InputError(f"{path}: expected a table of pixel counts ({error})") from error
    return [row[0] for row in rows], head[1:], counts


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
    red = " In the picture of errors, wrong pixels are red." if scored else ""
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
    head = f"<b>Frame {number(entry.get('frame'))}</b> {text(' · '.join(scores))}"
    return f'<div class="frame"><p>{head}</p><div class="pictures">{"".join(figures)}</div></div>', labels


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

    stages = [(f"{stage}_ms", "whole frame" if stage == "frame" else stage) for stage in STAGES]
    scores = series(("pixel_accuracy", "pixel accuracy"), ("mean_iou", "mean IoU"))
    charts = [
        line_chart("Scores of single images against the truth", scores, axis, "", (0.0, 1.0)),
        line_chart("Mean confidence of the labels", series(("confidence", "confidence")), axis, "", (0.0, 1.0)),
        line_chart("Time per stage, logarithmic", series(*stages), axis, "ms", logarithmic=True),
        reliability_chart((run.summary.get("segmentation") or {}).get("calibration") or []),
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


def costmaps(run: ReportRun) -> str:
    """The costmap with the camera's path, beside the one of the true voxels."""
    file = run.file(COSTMAP)
    if file is None:
        return ""
    path = run.path()
    window = costmap_window(read_costmap(file), path)
    figures = [_costmap_figure("Costmap with the camera's path", file, window, path)]
    truth = run.file(TRUE_COSTMAP)
    if truth is not None:
        figures.append(_costmap_figure("The same from the true voxels, where known", truth, window, path))
    legend = color_legend([("free", FREE_COLOR), ("lethal", LETHAL_COLOR), ("unknown", UNKNOWN_COLOR)])
    stops = ",".join("rgb({},{},{})".format(*cost_table()[cost].tolist()) for cost in (1, 25, 50, 75, 99))
    scale = (
        f'<p class="caption">cost 1 <span class="bar" style="background:linear-gradient(to right,{stops})"></span> 99'
    )
    camera = ' · <span style="color:var(--path)">●</span> start, <span style="color:var(--path)">■</span> end</p>'
    return card("Costmap", f'{legend}{scale}{camera}<div class="maps">{"".join(figures)}</div>{_cost_scores(run)}')


def _costmap_figure(title: str, file: Any, window: tuple[float, ...], path: NDArray[Any]) -> str:
    picture = costmap_picture(file, window)  # pyright: ignore[reportArgumentType]
    places = (path[:: max(1, len(path) // 1500), :2] - picture.origin) / picture.cell
    places[:, 1] = picture.height - places[:, 1]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = ""
    if len(path):
        size = max(picture.width, picture.height) / 90
        (x0, y0), (x1, y1) = places[0], ((path[-1, :2] - picture.origin) / picture.cell)
        y1 = picture.height - y1
        style = 'style="fill:var(--path);stroke:#fff" stroke-width="1.5" vector-effect="non-scaling-stroke"'
        marks = (
            f'<polyline points="{points}" stroke="#fff" stroke-width="5"/>'
            f'<polyline points="{points}" style="stroke:var(--path)" stroke-width="2.5"/>'
            f'<circle cx="{x0:.1f}" cy="{y0:.1f}" r="{size:.1f}" {style}/>'
            f'<rect x="{x1 - size:.1f}" y="{y1 - size:.1f}" width="{2 * size:.1f}" height="{2 * size:.1f}" {style}/>'
        )
    meters = picture.width * picture.cell
    bar = next((step for step in (50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1) if step <= meters / 5), 0.1)
    length, x, y = bar / picture.cell, 0.03 * picture.width, 0.97 * picture.height
    marks += (
        f'<path d="M{x:.1f} {y:.1f}h{length:.1f}" stroke="#fff" stroke-width="7" vector-effect="non-scaling-stroke"/>'
        f'<path d="M{x:.1f} {y:.1f}h{length:.1f}" stroke="#000" stroke-width="4" vector-effect="non-scaling-stroke"/>'
    )
    about = {"origin": list(picture.origin), "cell": picture.cell, "colors": cost_table().tolist()}
    size_note = f"{100 * picture.cell:g} cm cells; the bar is {bar:g} m long"
    if picture.factor > 1:
        size_note += f"; each shows the worst of {picture.factor} × {picture.factor} cells"
    return (
        f'<figure><b>{text(title)}</b><div class="costmap"><img src="{picture.uri}" width="{picture.width}" '
        f'height="{picture.height}" alt="{text(title)}"><svg viewBox="0 0 {picture.width} {picture.height}" '
        f'preserveAspectRatio="none">{marks}</svg><div class="tip" hidden></div>'
        f'<script type="application/json">{data(about)}</script></div>'
        f"<figcaption>{text(size_note)}</figcaption></figure>"
    )


def _cost_scores(run: ReportRun) -> str:
    scores = run.summary.get("costmap") or {}
    counts = scores.get("confusion")
    if not counts:
        return ""
    states = ("free", "costly", "lethal", "unknown")
    rows = []
    for state, row in zip(states, counts, strict=False):
        total = sum(row) or 1
        cells = [
            f'<td class="{"heat" if state == other else "miss"}" style="--share:{count / total:.3f}" '
            f'data-value="{count}">{count:,}</td>'
            for other, count in zip(states, row, strict=False)
        ]
        rows.append([words(state), *cells])
    return "<h3>Cells against the truth</h3>" + table(["truth \\ map", *states], rows, "number of cells")


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
    config = [[words(name), words(value)] for name, value in flattened(run.summary.get("config") or {}).items()]
    about = {key: run.summary.get(key) for key in ("name", "created", "perception", "key", "labels", "network")}
    about.update(flattened({"source": {k: v for k, v in run.summary.get("source", {}).items() if k != "details"}}))
    about.update(flattened({"machine": run.summary.get("machine") or {}}))
    facts = [[words(name), words(value)] for name, value in about.items() if value not in (None, "", {}, [])]
    parts = (
        ("All numbers", table(["number", "value", "better"], numbers)),
        ("Parameters", table(["parameter", "value"], config)),
        ("Recording and machine", table(["", ""], facts)),
    )
    folded = "".join(f"<details><summary>{title}</summary>{content}</details>" for title, content in parts if content)
    return card("Details", folded)
