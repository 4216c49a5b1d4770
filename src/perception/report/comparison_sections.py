# SPDX-License-Identifier: Apache-2.0
"""The parts of a report that show several runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perception.evaluation.scalars import BY_NAME
from perception.report.charts import Series, interval_chart, line_chart, without_gaps
from perception.report.comparison import HEADLINES, Difference, recording_means
from perception.report.page import text
from perception.report.run_sections import column, frame_times
from perception.report.runs import ReportRun
from perception.report.tables import card, cell, class_cell, heat_cell, name_cell, number, signed_number, table, words

MAX_COLUMNS = 10
"""Runs that stand side by side as columns; more are listed in rows alone."""
MAX_CURVES = 8
MAX_SOURCES = 10
"""Recordings with curves of all their runs."""


def summary_table(runs: Sequence[ReportRun]) -> str:
    """A row per run with its headline numbers; the best of each column among the runs of a recording is bold."""
    titles: dict[str, dict[str, Any]] = {}
    for run in runs:
        for name in HEADLINES:
            if name in run.summary.get("scalars", {}):
                titles.setdefault(name, run.summary["scalars"][name])
    names = [name for name in HEADLINES if name in titles]
    sources = dict.fromkeys(run.source for run in runs)
    best = {
        (source, name): _best(
            [run.run.scalar(name) for run in runs if run.source == source], titles[name].get("better")
        )
        for source in sources
        for name in names
    }
    rows = []
    for run in runs:
        values = [(run.run.scalar(name), best[run.source, name]) for name in names]
        cells = [
            cell(value, "", "best" if number(value) in found else "", run.why_not(name))
            for name, (value, found) in zip(names, values, strict=True)
        ]
        rows.append([name_cell(run.name, run.color), *cells])
    heads = [_head(name, titles[name].get("unit")) for name in names]
    hints = ["", *(str(titles[name]["title"]) for name in names)]
    which = "the best of each recording" if len(sources) > 1 else "the best"
    caption = f"Bold: {which}. A click on a head sorts; pointing at one says what it is short for."
    return card("Runs", table(["run", *heads], rows, caption, sortable=True, titles=hints), "runs")


def _head(name: str, unit: Any) -> str:
    return f"{HEADLINES[name]}, {unit}" if unit else HEADLINES[name]


def means_table(runs: Sequence[ReportRun]) -> str:
    """A row per variant with its means over recordings; empty text for a single recording."""
    means = {(one.metric, one.variant): one for one in recording_means(runs)}
    names = list(dict.fromkeys(metric for metric, _ in means))
    variants = list(dict.fromkeys(run.variant for run in runs))
    rows = []
    for variant in variants:
        cells = []
        for name in names:
            best = _best([means[name, one].value for one in variants], BY_NAME[name].better)
            value = means[name, variant].value
            cells.append(cell(value, "", "best" if number(value) in best else ""))
        rows.append([name_cell(variant or "all runs"), *cells])
    heads = [f"{_head(name, BY_NAME[name].unit)} ({means[name, variants[0]].recordings})" for name in names]
    hints = ["", *(BY_NAME[name].title for name in names)] if names else []
    caption = "In parentheses over how many recordings: those for which every row has the number."
    content = table(["runs", *heads], rows, caption, sortable=len(rows) > 1, titles=hints)
    return card("Means over recordings", content) if names else ""


def _best(values: Sequence[float | None], better: Any) -> set[str]:
    """The best value as it is shown: what looks the same is as good."""
    known = [value for value in values if value is not None]
    if len({number(value) for value in known}) < 2 or better not in ("higher", "lower"):
        return set()
    return {number(max(known) if better == "higher" else min(known))}


def difference_section(differences: Sequence[Difference]) -> str:
    """Paired differences as a chart per metric and as a table."""
    if not differences:
        return ""
    charts, order = [], list(dict.fromkeys(one.metric for one in differences))
    for metric in order:
        chosen = [one for one in differences if one.metric == metric and one.low is not None and one.high is not None]
        rows = [(one.b, one.difference, float(one.low or 0), float(one.high or 0)) for one in chosen]
        if rows:
            charts.append(interval_chart(chosen[0].title, chosen[0].unit, rows, chosen[0].better))
    rows = [
        [words(one.title), name_cell(one.b), _pairs(one), cell(one.mean_a, one.unit), cell(one.mean_b, one.unit),
         _signed(one.difference, one.unit), _interval(one), f'<td class="{one.verdict} text">{one.verdict}</td>']
        for one in sorted(differences, key=lambda one: order.index(one.metric))
    ]  # fmt: skip
    first = differences[0].a
    intro = (
        f"Each run against “{first}”, over the frames that both have, or over recordings for numbers that frames do "
        "not have. The interval holds 95 % of the mean differences that resampled stretches of them give (moving block "
        "bootstrap); where it includes zero, neither is better. Green is better than the first run, red is worse."
    )
    head = ["metric", "run", "pairs", "first", "this", "difference", "95 % interval", "verdict"]
    return card(
        "Paired differences",
        f'<p>{text(intro)}</p><div class="charts">{"".join(charts)}</div>{table(head, rows, left=(0, 1, 7))}',
        "differences",
    )


def _pairs(one: Difference) -> str:
    what = one.pairs if one.frames != 1 else one.pairs.removesuffix("s")
    return f'<td data-value="{one.frames}">{one.frames:,} {what}</td>'


def _signed(value: float, unit: str) -> str:
    return f'<td data-value="{value}">{signed_number(value)}{" " + text(unit) if unit else ""}</td>'


def _interval(one: Difference) -> str:
    if one.low is None or one.high is None:
        return f"<td>too few {one.pairs}</td>"
    return f"<td>{signed_number(one.low)} to {signed_number(one.high)} {text(one.unit)}</td>"


def class_comparison(runs: Sequence[ReportRun]) -> str:
    """IoU of every class, a column per run."""
    if len(runs) > MAX_COLUMNS:
        return ""
    scores: list[dict[str, Any]] = []
    pixels: dict[str, int] = {}
    for run in runs:
        entries = (run.summary.get("segmentation") or {}).get("classes") or []
        scores.append({str(entry.get("name")): entry.get("iou") for entry in entries})
        for entry in entries:
            pixels[entry["name"]] = max(pixels.get(entry["name"], 0), entry.get("pixels") or 0)
    colors = {label.name: label.color for run in runs if run.label_set for label in run.label_set.classes}
    names = sorted((name for name, count in pixels.items() if count), key=lambda name: -pixels[name])
    rows = [
        [
            class_cell(name, colors.get(name)),
            *(heat_cell(one.get(name), why="no such pixel, or no truth") for one in scores),
        ]
        for name in names
    ]
    content = table(
        ["class", *(run.name for run in runs)],
        rows,
        "IoU of single images, for the classes of the truth, the most frequent first.",
        sortable=True,
    )
    return card("Classes of all runs", content)


def curve_comparison(runs: Sequence[ReportRun]) -> str:
    """Curves of the runs of the first recordings over each other."""
    content = ""
    for source in list(dict.fromkeys(run.source for run in runs))[:MAX_SOURCES]:
        chosen = [run for run in runs if run.source == source and run.run.frames]
        if len(chosen) < 2:
            continue
        shown, charts = chosen[:MAX_CURVES], []
        for name, title, unit, limits in (
            ("pixel_accuracy", "Pixel accuracy of single images", "", (0.0, 1.0)),
            ("mean_iou", "Mean IoU of single images", "", (0.0, 1.0)),
            ("fused_accuracy", "Pixel accuracy of the fused map", "", (0.0, 1.0)),
            ("fused_mean_iou", "Mean IoU of the fused map", "", (0.0, 1.0)),
            ("frame_ms", "Time per frame", "ms", None),
            ("map_mb", "Memory of the map", "MB", None),
        ):
            axis = frame_times(shown[0])[1]
            series = [
                Series(run.variant or run.name, frame_times(run)[0], column(run, name), run.color, i % 2 == 1)
                for i, run in enumerate(shown)
            ]
            if name.startswith("fused"):  # Scored of every so many frames in long runs.
                series = [without_gaps(one) for one in series]
            charts.append(line_chart(title, series, axis, unit, limits))
        note = (
            f"<p class='caption'>The first {len(shown)} of {len(chosen)} runs.</p>" if len(chosen) > len(shown) else ""
        )
        content += f'<h3>{text(source)}</h3>{note}<div class="charts">{"".join(charts)}</div>'
    return card("Curves of all runs", content)
