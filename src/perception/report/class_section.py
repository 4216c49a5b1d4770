# SPDX-License-Identifier: Apache-2.0
"""The part of a report with the scores of every class of a run, and with what was taken for what."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.evaluation.class_mapping import mapping_notes
from perception.evaluation.pictures import UNLABELED_COLOR
from perception.evaluation.run_folder import CONFUSION
from perception.report.page import text
from perception.report.runs import ReportRun
from perception.report.tables import card, cell, class_cell, heat_cell, sentences, swatch, table

MAX_CONFUSION = 40
"""Classes in a confusion matrix; the most frequent ones."""


def classes(run: ReportRun) -> str:
    """Scores of every class, of single images, of the fused map and of voxels, with the confusion matrix."""
    summary = run.summary
    single = _by_name((summary.get("segmentation") or {}).get("classes"))
    fused = _by_name((summary.get("fusion") or {}).get("classes"))
    voxels = _by_name(((summary.get("map") or {}).get("semantic") or {}).get("classes"))
    precision = _by_name(((summary.get("detection") or {}).get("voc") or {}).get("classes"))
    known = (summary.get("voxels") or {}).get("per_class")
    mapped = known or {}
    names = sorted(
        dict.fromkeys([*single, *fused, *voxels, *precision, *mapped]),
        key=lambda name: (-(single.get(name, {}).get("pixels") or 0), -(mapped.get(name) or 0)),
    )
    colors: dict[str, Any] = {label.name: label.color for label in run.label_set.classes} if run.label_set else {}
    colors.setdefault("unlabeled", UNLABELED_COLOR)
    columns: list[tuple[str, Any]] = []
    if single:
        columns += [("true pixels", lambda n: cell(single.get(n, {}).get("pixels"), why="in no image"))]
        columns += [
            (title, lambda n, key=key, why=why: heat_cell(single.get(n, {}).get(key), why=why))
            for title, key, why in (
                ("IoU, images", "iou", "neither true nor said in any image"),
                ("recall", "accuracy", "no pixel is truly of this class"),
                ("precision", "precision", "no pixel was called so"),
            )
        ]
    if fused:
        columns += [
            (title, lambda n, key=key: heat_cell(fused.get(n, {}).get(key), why="no such pixel is truly of this class"))
            for title, key in (("IoU before fusion", "single_iou"), ("IoU fused", "fused_iou"))
        ]
    if voxels:
        why_voxels = "no voxel that was seen is of this class or called so"
        columns += [("IoU, voxels", lambda n: heat_cell(voxels.get(n, {}).get("iou"), why=why_voxels))]
    if precision:
        columns += [("AP, boxes", lambda n: heat_cell(precision.get(n, {}).get("ap"), why="no true object"))]
    columns += [("voxels in the map", lambda n: cell(None if known is None else mapped.get(n, 0), why="no map"))]
    rows = [[class_cell(name, colors.get(name)), *(make(name) for _, make in columns)] for name in names]
    content = table(
        ["class", *(title for title, _ in columns)], rows, _caption(bool(single), bool(fused)), sortable=True
    )
    return card("Classes", content + _mapping_notes(summary) + _confusion(run, colors))


def _caption(single: bool, fused: bool) -> str:
    lines = ["A click on a head sorts."]
    if single:
        lines.append("Means over classes are over those with true pixels; n/a: no pixel to count, point at it for why.")
    if fused:
        lines.append("Before fusion and fused are of the same pixels, those with depth.")
    return " ".join(lines)


def _by_name(entries: Sequence[dict[str, Any]] | None) -> dict[str, dict[str, Any]]:
    return {str(entry.get("name")): entry for entry in entries or []}


def _mapping_notes(summary: dict[str, Any]) -> str:
    return sentences([f"{line[0].upper()}{line[1:]}." for line in mapping_notes(summary.get("truth") or {})])


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


def read_confusion(path: Path) -> tuple[list[str], list[str], NDArray[np.int64]]:
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
