# SPDX-License-Identifier: Apache-2.0
"""Messages that lie, of every type that a node listens to: copies of a good one with some fields changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo, VisionClass

Rng = np.random.Generator
HUGE = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 10**9, 10**6, 65536)
ENCODINGS = (
    "", "rgb8", "bgra8", "mono8", "mono16", "16UC1", "32FC1", "64FC1", "8UC3", "32SC1", "bayer_rggb8", "yuv422",
    "32FC0", "8UC99", "rgb8; jpeg compressed", "\x00", "☃" * 50, "x" * 5000,
)  # fmt: skip
FORMATS = (
    "16UC1; compressedDepth png", "16UC1; compressedDepth", "16UC1; compressedDepth rvl", "32FC1; compressedDepth png",
    "png", "jpeg", "rgb8; jpeg compressed bgr8", "", "☃" * 50,
)  # fmt: skip
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, np.inf, -np.inf, np.nan, 5.0)
FLOATS = tuple(float(np.float32(np.clip(number, -3e38, 3e38))) for number in NUMBERS)
FRAMES = ("", "/", "nowhere", "map2", "☃" * 100, "x" * 5000)
NAMES = ("floor", "", "☃", "a" * 3000, "wall", "floor\n")
STAMPS = ((0, 0), (-1, 0), (-(2**31), 5), (2**31 - 1, 999_999_999), (2**31 - 1, 2**32 - 1), (10**9, 10**9))
FIELD_TYPES = (0, 1, 2, 5, 7, 8, 9, 200)
LIE_ABOUT_HEADER = 0.25


def hostile(message: Any, rng: Rng) -> Any:
    """A copy of a message that lies: about its content, and at times about its stamp or its frame."""
    result = LIES[type(message)](message, rng)
    if hasattr(message, "header") and rng.random() < LIE_ABOUT_HEADER:
        result._header = hostile_header(message.header, rng)
    return result


def hostile_header(header: Header, rng: Rng) -> Header:
    """Another frame, another stamp, or both."""
    frame_id, stamp = header.frame_id, header.stamp
    which = int(rng.integers(0, 3))
    if which != 1:
        frame_id = _pick(FRAMES, rng)
    if which != 0:
        stamp = Time()
        stamp._sec, stamp._nanosec = _pick(STAMPS, rng)
    return Header(stamp=stamp, frame_id=frame_id)


def changed(message: Any, rng: Rng, changes: dict[str, Callable[[], Any]], most: int = 3) -> Any:
    """A copy of a message with one to ``most`` fields changed, past the setters' checks, as the wire brings them."""
    result = copy.copy(message)
    names = sorted(changes)
    for name in rng.choice(names, int(rng.integers(1, most + 1)), replace=False):
        setattr(result, f"_{name}", changes[str(name)]())
    return result


def hostile_image(message: Image, rng: Rng) -> Image:
    length = len(message.data)
    changes = {name: lambda: _pick(HUGE, rng) for name in ("height", "width", "step")}
    changes["encoding"] = lambda: _pick(ENCODINGS, rng)
    # Half of the lies about content have the right length: any bits as pixels.
    changes["data"] = lambda: rng.bytes(length if rng.random() < 0.5 else int(rng.integers(0, length)))
    return changed(message, rng, changes)


