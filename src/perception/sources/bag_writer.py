# SPDX-License-Identifier: Apache-2.0
"""Write frames into a rosbag that ROS 2 Jazzy, RViz and Foxglove play, without ROS."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError, PerceptionError
from perception.geometry import PinholeCamera, Transform
from perception.labels import UNLABELED_8, UNLABELED_16, LabelSet
from perception.sources.bag_reader import typestore
from perception.sources.bag_topics import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, LABEL_INFO, TF
from perception.types import Frame

BASE_T_OPTICAL = Transform(np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]))
"""Optical frame (z forward, x right) in the robot's frame (x forward, y left), REP 103, at the same place."""
COLOR_CODINGS = ("raw", "jpeg", "png")
DEPTH_CODINGS = ("16UC1", "32FC1", "compressedDepth")
COMMIT_BYTES = 1 << 22
"""So many bytes of messages are one transaction of an sqlite3 bag: lost where the disk is full, or when killed."""


@dataclass(frozen=True)
class BagLayout:
    """How frames are laid out in a bag.

    Attributes:
        storage: "mcap" or "sqlite3".
        compressed: pack the chunks (mcap) or the messages (sqlite3) with zstd.
        color: "raw", "jpeg" or "png".
        depth: "16UC1" (millimeters), "32FC1" (meters) or "compressedDepth" (millimeters as PNG); millimeters round,
            and neither hold no-return nor more than 65.5 m: both become 0.
        namespace: the camera's topics begin with this.
        fixed_frame: frame of the poses.
        base_frame: frame of the robot, which carries the camera at its own origin.
    """

    storage: str = "mcap"
    compressed: bool = False
    color: str = "raw"
    depth: str = "16UC1"
    namespace: str = "/camera"
    fixed_frame: str = "map"
    base_frame: str = "base_link"

    def __post_init__(self) -> None:
        allowed = {"storage": ("mcap", "sqlite3"), "color": COLOR_CODINGS, "depth": DEPTH_CODINGS}
        for name, choices in allowed.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name}: expected one of {list(choices)}, got {getattr(self, name)!r}")


