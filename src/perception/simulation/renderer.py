# SPDX-License-Identifier: Apache-2.0
"""Color, metric depth, class and instance of every pixel in one pass of OpenGL, in software where there is no GPU."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.simulation.lighting import light_at, subdivided
from perception.simulation.requirements import create_context
from perception.simulation.scene import Instance, Part, Scene
from perception.simulation.shaders import FRAGMENT_SHADER, VERTEX_SHADER

NEAR, FAR = 0.02, 100.0
"""Nothing nearer or farther is drawn, meters along the optical axis."""
MAX_SIZE = 8192
_VERTEX = np.dtype(
    [
        ("position", "<f4", 3),
        ("normal", "<f4", 3),
        ("uv", "<f4", 2),
        ("color", "u1", 4),
        ("light_front", "<f4", 3),
        ("light_back", "<f4", 3),
        ("instance", "<u4"),
    ]
)
_FORMAT = "3f 3f 2f 4f1 3f 3f 1u4"
_NAMES = ("in_position", "in_normal", "in_uv", "in_color", "in_light_front", "in_light_back", "in_instance")


@dataclass(frozen=True, slots=True)
class View:
    """What a camera sees.

    Attributes:
        color: (H, W, 3) uint8 RGB.
        depth: (H, W) float32, meters along the optical axis; +inf where nothing is.
        labels: (H, W) int32 class ids, −1 where nothing is.
        instances: (H, W) int32 places in ``Scene.instances``, −1 where nothing is.
    """

    color: NDArray[np.uint8]
    depth: NDArray[np.float32]
    labels: NDArray[np.int32]
    instances: NDArray[np.int32]


@dataclass(frozen=True)
class _Batch:
    """Triangles of one texture: of all that rests, or of one thing that moves.

    ``instances`` (N,) and ``ends`` (N,) say whose indices end where, in the order of the buffer.
    """

    vertex_array: Any
    texture: Any
    transparent: bool
    mover: int | None
    instances: NDArray[np.int64]
    ends: NDArray[np.int64]

    def runs(self, visible: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """First index and number of indices of each run of visible instances."""
        shown = np.concatenate([[False], visible[self.instances], [False]]).astype(np.int8)
        starts, stops = (np.flatnonzero(np.diff(shown) == step) for step in (1, -1))
        bounds = np.concatenate([[0], self.ends])
        return [(int(bounds[a]), int(bounds[b] - bounds[a])) for a, b in zip(starts, stops, strict=True)]


class Renderer:
    """Draws one scene; a context manager. The same scene, camera and pose give the same pixels.

    Args:
        scene: what to draw; uploaded once.
        samples: per pixel, against jagged edges in color; depth and ids are always those of one of them. 1 is fastest.

    Raises:
        MissingDependencyError: no moderngl, no EGL or no driver.
    """

    def __init__(self, scene: Scene, samples: int = 4) -> None:
        self.scene = scene
        self._context = create_context()
        self._samples = min(samples, self._context.max_samples) if samples > 1 else 0
        self._program = self._context.program(vertex_shader=VERTEX_SHADER, fragment_shader=FRAGMENT_SHADER)
        context = self._context
        # Of opacity the sum, not the mean: glass before something opaque stays opaque.
        context.blend_func = context.SRC_ALPHA, context.ONE_MINUS_SRC_ALPHA, context.ONE, context.ONE_MINUS_SRC_ALPHA
        self._targets: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._batches = self._upload()
        self._corners = np.stack([_bounding_corners(instance) for instance in scene.instances])

    def render(self, camera: PinholeCamera, map_T_camera: Transform, seconds: float = 0.0) -> View:
        """Draw the scene.

        Args:
            camera: intrinsics without distortion.
            map_T_camera: pose of its optical frame.
            seconds: time for things that move.

        Raises:
            InputError: the camera is distorted or its image too large.
        """
        if camera.is_distorted or max(camera.size) > MAX_SIZE:
            raise InputError(f"camera to render: expected no distortion and at most {MAX_SIZE} pixels, got {camera}")
        # Several renderers may be alive: each has a context of its own.
        with self._context:
            return self._render(camera, map_T_camera, seconds)

    def _render(self, camera: PinholeCamera, map_T_camera: Transform, seconds: float) -> View:
        drawn, resolved = self._target(camera.width, camera.height)
        drawn.use()
        drawn.clear()
        world_to_clip = projection(camera) @ map_T_camera.inverse().matrix
        self._set("world_to_clip", world_to_clip)
        self._program["eye"].value = tuple(map_T_camera.translation.tolist())
        moved = {i: item.motion(seconds).matrix for i, item in enumerate(self.scene.instances) if item.motion}
        visible = self._visible(world_to_clip, moved)
        for batch in self._batches:
            self._draw(batch, moved, visible)
        if resolved is not drawn:
            self._context.copy_framebuffer(resolved, drawn)
        return self._read(resolved, camera)

    def close(self) -> None:
        """Release the context; the renderer cannot be used afterwards."""
        self._context.release()

    def __enter__(self) -> Renderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _visible(self, world_to_clip: NDArray[np.float64], moved: dict[int, NDArray[np.float64]]) -> NDArray[np.bool_]:
        """(N,) whether an instance may be in the image: not all corners of its box beyond one side of the frustum."""
        corners = self._corners.copy()
        for i, matrix in moved.items():
            corners[i] = corners[i] @ matrix.T
        clip = corners @ world_to_clip.T
        beyond = np.concatenate([clip[..., :3] > clip[..., 3:], clip[..., :3] < -clip[..., 3:]], axis=2)
        return np.logical_not(beyond.all(axis=1).any(axis=-1))

    def _draw(self, batch: _Batch, moved: dict[int, NDArray[np.float64]], visible: NDArray[np.bool_]) -> None:
        runs = batch.runs(visible)
        if not runs:
            return
        context = self._context
        # Blending is for color alone: the other target holds integers, which OpenGL never blends.
        context.enable_only(context.DEPTH_TEST | (context.BLEND if batch.transparent else 0))
        # Vertices are where things rest; what moves is taken from there.
        self._set("model_to_world", np.eye(4) if batch.mover is None else moved[batch.mover])
        batch.texture.use(0)
        for first, count in runs:
            batch.vertex_array.render(vertices=count, first=first)

    def _read(self, target: Any, camera: PinholeCamera) -> View:
        height, width = camera.size
        pixels = np.frombuffer(target.read(components=4, attachment=0), np.uint8).reshape(height, width, 4)
        words = np.frombuffer(target.read(components=2, attachment=1, dtype="u4"), np.uint32).reshape(height, width, 2)
        instances = words[..., 0].astype(np.int32) - 1
        depth = np.where(instances >= 0, words[..., 1].view(np.float32), np.float32(np.inf))
        color = pixels[..., :3].copy()
        # Opacity is the share of a pixel's samples that met something: the rest shows the background.
        open_pixels = pixels[..., 3] < 255
        share = 1 - pixels[open_pixels, 3:].astype(np.float32) / 255
        color[open_pixels] += (share * np.asarray(self.scene.background) * 255).astype(np.uint8)
        return View(color, depth, self.scene.labels_of(instances), instances)

    def _target(self, width: int, height: int) -> tuple[Any, Any]:
        """Framebuffers to draw to and to read from; the same one without oversampling."""
        if (width, height) not in self._targets:
            drawn = self._framebuffer(width, height, self._samples)
            resolved = self._framebuffer(width, height, 0) if self._samples else drawn
            self._targets[width, height] = drawn, resolved
        return self._targets[width, height]

    def _framebuffer(self, width: int, height: int, samples: int) -> Any:
        context, size = self._context, (width, height)
        return context.framebuffer(
            [
                context.renderbuffer(size, 4, samples=samples),
                context.renderbuffer(size, 2, samples=samples, dtype="u4"),
            ],
            context.depth_renderbuffer(size, samples=samples),
        )

    def _upload(self) -> list[_Batch]:
        groups: dict[tuple[bool, int, int], list[tuple[int, Part]]] = defaultdict(list)
        textures: dict[int, NDArray[np.uint8] | None] = {}
        for i, instance in enumerate(self.scene.instances):
            mover = i if instance.motion else -1
            for part in instance.model.parts:
                texture = part.material.texture
                key = 0 if texture is None else id(texture)
                textures[key] = texture
                groups[part.material.transparent, key, mover].append((i, part))
        # Opaque ones first, so that transparent ones are laid over them.
        return [
            self._batch(groups[transparent, key, mover], self._texture(textures[key]), transparent, mover)
            for transparent, key, mover in sorted(groups)
        ]

    def _batch(self, parts: list[tuple[int, Part]], texture: Any, transparent: bool, mover: int) -> _Batch:
        parts = [(i, subdivided(part.transformed(self.scene.instances[i].matrix))) for i, part in parts]
        vertices = np.concatenate([_vertices(part, instance, self.scene) for instance, part in parts])
        offsets = np.cumsum([0] + [len(part.vertices) for _, part in parts])
        indices = np.concatenate([part.faces.ravel() + offsets[i] for i, (_, part) in enumerate(parts)])
        array = self._context.vertex_array(
            self._program,
            [(self._context.buffer(vertices.tobytes()), _FORMAT, *_NAMES)],
            self._context.buffer(indices.astype(np.uint32).tobytes()),
        )
        ends = np.cumsum([part.faces.size for _, part in parts])
        instances = np.array([instance for instance, _ in parts])
        return _Batch(array, texture, transparent, None if mover < 0 else mover, instances, ends)

    def _texture(self, pixels: NDArray[np.uint8] | None) -> Any:
        if pixels is None:
            pixels = np.full((1, 1, 4), 255, np.uint8)
        height, width = pixels.shape[:2]
        texture = self._context.texture((width, height), 4, np.ascontiguousarray(pixels).tobytes())
        texture.build_mipmaps()
        texture.filter = (self._context.LINEAR_MIPMAP_LINEAR, self._context.LINEAR)
        return texture

    def _set(self, name: str, matrix: NDArray[np.float64]) -> None:
        # OpenGL stores columns first.
        self._program[name].write(np.ascontiguousarray(matrix.T, np.float32).tobytes())


def projection(camera: PinholeCamera) -> NDArray[np.float64]:
    """(4, 4) from the optical frame to clip coordinates, so that row 0 of what is read is the image's first row.

    Pixel centers are at whole numbers: u = fx · x / z + cx lands at (u + 0.5) · 2 / width − 1.
    """
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2 * camera.fx / camera.width, 2 * (camera.cx + 0.5) / camera.width - 1
    matrix[1, 1], matrix[1, 2] = 2 * camera.fy / camera.height, 2 * (camera.cy + 0.5) / camera.height - 1
    matrix[2, 2], matrix[2, 3] = (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
    matrix[3, 2] = 1
    return matrix


def _vertices(part: Part, instance: int, scene: Scene) -> NDArray[Any]:
    """Vertices as the buffer holds them; instance ids count from 1. What moves keeps the light of where it rests."""
    data = np.empty(len(part.vertices), _VERTEX)
    data["position"], data["normal"], data["uv"] = part.vertices, part.normals, part.uv
    data["color"] = np.clip(np.array(part.material.color) * 255 + 0.5, 0, 255).astype(np.uint8)
    front, back = light_at(part.vertices, part.normals, scene, part.material.emission)
    data["light_front"], data["light_back"] = front, back
    data["instance"] = instance + 1
    return data


def _bounding_corners(instance: Instance) -> NDArray[np.float64]:
    """(8, 4) homogeneous corners of an instance's box in the map, where it rests."""
    lower, upper = instance.model.bounds
    corners = np.where(np.indices((2, 2, 2)).reshape(3, 8).T, upper, lower)
    return np.hstack([corners, np.ones((8, 1))]) @ instance.matrix.T
