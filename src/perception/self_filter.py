# SPDX-License-Identifier: Apache-2.0
"""The robot's own body in its sensors' sight: neither mapped nor an obstacle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.config import Checked, param
from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.yaml_text import load_yaml

MAX_MASK_BYTES = 1 << 26


@dataclass(frozen=True)
class SelfFilterConfig(Checked):
    """Where the robot itself is: what is measured there is dropped."""

    boxes: str = param("", "Parts of the robot as boxes, 'frame: x y z x y z; ...', lowest corner first, m")
    spheres: str = param("", "Parts of the robot as balls, 'frame: x y z radius; ...', m")
    footprint: str = param("", "Outline of the robot in base_frame_id as Nav2's footprint, '[[x, y], ...]', m")
    footprint_height: float = param(1.0, "Height of the robot over its footprint, m", 0.0, 100.0)
    padding: float = param(0.02, "All parts are larger by this, m", 0.0, 1.0)
    mask: str = param(
        "", "PNG of the depth image's size: depth is ignored where it is not black; {camera} is the camera's name"
    )


@dataclass(frozen=True)
class Body:
    """A part of the robot that moves with one frame.

    Attributes:
        frame_id: the frame.
        lower: (3,) lowest corner of the box around it, meters.
        upper: (3,) highest corner.
        radius: of a ball in that box, meters; 0 for the whole box.
        outline: (K, 2) corners of an upright prism in that box; empty for the whole box.
    """

    frame_id: str
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    radius: float = 0.0
    outline: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    def contains(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N,) which of the points (N, 3), meters, in ``frame_id``, are in it; False for NaN."""
        inside = np.asarray(((points >= self.lower) & (points <= self.upper)).all(axis=1))
        if self.radius > 0:
            offset = points - (self.lower + self.upper) / 2
            inside &= np.einsum("ij,ij->i", offset, offset) <= self.radius**2
        if len(self.outline):
            inside[inside] = _within_outline(points[inside, :2], self.outline)
        return inside


class PlacedBody(NamedTuple):
    """A part of the robot and where its frame is in the sensor's."""

    body: Body
    body_T_sensor: Transform


