# SPDX-License-Identifier: Apache-2.0
"""Light at the vertices of a scene, worked out once: lamps, light from all around, and darker corners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.simulation.scene import Light, Part, Scene

MAX_EDGE = 0.3
"""Longer edges are split before light is worked out, meters: between vertices it is interpolated."""
MAX_SPLITS = 12
CORNER_REACH = 0.22
CORNER_LOSS = 0.38
"""A corner of a room gets so much less light, fading over the reach in meters (stands in for ambient occlusion)."""
EMISSION = 1.6
WRAP = 0.15
"""Share of a lamp's light that reaches faces along its rays, which softens the border of shade."""


def subdivided(part: Part, max_edge: float = MAX_EDGE) -> Part:
    """The part with its longest edges halved until none is longer than ``max_edge`` meters (or 12 rounds are over).

    Both triangles at an edge halve it at the same point, so that no cracks open.
    """
    data = np.hstack([part.vertices, part.normals, part.uv])
    faces = part.faces.astype(np.int64)
    for _ in range(MAX_SPLITS):
        corners = data[faces, :3]
        edges = np.linalg.norm(corners - corners[:, (1, 2, 0)], axis=2)
        longest = edges.argmax(1)
        split = edges[np.arange(len(faces)), longest] > max_edge
        if not split.any():
            break
        # Each triangle is turned so that its longest edge comes first.
        a, b, c = np.take_along_axis(faces[split], (longest[split, None] + np.arange(3)) % 3, 1).T
        middle = len(data) + np.arange(len(a))
        data = np.vstack([data, (data[a] + data[b]) / 2])
        faces = np.concatenate([faces[~split], np.stack([a, middle, c], 1), np.stack([middle, b, c], 1)])
    data = data.astype(np.float32)
    normals = data[:, 3:6] / np.maximum(np.linalg.norm(data[:, 3:6], axis=1, keepdims=True), 1e-12)
    return Part(data[:, :3].copy(), normals, data[:, 6:].copy(), faces.astype(np.int32), part.material)


def light_at(
    points: NDArray[np.float32], normals: NDArray[np.float32], scene: Scene, emission: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Light that arrives at both sides of a surface.

    Args:
        points: (N, 3) meters, map frame.
        normals: (N, 3) unit length.
        scene: whose lamps shine.
        emission: 0 to 1, how much of it the surface gives off itself.

    Returns:
        Two (N, 3) float32 linear intensities of red, green and blue: where the normal points, and behind.
    """
    openness = np.ones(len(points), np.float32)
    lamps = np.zeros((2, len(points), 3), np.float32)
    for light in scene.lights:
        inside = np.flatnonzero(((points >= light.lower) & (points <= light.upper)).all(1))
        if len(inside) == 0:
            continue
        way = np.asarray(light.position, np.float32) - points[inside]
        away = np.maximum(np.linalg.norm(way, axis=1), 1e-3)
        constant, linear, quadratic = light.attenuation
        strength = 1.0 / (constant + linear * away + quadratic * away * away)
        cosine = np.einsum("ij,ij->i", normals[inside], way) / away
        color = np.asarray(light.color, np.float32)
        for side, facing in enumerate((cosine, -cosine)):
            shade = np.maximum(WRAP + (1 - WRAP) * facing, 0) * strength
            lamps[side, inside] += shade[:, None] * color
        openness[inside] = np.minimum(openness[inside], _openness(points[inside], light))
    # From all around: more from above than from below.
    up = 0.5 + 0.5 * normals[:, 2]
    result = []
    for side, share in enumerate((up, 1 - up)):
        ambient = (scene.ground_share + (1 - scene.ground_share) * share)[:, None] * np.asarray(scene.ambient)
        light = (ambient + lamps[side]) * openness[:, None]
        result.append(((1 - emission) * light + emission * EMISSION).astype(np.float32))
    return result[0], result[1]


def _openness(points: NDArray[np.float32], light: Light) -> NDArray[np.float32]:
    """(N,) 1 in the open, less where two or three faces of the lamp's room meet."""
    gap = np.minimum(points - light.lower, light.upper - points)
    share = 1 - CORNER_LOSS * np.exp(-gap / CORNER_REACH)
    # The surface that a point is on is no corner: the largest of the three losses does not count.
    return (share.prod(1) / share.min(1)).astype(np.float32)
