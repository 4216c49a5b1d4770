# SPDX-License-Identifier: Apache-2.0
"""The headline numbers of a run: where each stands in ``summary.json``, its unit and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HIGHER, LOWER, NEITHER = "higher", "lower", "none"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number.

    Attributes:
        name: its place in the summary, parts joined by dots.
        title: for people.
        better: "higher", "lower" or "none".
        unit: empty for shares and indices.
        frame_column: column of ``frames.csv`` whose mean follows it from frame to frame; empty where there is none.
    """

    name: str
    title: str
    better: str = HIGHER
    unit: str = ""
    frame_column: str = ""


SCALARS: tuple[Scalar, ...] = (
    Scalar("segmentation.pixel_accuracy", "Pixel accuracy, single images", frame_column="pixel_accuracy"),
    Scalar("segmentation.mean_accuracy", "Mean class accuracy, single images"),
    Scalar("segmentation.mean_iou", "Mean IoU, single images", frame_column="mean_iou"),
    Scalar("segmentation.frequency_weighted_iou", "Frequency-weighted IoU, single images"),
    Scalar("segmentation.expected_calibration_error", "Expected calibration error", LOWER),
    Scalar("fusion.single.mean_iou", "Mean IoU before fusion, same pixels"),
    Scalar("fusion.fused.mean_iou", "Mean IoU of the fused map, same pixels", frame_column="fused_mean_iou"),
    Scalar("fusion.single.pixel_accuracy", "Pixel accuracy before fusion, same pixels"),
    Scalar(
        "fusion.fused.pixel_accuracy", "Pixel accuracy of the fused map, same pixels", frame_column="fused_accuracy"
    ),
    Scalar("map.semantic.mean_iou", "Mean IoU of voxels"),
    Scalar("map.semantic.accuracy", "Labels right of true occupied voxels"),
    Scalar("map.occupancy.precision", "Occupied voxels, precision"),
    Scalar("map.occupancy.recall", "Occupied voxels, recall"),
    Scalar("map.occupancy.f1", "Occupied voxels, F1"),
    Scalar("map.occupancy.coverage", "True voxels that were seen"),
    Scalar("map.occupancy_tolerant.f1", "Occupied voxels within one voxel, F1"),
    Scalar("held_out.accuracy", "Held-out scans, voxels predicted right"),
    Scalar("held_out.occupied_accuracy", "Held-out scans, ends of rays predicted right"),
    Scalar("held_out.free_accuracy", "Held-out scans, free voxels predicted right"),
    Scalar("held_out.unknown_share", "Held-out scans, voxels that the map does not know", LOWER),
    Scalar("costmap.agreement", "Costmap cells in the same state"),
    Scalar("costmap.lethal_agreement", "Lethal cells, IoU"),
    Scalar("costmap.free_agreement", "Passable cells, IoU"),
    Scalar("costmap.false_free_rate", "Lethal cells that the map lets through", LOWER),
    Scalar("costmap.false_free_rate_tolerant", "The same, none lethal beside them", LOWER),
    Scalar("costmap.false_lethal_rate", "Passable cells that the map blocks", LOWER),
    Scalar("costmap.unknown_share", "Cells that the map does not know", LOWER),
    Scalar("detection.coco.AP", "COCO AP of boxes"),
    Scalar("detection.coco.AP50", "COCO AP50 of boxes"),
    Scalar("detection.coco.AP75", "COCO AP75 of boxes"),
    Scalar("detection.coco.AR100", "COCO AR100 of boxes"),
    Scalar("detection.masks.AP", "COCO AP of masks"),
    Scalar("detection.masks.AR100", "COCO AR100 of masks"),
    Scalar("detection.voc.mAP50", "Pascal VOC mAP"),
    Scalar("timing.stages.frame.p50_ms", "Time of a frame, median", LOWER, "ms", "frame_ms"),
    Scalar("timing.stages.frame.p95_ms", "Time of a frame, p95", LOWER, "ms"),
    Scalar("timing.stages.frame.p99_ms", "Time of a frame, p99", LOWER, "ms"),
    Scalar("timing.real_time_factor", "Real-time factor"),
    Scalar("timing.dropped_frames", "Frames dropped", LOWER),
    Scalar("memory.peak_process_mb", "Peak memory of the process", LOWER, "MB"),
    Scalar("memory.map_mb", "Memory of the map", LOWER, "MB"),
    Scalar("voxels.occupied", "Occupied voxels", NEITHER),
    Scalar("trajectory.length_m", "Length of the camera's path", NEITHER, "m"),
)
BY_NAME = {scalar.name: scalar for scalar in SCALARS}


def collect(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The headline numbers of a summary, by name; those that were not scored are left out."""
    found = {}
    for scalar in SCALARS:
        value = _at(summary, scalar.name)
        if value is not None:
            found[scalar.name] = {
                "value": value,
                "better": scalar.better,
                "unit": scalar.unit,
                "title": scalar.title,
            }
    return found


def _at(data: Any, name: str) -> Any:
    for part in name.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None
    return data
