# SPDX-License-Identifier: Apache-2.0
"""The values that travel through the pipeline: frozen, checked when made, without ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelSet


@dataclass(frozen=True, slots=True)
class LabelImage:
    """A class per pixel.

    Attributes:
        labels: (H, W) integer ids of the label set, −1 where there is none.
        confidence: (H, W) float32 in (0, 1), the probability of that label.
        label_set: what the ids mean.
    """

    labels: NDArray[np.integer]
    confidence: NDArray[np.float32]
    label_set: LabelSet

    def __post_init__(self) -> None:
        _check("labels", self.labels, 2, np.integer)
        _check("confidence", self.confidence, 2, np.floating)
        if self.labels.shape != self.confidence.shape:
            raise InputError(f"confidence: expected {self.labels.shape} as the labels, got {self.confidence.shape}")
        self.label_set.check_ids(self.labels)

    @classmethod
    def certain(cls, labels: NDArray[np.integer], label_set: LabelSet, confidence: float = 0.99) -> LabelImage:
        """Labels from a file or a person, all with the same confidence."""
        return cls(labels, np.full(labels.shape, confidence, np.float32), label_set)


@dataclass(frozen=True, slots=True)
class Detections:
    """Objects found in one image, N of them.

    Attributes:
        boxes: (N, 4) float32, pixels: left, top, right, bottom.
        scores: (N,) float32 in (0, 1).
        labels: (N,) integer ids.
        label_set: what the ids mean.
        masks: (N, H, W) bool, or None.
        keypoints: (N, K, 3) float32 x, y in pixels and score, or None.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.integer]
    label_set: LabelSet
    masks: NDArray[np.bool_] | None = None
    keypoints: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.labels.shape != (count,):
            raise InputError(
                f"detections: expected boxes ({count}, 4) and labels ({count},), "
                f"got {self.boxes.shape} and {self.labels.shape}"
            )
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != count):
            raise InputError(f"detections: expected masks ({count}, H, W), got {self.masks.shape}")
        shape = None if self.keypoints is None else self.keypoints.shape
        if shape is not None and (len(shape) != 3 or shape[0] != count or shape[2] != 3):
            raise InputError(f"detections: expected keypoints ({count}, K, 3), got {shape}")

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Detections3D:
    """Objects as upright boxes in space, N of them.

    Attributes:
        centers: (N, 3) float32, meters, in the frame ``frame_id``.
        sizes: (N, 3) float32, meters, along the box's own x, y and z; positive.
        yaws: (N,) float32, radians, rotation of the box about the frame's z axis.
        scores: (N,) float32 in (0, 1).
        labels: (N,) integer ids.
        label_set: what the ids mean.
        ids: (N,) int64, the same for an object from frame to frame; −1 where it is not (yet) tracked.
        stamp_ns: time of the image, nanoseconds.
        frame_id: name of the frame of the coordinates.
    """

    centers: NDArray[np.float32]
    sizes: NDArray[np.float32]
    yaws: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.integer]
    label_set: LabelSet
    ids: NDArray[np.int64]
    stamp_ns: int = 0
    frame_id: str = "map"

    def __post_init__(self) -> None:
        count = len(self.scores)
        shapes = {"centers": (count, 3), "sizes": (count, 3)}
        for name in ("centers", "sizes", "yaws", "scores", "labels", "ids"):
            expected, got = shapes.get(name, (count,)), getattr(self, name).shape
            if got != expected:
                raise InputError(f"3-D detections: expected {name} {expected}, got {got}")
        if not (np.isfinite(self.centers).all() and np.isfinite(self.sizes).all() and (self.sizes > 0).all()):
            raise InputError("3-D detections: expected finite centers and positive finite sizes, got others")

    def __len__(self) -> int:
        return len(self.scores)