class SelfFilter:
    """Removes what lies on the robot from depth images and clouds.

    Args:
        config: the parts of the robot.
        base_frame_id: frame of the footprint.

    Raises:
        InputError: the parts are not written as they should be.
    """

    def __init__(self, config: SelfFilterConfig, base_frame_id: str) -> None:
        self.bodies = parse_bodies(config, base_frame_id)
        self._mask_path = config.mask
        self._masks: dict[str, NDArray[np.bool_] | None] = {}

    def place(self, sensor_frame: str, lookup: Callable[[str, str], Transform]) -> tuple[PlacedBody, ...]:
        """Where the parts are, seen from a sensor; ``lookup(target, source)`` gives ``target_T_source``."""
        frames = {body.frame_id for body in self.bodies}
        transforms = {frame: lookup(frame, sensor_frame) for frame in frames}
        return tuple(PlacedBody(body, transforms[body.frame_id]) for body in self.bodies)

    def mask_depth(
        self, depth: NDArray[np.float32], camera: PinholeCamera, placed: Sequence[PlacedBody], camera_name: str = ""
    ) -> tuple[NDArray[np.float32], int]:
        """A depth image without the robot.

        Args:
            depth: (H, W) float32, meters along the optical axis.
            camera: its intrinsics, without distortion.
            placed: the parts, seen from the camera's optical frame.
            camera_name: whose ignore mask to apply.

        Returns:
            (H, W) float32, NaN on the robot and where the ignore mask is set; the same array when nothing is. And how
            many pixels were removed.

        Raises:
            InputError: the ignore mask cannot be read or has another size.
        """
        index = _pixels_on_bodies(depth, camera, placed)
        ignored = self._ignored(camera_name, depth.shape)
        if ignored is not None:
            measured = np.flatnonzero(ignored & (depth.reshape(-1) > 0))
            index = np.union1d(index, measured)
        if not len(index) and ignored is None:
            return depth, 0
        result = depth.copy()
        flat = result.reshape(-1)
        flat[index] = np.nan
        if ignored is not None:
            flat[ignored] = np.nan
        return result, len(index)

    def outside(self, points: NDArray[np.float32], placed: Sequence[PlacedBody]) -> NDArray[np.bool_]:
        """(N,) points (N, 3) of the sensor's frame that are not on the robot."""
        keep = np.ones(len(points), np.bool_)
        for body, body_T_sensor in placed:
            near = np.flatnonzero(_within_reach(points, body, body_T_sensor))
            keep[near[body.contains(body_T_sensor.apply(points[near]))]] = False
        return keep

    def _ignored(self, camera_name: str, size: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """(H · W,) the ignore mask of a camera, None where there is none."""
        if not self._mask_path:
            return None
        if camera_name not in self._masks:
            self._masks[camera_name] = read_mask(Path(self._mask_path.replace("{camera}", camera_name)).expanduser())
        mask = self._masks[camera_name]
        if mask is not None and mask.shape != size:
            raise InputError(f"self_filter.mask: expected {size} as the depth, got {mask.shape}")
        return None if mask is None else mask.reshape(-1)


def parse_bodies(config: SelfFilterConfig, base_frame_id: str) -> tuple[Body, ...]:
    """The parts of the robot that a configuration names, widened by its padding.

    Raises:
        InputError: a part is not written as it should be.
    """
    pad, bodies = config.padding, []
    for frame, numbers in _entries("self_filter.boxes", config.boxes, 6):
        low, high = np.array(numbers[:3]), np.array(numbers[3:])
        if not (low < high).all():
            raise InputError(f"self_filter.boxes: expected the lowest corner first, got {numbers}")
        bodies.append(Body(frame, low - pad, high + pad))
    for frame, numbers in _entries("self_filter.spheres", config.spheres, 4):
        center, radius = np.array(numbers[:3]), numbers[3] + pad
        if not numbers[3] > 0:
            raise InputError(f"self_filter.spheres: expected a radius above 0, got {numbers[3]}")
        bodies.append(Body(frame, center - radius, center + radius, radius))
    if config.footprint:
        outline = _outline(config.footprint, pad)
        low = np.append(outline.min(axis=0), -pad)
        high = np.append(outline.max(axis=0), config.footprint_height + pad)
        bodies.append(Body(base_frame_id, low, high, outline=outline))
    return tuple(bodies)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) an ignore mask: the pixels of a PNG that are not black.

    Raises:
        InputError: there is no such file, or it is no image.
    """
    import cv2

    if not path.is_file() or path.stat().st_size > MAX_MASK_BYTES:
        raise InputError(f"self_filter.mask: expected an image file, got {path}")
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InputError(f"self_filter.mask: expected an image file, got {path}, which cannot be decoded")
    return np.asarray(image) > 0


def _entries(name: str, text: str, count: int) -> list[tuple[str, list[float]]]:
    """'frame: n n n; frame: n n n' to frames and numbers."""
    result = []
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        frame, separator, rest = entry.partition(":")
        try:
            numbers = [float(word) for word in rest.replace(",", " ").split()]
        except ValueError:
            numbers = []
        if not separator or not frame.strip() or len(numbers) != count or not np.isfinite(numbers).all():
            raise InputError(f"{name}: expected 'frame: {' '.join(['n'] * count)}' with {count} numbers, got {entry!r}")
        result.append((frame.strip(), numbers))
    return result


def _outline(text: str, pad: float) -> NDArray[np.float64]:
    """Nav2's footprint, '[[x, y], ...]', each corner moved outwards."""
    try:
        corners = np.asarray(load_yaml(text), np.float64)
    except (yaml.YAMLError, ValueError, TypeError):
        corners = np.zeros((0, 0))
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
        raise InputError(f"self_filter.footprint: expected '[[x, y], ...]' with three corners or more, got {text!r}")
    # As Nav2 pads a footprint: along both axes, away from the origin.
    return corners + np.sign(corners) * pad


def _within_outline(points: NDArray[np.floating], outline: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) which points (N, 2) lie in a polygon: a ray along x crosses its edges an odd number of times."""
    inside = np.zeros(len(points), np.bool_)
    x, y = points[:, 0], points[:, 1]
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crossing = x0 + (y - y0) * ((x1 - x0) / (y1 - y0))
        inside ^= ((y0 > y) != (y1 > y)) & (x < crossing)
    return inside


def _reach(body: Body, body_T_sensor: Transform) -> float:
    """Distance from the sensor to the farthest corner of a part's box, meters."""
    corners = np.stack(np.meshgrid(*zip(body.lower, body.upper, strict=True)), axis=-1).reshape(-1, 3)
    return float(np.linalg.norm(corners - body_T_sensor.translation, axis=1).max())


def _within_reach(points: NDArray[np.float32], body: Body, body_T_sensor: Transform) -> NDArray[np.bool_]:
    return np.einsum("ij,ij->i", points, points) <= _reach(body, body_T_sensor) ** 2


def _pixels_on_bodies(
    depth: NDArray[np.float32], camera: PinholeCamera, placed: Sequence[PlacedBody]
) -> NDArray[np.int64]:
    """Row-major indices of the pixels whose points are on the robot; only near ones are lifted at all."""
    if not placed:
        return np.zeros(0, np.int64)
    flat = depth.reshape(-1)
    near = np.flatnonzero((flat > 0) & (flat <= max(_reach(*item) for item in placed)))
    z = flat[near].astype(np.float64)
    rows, columns = near // camera.width, near % camera.width
    x, y = (columns - camera.cx) / camera.fx * z, (rows - camera.cy) / camera.fy * z
    points = np.stack([x, y, z], axis=1)
    inside = np.zeros(len(near), np.bool_)
    for body, body_T_sensor in placed:
        inside |= body.contains(body_T_sensor.apply(points))
    return near[inside]
