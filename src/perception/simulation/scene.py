# SPDX-License-Identifier: Apache-2.0
"""What a scene is made of: textured models, instances of them with a class each, and lights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import Transform
from perception.labels import UNLABELED, LabelSet

MAX_INSTANCES = 65535
Motion = Callable[[float], Transform]
"""Where a moving thing is: seconds to ``map_T_resting``, a transform of the instance from where it rests."""


@dataclass(frozen=True, eq=False)
class Material:
    """How a surface looks.

    Attributes:
        color: (red, green, blue, opacity), 0 to 1, sRGB; multiplies the texture.
        texture: (H, W, 4) uint8 RGBA, or None.
        emission: how much light it gives off by itself, 0 to 1.
    """

    color: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 1.0)
    texture: NDArray[np.uint8] | None = None
    emission: float = 0.0

    def __post_init__(self) -> None:
        texture = self.texture
        if texture is not None and (texture.ndim != 3 or texture.shape[2] != 4 or texture.dtype != np.uint8):
            raise InputError(f"texture: expected (H, W, 4) uint8 RGBA, got {texture.shape} {texture.dtype}")

    @property
    def transparent(self) -> bool:
        """Whether what is behind shines through."""
        return self.color[3] < 0.95


@dataclass(frozen=True, eq=False)
class Part:
    """Triangles of one material.

    Attributes:
        vertices: (V, 3) float32, meters, in the model's frame.
        normals: (V, 3) float32, unit length.
        uv: (V, 2) float32 texture coordinates; v = 0 is the lowest row of the texture.
        faces: (T, 3) int32 indices of vertices.
        material: how it looks.
    """

    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    uv: NDArray[np.float32]
    faces: NDArray[np.int32]
    material: Material

    def __post_init__(self) -> None:
        count = len(self.vertices)
        expected = {"vertices": (count, 3), "normals": (count, 3), "uv": (count, 2), "faces": (len(self.faces), 3)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"{name} of a mesh: expected {shape}, got {getattr(self, name).shape}")
        if len(self.faces) and not 0 <= self.faces.min() <= self.faces.max() < count:
            raise InputError(f"faces of a mesh: expected indices 0 to {count - 1}, got others")

    def transformed(self, matrix: NDArray[np.floating]) -> Part:
        """The part after an affine (4, 4) transform, which may scale."""
        linear = np.asarray(matrix[:3, :3], np.float64)
        vertices = self.vertices @ linear.T + matrix[:3, 3]
        # Normals follow the inverse transpose, or they would lean on scaled surfaces.
        normals = self.normals @ np.linalg.inv(linear)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        faces = self.faces if np.linalg.det(linear) > 0 else self.faces[:, ::-1]
        return Part(vertices.astype(np.float32), normals.astype(np.float32), self.uv, faces, self.material)


@dataclass(frozen=True, eq=False)
class Model:
    """A thing as it comes from a file.

    Attributes:
        name: for messages and attribution.
        parts: its triangles by material.
    """

    name: str
    parts: tuple[Part, ...]

    @property
    def bounds(self) -> NDArray[np.float64]:
        """(2, 3) lowest and highest corner, meters, in the model's frame."""
        vertices = [part.vertices[part.faces.ravel()] for part in self.parts if len(part.faces)]
        if not vertices:
            return np.zeros((2, 3))
        stacked = np.vstack(vertices)
        return np.array([stacked.min(0), stacked.max(0)], np.float64)

    @property
    def triangles(self) -> int:
        """How many triangles it has."""
        return sum(len(part.faces) for part in self.parts)

    def transformed(self, matrix: NDArray[np.floating]) -> Model:
        """The model after an affine (4, 4) transform."""
        return Model(self.name, tuple(part.transformed(matrix) for part in self.parts))


@dataclass(frozen=True, eq=False)
class Instance:
    """A model at its place.

    Attributes:
        name: unique in the scene.
        model: what it is.
        label: id of its class, −1 for none.
        matrix: (4, 4) affine, model to map; may scale.
        motion: where it is over time, in place of resting.
    """

    name: str
    model: Model
    label: int
    matrix: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    motion: Motion | None = None

    def matrix_at(self, seconds: float) -> NDArray[np.float64]:
        """(4, 4) model to map at a time."""
        return self.matrix if self.motion is None else self.motion(seconds).matrix @ self.matrix

    def triangles(self, seconds: float = 0.0) -> NDArray[np.float32]:
        """(T, 3, 3) float32 corners of all its triangles in the map at a time."""
        matrix = self.matrix_at(seconds)
        corners = [part.vertices[part.faces] @ matrix[:3, :3].T + matrix[:3, 3] for part in self.model.parts]
        return np.concatenate(corners).astype(np.float32) if corners else np.zeros((0, 3, 3), np.float32)


@dataclass(frozen=True)
class Light:
    """A lamp or a window, without shadows.

    Attributes:
        position: (3,) meters, map frame.
        color: (3,) linear intensity of red, green and blue.
        lower: (3,) corner of the box that it lights: a lamp does not shine through walls.
        upper: (3,) opposite corner.
        attenuation: (constant, linear, quadratic) divisor by distance in meters, as SDF's.
    """

    position: tuple[float, float, float]
    color: tuple[float, float, float]
    lower: tuple[float, float, float] = (-1e6, -1e6, -1e6)
    upper: tuple[float, float, float] = (1e6, 1e6, 1e6)
    attenuation: tuple[float, float, float] = (1.0, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that can be seen.

    Attributes:
        name: short name.
        label_set: what the labels of the instances mean.
        instances: the things; an instance's id is its place in this tuple.
        lights: lamps and windows.
        ambient: (3,) linear light from above; from below comes ``ground_share`` of it.
        ground_share: as said, 0 to 1.
        background: (3,) sRGB 0 to 1 where nothing is.
        attribution: lines that name the authors and licenses of the models.
    """

    name: str
    label_set: LabelSet
    instances: tuple[Instance, ...]
    lights: tuple[Light, ...] = ()
    ambient: tuple[float, float, float] = (0.45, 0.45, 0.45)
    ground_share: float = 0.6
    background: tuple[float, float, float] = (0.7, 0.8, 0.9)
    attribution: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.instances:
            raise InputError(f"scene {self.name!r}: expected at least one thing, got none")
        if len(self.instances) > MAX_INSTANCES:
            raise InputError(f"scene {self.name!r}: expected at most {MAX_INSTANCES} things, got {len(self.instances)}")
        ids = np.array([instance.label for instance in self.instances])
        self.label_set.check_ids(ids, f"scene {self.name!r}")

    @property
    def bounds(self) -> NDArray[np.float64]:
        """(2, 3) lowest and highest corner of all that rests, meters."""
        corners = [i.triangles().reshape(-1, 3) for i in self.instances if i.motion is None and i.model.triangles]
        return np.array([np.min([c.min(0) for c in corners], 0), np.max([c.max(0) for c in corners], 0)], np.float64)

    def labels_of(self, instances: NDArray[np.integer]) -> NDArray[np.int32]:
        """Class ids of instance ids of any shape; −1 stays −1."""
        table = np.array([instance.label for instance in self.instances] + [UNLABELED], np.int32)
        return table[instances]
