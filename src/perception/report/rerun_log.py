# SPDX-License-Identifier: Apache-2.0
"""Logs frames, maps and runs for the Rerun viewer, live or into an .rrd file.

Rerun is an optional dependency (extra ``viewer``); nothing else of the package needs it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.costmap.files import read_costmap
from perception.errors import PerceptionError
from perception.evaluation.colors import cost_table
from perception.evaluation.pictures import UNLABELED_COLOR
from perception.evaluation.run_folder import COSTMAP
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.pipeline import create_projector
from perception.report.pictures import read_picture
from perception.report.runs import ReportRun
from perception.types import CostGrid

MAX_BOXES = 300_000
"""Of a map; finer maps are logged at half their resolution, and so on."""
MAX_POINTS = 30_000
"""Of one frame's cloud; of more, evenly spread ones are logged."""
MAX_PATH = 500
"""Points of the camera's path, which is logged anew with every frame; of more, every second is given up."""
MAP_EVERY = 10
"""Frames between two maps of a run that is followed."""
JPEG_QUALITY = 80
VIEWER_PORT, VIEWER_S, FLUSH_S = 9876, 10.0, 60.0
"""Where Rerun's viewer listens, and seconds to wait for it to start, and to take the last of what was logged."""
PATH_COLOR = (214, 0, 127)
STAGE_COLUMNS = ("read_ms", "prepare_ms", "segment_ms", "cloud_ms", "insert_ms", "costmap_ms", "frame_ms")


def import_rerun() -> Any:
    """The Rerun SDK.

    Raises:
        PerceptionError: it is not installed; says how to get it, and what works without.
    """
    try:
        return importlib.import_module("rerun")
    except ImportError as error:
        raise PerceptionError(
            "the live viewer needs Rerun, which is not installed: pip install 'perception[viewer]' (rerun-sdk); "
            "without it, perception view MAP --html PAGE.html shows a map in any browser"
        ) from error


def _find_viewer() -> None:
    """Put the viewer that the package brings where Rerun looks for it, for a Python whose folder is not in PATH."""
    spec = importlib.util.find_spec("rerun_cli")
    if shutil.which("rerun") is None and spec is not None and spec.submodule_search_locations:
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *spec.submodule_search_locations])


def _wait_for_viewer() -> None:
    """Raise OSError unless the viewer listens: without one, all that is logged would be waited for without end."""
    deadline = time.monotonic() + VIEWER_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", VIEWER_PORT), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise OSError(
                    f"its viewer does not answer on port {VIEWER_PORT}; where there is no screen, write a file (.rrd)"
                ) from error
        time.sleep(0.2)


