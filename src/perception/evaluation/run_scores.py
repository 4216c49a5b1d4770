# SPDX-License-Identifier: Apache-2.0
"""Everything that a run is scored by, fed frame by frame; what cannot be scored is said in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.config import PerceptionConfig
from perception.errors import InputError
from perception.evaluation.calibration import Calibration
from perception.evaluation.class_mapping import ClassMapping
from perception.evaluation.costmap_scores import score_costmap, true_costmap
from perception.evaluation.fusion_gain import FusionGain
from perception.evaluation.held_out import HeldOutScans
from perception.evaluation.segmentation import ConfusionMatrix
from perception.evaluation.voxel_scores import resampled, score_map
from perception.evaluation.worst_frames import WorstFrames
from perception.labels import LabelSet
from perception.simulation.voxels import VoxelMap
from perception.types import CostGrid


@dataclass(frozen=True)
class ScoreOptions:
    """What is scored, and how.

    Attributes:
        class_mapping: file that says which true class is which class of the map; None matches by name.
        held_out_every: every so many scans one is kept out of a second map and predicted; 0 for none.
        worst: pictures of so many frames.
    """

    class_mapping: Path | None = None
    held_out_every: int = 5
    worst: int = 6

    def __post_init__(self) -> None:
        if self.held_out_every < 0 or self.held_out_every == 1:
            raise InputError(f"held_out_every: expected 0 (off) or at least 2, got {self.held_out_every}")
        if self.worst < 0:
            raise InputError(f"worst: expected 0 or more, got {self.worst}")


class RunScores:
    """Scores one run.

    Args:
        tree: the map that the run fills.
        config: of the pipeline.
        label_set: what the map's labels mean; None for a map without.
        truth_set: what the true labels of frames mean; None where frames have none.
        voxels: the true voxels of the scene; None where nobody knows them.
        options: what is scored.
        given: the recording's own labels go into the map, so that only what becomes of them is of interest.

    Attributes:
        not_scored: what could not be scored and why.
        confusion: pixels by true and predicted class, None where no labels are compared.
        true_voxels: the true voxels in the map's resolution and classes, after :meth:`summary`.
        true_grid: the true costmap, after :meth:`summary`.
        by_frame: after :meth:`summary`, what only the finished map says of each frame, by its number.

    Raises:
        InputError: the class mapping does not fit.
    """

    def __init__(
        self,
        tree: Any,
        config: PerceptionConfig,
        label_set: LabelSet | None,
        truth_set: LabelSet | None,
        voxels: VoxelMap | None,
        options: ScoreOptions,
        given: bool = False,
    ) -> None:
        self.not_scored: list[str] = []
        self.confusion: ConfusionMatrix | None = None
        self.true_voxels: VoxelMap | None = None
        self.true_grid: CostGrid | None = None
        self.by_frame: dict[int, dict[str, float]] = {}
        self._tree, self._config, self._label_set, self._voxels = tree, config, label_set, voxels
        self._mapping = self._match(truth_set, "segmentation", options.class_mapping)
        voxel_set = voxels.label_set if voxels else None
        self._voxel_mapping = self._match(voxel_set, "classes of voxels", options.class_mapping) if voxels else None
        if self._mapping is not None:
            self.confusion = ConfusionMatrix(self._mapping.label_set.num_classes)
            self._fusion = FusionGain(tree, self._mapping)
        self._calibration = Calibration()
        self._held_out = HeldOutScans(config.octomap, options.held_out_every) if options.held_out_every else None
        self._worst = WorstFrames(options.worst)
        self._with_truth, self._given = 0, given
        # Of the truth's own classes, since those that nothing stands for are in no other count.
        self._truth_set = truth_set
        self._true_pixels = np.zeros(truth_set.num_classes if truth_set else 0, np.int64)

    def add(self, index: int, result: Any) -> dict[str, float | None]:
        """Score a frame: its number and its FrameResult, whose frame carries the true labels.

        Returns:
            ``pixel_accuracy``, ``mean_iou`` and mean ``confidence``; None where not known.
        """
        row: dict[str, float | None] = {"pixel_accuracy": None, "mean_iou": None, "confidence": None}
        if self._held_out is not None:
            self._held_out.add(result.cloud, result.frame.map_T_camera)
        if result.labels is None:
            return row
        labels = result.labels
        labeled = labels.labels >= 0
        row["confidence"] = float(labels.confidence[labeled].mean()) if labeled.any() else None
        truth, predicted = None, labels.labels
        if self._mapping is not None and result.frame.labels is not None:
            own = result.frame.labels.labels
            inside = own[(own >= 0) & (own < len(self._true_pixels))]
            self._true_pixels += np.bincount(inside, minlength=len(self._true_pixels))
            truth = self._mapping.true_ids(own)
            predicted = self._mapping.scored_ids(labels.labels)
            row |= self._compare(index, result, truth, predicted)
        self._worst.add(index, result, truth, predicted, (row["pixel_accuracy"], row["mean_iou"]))
        return row

    def _compare(
        self, index: int, result: Any, truth: NDArray[np.int32], predicted: NDArray[np.int32]
    ) -> dict[str, float | None]:
        assert self.confusion is not None
        frame = ConfusionMatrix(self.confusion.num_classes)
        self._fusion.add(index, result, truth, predicted)
        self._with_truth += 1
        if self._given:
            return {}
        frame.add(truth, predicted)
        self.confusion.counts += frame.counts
        self._calibration.add(truth, predicted, result.labels.confidence)
        return {
            "pixel_accuracy": frame.accuracy() if frame.total else None,
            "mean_iou": frame.mean_iou() if frame.total else None,
        }

    def summary(self, grid: CostGrid) -> dict[str, Any]:
        """The scores of the finished run, by part; None for a part that could not be scored.

        Args:
            grid: costmap of the map.
        """
        result: dict[str, Any] = {"segmentation": None, "fusion": None}
        if self.confusion is not None and self._mapping is not None:
            result["fusion"] = self._fusion.summary()
            self.by_frame = self._fusion.by_frame
            if self._given:
                self.not_scored.append("segmentation: the map was given the true labels")
            elif self.confusion.total:
                result["segmentation"] = self._segmentation(self.confusion, self._mapping.label_set)
            else:
                self.not_scored.append("segmentation: not one pixel has a true class that the map knows")
        result["held_out"] = self._held_out.summary() if self._held_out else None
        if self._held_out and result["held_out"] is None:
            self.not_scored.append(f"held-out scans: fewer than {self._held_out.every} frames were mapped")
        result["map"] = self._scored("map", self._score_map)
        result["costmap"] = self._scored("costmap", lambda: self._score_costmap(grid))
        return result

    def truth(self) -> dict[str, Any]:
        """How the classes of the truth and of the map were matched."""
        mapping = self._mapping or self._voxel_mapping
        unmapped = mapping.unmapped_truth if mapping else []
        pixels = (
            {label.name: int(self._true_pixels[label.id]) for label in self._truth_set.classes}
            if self._truth_set
            else {}
        )
        total = sum(pixels.values())
        return {
            "labels": self._with_truth > 0,
            "frames": self._with_truth,
            "class_map": mapping.pairs if mapping else {},
            "unmapped_truth": unmapped,
            "unmapped_shares": {name: pixels[name] / total for name in unmapped if pixels.get(name)},
            "unmapped_network": mapping.unmapped_predicted if mapping else [],
        }

    def write_pictures(self, folder: Path) -> list[dict[str, Any]]:
        """Draw the worst frames below a run folder; returns what the summary says of them."""
        return self._worst.write(folder)

    def _match(self, truth_set: LabelSet | None, what: str, path: Path | None) -> ClassMapping | None:
        if truth_set is None:
            self.not_scored.append(f"{what}: the recording has no true labels")
            return None
        if self._label_set is None:
            self.not_scored.append(f"{what}: the map has no classes (labels none)")
            return None
        mapping = ClassMapping.build(truth_set, self._label_set, path)
        if (mapping.truth >= 0).any():
            return mapping
        self.not_scored.append(
            f"{what}: no class of the truth ({truth_set.name}) is one of the map ({self._label_set.name}); "
            "say which is which with --class-map"
        )
        return None

    def _segmentation(self, matrix: ConfusionMatrix, label_set: LabelSet) -> dict[str, Any]:
        true, predicted = matrix.counts.sum(axis=1), matrix.counts[:, :-1].sum(axis=0)
        iou, recall, precision = matrix.iou(), matrix.class_accuracy(), matrix.precision()
        return {
            "pixels": matrix.total,
            "pixel_accuracy": matrix.accuracy(),
            "mean_accuracy": matrix.mean_accuracy(),
            "mean_iou": matrix.mean_iou(),
            "frequency_weighted_iou": matrix.frequency_weighted_iou(),
            "expected_calibration_error": self._calibration.error(),
            "calibration": self._calibration.rows(),
            "classes": [
                {
                    "id": label.id,
                    "name": label.name,
                    "pixels": int(true[label.id]),
                    "predicted": int(predicted[label.id]),
                    "accuracy": recall[label.id],
                    "precision": precision[label.id],
                    "iou": iou[label.id],
                }
                for label in label_set.classes
                if true[label.id] or predicted[label.id]
            ],
        }

    def _scored(self, what: str, score: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        if self._voxels is None:
            self.not_scored.append(f"{what}: no true voxels (ground_truth_voxels.npz) with the recording")
            return None
        try:
            return score()
        except InputError as error:
            self.not_scored.append(f"{what}: {error}")
            return None

    def _score_map(self) -> dict[str, Any]:
        assert self._voxels is not None
        self.true_voxels = resampled(self._voxels, self._tree.resolution, self._voxel_mapping)
        return score_map(self._tree, self.true_voxels, self._voxel_mapping)

    def _score_costmap(self, grid: CostGrid) -> dict[str, Any]:
        if self.true_voxels is None:
            raise InputError("it needs the true voxels in the map's resolution")
        self.true_grid = true_costmap(self.true_voxels, self._label_set, self._config.costmap)
        return score_costmap(grid, self.true_grid)
