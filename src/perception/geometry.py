# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms and pinhole cameras. Frames follow REP 103: optical frames have z forward, x right, y down."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.errors import InputError

MAX_ROTATION_ERROR = 0.01
"""Largest entry of R·Rᵀ − I that is taken for rounding in a log and made orthonormal."""


@dataclass(frozen=True)
class Transform:
    """A rigid transform; ``map_T_camera.apply(points)`` takes camera points to map.

    Attributes:
        matrix: (4, 4) float64, rotation and translation in meters.
    """

    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        # Compiled functions read the rows one behind the other.
        matrix = np.array(self.matrix, np.float64, order="C")
        if matrix.shape != (4, 4):
            raise InputError(f"transform: expected a (4, 4) matrix, got {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise InputError("transform: expected finite numbers, got NaN or infinity")
        if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6:
            raise InputError(f"transform: expected last row 0 0 0 1, got {matrix[3]}")
        matrix[:3, :3] = _orthonormal(matrix[:3, :3])
        matrix[3] = (0, 0, 0, 1)
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def _rigid(cls, matrix: NDArray[np.float64]) -> Transform:
        """From a new matrix that is rigid by construction: the checks would cost more than the products."""
        matrix.setflags(write=False)
        transform = object.__new__(cls)
        object.__setattr__(transform, "matrix", matrix)
        return transform

    @classmethod
    def identity(cls) -> Transform:
        """The transform that changes nothing."""
        return cls._rigid(np.eye(4))

    @classmethod
    def from_translation_quaternion(cls, translation: ArrayLike, quaternion_xyzw: ArrayLike) -> Transform:
        """From (3,) meters and a (4,) quaternion in ROS order x, y, z, w.

        Raises:
            InputError: the quaternion's norm is not 1 within 1 %, or a number is not finite.
        """
        q = np.asarray(quaternion_xyzw, np.float64)
        norm = math.hypot(*q.tolist()) if q.shape == (4,) else math.nan
        if not abs(norm - 1.0) <= MAX_ROTATION_ERROR:
            raise InputError(f"quaternion x y z w: expected four numbers of norm 1, got {q.tolist()} (norm {norm:.4g})")
        t = np.asarray(translation, np.float64)
        if t.shape != (3,) or not np.isfinite(t).all():
            raise InputError(f"translation: expected three finite numbers, got {t.tolist()}")
        x, y, z, w = (q / norm).tolist()
        tx, ty, tz = t.tolist()
        rows = (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), tx),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), ty),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), tz),
            (0.0, 0.0, 0.0, 1.0),
        )
        return cls._rigid(np.array(rows))

    @property
    def translation(self) -> NDArray[np.float64]:
        """(3,) meters."""
        return self.matrix[:3, 3]

    @property
    def rotation(self) -> NDArray[np.float64]:
        """(3, 3) rotation matrix."""
        return self.matrix[:3, :3]

    @property
    def quaternion_xyzw(self) -> NDArray[np.float64]:
        """(4,) unit quaternion x, y, z, w with w ≥ 0.

        Source: Shepperd, Quaternion from rotation matrix, 1978 (largest component first, for precision).
        """
        m = self.rotation
        trace = m[0, 0] + m[1, 1] + m[2, 2]
        squares = np.array([m[0, 0], m[1, 1], m[2, 2], trace])
        i = int(np.argmax(squares))
        q = np.empty(4)
        if i == 3:
            q[:] = (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + trace)
        else:
            j, k = (i + 1) % 3, (i + 2) % 3
            q[i] = 1 - trace + 2 * m[i, i]
            q[j], q[k], q[3] = m[j, i] + m[i, j], m[k, i] + m[i, k], m[k, j] - m[j, k]
        q /= np.linalg.norm(q)
        return q if q[3] >= 0 else -q

    def inverse(self) -> Transform:
        """The transform back."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation.T
        matrix[:3, 3] = -self.rotation.T @ self.translation
        return Transform._rigid(matrix)

    def __matmul__(self, other: Transform) -> Transform:
        """Composition: ``map_T_base @ base_T_camera`` is ``map_T_camera``."""
        return Transform._rigid(self.matrix @ other.matrix)

    def apply(self, points: NDArray[Any]) -> NDArray[np.float32]:
        """Transform (N, 3) points; float32 out, computed in float32 as points carry sensor precision."""
        from perception.geometry_kernels import transform_points

        # The compiled function takes no read-only arrays.
        points = np.require(points, np.float32, ["C", "W"])
        if points.shape[-1:] != (3,):
            raise InputError(f"points: expected (N, 3), got {points.shape}")
        return transform_points(points.reshape(-1, 3), self.matrix.astype(np.float32))

    def interpolate(self, other: Transform, ratio: float) -> Transform:
        """Between this (ratio 0) and the other (1): linear translation, spherical linear rotation (Shoemake, 1985)."""
        q0, q1 = self.quaternion_xyzw, other.quaternion_xyzw
        cosine = float(q0 @ q1)
        if cosine < 0:
            q1, cosine = -q1, -cosine
        # Nearly parallel: the sine below vanishes, and the straight line is exact to rounding.
        if cosine > 1 - 1e-9:
            q = q0 + ratio * (q1 - q0)
        else:
            angle = np.arccos(min(cosine, 1.0))
            q = (np.sin((1 - ratio) * angle) * q0 + np.sin(ratio * angle) * q1) / np.sin(angle)
        translation = self.translation + ratio * (other.translation - self.translation)
        return Transform.from_translation_quaternion(translation, q / np.linalg.norm(q))


def _orthonormal(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    determinant = float(np.linalg.det(rotation))
    if error > MAX_ROTATION_ERROR or determinant < 0:
        raise InputError(
            f"rotation: expected an orthonormal matrix of determinant 1, got an error of {error:.3g} and determinant "
            f"{determinant:.3g}"
        )
    if error < 1e-12:
        return rotation
    u, _, vt = np.linalg.svd(rotation)
    return u @ vt


@dataclass(frozen=True)
class PinholeCamera:
    """Intrinsics of an image as it is received (after region of interest and binning).

    Attributes:
        width: pixels.
        height: pixels.
        fx: focal length, pixels.
        fy: focal length, pixels.
        cx: principal point, pixels; pixel centers are at whole numbers.
        cy: principal point, pixels.
        distortion_model: "none", "plumb_bob", "rational_polynomial" or "equidistant" (sensor_msgs names).
        distortion: coefficients D of that model; () or zeros when rectified.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "none"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise InputError(f"camera: expected a positive image size, got {self.width}x{self.height}")
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not np.isfinite(numbers).all() or self.fx <= 0 or self.fy <= 0:
            raise InputError(f"camera: expected finite intrinsics with fx, fy > 0, got fx, fy, cx, cy = {numbers[:4]}")
        if self.is_distorted:
            expected = {"plumb_bob": (4, 5), "rational_polynomial": (8,), "equidistant": (4,)}
            if len(self.distortion) not in expected.get(self.distortion_model, ()):
                raise InputError(
                    f"camera: distortion model {self.distortion_model!r} with {len(self.distortion)} coefficients "
                    "cannot be rectified; expected plumb_bob (4 or 5), rational_polynomial (8) or equidistant (4)"
                )

    @classmethod
    def from_matrix(cls, k: ArrayLike, width: int, height: int) -> PinholeCamera:
        """From a 3×3 intrinsic matrix K (row-major when flat)."""
        k = np.asarray(k, np.float64)
        if k.size != 9:
            raise InputError(f"camera matrix: expected 3x3 numbers, got {k.shape}")
        k = k.reshape(3, 3)
        if abs(k[0, 1]) > 1e-6:
            raise InputError(f"camera matrix: expected no skew, got {k[0, 1]}")
        return cls(width, height, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))

    @classmethod
    def from_info(
        cls,
        width: int,
        height: int,
        k: ArrayLike,
        d: ArrayLike = (),
        distortion_model: str = "plumb_bob",
        binning: tuple[int, int] = (1, 1),
        roi: tuple[int, int, int, int] | None = None,
    ) -> PinholeCamera:
        """From the fields of sensor_msgs/CameraInfo.

        Args:
            width: full sensor image, pixels.
            height: full sensor image, pixels.
            k: 3×3 matrix of the full image.
            d: distortion coefficients; empty or zero for none.
            distortion_model: of d.
            binning: (x, y); 0 means 1, as in the message.
            roi: (x_offset, y_offset, width, height) of the full image; None or zero sizes mean all.

        Source: sensor_msgs/CameraInfo: the region is cut from the full image first, then pixels are binned.
        """
        if int(width) <= 0 or int(height) <= 0:
            raise InputError(f"camera_info: expected a positive image size, got {width}x{height}")
        camera = cls.from_matrix(k, int(width), int(height))
        d = tuple(float(value) for value in np.asarray(d, np.float64).ravel())
        if any(d):
            camera = replace(camera, distortion_model=distortion_model or "plumb_bob", distortion=d)
        if roi is not None and roi[2] > 0 and roi[3] > 0:
            camera = camera.cropped(*roi)
        bx, by = max(int(binning[0]), 1), max(int(binning[1]), 1)
        return camera.binned(bx, by) if (bx, by) != (1, 1) else camera

    def cropped(self, x_offset: int, y_offset: int, width: int, height: int) -> PinholeCamera:
        """The camera of a region of interest."""
        if x_offset < 0 or y_offset < 0 or x_offset + width > self.width or y_offset + height > self.height:
            raise InputError(
                f"region of interest: expected inside of {self.width}x{self.height}, "
                f"got {width}x{height} at ({x_offset}, {y_offset})"
            )
        return replace(self, width=width, height=height, cx=self.cx - x_offset, cy=self.cy - y_offset)

    def binned(self, x: int, y: int) -> PinholeCamera:
        """The camera after joining x · y pixels into one; centers move by half a pixel of the difference."""
        return replace(
            self,
            width=self.width // x,
            height=self.height // y,
            fx=self.fx / x,
            fy=self.fy / y,
            cx=(self.cx + 0.5) / x - 0.5,
            cy=(self.cy + 0.5) / y - 0.5,
        )

    @property
    def is_distorted(self) -> bool:
        """Whether images need rectification before they fit the pinhole model."""
        return any(self.distortion)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) K."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), as array shapes."""
        return self.height, self.width

    def rectified(self) -> PinholeCamera:
        """The same camera without distortion (what :func:`rectify` makes images fit)."""
        return replace(self, distortion_model="none", distortion=())

    def scaled(self, width: int, height: int) -> PinholeCamera:
        """The camera of an image resized to width × height."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )

    def project(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """(N, 3) camera points with z > 0 to (N, 2) pixels u, v (no distortion)."""
        points = np.asarray(points, np.float64)
        return points[:, :2] / points[:, 2:] * (self.fx, self.fy) + (self.cx, self.cy)


def rectification_maps(camera: PinholeCamera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For every pixel of the rectified image, where it comes from in the distorted one.

    Returns:
        Two (H, W) float32 arrays, x and y, as cv2.remap takes them.
    """
    import cv2

    k, d = camera.matrix, np.asarray(camera.distortion)
    size = (camera.width, camera.height)
    if camera.distortion_model == "equidistant":
        return cv2.fisheye.initUndistortRectifyMap(k, d, np.eye(3), k, size, cv2.CV_32FC1)  # pyright: ignore[reportReturnType]
    return cv2.initUndistortRectifyMap(k, d, np.eye(3), k, size, cv2.CV_32FC1)  # type: ignore[return-value]
