# SPDX-License-Identifier: Apache-2.0
"""Runs the pipeline over a recording and writes what came out: map, costmap, pictures, figures."""

from __future__ import annotations

import json
import platform
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from perception import __version__
from perception.atomic_file import atomic_write
from perception.config import PerceptionConfig, to_dict
from perception.errors import InputError
from perception.evaluation.run_folder import make_writable
from perception.evaluation.timing import peak_memory_mb
from perception.evaluation.truth import TruthScores
from perception.overlap import process_overlapped
from perception.pipeline import FrameResult, PerceptionPipeline, create_segmenter_from
from perception.process import settle
from perception.sources import Source
from perception.sources.base import NOT_MAPPED
from perception.types import Frame

LABEL_SOURCES = ("network", "truth", "none")
PICTURED_FRAMES = 4
PICTURE_NAME = re.compile(r"labels_\d{6}\.png")


class Replay:
    """One run over one source.

    Args:
        source: frames to take in.
        config: parameters of the pipeline.
        output: folder to write to; made where missing.
        labels: "network", "truth" (the recording's own labels in place of a network's) or "none".
    """

    def __init__(self, source: Source, config: PerceptionConfig, output: Path, labels: str = "network") -> None:
        if labels not in LABEL_SOURCES:
            raise InputError(f"labels: expected one of {list(LABEL_SOURCES)}, got {labels!r}")
        if labels == "truth" and source.label_set is None:
            raise InputError(f"{source.name}: has no ground-truth labels; use labels from the network or none")
        self.source, self.config, self.output, self.labels = source, config, output, labels
        segmenter = create_segmenter_from(config) if labels == "network" else None
        label_set = source.label_set if labels == "truth" else None
        self.pipeline = PerceptionPipeline(config, segmenter, label_set, labels == "truth")
        self.trajectory: list[np.ndarray] = []
        self.dropped: Counter[str] = Counter()
        self.frames = 0
        self._truth = TruthScores(self.pipeline.tree, self.pipeline.label_set, source.label_set, labels == "truth")
        self._pictures = _FramePictures(output, source.name)

    def run(
        self,
        progress: Callable[[], object] = lambda: None,
        observe: Callable[[FrameResult], object] | None = None,
    ) -> dict[str, Any]:
        """Take in all frames and write the folder.

        Args:
            progress: called after each frame.
            observe: called with what came of each frame that was mapped; without it, and without labels, color and
                label images of a bag are not decoded, as nobody looks at them: a color image that is damaged inside
                then does not drop its frame.

        Returns:
            What ``result.json`` holds.

        Raises:
            InputError: the output cannot be written to, or the source gave no usable frame.
        """
        make_writable(self.output)
        source, depth_is_all = self.source, self.labels == "none" and observe is None
        before = source.color_when_asked, source.with_labels
        source.color_when_asked, source.with_labels = depth_is_all, not depth_is_all
        try:
            return self._run(progress, observe)
        finally:
            source.color_when_asked, source.with_labels = before

    def _run(self, progress: Callable[[], object], observe: Callable[[FrameResult], object] | None) -> dict[str, Any]:
        warm_up_start = time.perf_counter()
        self.pipeline.warm_up(live=False)
        settle()
        start = time.perf_counter()
        stamps = []
        for frame, outcome in process_overlapped(self.pipeline, self.source):
            if self._note(frame, outcome):
                stamps.append(frame.stamp_ns)
            if observe is not None and isinstance(outcome, FrameResult):
                observe(outcome)
            progress()
        seconds = time.perf_counter() - start
        if not stamps:
            raise InputError(f"{self.source.name}: no frame could be mapped ({self.source.details.get(NOT_MAPPED)})")
        self._forget_earlier_run()
        self._write_maps()
        self._draw()
        result = self._result(seconds, start - warm_up_start, (stamps[-1] - stamps[0]) / 1e9)
        atomic_write(self.output / "result.json", [f"{json.dumps(result, indent=2)}\n".encode()])
        atomic_write(self.output / "config.yaml", [yaml.safe_dump(to_dict(self.config), sort_keys=False).encode()])
        return result

    def _note(self, frame: Frame, outcome: FrameResult | InputError) -> bool:
        if isinstance(outcome, InputError):
            # A bad frame costs itself, not the run.
            self.dropped[NOT_MAPPED] += 1
            self.source.details.setdefault(NOT_MAPPED, str(outcome))
            return False
        self.frames += 1
        self.trajectory.append(np.array(frame.map_T_camera.translation))
        self._truth.add(outcome.frame.labels, outcome)
        self._pictures.add(outcome)
        return True

    def _forget_earlier_run(self) -> None:
        """Remove what this run may not replace: pictures of other frames, and figures that would not fit a new map."""
        figures = self.output / "result.json"
        if figures.exists():
            # Without the figures of a replay such pictures are somebody else's.
            for path in self.output.glob("labels_*.png"):
                if PICTURE_NAME.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            figures.unlink()

    def _write_maps(self) -> None:
        from perception.costmap import write_costmap

        self.pipeline.tree.write(self.output / "map.ot", label_set=self.pipeline.label_set)
        self.pipeline.tree.write_binary(self.output / "map.bt")
        write_costmap(self.output / "costmap", self.pipeline.costmap())

    def _draw(self) -> None:
        from perception.evaluation.pictures import costmap_picture, octree_pictures

        leaves = occupied_leaves(self.pipeline.tree)
        cut = cut_height(leaves[0], self.trajectory)
        azimuth = viewing_azimuth(leaves[0], self.trajectory)
        octree_pictures(self.output, leaves, self.pipeline.label_set, self.config.octomap.resolution, cut, azimuth)
        costmap_picture(self.output / "costmap_path.png", self.pipeline.costmap(), self.trajectory)
        self._pictures.write()

    def _result(self, seconds: float, warm_up_seconds: float, duration: float) -> dict[str, Any]:
        tree, label_set = self.pipeline.tree, self.pipeline.label_set
        leaves = tree.leaves()
        volumes = np.rint((leaves.sizes / tree.resolution) ** 3).astype(np.int64)
        occupied = leaves.log_odds >= 0
        per_class = {
            label_set.name_of(int(i)) if label_set else "occupied": int(volumes[occupied & (leaves.labels == i)].sum())
            for i in np.unique(leaves.labels[occupied])
        }
        return {
            "perception": __version__,
            "source": self.source.name,
            "labels": self.labels,
            "network": getattr(self.pipeline.segmenter, "name", None),
            "frames": self.frames,
            "dropped": dict(self.source.drops + self.dropped),
            "warnings": dict(self.source.warnings),
            "details": dict(self.source.details),
            "recording_seconds": round(duration, 3),
            "processing_seconds": round(seconds, 3),
            "real_time_factor": round(duration / seconds, 3) if duration > 0 else None,
            "warm_up_seconds": round(warm_up_seconds, 3),
            "stages": self.pipeline.timer.summary(),
            "memory": {"peak_process_mb": round(peak_memory_mb(), 1), "map_mb": round(tree.memory_usage() / 1e6, 3)},
            "voxels": {
                "occupied": int(volumes[occupied].sum()),
                "free": int(volumes[~occupied].sum()),
                "leaves": len(leaves.sizes),
                "per_class": dict(sorted(per_class.items(), key=lambda item: -item[1])),
            },
            "truth": self._truth.summary(),
            "machine": {"processor": platform.machine(), "python": platform.python_version()},
        }


