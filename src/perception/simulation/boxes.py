# SPDX-License-Identifier: Apache-2.0
"""A room of boxes, ray-cast with NumPy: frames with exact truth where there is no graphics library at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelSet
from perception.simulation.poses import camera_pose
from perception.simulation.primitives import box_parts, quad
from perception.simulation.scene import Instance, Light, Material, Model, Scene
from perception.types import Frame, LabelImage

FRAME_RATE = 10.0
"""Frames per second of :func:`synthetic_room_frames`."""
SPEED = 0.5
"""Of the robot, m/s."""
CAMERA_HEIGHT = 1.0
CAMERA_PITCH = np.deg2rad(12.0)
CAMERA_YAW = np.deg2rad(30.0)
"""The camera looks this much to the left of the way, into the room."""
_TRACK_GAP = 1.3
"""Distance of the robot's path from the walls, meters; furniture keeps out of it on both sides."""
_FURNITURE = {
    "bed": ((1.9, 0.9, 0.5), (176, 196, 222)),
    "cabinet": ((1.2, 0.5, 1.9), (139, 101, 61)),
    "sofa": ((1.7, 0.8, 0.8), (110, 130, 90)),
    "shelf": ((0.9, 0.35, 1.8), (160, 120, 80)),
    "chair": ((0.5, 0.5, 0.9), (90, 60, 50)),
    "armchair": ((0.8, 0.8, 0.9), (150, 70, 70)),
}
"""Class: (length along the wall, depth, height) in meters, and color."""