def hostile_compressed_image(message: CompressedImage, rng: Rng) -> CompressedImage:
    data = bytearray(message.data)
    for _ in range(int(rng.integers(1, 40))):
        data[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
    result = copy.copy(message)
    result._data = bytes(data[: int(rng.integers(0, len(data) + 1))])
    if rng.random() < 0.5:
        result._format = _pick(FORMATS, rng)
    return result


def hostile_camera_info(message: CameraInfo, rng: Rng) -> CameraInfo:
    result = copy.deepcopy(message)
    result.roi.width, result.roi.x_offset = (_pick((0, 0, 0, *HUGE), rng) for _ in range(2))
    changes = {name: lambda: _pick(HUGE, rng) for name in ("width", "height", "binning_x", "binning_y")}
    changes["k"] = lambda: np.array(_numbers(9, rng))
    changes["d"] = lambda: _numbers(int(rng.integers(0, 20)), rng)
    models = ("", "plumb_bob", "rational_polynomial", "equidistant", "☃")
    changes["distortion_model"] = lambda: _pick(models, rng)
    return changed(result, rng, changes, 4)


def hostile_cloud(message: PointCloud2, rng: Rng) -> PointCloud2:
    changes = {name: lambda: _pick(HUGE, rng) for name in ("height", "width", "point_step", "row_step")}
    changes["fields"] = lambda: _hostile_fields(message, rng)
    changes["data"] = lambda: rng.bytes(int(rng.integers(0, len(message.data) + 1)))
    changes["is_bigendian"] = lambda: True
    return changed(message, rng, changes)


def _hostile_fields(message: PointCloud2, rng: Rng) -> list[Any]:
    fields = [copy.copy(field) for field in message.fields[: int(rng.integers(0, len(message.fields) + 1))]]
    for field in fields:
        if rng.random() < 0.5:
            field._offset, field._count = _pick(HUGE, rng), _pick(HUGE, rng)
        if rng.random() < 0.5:
            field._datatype = _pick(FIELD_TYPES, rng)
    return fields


def hostile_scan(message: LaserScan, rng: Rng) -> LaserScan:
    names = ("angle_min", "angle_increment", "range_min", "range_max")
    changes: dict[str, Callable[[], Any]] = {name: lambda: _pick(FLOATS, rng) for name in names}
    changes["ranges"] = lambda: rng.choice(np.array(FLOATS, np.float32), int(rng.integers(0, 50)))
    return changed(message, rng, changes, len(changes))


def hostile_label_info(message: LabelInfo, rng: Rng) -> LabelInfo:
    """Never one that is right: a class is there twice, or has a number that is none."""
    classes = [
        VisionClass(class_id=int(rng.integers(0, 2**16)), class_name=_pick(NAMES, rng))
        for _ in range(int(rng.integers(0, 5)))
    ]
    return LabelInfo(header=message.header, class_map=[*classes, classes[0]] if classes else [])


def hostile_grid(message: Any, rng: Rng) -> Any:
    """An occupancy grid that covers the world, or nothing."""
    result = copy.deepcopy(message)
    position, rotation = result.info.origin.position, result.info.origin.orientation
    changes = {name: lambda: _pick(HUGE, rng) for name in ("height", "width")}
    changes["resolution"] = lambda: _pick(FLOATS, rng)
    result._info = changed(result.info, rng, changes)
    if rng.random() < 0.5:
        position._x, position._y = _numbers(2, rng)
    if rng.random() < 0.3:
        rotation._x, rotation._w = _numbers(2, rng)
    return result


def hostile_transforms(message: Any, rng: Rng) -> Any:
    """Frames that are none, loops, rotations that are none, positions that are nowhere."""
    result = copy.deepcopy(message)
    for stamped in result.transforms:
        stamped._header = hostile_header(stamped.header, rng)
        stamped._header._frame_id = _pick(("map", "base", "camera_optical_frame", "", "/", "☃"), rng)
        stamped._child_frame_id = _pick(("base", "map", "", "/", "☃", "camera_optical_frame"), rng)
        rotation, translation = stamped.transform.rotation, stamped.transform.translation
        rotation._x, rotation._w = _pick((0.0, np.nan, np.inf, 1e300, 0.3), rng), _pick(NUMBERS, rng)
        translation._x = _pick((np.nan, np.inf, -np.inf), rng)
    return result


def _pick(choices: Any, rng: Rng) -> Any:
    return choices[int(rng.integers(0, len(choices)))]


def _numbers(count: int, rng: Rng) -> list[float]:
    return [_pick(NUMBERS, rng) for _ in range(count)]


def _lies() -> dict[type, Callable[[Any, Rng], Any]]:
    from nav_msgs.msg import OccupancyGrid
    from tf2_msgs.msg import TFMessage

    return {
        Image: hostile_image,
        CompressedImage: hostile_compressed_image,
        CameraInfo: hostile_camera_info,
        PointCloud2: hostile_cloud,
        LaserScan: hostile_scan,
        LabelInfo: hostile_label_info,
        OccupancyGrid: hostile_grid,
        TFMessage: hostile_transforms,
    }


LIES = _lies()