class RerunLog:
    """Something that Rerun shows: images, clouds, maps, costmaps, the camera's path and curves.

    Args:
        name: of the recording in the viewer.
        output: an .rrd file to write; None opens the viewer.
        label_set: names and colors of the classes; None where there are none.

    Raises:
        PerceptionError: Rerun is not installed, or its viewer does not start.
    """

    def __init__(self, name: str, output: Path | None, label_set: LabelSet | None) -> None:
        self._rerun = rerun = import_rerun()
        self._label_set, self._output = label_set, output
        self._path: list[NDArray[np.float64]] = []
        self._places, self._path_step = 0, 1
        self._classes: set[int] = set()
        self._first_stamp: int | None = None
        self._finish: Callable[[], None] = lambda: None
        # Rerun has few signs for the names of recordings, and puts a hash behind any other.
        self._stream = rerun.RecordingStream(f"perception: {re.sub(r'[^A-Za-z0-9_-]+', '-', name)}")
        try:
            if output is None:
                _find_viewer()
                self._stream.spawn(default_blueprint=self._blueprint())
                _wait_for_viewer()
            else:
                output.parent.mkdir(parents=True, exist_ok=True)
                self._stream.save(output, default_blueprint=self._blueprint())
        except (OSError, RuntimeError) as error:
            raise PerceptionError(
                f"Rerun cannot {'start' if output is None else f'write {output}'}: {error}"
            ) from error
        self._log("/", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        if label_set is not None:
            entries = [rerun.AnnotationInfo(c.id, c.name, c.color) for c in label_set.classes]
            entries.append(rerun.AnnotationInfo(label_set.num_classes, "unlabeled", UNLABELED_COLOR))
            self._log("/", rerun.AnnotationContext(entries), static=True)

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        # The error that ended the run is the one to tell of.
        with contextlib.suppress(PerceptionError):
            self.close(wait_s=1.0)

    def close(self, wait_s: float = FLUSH_S) -> None:
        """Write what is still on its way, for at most so many seconds.

        Raises:
            PerceptionError: the disk is full, or the viewer does not take it.
        """
        self._finish()
        try:
            self._stream.flush(timeout_sec=wait_s)
            self._stream.disconnect()
        except RuntimeError as error:
            raise PerceptionError(f"Rerun cannot finish {self._output or 'showing'}: {error}") from error

    def set_time(self, stamp_ns: int, index: int) -> None:
        """What is logged from now on belongs to a frame: its time, nanoseconds, and its number."""
        if self._first_stamp is None:
            self._first_stamp = stamp_ns
        self._stream.set_time("recording", duration=(stamp_ns - self._first_stamp) / 1e9)
        self._stream.set_time("frame", sequence=index)

    def following(self, pipeline: Any, every: int = MAP_EVERY) -> Callable[[Any], None]:
        """Something to call with each FrameResult of a pipeline; the map and the costmap are logged now and then.

        Args:
            pipeline: that makes the results, perhaps with the next frames under way already: the map and the times
                of the stages are those of the moment.
            every: so many frames between two maps; closing the log adds the last one.
        """
        count = 0
        # Of its own: the pipeline's may be at work in another thread.
        projector = create_projector(pipeline.tree, pipeline.label_set, pipeline.config)

        def maps() -> None:
            self.octree(pipeline.tree)
            projector.update()
            self.costmap(projector.grid())
            self.scalar("memory/map_mb", pipeline.tree.memory_usage() / 1e6)

        def observe(result: Any) -> None:
            nonlocal count
            stages = dict(pipeline.timer.last)
            self.frame(result, count, {**stages, "sum of stages": sum(stages.values())})
            if count % every == 0:
                maps()
            count += 1

        self._finish = maps
        return observe

    def frame(self, result: Any, index: int, stages: Mapping[str, float]) -> None:
        """Log one frame.

        Args:
            result: a FrameResult of the pipeline.
            index: number of the frame.
            stages: milliseconds of each stage.
        """
        rerun, frame = self._rerun, result.frame
        self.set_time(frame.stamp_ns, index)
        camera = frame.camera
        self._log("world/camera", self._pose(frame.map_T_camera))
        matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]], np.float64)
        size = camera.width, camera.height
        # Small in the scene: a picture of full size would hide the map.
        self._log("world/camera", rerun.Pinhole(image_from_camera=matrix, resolution=size, image_plane_distance=0.4))
        self._log("world/camera/image", rerun.Image(frame.color).compress(jpeg_quality=JPEG_QUALITY))
        depth = np.where(np.isfinite(frame.depth) & (frame.depth > 0), frame.depth, 0)
        millimeters = np.minimum(np.rint(depth * 1000), 65535).astype(np.uint16)
        self._log("world/camera/depth", rerun.DepthImage(millimeters, meter=1000.0))
        if result.labels is not None:
            self._log("world/camera/labels", rerun.SegmentationImage(self._ids(result.labels.labels)))
        self._cloud(result.cloud, frame.map_T_camera)
        self.path_point(np.asarray(frame.map_T_camera.translation, np.float64))
        for stage, milliseconds in stages.items():
            self.scalar(f"latency/{stage}", milliseconds)

    def _pose(self, map_T_camera: Transform) -> Any:
        matrix = np.asarray(map_T_camera.matrix, np.float64)
        return self._rerun.Transform3D(translation=matrix[:3, 3], mat3x3=matrix[:3, :3])

    def _cloud(self, cloud: Any, map_T_camera: Transform) -> None:
        step = max(1, -(-len(cloud.points) // MAX_POINTS))
        points = map_T_camera.apply(cloud.points[::step])
        if self._label_set is not None:
            self._log(
                "world/cloud", self._rerun.Points3D(points, class_ids=self._ids(cloud.labels[::step]), radii=0.01)
            )
        else:
            self._log("world/cloud", self._rerun.Points3D(points, colors=cloud.colors[::step], radii=0.01))

    def path_point(self, position: NDArray[np.float64]) -> None:
        """Lengthen the camera's path."""
        if self._places % self._path_step == 0:
            self._path.append(position)
        if len(self._path) > MAX_PATH:
            self._path, self._path_step = self._path[::2], 2 * self._path_step
        self._places += 1
        self._log_path(np.asarray([*self._path, position]))

    def _log_path(self, path: NDArray[np.float64]) -> None:
        self._log("world/path", self._rerun.LineStrips3D([path], colors=[PATH_COLOR], radii=0.02))

    def scalar(self, name: str, value: float) -> None:
        """Log a number at the current time."""
        self._log(name, self._rerun.Scalars(float(value)))

    def octree(self, tree: Any, name: str = "octree") -> float:
        """Log the occupied leaves of a map as boxes, those of each class as one entity.

        Args:
            tree: a SemanticOcTree.
            name: of the entity below ``world``.

        Returns:
            edge of the smallest box, meters: more than the resolution where the map has too many leaves.
        """
        depth = 16
        leaves = tree.leaves(depth)
        while (leaves.log_odds >= 0).sum() > MAX_BOXES and depth > 8:
            depth -= 1
            leaves = tree.leaves(depth)
        occupied = leaves.log_odds >= 0
        centers, sizes, labels = leaves.centers[occupied], leaves.sizes[occupied], leaves.labels[occupied]
        present = set(np.unique(labels).tolist())
        for label in sorted(self._classes - present):
            self._log(["world", name, self._name(label)], self._rerun.Clear(recursive=False))
        for label in sorted(present):
            chosen = labels == label
            half = np.repeat(sizes[chosen, None] / 2, 3, axis=1)
            boxes = self._rerun.Boxes3D(
                centers=centers[chosen], half_sizes=half, colors=[self._color(label)], fill_mode="solid"
            )
            self._log(["world", name, self._name(label)], boxes)
        self._classes = present
        return float(tree.resolution * 2.0 ** (16 - depth))

    def costmap(self, grid: CostGrid, z: float = 0.0, name: str = "costmap") -> None:
        """Log the known cells of a costmap as a picture lying at a height, meters."""
        height, width = grid.data.shape
        rows, begin, end = known_runs(grid.data)
        if not len(rows):
            return
        columns = np.stack([begin, end, end, begin], axis=1).ravel()
        lines = np.stack([rows, rows, rows + 1, rows + 1], axis=1).ravel()
        places = np.stack([columns, lines], axis=1) * grid.resolution + np.asarray(grid.origin)
        corners = 4 * np.arange(len(rows))[:, None]
        mesh = self._rerun.Mesh3D(
            vertex_positions=np.column_stack([places, np.full(len(places), z)]),
            triangle_indices=np.vstack([corners + np.array(half) for half in ((0, 1, 2), (0, 2, 3))]),
            vertex_texcoords=np.column_stack([columns / width, 1 - lines / height]),
            albedo_texture=np.ascontiguousarray(cost_table()[np.maximum(grid.data, 0)][::-1]),
        )
        self._log(f"world/{name}", mesh)

    def run(self, run: ReportRun) -> None:
        """Log what a run folder holds besides its map: path, curves, pictures of frames, costmap."""
        stamps: dict[Any, int] = {}
        for number, row in enumerate(run.run.frames):
            stamp = row.get("stamp_ns")
            if not isinstance(stamp, int):
                continue
            self.set_time(stamp, number)
            stamps[row.get("index")] = stamp
            for column in STAGE_COLUMNS:
                self._known(f"latency/{column.removesuffix('_ms')}", row.get(column))
            for column in ("pixel_accuracy", "mean_iou", "confidence"):
                self._known(f"scores/{column}", row.get(column))
            for column in ("rss_mb", "map_mb"):
                self._known(f"memory/{column}", row.get(column))
        for entry in run.summary.get("worst") or []:
            if isinstance(entry.get("stamp_ns"), int) and isinstance(entry.get("frame"), int):
                self.set_time(entry["stamp_ns"], entry["frame"])
                self._pictures(run, entry)
        path = run.path()
        if len(path):
            self._log_path(path)
        file = run.file(COSTMAP)
        if file is not None:
            self.costmap(read_costmap(file))

    def _pictures(self, run: ReportRun, entry: Mapping[str, Any]) -> None:
        for key in ("color", "overlay", "labels", "truth", "error"):
            path = run.file(str(entry[key])) if entry.get(key) else None
            if path is not None:
                self._log(f"frames/{key}", self._rerun.Image(read_picture(path)))

    def _known(self, name: str, value: Any) -> None:
        if isinstance(value, int | float):
            self.scalar(name, value)

    def _ids(self, labels: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Ids as Rerun takes them; the one after the last class for none."""
        unlabeled = self._label_set.num_classes if self._label_set else 0
        return np.where(labels < 0, unlabeled, labels).astype(np.uint16)

    def _name(self, label: int) -> str:
        if self._label_set is not None:
            return self._label_set.name_of(label)
        return "occupied" if label < 0 else f"class {label}"

    def _color(self, label: int) -> tuple[int, int, int]:
        if self._label_set is not None and 0 <= label < self._label_set.num_classes:
            red, green, blue = self._label_set.colors[label].tolist()
            return red, green, blue
        return UNLABELED_COLOR

    def _log(self, entity: str | list[str], what: Any, static: bool = False) -> None:
        self._stream.log(entity, what, static=static)

    def _blueprint(self) -> Any:
        """The scene beside images and curves."""
        views = importlib.import_module("rerun.blueprint")
        images = views.Tabs(
            views.Spatial2DView(origin="world/camera/image", name="image"),
            views.Spatial2DView(origin="world/camera/labels", name="labels"),
            views.Spatial2DView(origin="world/camera/depth", name="depth"),
            views.Spatial2DView(origin="frames", name="worst frames"),
        )
        curves = views.Tabs(
            views.TimeSeriesView(origin="latency", name="latency, ms"),
            views.TimeSeriesView(origin="scores", name="scores"),
            views.TimeSeriesView(origin="memory", name="memory, MB"),
        )
        # A costmap at the height of the floor would hide it, and depth says the same as the cloud.
        scenes = views.Tabs(
            views.Spatial3DView(
                origin="world", name="map", contents=["+ /world/**", "- /world/costmap", "- /world/camera/depth"]
            ),
            views.Spatial3DView(
                origin="world", name="costmap", contents=["+ /world/costmap", "+ /world/path", "+ /world/camera"]
            ),
        )
        return views.Blueprint(views.Horizontal(scenes, views.Vertical(images, curves), column_shares=[2, 1]))


def known_runs(data: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row, first column and column behind the last, (R,) each, of the R runs of cells that are not negative."""
    known = np.pad(data >= 0, ((0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(known, axis=1)
    rows, begin = np.nonzero(steps == 1)
    return rows, begin, np.nonzero(steps == -1)[1]