class DeferredColor:
    """A color image that is decoded when it is looked at: given to a frame whose color perhaps nobody wants to see.

    Args:
        height: rows, as the undecoded image says.
        width: columns.
        decode: gives the (H, W, 3) uint8 RGB image; what it raises, raises who looks.
    """

    def __init__(self, height: int, width: int, decode: Callable[[], NDArray[np.uint8]]) -> None:
        self.shape, self.ndim, self.dtype = (height, width, 3), 3, np.dtype(np.uint8)
        self._decode: Callable[[], NDArray[np.uint8]] | None = decode
        self._image: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)
        self._lock = threading.Lock()

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB; decoded the first time, after which the undecoded data is let go."""
        with self._lock:
            if self._decode is not None:
                image = self._decode()
                if image.shape != self.shape:
                    raise InputError(f"color: expected {self.shape} as announced, got {image.shape}")
                self._image, self._decode = image, None
            return self._image


class _Color:
    """The attribute ``color`` of a frame: an array to who reads it, set to an array or to what becomes one."""

    def __get__(self, frame: Frame | None, owner: type) -> NDArray[np.uint8]:
        if frame is None:
            raise AttributeError("color: expected a frame, got its class")
        color = frame.__dict__["color"]
        return color.image if isinstance(color, DeferredColor) else color

    def __set__(self, frame: Frame, color: NDArray[np.uint8] | DeferredColor) -> None:
        frame.__dict__["color"] = color


@dataclass(frozen=True)
class Frame:
    """One moment of an RGB-D camera.

    Attributes:
        stamp_ns: time of the image, nanoseconds.
        color: (H, W, 3) uint8 RGB. Where the frame was made with a :class:`DeferredColor` it is decoded now, and an
            InputError says that the image is broken.
        depth: (h, w) float32, meters along the optical axis; 0 or NaN: no measurement, +inf: no return (free
            up to the maximum range), −inf: too close (REP 117).
        camera: intrinsics of the color image.
        map_T_camera: pose of the color camera's optical frame.
        depth_camera: intrinsics of the depth image where it is not registered to color; else None.
        camera_T_depth: pose of the depth camera in the color camera's frame, with depth_camera.
        labels: labels known from elsewhere (ground truth, another node), used in place of a network; or None.
        frame_id: name of the color camera's optical frame.
    """

    stamp_ns: int
    color: NDArray[np.uint8]
    depth: NDArray[np.float32]
    camera: PinholeCamera
    map_T_camera: Transform
    depth_camera: PinholeCamera | None = None
    camera_T_depth: Transform | None = None
    labels: LabelImage | None = None
    frame_id: str = "camera_optical_frame"

    def __post_init__(self) -> None:
        color = self._given_color
        if color.ndim != 3 or color.shape[2] != 3 or color.dtype != np.uint8:
            raise InputError(f"color: expected (H, W, 3) uint8 RGB, got {color.shape} {color.dtype}")
        _check("depth", self.depth, 2, np.floating)
        self._check_size("color", color.shape[:2], self.camera)
        self._check_size("depth", self.depth.shape, self.depth_camera or self.camera)
        if (self.depth_camera is None) != (self.camera_T_depth is None):
            raise InputError("frame: depth_camera and camera_T_depth belong together, got only one of them")
        if self.labels is not None and self.labels.labels.shape != color.shape[:2]:
            raise InputError(f"labels: expected {color.shape[:2]} as color, got {self.labels.labels.shape}")

    @property
    def _given_color(self) -> NDArray[np.uint8] | DeferredColor:
        return self.__dict__["color"]

    def changed(self, **changes: Any) -> Frame:
        """The frame with other values, as ``dataclasses.replace``, but without a look at its color."""
        return replace(self, **{"color": self._given_color, **changes})

    def color_through(
        self, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    ) -> NDArray[np.uint8] | DeferredColor:
        """The color image after a change that keeps its size; deferred where the image is."""
        color = self._given_color
        if isinstance(color, DeferredColor):
            return DeferredColor(*color.shape[:2], lambda: change(color.image))
        return change(color)

    @staticmethod
    def _check_size(what: str, shape: tuple[int, ...], camera: PinholeCamera) -> None:
        if shape != camera.size:
            raise InputError(
                f"{what}: expected {camera.width}x{camera.height} as its intrinsics say, got {shape[1]}x{shape[0]}"
            )


Frame.color = _Color()  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, slots=True)
class LabeledCloud:
    """Points of one frame with what is known about each, N of them.

    Attributes:
        points: (N, 3) float32, meters, in the frame ``frame_id``.
        colors: (N, 3) uint8 RGB.
        labels: (N,) int32 ids, −1 where there is none.
        confidence: (N,) float32 in (0, 1), 0 where unlabeled.
        clear_points: (M, 3) float32, ends of rays that clear and mark nothing: they met nothing within the limits, or
            a class that moves.
        pixels: (N,) int32, row-major index of each point's pixel in the color image.
        stamp_ns: time of the image, nanoseconds.
        frame_id: name of the frame of the coordinates.
        moving_points: (P, 3) float32, points of classes that move: not in ``points``, the last P of ``clear_points``.
    """

    points: NDArray[np.float32]
    colors: NDArray[np.uint8]
    labels: NDArray[np.int32]
    confidence: NDArray[np.float32]
    clear_points: NDArray[np.float32]
    pixels: NDArray[np.int32]
    stamp_ns: int
    frame_id: str
    moving_points: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))

    def __post_init__(self) -> None:
        count = len(self.points)
        expected = {
            "points": (count, 3),
            "colors": (count, 3),
            "labels": (count,),
            "confidence": (count,),
            "pixels": (count,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"{name}: expected {shape}, got {getattr(self, name).shape}")
        for name in ("clear_points", "moving_points"):
            shape = getattr(self, name).shape
            if len(shape) != 2 or shape[1] != 3:
                raise InputError(f"{name}: expected (M, 3), got {shape}")

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True)
class DepthScan:
    """A depth image with all that makes points of it, as :func:`perception.cloud.depth_scan` makes it.

    Attributes:
        depth: (H, W) float32, meters along the optical axis; +inf, 0, NaN, −inf and negative ones are no points.
        ray_x: (W,) float32, x of each column's ray at depth 1.
        ray_y: (H,) float32, y of each row's ray at depth 1.
        min_range: nearest distance of a point, meters.
        max_range: farthest distance, meters; rays to what is farther clear up to there. inf for none.
        empty_length: length of rays without return, meters; 0 drops them.
        stride: every so many rows and columns.
        clear_no_return: +inf clears.
        clear_zero: 0 clears.
        moving: (H, W) uint8, 1 on things that move, whose rays only clear; or (0, 0).
        labels: (H, W) int32, −1 for none; or (0, 0).
        confidence: (H, W) float32, with labels.
        unsure: (H, W) uint8, nonzero where the label does not count; or (0, 0).
        min_confidence: labels below it do not count.
    """

    depth: NDArray[np.float32]
    ray_x: NDArray[np.float32]
    ray_y: NDArray[np.float32]
    min_range: float = 0.0
    max_range: float = float("inf")
    empty_length: float = 0.0
    stride: int = 1
    clear_no_return: bool = True
    clear_zero: bool = False
    moving: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    labels: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    confidence: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    unsure: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        height, width = self.depth.shape if self.depth.ndim == 2 else (-1, -1)
        sizes = {"depth": (height, width), "ray_x": (width,), "ray_y": (height,)}
        labeled = self.labels.shape != (0, 0) or self.confidence.shape != (0, 0)
        sizes |= dict.fromkeys(("labels", "confidence"), (height, width) if labeled else (0, 0))
        for name in ("moving", "unsure"):
            sizes[name] = (0, 0) if getattr(self, name).shape == (0, 0) else (height, width)
        kinds = {"labels": np.int32, "moving": np.uint8, "unsure": np.uint8}
        for name, size in sizes.items():
            array, kind = getattr(self, name), np.dtype(kinds.get(name, np.float32))
            if array.shape != size or array.dtype != kind or not array.flags.c_contiguous:
                raise InputError(f"{name}: expected {size} {kind} in C order, got {array.shape} {array.dtype}")
        if not isinstance(self.stride, int) or self.stride < 1:
            raise InputError(f"stride: expected a whole number, 1 or more, got {self.stride!r}")


@dataclass(frozen=True, slots=True)
class CostGrid:
    """A Nav2-style grid of raw costs.

    Attributes:
        data: (H, W) int8, 0 (free) to 100 (lethal), −1 unknown; row 0 is the lowest y, column 0 the lowest x
            (nav_msgs/OccupancyGrid order).
        resolution: edge of a cell, meters.
        origin: (x, y) of the lower left corner of cell (0, 0), meters, in the map frame.
    """

    data: NDArray[np.int8]
    resolution: float
    origin: tuple[float, float]

    def __post_init__(self) -> None:
        _check("cost grid", self.data, 2, np.int8)
        if not (np.isfinite(self.resolution) and self.resolution > 0):
            raise InputError(f"cost grid: expected a positive resolution, got {self.resolution}")


def _check(name: str, array: NDArray[Any], ndim: int, kind: type) -> None:
    if array.ndim != ndim or not np.issubdtype(array.dtype, kind):
        expected = "(H, W)" if ndim == 2 else f"{ndim} dimensions"
        raise InputError(f"{name}: expected {expected} of {kind.__name__}, got {array.shape} {array.dtype}")