@dataclass(frozen=True)
class Box:
    """A box with edges along the axes: opposite corners (3,) in meters, class id, color (R, G, B)."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    label: int
    color: tuple[int, int, int]


@dataclass(frozen=True)
class BoxRoom:
    """A closed room from (0, 0, 0) to ``size`` with boxes in it.

    Attributes:
        size: (3,) length, width, height in meters.
        boxes: what stands in it.
        label_set: what the ids of boxes, floor, wall and ceiling mean.
        colors: of floor, wall and ceiling, by class name.
    """

    size: NDArray[np.float64]
    boxes: tuple[Box, ...]
    label_set: LabelSet
    colors: dict[str, tuple[int, int, int]] = field(
        default_factory=lambda: {"floor": (150, 110, 75), "wall": (205, 200, 185), "ceiling": (235, 235, 230)}
    )

    @classmethod
    def generate(cls, seed: int = 0) -> BoxRoom:
        """A room of 5.5–7 × 5–6 × 2.6 m: furniture along its walls, a table in the middle, a free path between."""
        rng = np.random.default_rng(seed)
        label_set = LabelSet.load("ade20k32")
        size = np.array([rng.uniform(5.5, 7.0), rng.uniform(5.0, 6.0), 2.6])
        boxes = []
        for side in range(4):
            length = size[side % 2]
            at = 0.3
            for name in rng.permutation(list(_FURNITURE)):
                extent, color = _FURNITURE[name]
                at += rng.uniform(0.1, 0.5)
                if at + extent[0] > length - 1.0:
                    break
                boxes.append(_against_wall(size, side, at, extent, label_set[name].id, color))
                at += extent[0]
        middle = size / 2
        half = np.array([rng.uniform(0.3, 0.5), rng.uniform(0.3, 0.45)])
        lower, upper = np.append(middle[:2] - half, 0.0), np.append(middle[:2] + half, 0.75)
        boxes.append(Box(lower, upper, label_set["table"].id, (120, 80, 45)))
        return cls(size, tuple(boxes), label_set)

    def path(self, distance: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the robot is after ``distance`` (N,) meters on an ellipse in the room: (N, 2), and its yaw, (N,)."""
        radius = self.size[:2] / 2 - _TRACK_GAP
        # Equal steps of arc length from a fine table: the ellipse has no closed form for it.
        angles = np.linspace(0, 2 * np.pi, 721)
        points = self.size[:2] / 2 + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        lengths = np.append(0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
        angle = np.interp(distance % lengths[-1], lengths, angles)
        positions = self.size[:2] / 2 + radius * np.stack([np.cos(angle), np.sin(angle)], 1)
        yaw = np.arctan2(radius[1] * np.cos(angle), -radius[0] * np.sin(angle))
        return positions, yaw

    def render(
        self, camera: PinholeCamera, map_T_camera: Transform
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
        """What a camera inside of the room sees.

        Returns:
            color (H, W, 3) uint8, depth (H, W) float32 meters along the optical axis, labels (H, W) int32.
        """
        rays = _rays(camera, map_T_camera)
        origin = map_T_camera.translation.astype(np.float32)
        depth, axis = self._shell(rays, origin)
        shell = [self.label_set[name].id for name in ("wall", "floor", "ceiling")]
        # Indices of colors: the shell's three, then the boxes'.
        surface = np.where(axis < 2, 0, np.where(rays[2] < 0, 1, 2))
        for i, box in enumerate(self.boxes):
            window = _window(box, camera, map_T_camera)
            _enter(box, origin, rays[(slice(None), *window)], depth[window], axis[window], surface[window], 3 + i)
        labels = np.array(shell + [box.label for box in self.boxes], np.int32)[surface]
        colors = [self.colors[name] for name in ("wall", "floor", "ceiling")] + [box.color for box in self.boxes]
        light = _light(origin, rays, depth, axis)
        color = np.take(np.array(colors, np.float32), surface, axis=0) * light[..., None]
        return color.astype(np.uint8), depth, labels

    def scene(self) -> Scene:
        """The same room as a scene of triangles."""
        x, y, z = np.diag(self.size)
        sides = [((0, 0, 0), x), ((0, 0, 0), y), (x, y), (y, x)]
        faces = {"floor": [((0, 0, 0), x, y)], "ceiling": [(z, x, y)], "wall": [(a, b, z) for a, b in sides]}
        instances = []
        for name, rectangles in faces.items():
            paint = _paint(self.colors[name])
            parts = tuple(quad(corner, right, up, paint) for corner, right, up in rectangles)
            instances.append(Instance(name, Model(name, parts), self.label_set[name].id))
        for i, box in enumerate(self.boxes):
            model = Model("box", box_parts(box.lower, box.upper, _paint(box.color)))
            instances.append(Instance(f"box {i}", model, box.label))
        lamp = Light(tuple((self.size * (0.5, 0.5, 0.85)).tolist()), (1.0, 1.0, 1.0))
        return Scene("boxes", self.label_set, tuple(instances), (lamp,))

    def _shell(
        self, rays: NDArray[np.float32], origin: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Where rays leave the room, and the axis of the face: the nearest of the three that a ray looks at."""
        depth = np.full(rays.shape[1:], np.inf, np.float32)
        axis = np.zeros(rays.shape[1:], np.int64)
        for i in range(3):
            leave = np.where(rays[i] > 0, np.float32(self.size[i]) - origin[i], -origin[i])
            exits = np.divide(leave, rays[i], out=np.full_like(depth, np.inf), where=rays[i] != 0)
            nearer = exits < depth
            depth[nearer], axis[nearer] = exits[nearer], i
        return depth, axis


def synthetic_room_frames(n: int, width: int = 640, height: int = 480, seed: int = 0) -> Iterator[Frame]:
    """Frames of a robot that drives around a furnished room of boxes, with true poses and labels.

    Args:
        n: how many frames; one lap takes about 150.
        width: pixels.
        height: pixels.
        seed: of the room; the same seed gives the same frames.

    Yields:
        Frames 0.1 s apart, depth exact in meters, labels of ``ade20k32``.

    Raises:
        InputError: n or the image size is not positive.
    """
    if n < 1 or width < 1 or height < 1:
        raise InputError(f"synthetic room: expected at least 1 frame of 1x1 pixels, got {n} of {width}x{height}")
    return _drive(BoxRoom.generate(seed), n, default_camera(width, height))


def default_camera(width: int, height: int) -> PinholeCamera:
    """A camera with the horizontal field of view of common RGB-D cameras: 525 pixels of focal length at 640 wide."""
    focal = 525.0 * width / 640.0
    return PinholeCamera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def _drive(room: BoxRoom, n: int, camera: PinholeCamera) -> Iterator[Frame]:
    positions, yaw = room.path(np.arange(n) * SPEED / FRAME_RATE)
    for i in range(n):
        map_T_camera = camera_pose((*positions[i], CAMERA_HEIGHT), yaw[i] + CAMERA_YAW, CAMERA_PITCH)
        color, depth, labels = room.render(camera, map_T_camera)
        truth = LabelImage.certain(labels, room.label_set)
        yield Frame(round(i * 1e9 / FRAME_RATE), color, depth, camera, map_T_camera, labels=truth)


def _paint(color: tuple[int, int, int]) -> Material:
    red, green, blue = (channel / 255 for channel in color)
    return Material((red, green, blue, 1.0))


def _against_wall(
    size: NDArray[np.float64],
    side: int,
    at: float,
    extent: tuple[float, float, float],
    label: int,
    color: tuple[int, int, int],
) -> Box:
    """A box that stands ``at`` meters along one of the four walls (0: y = 0, 1: x = 0, 2: y = width, 3: x = length)."""
    along, across = (0, 1) if side % 2 == 0 else (1, 0)
    lower, upper = np.zeros(3), np.zeros(3)
    lower[along], upper[along] = at, at + extent[0]
    start = 0.0 if side < 2 else size[across] - extent[1]
    lower[across], upper[across] = start, start + extent[1]
    upper[2] = extent[2]
    return Box(lower, upper, label, color)


def _rays(camera: PinholeCamera, map_T_camera: Transform) -> NDArray[np.float32]:
    """(3, H, W) directions in the map whose length along the optical axis is 1, so that ray parameters are depths."""
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    right, down, forward = map_T_camera.rotation.T[:, :, None, None]
    return (right * x + down * y[:, None] + forward).astype(np.float32)


def _window(box: Box, camera: PinholeCamera, map_T_camera: Transform) -> tuple[slice, slice]:
    """Rows and columns of the image outside of which a box cannot be seen."""
    corners = np.where(np.indices((2, 2, 2)).reshape(3, 8).T, box.upper, box.lower)
    corners = map_T_camera.inverse().apply(corners)
    if corners[:, 2].max() <= 0:
        return slice(0, 0), slice(0, 0)
    if corners[:, 2].min() <= 0.01:
        # It reaches behind the camera, where projection means nothing.
        return slice(None), slice(None)
    pixels = camera.project(corners)
    first, last = np.floor(pixels.min(0)).astype(int), np.ceil(pixels.max(0)).astype(int) + 1
    first, last = np.clip(first, 0, None), np.clip(last, 0, None)
    return slice(first[1], last[1]), slice(first[0], last[0])


def _enter(
    box: Box,
    origin: NDArray[np.float32],
    rays: NDArray[np.float32],
    depth: NDArray[np.float32],
    axis: NDArray[np.int64],
    surface: NDArray[np.int64],
    index: int,
) -> None:
    """Draw a box into a window of the image where it is nearer than what is there (slabs: Kay and Kajiya, 1986)."""
    near, far = np.full(depth.shape, -np.inf, np.float32), np.full(depth.shape, np.inf, np.float32)
    through = np.zeros(depth.shape, np.int64)
    for i in range(3):
        with np.errstate(divide="ignore", invalid="ignore"):
            first = np.float32(box.lower[i] - origin[i]) / rays[i]
            second = np.float32(box.upper[i] - origin[i]) / rays[i]
        # fmin and fmax pass over the NaN of a ray that runs within a face.
        entry = np.fmin(first, second)
        through[entry > near] = i
        near, far = np.fmax(near, entry), np.fmin(far, np.fmax(first, second))
    seen = (near < far) & (near > 0) & (near < depth)
    depth[seen], axis[seen], surface[seen] = near[seen], through[seen], index


def _light(
    origin: NDArray[np.float32], rays: NDArray[np.float32], depth: NDArray[np.float32], axis: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(H, W) brightness by the direction of a face, by distance and by a checkered texture, which gives edges."""
    checks = np.zeros(depth.shape, np.int32)
    for i in range(3):
        # Half a cell off, as faces lie on whole multiples where rounding would make noise.
        checks += np.floor((origin[i] + rays[i] * depth) * np.float32(4.0) + np.float32(0.5)).astype(np.int32)
    light = np.array([0.85, 0.75, 1.0], np.float32)[axis]
    light = light * (1.0 - 0.04 * np.minimum(depth, 8.0)) * (1.0 - 0.1 * (checks % 2))
    return light.astype(np.float32)
