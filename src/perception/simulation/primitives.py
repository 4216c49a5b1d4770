# SPDX-License-Identifier: Apache-2.0
"""Models made of a few numbers: boxes, rectangles, spheres and cylinders."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.simulation.scene import Material, Model, Part


def quad(
    corner: ArrayLike, right: ArrayLike, up: ArrayLike, material: Material, texture_size: float | None = None
) -> Part:
    """A rectangle (a parallelogram).

    Args:
        corner: (3,) lower left corner, meters.
        right: (3,) edge along the texture's u.
        up: (3,) edge along its v.
        material: how it looks.
        texture_size: meters that one texture covers, repeated from the map's origin on, so that neighbors fit; None
            spans the texture over the rectangle.
    """
    corner, right, up = (np.asarray(value, np.float64) for value in (corner, right, up))
    vertices = np.array([corner, corner + right, corner + right + up, corner + up])
    normal = np.cross(right, up)
    normal /= max(float(np.linalg.norm(normal)), 1e-12)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    if texture_size is not None:
        along, upward = right / np.linalg.norm(right), up / np.linalg.norm(up)
        uv = vertices @ np.stack([along, upward], 1) / texture_size
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return Part(
        vertices.astype(np.float32), np.tile(normal, (4, 1)).astype(np.float32), uv.astype(np.float32), faces, material
    )


def box_parts(
    lower: ArrayLike, upper: ArrayLike, material: Material, texture_size: float | None = None
) -> tuple[Part, ...]:
    """The six faces of a box with edges along the axes, seen from outside; arguments as :func:`quad`."""
    a, b = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    x, y, z = np.diag(b - a)
    faces = [
        (a, x, z),
        (a + x, y, z),
        (a + x + y, -x, z),
        (a + y, -y, z),
        (a + z, x, y),
        (a + y, x, -y),
    ]
    return tuple(quad(corner, right, up, material, texture_size) for corner, right, up in faces)


def box_model(size: ArrayLike, material: Material, name: str = "box") -> Model:
    """A box of (3,) meters around the origin."""
    half = np.asarray(size, np.float64) / 2
    return Model(name, box_parts(-half, half, material))


def cylinder_model(radius: float, length: float, material: Material, sides: int = 32) -> Model:
    """An upright cylinder around the origin, meters."""
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], 1)
    low, high = ring * radius - (0, 0, length / 2), ring * radius + (0, 0, length / 2)
    mantle = surface(np.stack([low, high]), np.stack([ring, ring]), material)
    caps = []
    for edge, z in ((low, -1.0), (high, 1.0)):
        center = np.zeros_like(edge)
        center[:, 2] = edge[:, 2]
        normal = np.tile((0.0, 0.0, z), (len(edge), 1))
        caps.append(surface(np.stack([center, edge]), np.stack([normal, normal]), material))
    return Model("cylinder", (mantle, *caps))


def sphere_model(radius: float, material: Material, sides: int = 32) -> Model:
    """A sphere around the origin, meters."""
    latitude, longitude = np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, sides // 2 + 1), np.linspace(0, 2 * np.pi, sides + 1), indexing="ij"
    )
    unit = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], -1)
    return Model("sphere", (surface(radius * unit, unit, material),))


def surface(
    points: NDArray[np.float64],
    normals: NDArray[np.float64],
    material: Material,
    repeats: tuple[float, float] = (1.0, 1.0),
) -> Part:
    """A grid of (R, C, 3) points with normals as triangles; the texture repeats so often along columns and rows."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    uv = (np.stack([u, v], -1) * repeats).reshape(-1, 2)
    return Part(
        points.reshape(-1, 3).astype(np.float32),
        normals.reshape(-1, 3).astype(np.float32),
        uv.astype(np.float32),
        faces.astype(np.int32),
        material,
    )