class BagWriter:
    """A bag being written; a context manager.

    Leaving it by an exception finishes the bag with what was written until then, or removes it where nothing was. Where
    writing itself failed, as on a full disk, what reached the disk stays, up to ``COMMIT_BYTES`` less than was written.

    Args:
        path: folder of the bag; must not exist.
        layout: how frames are laid out.
        latched: topics that are offered transient local, so that players repeat them to late subscribers.

    Raises:
        InputError: the folder exists or cannot be made.
        PerceptionError: raised by the methods that write, where the disk is full or gone.
    """

    def __init__(self, path: str | Path, layout: BagLayout | None = None, latched: Iterable[str] = ()) -> None:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError

        self.layout = layout or BagLayout()
        self._path = Path(path)
        self._types = typestore()
        self._latched = {"/tf_static", self._topic("ground_truth/label_info"), *latched}
        self._connections: dict[str, Any] = {}
        self._described = self._failed = self._committed = False
        self._pending_bytes = 0
        made = not self._path.exists()
        plugin = StoragePlugin.MCAP if self.layout.storage == "mcap" else StoragePlugin.SQLITE3
        try:
            self._writer = Writer(self._path, version=9, storage_plugin=plugin)
            if self.layout.compressed:
                mode = CompressionMode.STORAGE if self.layout.storage == "mcap" else CompressionMode.MESSAGE
                self._writer.set_compression(mode, CompressionFormat.ZSTD)
            self._writer.open()
        except (WriterError, OSError, sqlite3.Error) as error:
            if made:
                shutil.rmtree(self._path, ignore_errors=True)
            raise InputError(f"bag {path}: cannot be written ({error})") from error

    def close(self) -> None:
        """Finish the bag."""
        with self._explained():
            self._writer.close()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # The error that ended it is the one to tell of, not what it led to.
        with contextlib.suppress(Exception):
            if self._connections and not self._failed:
                self._writer.close()
        with contextlib.suppress(Exception):
            self._writer.abort()
        lost = self._failed and self.layout.storage == "sqlite3" and not self._committed
        if lost or not self._connections:
            shutil.rmtree(self._path, ignore_errors=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self._failed = True
            raise PerceptionError(f"bag {self._path}: cannot be written ({error})") from error
        except BaseException:
            # A chunk of an MCAP that was half written would be written once more at the end.
            self._failed |= self.layout.storage == "mcap"
            raise

    def write_raw(self, topic: str, msgtype: str, log_ns: int, data: bytes) -> None:
        """Write an encoded message."""
        with self._explained():
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(
                    topic, msgtype, typestore=self._types, offered_qos_profiles=[_qos(topic in self._latched)]
                )
            self._writer.write(self._connections[topic], log_ns, data)
            self._pending_bytes += len(data)
            if self._pending_bytes > COMMIT_BYTES:
                self._commit()

    def _commit(self) -> None:
        """Without this all messages of an sqlite3 bag are one transaction, which holds or is lost as a whole."""
        connection = getattr(self._writer.storage, "conn", None)
        if connection is not None:
            connection.commit()
            self._committed = True
        self._pending_bytes = 0

    def write(self, topic: str, msgtype: str, log_ns: int, message: Any) -> None:
        """Write a message object, as :meth:`make` makes them."""
        self.write_raw(topic, msgtype, log_ns, self._types.serialize_cdr(message, msgtype))

    def make(self, msgtype: str, **fields: Any) -> Any:
        """A message object of a type such as "sensor_msgs/msg/Image"."""
        return self._types.types[msgtype](**fields)

    def write_frame(self, frame: Frame, pose: bool = True) -> None:
        """Write color, depth, their camera_info, and labels where the frame has them.

        Args:
            frame: what to write.
            pose: write the robot's pose and where the cameras sit on it, too; False where the caller writes a tree
                of transforms of its own.
        """
        if not self._described:
            self._write_static(frame, pose)
        stamp = frame.stamp_ns
        depth_camera = frame.depth_camera or frame.camera
        depth_frame = _depth_frame(frame)
        if pose:
            map_T_base = frame.map_T_camera @ BASE_T_OPTICAL.inverse()
            self.write_transforms(stamp, [(self.layout.fixed_frame, self.layout.base_frame, map_T_base)])
        self.write_camera_info("color/camera_info", stamp, frame.frame_id, frame.camera)
        self._write_color(stamp, frame.frame_id, frame.color)
        self.write_camera_info("depth/camera_info", stamp, depth_frame, depth_camera)
        self._write_depth(stamp, depth_frame, frame.depth)
        if frame.labels is not None:
            image, encoding = label_image(frame.labels.labels)
            self.write_image(self._topic("ground_truth/labels"), stamp, frame.frame_id, encoding, image)

    def write_transforms(
        self, stamp_ns: int, transforms: Iterable[tuple[str, str, Transform]], static: bool = False
    ) -> None:
        """Write parent, child and ``parent_T_child`` of each to /tf or /tf_static."""
        entries = []
        for parent, child, transform in transforms:
            (x, y, z), (qx, qy, qz, qw) = transform.translation.tolist(), transform.quaternion_xyzw.tolist()
            entries.append(
                self.make(
                    "geometry_msgs/msg/TransformStamped",
                    header=self.header(stamp_ns, parent),
                    child_frame_id=child,
                    transform=self.make(
                        "geometry_msgs/msg/Transform",
                        translation=self.make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
                        rotation=self.make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
                    ),
                )
            )
        self.write("/tf_static" if static else "/tf", TF, stamp_ns, self.make(TF, transforms=entries))

    def write_image(self, topic: str, stamp_ns: int, frame_id: str, encoding: str, image: NDArray[Any]) -> None:
        """Write an array as sensor_msgs/Image of the given encoding."""
        message = self.make(
            IMAGE,
            header=self.header(stamp_ns, frame_id),
            height=image.shape[0],
            width=image.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=image.strides[0] if image.flags.c_contiguous else image[0].nbytes,
            data=np.frombuffer(np.ascontiguousarray(image).tobytes(), np.uint8),
        )
        self.write(topic, IMAGE, stamp_ns, message)

    def write_compressed(self, topic: str, stamp_ns: int, frame_id: str, format: str, data: bytes) -> None:
        """Write a file as sensor_msgs/CompressedImage."""
        header = self.header(stamp_ns, frame_id)
        message = self.make(COMPRESSED_IMAGE, header=header, format=format, data=np.frombuffer(data, np.uint8))
        self.write(topic, COMPRESSED_IMAGE, stamp_ns, message)

    def write_camera_info(self, name: str, stamp_ns: int, frame_id: str, camera: PinholeCamera) -> None:
        """Write intrinsics to ``namespace/name``."""
        k = camera.matrix
        message = self.make(
            CAMERA_INFO,
            header=self.header(stamp_ns, frame_id),
            height=camera.height,
            width=camera.width,
            distortion_model=camera.distortion_model if camera.is_distorted else "plumb_bob",
            d=np.array(camera.distortion or (0.0,) * 5),
            k=k.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([k, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=self.make(
                "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
            ),
        )
        self.write(self._topic(name), CAMERA_INFO, stamp_ns, message)

    def write_label_info(self, topic: str, stamp_ns: int, label_set: LabelSet) -> None:
        """Write the names of the classes as vision_msgs/LabelInfo."""
        classes = [
            self.make("vision_msgs/msg/VisionClass", class_id=label.id, class_name=label.name)
            for label in label_set.classes
        ]
        message = self.make(LABEL_INFO, header=self.header(stamp_ns, ""), class_map=classes, threshold=0.0)
        self.write(topic, LABEL_INFO, stamp_ns, message)

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """A std_msgs/Header."""
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        stamp = self.make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _topic(self, name: str) -> str:
        return f"{self.layout.namespace.rstrip('/')}/{name}"

    def _write_static(self, frame: Frame, pose: bool) -> None:
        """What holds for the whole bag: where the cameras sit and what the labels mean."""
        transforms = [(self.layout.base_frame, frame.frame_id, BASE_T_OPTICAL)] if pose else []
        if frame.camera_T_depth is not None:
            transforms.append((frame.frame_id, _depth_frame(frame), frame.camera_T_depth))
        if transforms:
            self.write_transforms(frame.stamp_ns, transforms, static=True)
        if frame.labels is not None:
            self.write_label_info(self._topic("ground_truth/label_info"), frame.stamp_ns, frame.labels.label_set)
        self._described = True

    def _write_color(self, stamp_ns: int, frame_id: str, color: NDArray[np.uint8]) -> None:
        coding, topic = self.layout.color, self._topic("color/image_raw")
        if coding == "raw":
            self.write_image(topic, stamp_ns, frame_id, "rgb8", color)
            return
        data = _encode(".jpg" if coding == "jpeg" else ".png", color[..., ::-1])
        self.write_compressed(f"{topic}/compressed", stamp_ns, frame_id, f"rgb8; {coding} compressed bgr8", data)

    def _write_depth(self, stamp_ns: int, frame_id: str, depth: NDArray[np.float32]) -> None:
        coding, topic = self.layout.depth, self._topic("depth/image_raw")
        if coding == "32FC1":
            self.write_image(topic, stamp_ns, frame_id, coding, depth.astype(np.float32))
            return
        millimeters = to_millimeters(depth)
        if coding == "16UC1":
            self.write_image(topic, stamp_ns, frame_id, coding, millimeters)
            return
        # The transport puts three parameters of 4 bytes in front, which mean nothing for millimeters.
        data = bytes(12) + _encode(".png", millimeters)
        self.write_compressed(f"{topic}/compressedDepth", stamp_ns, frame_id, "16UC1; compressedDepth png", data)


def write_bag(path: str | Path, frames: Iterable[Frame], layout: BagLayout | None = None) -> int:
    """Write frames into a new bag.

    Returns:
        How many frames were written.

    Raises:
        InputError: the folder exists or cannot be made.
    """
    count = 0
    with BagWriter(path, layout) as writer:
        for frame in frames:
            writer.write_frame(frame)
            count += 1
    return count


def to_millimeters(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(H, W) float32 meters to uint16 millimeters; 0 where there is no measurement or it does not fit."""
    scaled = np.rint(depth.astype(np.float64) * 1000)
    return np.where((scaled > 0) & (scaled <= 65535), scaled, 0).astype(np.uint16)


def label_image(labels: NDArray[np.integer]) -> tuple[NDArray[Any], str]:
    """mono8 with 255 for none while ids fit below it, else 16UC1 with 65535."""
    if labels.max(initial=0) < UNLABELED_8:
        return np.where(labels < 0, UNLABELED_8, labels).astype(np.uint8), "mono8"
    return np.where(labels < 0, UNLABELED_16, labels).astype(np.uint16), "16UC1"


def _depth_frame(frame: Frame) -> str:
    return frame.frame_id if frame.camera_T_depth is None else f"{frame.frame_id}_depth"


def _encode(ending: str, image: NDArray[Any]) -> bytes:
    import cv2

    return cv2.imencode(ending, np.ascontiguousarray(image))[1].tobytes()


def _qos(latched: bool) -> Any:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(2147483647, 4294967295)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
