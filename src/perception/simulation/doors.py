# SPDX-License-Identifier: Apache-2.0
"""Leaves of doors with panes, single or in a folding row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perception.simulation import textures
from perception.simulation.poses import pose
from perception.simulation.primitives import box_parts, quad
from perception.simulation.scene import Material, Part
from perception.simulation.variety import near_white, pane

THICKNESS = 0.04
"""Of a leaf, meters."""
_FRAMES = ((0.55, 0.36, 0.2), (0.72, 0.5, 0.3), (0.93, 0.92, 0.9), (0.12, 0.14, 0.16), (0.3, 0.32, 0.34))


def glazed_leaf(width: float, height: float, rng: np.random.Generator) -> tuple[Part, ...]:
    """A frame with a grid of bars; between them milky or clear glass, or nothing.

    Args:
        width: along x from the hinge at the origin, meters; thick toward −y.
        height: along z, meters.
        rng: chooses colors, grid and glass.
    """
    frame = textures.plain(rng, _FRAMES) if rng.random() < 0.8 else Material((*near_white(rng), 1.0))
    edge, bar = float(rng.uniform(0.04, 0.12)), float(rng.uniform(0.015, 0.04))
    kick = float(rng.choice([edge, rng.uniform(0.1, 0.8)]))
    parts: list[Part] = []
    for x in (0.0, width - edge):
        parts += box_parts((x, -THICKNESS, 0), (x + edge, 0, height), frame)
    for low, high in ((0.0, kick), (height - edge, height)):
        parts += box_parts((edge, -THICKNESS, low), (width - edge, 0, high), frame)
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 7))
    for x in np.linspace(edge, width - edge - bar, columns + 1)[1:-1]:
        parts += box_parts((x, -0.03, kick), (x + bar, -0.01, height - edge), frame)
    for z in np.linspace(kick, height - edge - bar, rows + 1)[1:-1]:
        parts += box_parts((edge, -0.03, z), (width - edge, -0.01, z + bar), frame)
    kind = rng.random()
    if kind < 0.75:
        tint = rng.uniform(0.6, 0.95, 3).tolist()
        glass = pane(rng) if kind < 0.5 else Material((*tint, float(rng.uniform(0.15, 0.5))))
        size = (width - 2 * edge, 0, 0), (0, 0, height - edge - kick)
        parts.append(quad((edge, -0.02, kick), *size, glass))
    return tuple(parts)


def folding_leaves(start: float, end: float, height: float, rng: np.random.Generator) -> Iterator[Part]:
    """A row of equal glazed leaves from one side of an opening, folded in a zigzag; some may be missing.

    Args:
        start: of the opening along x, meters; the row stands in the middle of the wall, y = 0.
        end: of the opening.
        height: of the opening, meters.
        rng: chooses how many, and how far they are folded.
    """
    count = max(2, round((end - start) / rng.uniform(0.5, 0.9)))
    width = (end - start) / count
    angle = float(np.deg2rad(rng.choice([rng.uniform(0, 10), rng.uniform(10, 80)])))
    shown = count if rng.random() < 0.4 else int(rng.integers(1, count + 1))
    leaf = glazed_leaf(width - 0.005, height - 0.01, rng)
    from_end = rng.random() < 0.5
    x, y = (end, 0.0) if from_end else (start, 0.0)
    for i in range(shown):
        turn = angle if i % 2 == 0 else -angle
        yaw = np.pi - turn if from_end else turn
        for part in leaf:
            yield part.transformed(pose((x, y, 0.0), yaw=yaw).matrix)
        x += width * np.cos(yaw)
        y += width * np.sin(yaw)
