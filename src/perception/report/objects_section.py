# SPDX-License-Identifier: Apache-2.0
"""The part of a report with the scores of a detector."""

from __future__ import annotations

from typing import Any

from perception.report.page import text
from perception.report.runs import ReportRun
from perception.report.tables import card, heat_cell, number, table, words

COCO_COLUMNS = (
    ("AP", "AP"), ("AP50", "AP at IoU 0.5"), ("AP75", "AP at IoU 0.75"), ("APs", "AP small"), ("APm", "AP medium"),
    ("APl", "AP large"), ("AR1", "AR, 1 an image"), ("AR10", "AR, 10"), ("AR100", "AR, 100"), ("ARs", "AR small"),
    ("ARm", "AR medium"), ("ARl", "AR large"),
)  # fmt: skip


def objects(run: ReportRun) -> str:
    """COCO's twelve numbers of boxes and masks, VOC's mean, and how many objects they are from."""
    detection: dict[str, Any] = run.summary.get("detection") or {}
    if not detection:
        return ""
    facts = [
        str(detection.get("detector", "–")),
        f"{number(detection.get('objects'))} true objects in {number(detection.get('images'))} images",
        f"Pascal VOC mAP (IoU 0.5) {number((detection.get('voc') or {}).get('mAP50'))}",
    ]
    rows = [
        [words(title), *(heat_cell(scores.get(key), why="no true object of that size") for key, _ in COCO_COLUMNS)]
        for title, scores in (("boxes", detection.get("coco")), ("masks", detection.get("masks")))
        if scores
    ]
    caption = "COCO. AP and AR are means over IoU 0.50 to 0.95; small is below 32² pixels, large above 96²."
    unmapped = detection.get("unmapped_truth") or []
    note = f"<p>True classes that the detector lacks, not counted: {text(', '.join(unmapped))}.</p>" if unmapped else ""
    content = table(["", *(title for _, title in COCO_COLUMNS)], rows, caption)
    return card("Objects", f"<p>{text(' · '.join(facts))}</p>{content}{note}")
