# SPDX-License-Identifier: Apache-2.0
"""The part of a report with the costmap of a run, the camera's path on it, and its cells against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from perception.costmap.files import read_costmap
from perception.evaluation.colors import FREE_COLOR, LETHAL_COLOR, UNKNOWN_COLOR, cost_table
from perception.evaluation.run_folder import COSTMAP, TRUE_COSTMAP
from perception.report.page import data, text
from perception.report.pictures import costmap_picture, costmap_window
from perception.report.runs import ReportRun
from perception.report.tables import card, color_legend, table, words


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
    camera = (
        ' · camera: <span style="color:var(--path)">●</span> start, <span style="color:var(--path)">■</span> end</p>'
    )
    return card("Costmap", f'{legend}{scale}{camera}<div class="maps">{"".join(figures)}</div>{_cost_scores(run)}')


def _costmap_figure(title: str, file: Path, window: tuple[float, float, float, float], path: NDArray[Any]) -> str:
    picture = costmap_picture(file, window)
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
        f'<path d="M{x:.1f} {y:.1f}h{length:.1f}" stroke="#fff" stroke-width="8" stroke-linecap="square" '
        'vector-effect="non-scaling-stroke"/>'
        f'<path d="M{x:.1f} {y:.1f}h{length:.1f}" stroke="#000" stroke-width="4" vector-effect="non-scaling-stroke"/>'
    )
    place = f"left:{100 * x / picture.width:.2f}%;bottom:{100 - 100 * y / picture.height:.2f}%"
    about = {"origin": list(picture.origin), "cell": picture.cell, "colors": cost_table().tolist()}
    size_note = f"{100 * picture.cell:g} cm cells"
    if picture.factor > 1:
        size_note += f"; each shows the worst of {picture.factor} × {picture.factor} cells"
    return (
        f'<figure><b>{text(title)}</b><div class="costmap"><img src="{picture.uri}" width="{picture.width}" '
        f'height="{picture.height}" alt="{text(title)}"><svg viewBox="0 0 {picture.width} {picture.height}" '
        f'preserveAspectRatio="none">{marks}</svg><b class="scale" style="{place}">{bar:g} m</b>'
        f'<div class="tip" hidden></div>'
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
    caption = "Number of cells; the color is their share of the row. Blue is right, red is wrong or not known."
    return "<h3>Cells against the truth</h3>" + table(["truth \\ map", *states], rows, caption)
