# SPDX-License-Identifier: Apache-2.0
"""Writes what the pipeline makes of a recording into a new bag, under the topics that the live nodes publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.cloud_codec import encode_labeled_points
from perception.config import PerceptionConfig
from perception.errors import InputError
from perception.evaluation.pictures import overlay
from perception.pipeline import FrameResult, PerceptionPipeline, create_segmenter_from
from perception.sources import Source
from perception.sources.bag_writer import BagLayout, BagWriter, label_image
from perception.sources.base import NOT_MAPPED
from perception.types import CostGrid

LABELS, LABEL_INFO, CONFIDENCE, OVERLAY = "/labels", "/label_info", "/label_confidence", "/overlay"
POINTS, OCTOMAP, COSTMAP = "/labeled_points", "/octomap_full", "/semantic_costmap"
FIELD_TYPES = {"<f4": 7, "<u4": 6}
"""Numbers of sensor_msgs/PointField."""


@dataclass(frozen=True)
class RecordOptions:
    """What is written.

    Attributes:
        labels: "network", "truth" (the recording's own labels) or "none".
        storage: "mcap" or "sqlite3".
        compressed: pack it with zstd.
        map_period: map and costmap are written every so many seconds of the recording, and at its end.
        images: color, depth and their camera_info are written, too, so that the bag plays alone.
    """

    labels: str = "network"
    storage: str = "mcap"
    compressed: bool = True
    map_period: float = 1.0
    images: bool = False

    def __post_init__(self) -> None:
        if self.labels not in ("network", "truth", "none"):
            raise InputError(f"labels: expected network, truth or none, got {self.labels!r}")
        if not 0 < self.map_period < float("inf"):
            raise InputError(f"map_period: expected seconds above 0, got {self.map_period}")


def record(
    source: Source,
    output: str | Path,
    config: PerceptionConfig | None = None,
    options: RecordOptions | None = None,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Run the pipeline over a recording and write its outputs into a bag.

    Topics: ``/labels``, ``/label_confidence``, ``/label_info``, ``/overlay``, ``/labeled_points``, ``/octomap_full``,
    ``/semantic_costmap`` and ``/tf`` (map → camera).

    Args:
        source: the recording.
        output: folder of the new bag; must not exist.
        config: parameters of the pipeline.
        options: what is written.
        progress: called after each frame.

    Returns:
        ``frames`` written, ``dropped`` and ``warnings`` (reason: count), ``details`` (reason: first explanation).

    Raises:
        InputError: the folder exists, the recording has no true labels though asked for, or no frame could be used.
    """
    config, options = config or PerceptionConfig(), options or RecordOptions()
    given = options.labels == "truth"
    if given and source.label_set is None:
        raise InputError(f"{source.name}: has no ground-truth labels; use labels from the network or none")
    segmenter = create_segmenter_from(config) if options.labels == "network" else None
    pipeline = PerceptionPipeline(config, segmenter, source.label_set if given else None, given)
    pipeline.warm_up(live=False)
    dropped: Counter[str] = Counter()
    layout = BagLayout(storage=options.storage, compressed=options.compressed, fixed_frame=config.octomap.frame_id)
    with BagWriter(output, layout, (LABEL_INFO, OCTOMAP, COSTMAP)) as writer:
        recorder = _Recorder(pipeline, writer, options)
        for frame in source:
            try:
                recorder.write(pipeline.process(frame))
            except InputError as error:
                dropped[NOT_MAPPED] += 1
                source.details.setdefault(NOT_MAPPED, str(error))
            progress()
        if not recorder.frames:
            raise InputError(f"{source.name}: no frame could be mapped ({source.details.get(NOT_MAPPED)})")
        recorder.write_map()
    return {
        "frames": recorder.frames,
        "dropped": dict(source.drops + dropped),
        "warnings": dict(source.warnings),
        "details": dict(source.details),
    }


class _Recorder:
    """Writes the outputs of one pipeline."""

    def __init__(self, pipeline: PerceptionPipeline, writer: BagWriter, options: RecordOptions) -> None:
        self.pipeline, self.writer, self.options = pipeline, writer, options
        self.frames, self._stamp_ns, self._map_due_ns = 0, 0, 0

    def write(self, result: FrameResult) -> None:
        """Write what belongs to one frame."""
        frame, writer = result.frame, self.writer
        stamp, frame_id = frame.stamp_ns, frame.frame_id
        if self.options.images:
            writer.write_frame(frame, pose=False)
        writer.write_transforms(stamp, [(writer.layout.fixed_frame, frame_id, frame.map_T_camera)])
        if result.labels is not None:
            if self.frames == 0:
                writer.write_label_info(LABEL_INFO, stamp, result.labels.label_set)
            image, encoding = label_image(result.labels.labels)
            writer.write_image(LABELS, stamp, frame_id, encoding, image)
            sure = np.rint(result.labels.confidence * 255).astype(np.uint8)
            writer.write_image(CONFIDENCE, stamp, frame_id, "mono8", sure)
            writer.write_image(OVERLAY, stamp, frame_id, "rgb8", overlay(frame.color, result.labels))
        cloud = result.cloud
        records = encode_labeled_points(cloud.points, cloud.colors, cloud.labels, cloud.confidence)
        write_points(writer, POINTS, stamp, frame_id, records)
        self.frames += 1
        back = stamp < self._stamp_ns
        self._stamp_ns = stamp
        if back or stamp >= self._map_due_ns:
            self._map_due_ns = stamp + round(self.options.map_period * 1e9)
            self.write_map()

    def write_map(self) -> None:
        """Write map and costmap as they are now."""
        tree, frame_id = self.pipeline.tree, self.writer.layout.fixed_frame
        write_octomap(self.writer, OCTOMAP, self._stamp_ns, frame_id, tree, self.pipeline.label_set)
        write_grid(self.writer, COSTMAP, self._stamp_ns, frame_id, self.pipeline.costmap())


def write_points(writer: BagWriter, topic: str, stamp_ns: int, frame_id: str, records: Any) -> None:
    """Write (N,) records of floats and ids as sensor_msgs/PointCloud2."""
    dtype = records.dtype
    fields = [
        writer.make(
            "sensor_msgs/msg/PointField",
            name=name,
            offset=dtype.fields[name][1],
            datatype=FIELD_TYPES[dtype.fields[name][0].str],
            count=1,
        )
        for name in dtype.names
    ]
    kind = "sensor_msgs/msg/PointCloud2"
    message = writer.make(
        kind,
        header=writer.header(stamp_ns, frame_id),
        height=1,
        width=len(records),
        fields=fields,
        is_bigendian=False,
        point_step=dtype.itemsize,
        row_step=dtype.itemsize * len(records),
        data=np.frombuffer(records.tobytes(), np.uint8),
        is_dense=True,
    )
    writer.write(topic, kind, stamp_ns, message)


def write_octomap(writer: BagWriter, topic: str, stamp_ns: int, frame_id: str, tree: Any, label_set: Any) -> None:
    """Write a map with its log-odds, and with the colors of its labels, as octomap_msgs/Octomap."""
    kind = "octomap_msgs/msg/Octomap"
    name, data = tree.octomap_data(False, label_set)
    message = writer.make(
        kind,
        header=writer.header(stamp_ns, frame_id),
        binary=False,
        id=name,
        resolution=float(tree.resolution),
        data=np.frombuffer(data, np.int8),
    )
    writer.write(topic, kind, stamp_ns, message)


def write_grid(writer: BagWriter, topic: str, stamp_ns: int, frame_id: str, grid: CostGrid) -> None:
    """Write a costmap as nav_msgs/OccupancyGrid; one without cells is left out."""
    if grid.data.size == 0:
        return
    kind, make = "nav_msgs/msg/OccupancyGrid", writer.make
    header = writer.header(stamp_ns, frame_id)
    x, y = (float(value) for value in grid.origin)
    origin = make(
        "geometry_msgs/msg/Pose",
        position=make("geometry_msgs/msg/Point", x=x, y=y, z=0.0),
        orientation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )
    height, width = grid.data.shape
    info = make(
        "nav_msgs/msg/MapMetaData",
        map_load_time=header.stamp,
        resolution=float(grid.resolution),
        width=width,
        height=height,
        origin=origin,
    )
    data = np.ascontiguousarray(grid.data).ravel()
    writer.write(topic, kind, stamp_ns, make(kind, header=header, info=info, data=data))
