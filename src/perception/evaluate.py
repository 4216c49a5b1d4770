# SPDX-License-Identifier: Apache-2.0
"""Runs the pipeline over a recording, scores what came out where the truth is known, and leaves a run folder behind."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from perception import __version__
from perception.atomic_file import atomic_write
from perception.config import PerceptionConfig, to_dict
from perception.errors import InputError
from perception.evaluation import run_folder as files
from perception.evaluation.detection_run import DetectionOptions, DetectionRun
from perception.evaluation.run_key import fingerprint, run_key
from perception.evaluation.run_scores import RunScores, ScoreOptions
from perception.evaluation.scalars import collect
from perception.evaluation.timing import Curve, peak_memory_since_reset_mb, reset_peak_memory, resident_memory_mb
from perception.pipeline import FrameResult, PerceptionPipeline, create_segmenter_from
from perception.process import settle
from perception.replay import LABEL_SOURCES, cut_height, occupied_leaves, viewing_azimuth
from perception.simulation.voxels import VoxelMap
from perception.sources import Source, SourceOptions, is_bag, open_source
from perception.sources.base import NOT_MAPPED
from perception.types import Frame

VOXEL_FILE = "ground_truth_voxels.npz"
STAGES = ("prepare", "segment", "cloud", "insert", "costmap")
MAX_PATH = 4096
"""Places of the camera that are drawn; the file has all."""
MAX_REASON = 1000
"""Characters of why a frame was lost."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated, and how.

    Attributes:
        labels: "network", "truth" (the recording's own labels go into the map) or "none".
        truth_voxels: file of the true voxels; None looks for ``ground_truth_voxels.npz`` with the recording.
        scores: what is scored.
        source: how the recording is read.
        detection: which detector is scored, and against what; None: none.
    """

    labels: str = "network"
    truth_voxels: Path | None = None
    scores: ScoreOptions = field(default_factory=ScoreOptions)
    source: SourceOptions = field(default_factory=SourceOptions)
    detection: DetectionOptions | None = None

    def __post_init__(self) -> None:
        if self.labels not in LABEL_SOURCES:
            raise InputError(f"labels: expected one of {list(LABEL_SOURCES)}, got {self.labels!r}")

    def key(self, recording: str, config: PerceptionConfig) -> str:
        """Hash that tells this evaluation of the recording with that fingerprint from every other one."""
        return run_key(recording, to_dict(config), asdict(self))


def evaluate(
    path: str | Path,
    output: str | Path,
    config: PerceptionConfig | None = None,
    options: EvaluationOptions | None = None,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Evaluate the pipeline on one recording.

    Args:
        path: bag or folder.
        output: the run folder, see :mod:`perception.evaluation.run_folder`; made where missing, and an earlier run of
            the same recording in it is replaced.
        config: parameters of the pipeline.
        options: what is evaluated.
        progress: called after each frame.

    Returns:
        What ``summary.json`` holds.

    Raises:
        InputError: the recording cannot be read, or gave no usable frame; the output holds something else, or is in the
            recording.
    """
    config, options = config or PerceptionConfig(), options or EvaluationOptions()
    path, output = Path(path), Path(output)
    with open_source(path, options.source) as source:
        voxels = find_voxels(path, options.truth_voxels)
        files.expect_outside(output, [path])
        files.claim_folder(output, files.SUMMARY, path)
        run = _Evaluation(source, path, output, config, options, voxels)
        # Only now, since a network that cannot be loaded must not cost the earlier run.
        files.begin_run(output)
        return run.run(progress)


def find_voxels(path: Path, given: Path | None) -> VoxelMap | None:
    """The true voxels of a recording: of the file that is given, else of the one beside its images or storage file."""
    if given is not None:
        return VoxelMap.load(given)
    beside = (path if path.is_dir() else path.parent) / VOXEL_FILE
    return VoxelMap.load(beside) if beside.is_file() else None


class _Evaluation:
    """One run over one source."""

    def __init__(
        self,
        source: Source,
        path: Path,
        output: Path,
        config: PerceptionConfig,
        options: EvaluationOptions,
        voxels: VoxelMap | None,
    ) -> None:
        self.source, self.path, self.output, self.config, self.options = source, path, output, config, options
        given = options.labels == "truth"
        if given and source.label_set is None:
            raise InputError(f"{source.name}: has no ground-truth labels; use labels from the network or none")
        segmenter = create_segmenter_from(config) if options.labels == "network" else None
        self.pipeline = PerceptionPipeline(config, segmenter, source.label_set if given else None, given)
        tree, label_set = self.pipeline.tree, self.pipeline.label_set
        self.scores = RunScores(tree, config, label_set, source.label_set, voxels, options.scores, given)
        self.has_voxels = voxels is not None
        self.detection = DetectionRun(source, path, options.detection) if options.detection else None
        self.dropped: Counter[str] = Counter()
        self.frames, self.processing_s, self.scoring_s, self.recording_s = 0, 0.0, 0.0, 0.0
        self.memory, self.path_length, self.places = Curve(), 0.0, _Thinned(MAX_PATH)
        self._last: Frame | None = None
        self._low, self._high = np.full(3, np.inf), np.full(3, -np.inf)

    def run(self, progress: Callable[[], object]) -> dict[str, Any]:
        # The peak of an earlier recording is not this one's.
        reset_peak_memory()
        start = time.perf_counter()
        self.pipeline.warm_up(live=False)
        settle()
        warm_up_s = time.perf_counter() - start
        with ExitStack() as stack:
            rows = stack.enter_context(files.RowWriter(self.output / files.FRAMES, files.FRAME_COLUMNS))
            places = stack.enter_context(files.RowWriter(self.output / files.PATH, files.PATH_COLUMNS))
            for index, (frame, read_ms) in enumerate(self._read()):
                row = self._take(index, frame, read_ms)
                rows.write(row)
                if not row["dropped"]:
                    self._note_place(frame, places)
                progress()
            if not self.frames:
                raise InputError(
                    f"{self.source.name}: no frame could be mapped ({self.source.details.get(NOT_MAPPED)})"
                )
        return self._write(warm_up_s)

    def _read(self) -> Iterator[tuple[Frame, float]]:
        frames = iter(self.source)
        while True:
            start = time.perf_counter()
            frame = next(frames, None)
            seconds = time.perf_counter() - start
            self.processing_s += seconds
            if frame is None:
                return
            self.pipeline.timer.add("read", 1e3 * seconds)
            yield frame, 1e3 * seconds

    def _take(self, index: int, frame: Frame, read_ms: float) -> dict[str, Any]:
        """Process and score a frame; returns its row of ``frames.csv``."""
        row: dict[str, Any] = {"index": index, "stamp_ns": frame.stamp_ns, "dropped": "", "read_ms": read_ms}
        start = time.perf_counter()
        try:
            result = self.pipeline.process(frame)
        except InputError as error:
            # A bad frame costs itself, not the run.
            self.dropped[NOT_MAPPED] += 1
            # One line of a length that CSV readers take: rows are read again when the map is finished.
            why = " ".join(str(error).split())[:MAX_REASON]
            self.source.details.setdefault(NOT_MAPPED, why)
            self.processing_s += time.perf_counter() - start
            return row | {"dropped": why}
        seconds = time.perf_counter() - start
        self.processing_s += seconds
        timer = self.pipeline.timer
        timer.add("frame", 1e3 * seconds)
        row |= {f"{stage}_ms": timer.last[stage] for stage in (*STAGES, "frame")}
        self.frames += 1
        start = time.perf_counter()
        row |= self.scores.add(index, result)
        if self.detection is not None:
            self.pipeline.timer.add("detect", self.detection.add(frame))
        self.scoring_s += time.perf_counter() - start
        return row | self._facts(result)

    def _facts(self, result: FrameResult) -> dict[str, Any]:
        resident = resident_memory_mb()
        self.memory.add(resident)
        x, y, z = result.frame.map_T_camera.translation.tolist()
        size = self.pipeline.tree.memory_usage() / 1e6
        return {"points": len(result.cloud), "rss_mb": resident, "map_mb": size, "x": x, "y": y, "z": z}

    def _note_place(self, frame: Frame, writer: files.RowWriter) -> None:
        place, turn = frame.map_T_camera.translation, frame.map_T_camera.quaternion_xyzw
        values = (frame.stamp_ns, *place.tolist(), *turn.tolist())
        writer.write(dict(zip(files.PATH_COLUMNS, values, strict=True)))
        self._low, self._high = np.minimum(self._low, place), np.maximum(self._high, place)
        self.places.add(np.array(place))
        if self._last is not None:
            self.path_length += float(np.linalg.norm(place - self._last.map_T_camera.translation))
            # A clock that began anew takes no time.
            self.recording_s += max(frame.stamp_ns - self._last.stamp_ns, 0) / 1e9
        self._last = replace(frame, labels=None)

    def _write(self, warm_up_s: float) -> dict[str, Any]:
        from perception.costmap import write_costmap

        start, tree, label_set = time.perf_counter(), self.pipeline.tree, self.pipeline.label_set
        grid = self.pipeline.costmap()
        scores = self.scores.summary(grid)
        files.fill_frames(self.output / files.FRAMES, self.scores.by_frame)
        scores["detection"] = self.detection.summary(self.scores.not_scored) if self.detection else None
        worst = self.scores.write_pictures(self.output)
        tree.write(self.output / files.MAP, label_set=label_set)
        tree.write_binary(self.output / files.BINARY_MAP)
        write_costmap(self.output / "costmap", grid)
        if self.scores.true_grid is not None:
            write_costmap(self.output / "costmap_truth", self.scores.true_grid)
        if self.scores.true_voxels is not None:
            self.scores.true_voxels.save(self.output / files.TRUE_VOXELS)
        if self.scores.confusion is not None and self.scores.confusion.total and label_set is not None:
            write_confusion(self.output / files.CONFUSION, self.scores.confusion, label_set)
        atomic_write(self.output / files.CONFIG, [yaml.safe_dump(to_dict(self.config), sort_keys=False).encode()])
        self._draw(grid)
        self.scoring_s += time.perf_counter() - start
        summary = self._summary(scores, warm_up_s) | {"worst": worst}
        summary["scalars"] = collect(summary)
        summary = files.plain(summary)
        files.finish(self.output, files.SUMMARY, summary)
        return summary

    def _draw(self, grid: Any) -> None:
        from perception.evaluation.pictures import costmap_picture, octree_pictures

        leaves, places = occupied_leaves(self.pipeline.tree), self.places.samples
        cut, azimuth = cut_height(leaves[0], places), viewing_azimuth(leaves[0], places)
        resolution = self.config.octomap.resolution
        octree_pictures(self.output, leaves, self.pipeline.label_set, resolution, cut, azimuth)
        costmap_picture(self.output / "costmap_path.png", grid, places)

    def _summary(self, scores: dict[str, Any], warm_up_s: float) -> dict[str, Any]:
        pipeline, source = self.pipeline, self.source
        dropped = source.drops + self.dropped
        factor = self.recording_s / self.processing_s if self.recording_s > 0 and self.processing_s > 0 else None
        truth = self.scores.truth() | {"voxels": VOXEL_FILE if self.has_voxels else None}
        recording = fingerprint(self.path)
        return {
            "format": files.FORMAT,
            "perception": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "key": self.options.key(recording, self.config),
            "name": source.name,
            "source": self._source(recording, dict(dropped)),
            "labels": self.options.labels,
            "network": getattr(pipeline.segmenter, "name", None),
            "config": to_dict(self.config),
            "label_set": pipeline.label_set.to_dict() if pipeline.label_set else None,
            "truth": truth,
            "not_scored": self.scores.not_scored,
            **scores,
            "timing": {
                "stages": pipeline.timer.summary(),
                "processing_seconds": self.processing_s,
                "scoring_seconds": self.scoring_s,
                "warm_up_seconds": warm_up_s,
                "real_time_factor": factor,
                "dropped_frames": sum(dropped.values()),
            },
            "memory": {
                "peak_process_mb": peak_memory_since_reset_mb(),
                "map_mb": pipeline.tree.memory_usage() / 1e6,
                "growth_mb_per_1000_frames": self.memory.slope(),
            },
            "voxels": count_voxels(pipeline.tree, pipeline.label_set),
            "trajectory": {"length_m": self.path_length, "low": self._low, "high": self._high},
            "machine": {
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "numpy": np.__version__,
            },
        }

    def _source(self, recording: str, dropped: dict[str, int]) -> dict[str, Any]:
        note = getattr(self.source, "note", "")
        return {
            "name": self.source.name,
            "path": str(self.path.resolve()),
            "fingerprint": recording,
            "kind": "bag" if is_bag(self.path) else "folder",
            "options": asdict(self.options.source),
            "complete": not note,
            "note": note,
            "recording_seconds": self.recording_s,
            "frames": self.frames,
            "dropped": dropped,
            "warnings": dict(self.source.warnings),
            "details": dict(self.source.details),
        }


class _Thinned:
    """At most so many of the values, evenly spread."""

    def __init__(self, limit: int) -> None:
        self.samples: list[np.ndarray] = []
        self._limit, self._count, self._step = limit, 0, 1

    def add(self, value: np.ndarray) -> None:
        if self._count % self._step == 0:
            self.samples.append(value)
            if len(self.samples) > self._limit:
                self.samples, self._step = self.samples[::2], 2 * self._step
        self._count += 1


def count_voxels(tree: Any, label_set: Any) -> dict[str, Any]:
    """Occupied and free voxels of a map, its leaves, and the occupied voxels of each class."""
    leaves = tree.leaves()
    volumes = np.rint((leaves.sizes / tree.resolution) ** 3).astype(np.int64)
    occupied = leaves.log_odds >= 0
    ids, places = np.unique(leaves.labels[occupied], return_inverse=True)
    sums = np.bincount(places, volumes[occupied], len(ids)).astype(np.int64)
    names = [label_set.name_of(int(i)) if label_set else "occupied" for i in ids]
    return {
        "occupied": int(volumes[occupied].sum()),
        "free": int(volumes[~occupied].sum()),
        "leaves": len(leaves.sizes),
        "per_class": dict(sorted(zip(names, sums.tolist(), strict=True), key=lambda item: -item[1])),
    }


def write_confusion(path: Path, matrix: Any, label_set: Any) -> None:
    """Write the pixel counts as CSV: a row per true class, a column per predicted one and one for no label."""
    shown = [label for label in label_set.classes if matrix.counts[label.id].any() or matrix.counts[:, label.id].any()]
    columns = ["truth\\predicted", *(label.name for label in shown), "unlabeled"]
    places = [*(label.id for label in shown), matrix.num_classes]
    with files.RowWriter(path, columns) as writer:
        for label in shown:
            row = [label.name, *(int(matrix.counts[label.id, place]) for place in places)]
            writer.write(dict(zip(columns, row, strict=True)))
