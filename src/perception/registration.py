# SPDX-License-Identifier: Apache-2.0
"""Bring images onto one pinhole camera: remove lens distortion, move depth into the color image."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform, rectification_maps
from perception.labels import UNLABELED
from perception.types import LabelImage

Rectifiable = TypeVar("Rectifiable", NDArray[np.uint8], NDArray[np.float32], LabelImage)


def register_depth(
    depth: NDArray[np.floating],
    depth_camera: PinholeCamera,
    color_camera: PinholeCamera,
    color_T_depth: Transform,
) -> NDArray[np.float32]:
    """Depth as the color camera would have measured it.

    Every pixel is drawn at the size that it has in the color image, the nearest surface wins. A ray without return
    has no place, only a direction: it stays where no surface falls. The offset between the cameras is ignored for it.

    Args:
        depth: (h, w) float, meters; +inf no return, 0 no measurement, NaN and −inf are dropped.
        depth_camera: intrinsics of the depth image, without distortion.
        color_camera: intrinsics of the color image, without distortion.
        color_T_depth: pose of the depth camera's optical frame in the color camera's.

    Returns:
        (H, W) float32 of the color image's size, meters along its axis; +inf and 0 as above, NaN where nothing falls.

    Raises:
        InputError: sizes do not fit or a camera is distorted.
    """
    from perception.cloud_kernels import warp_depth

    for name, camera in (("depth_camera", depth_camera), ("color_camera", color_camera)):
        if camera.is_distorted:
            raise InputError(f"{name}: expected a rectified image without distortion; call rectify first")
    if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
        raise InputError(f"depth: expected (H, W) floating point meters, got {depth.shape} {depth.dtype}")
    if depth.shape != depth_camera.size:
        raise InputError(f"depth: expected {depth_camera.size} as its intrinsics say, got {depth.shape}")
    homography = color_camera.matrix @ color_T_depth.rotation @ np.linalg.inv(depth_camera.matrix)
    offset = color_camera.matrix @ color_T_depth.translation
    return warp_depth(np.ascontiguousarray(depth, np.float32), homography, offset, *color_camera.size)


def rectify(image: Rectifiable, camera: PinholeCamera) -> Rectifiable:
    """The image as ``camera.rectified()`` would have taken it.

    Args:
        image: color (H, W, 3) uint8, interpolated linearly, black outside; depth (H, W) float, nearest pixel, NaN
            outside; or a LabelImage, nearest pixel, −1 outside.
        camera: intrinsics with distortion; without, the image is returned as it is.

    Raises:
        InputError: the size does not fit the camera, its distortion leaves nothing of the image, or the array is none
            of the above.
    """
    arrays = (image.labels, image.confidence) if isinstance(image, LabelImage) else (image,)
    for array in arrays:
        if array.shape[:2] != camera.size:
            raise InputError(f"image: expected {camera.size} as the intrinsics say, got {array.shape[:2]}")
    if not camera.is_distorted:
        return image
    if isinstance(image, LabelImage):
        labels = image.labels.astype(np.int32) if image.labels.dtype.kind == "u" else image.labels
        confidence = _nearest(image.confidence, camera, 0.0)
        return cast(Rectifiable, LabelImage(_nearest(labels, camera, UNLABELED), confidence, image.label_set))
    if image.ndim == 2 and np.issubdtype(image.dtype, np.floating):
        return cast(Rectifiable, _nearest(image, camera, np.nan))
    if image.ndim == 3 and image.dtype == np.uint8:
        import cv2

        return cast(Rectifiable, cv2.remap(image, *_linear_maps(camera), cv2.INTER_LINEAR))
    raise InputError(
        f"image: expected color (H, W, 3) uint8, depth (H, W) float or a LabelImage, got {image.shape} {image.dtype}"
    )


def warm_up() -> None:
    """Compile the kernel, or load it from the cache."""
    camera = PinholeCamera(4, 3, 4.0, 4.0, 1.5, 1.0)
    register_depth(np.ones((3, 4), np.float32), camera, camera, Transform.identity())


def _nearest(image: NDArray, camera: PinholeCamera, fill: float) -> NDArray:
    index, inside = _nearest_index(camera)
    return np.where(inside, image.reshape(-1)[index], np.asarray(fill, image.dtype))


def _usable_maps(camera: PinholeCamera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The maps of a calibration that makes sense: finite, and some pixels come from inside of the image."""
    x, y = rectification_maps(camera)
    inside = (x > -0.5) & (x < camera.width - 0.5) & (y > -0.5) & (y < camera.height - 0.5)
    if not (np.isfinite(x).all() and np.isfinite(y).all() and inside.any()):
        raise InputError(
            "camera: expected a distortion that leaves something of the image, got "
            f"{camera.distortion_model} {camera.distortion} with fx, fy, cx, cy = "
            f"{camera.fx:g}, {camera.fy:g}, {camera.cx:g}, {camera.cy:g}"
        )
    return x, y


@lru_cache(maxsize=8)
def _linear_maps(camera: PinholeCamera) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    import cv2

    # Fixed point maps make remap about twice as fast as floating point ones.
    return cv2.convertMaps(*_usable_maps(camera), cv2.CV_16SC2)  # type: ignore[return-value]


@lru_cache(maxsize=8)
def _nearest_index(camera: PinholeCamera) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    # Pixels far outside have no whole number, and need none.
    x, y = (
        np.clip(np.rint(array), -1, end).astype(np.int64)
        for array, end in zip(_usable_maps(camera), (camera.width, camera.height), strict=True)
    )
    inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
    index = np.where(inside, y * camera.width + x, 0)
    index.setflags(write=False)
    inside.setflags(write=False)
    return index, inside