class _FramePictures:
    """Keeps a few frames spread over a run of unknown length, in constant memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._kept: list[tuple[int, FrameResult]] = []
        self._count, self._step = 0, 1

    def add(self, result: FrameResult) -> None:
        if result.labels is not None and self._count % self._step == 0:
            self._kept.append((self._count, result))
            if len(self._kept) > 2 * PICTURED_FRAMES:
                self._kept, self._step = self._kept[::2], 2 * self._step
        self._count += 1

    def write(self) -> None:
        from perception.evaluation.pictures import label_picture

        chosen = self._kept[:: max(1, len(self._kept) // PICTURED_FRAMES)][:PICTURED_FRAMES]
        for index, result in chosen:
            assert result.labels is not None
            title = f"{self._name}, frame {index}"
            label_picture(self._folder / f"labels_{index:06d}.png", result.frame.color, result.labels, title)


def occupied_leaves(tree: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centers, sizes and labels of the occupied leaves."""
    leaves = tree.leaves()
    occupied = leaves.log_odds >= 0
    return leaves.centers[occupied], leaves.sizes[occupied], leaves.labels[occupied]


def cut_height(centers: np.ndarray, trajectory: list[np.ndarray]) -> float | None:
    """Height above which a room's ceiling would hide it: half a meter over the camera, if much is above that."""
    if not len(centers) or not trajectory:
        return None
    height = max(float(position[2]) for position in trajectory) + 0.5
    above = float((centers[:, 2] > height).mean())
    return height if 0.02 < above < 0.6 else None


def viewing_azimuth(centers: np.ndarray, trajectory: list[np.ndarray]) -> float:
    """Direction from the middle of the map to the camera, degrees, turned a little: the mapped side is then in view."""
    if not len(centers):
        return 0.0
    x, y = (np.mean(trajectory, axis=0) - np.median(centers, axis=0))[:2]
    return float(np.degrees(np.arctan2(y, x))) + 25.0
