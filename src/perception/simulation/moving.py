# SPDX-License-Identifier: Apache-2.0
"""Things that cross a room, for maps that must clear and forget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import Transform
from perception.simulation.furniture import FurnitureCatalog
from perception.simulation.poses import pose
from perception.simulation.primitives import box_model
from perception.simulation.scene import Instance, Material, Motion, Scene
from perception.simulation.trajectory import FreeSpace, RobotModel, free_space

KINDS = ("box", "person")
WALK_SPEED = 0.8
"""m/s."""


def crossing(start: NDArray[np.floating], end: NDArray[np.floating], speed: float = WALK_SPEED) -> Motion:
    """There and back between two places on the floor, (2,) meters, for something that rests at ``start``."""
    way = np.append(np.asarray(end, np.float64) - np.asarray(start, np.float64), 0.0)
    period = max(float(np.linalg.norm(way)) / speed, 1e-3)

    def motion(seconds: float) -> Transform:
        phase = seconds / period % 2.0
        return pose(way * (phase if phase <= 1 else 2 - phase))

    return motion


def with_crossing(scene: Scene, kind: str, seed: int, catalog: FurnitureCatalog | None = None) -> Scene:
    """The scene with something that walks to and fro where there is room.

    Args:
        scene: what there is; needs ground.
        kind: "box" or "person".
        seed: of where it walks.
        catalog: for the person; None opens the installed one.

    Raises:
        InputError: another kind, or no room.
        MissingDependencyError: a person is asked for and the furniture is not installed.
    """
    if kind not in KINDS:
        raise InputError(f"moving thing: expected one of {list(KINDS)}, got {kind!r}")
    rng = np.random.default_rng(seed)
    start, end = _longest_free_line(free_space(scene, RobotModel(radius=0.4)), rng)
    if kind == "box":
        model = box_model((0.4, 0.4, 0.8), Material((0.8, 0.3, 0.1, 1.0)))
        height, name, sources = 0.4, "other", scene.attribution
    else:
        catalog = catalog or FurnitureCatalog()
        people = [i for i in catalog if i.category == "Characters" and i.name in ("Female", "Male", "Boy", "Girl")]
        item = people[rng.integers(len(people))]
        model, height, name = catalog.model(item), 0.0, "person"
        sources = tuple(sorted({*scene.attribution, item.attribution}))
    yaw = float(np.arctan2(*(end - start)[::-1])) + np.pi / 2
    matrix = pose((*start, height), yaw=yaw).matrix
    mover = Instance(f"moving {kind}", model, scene.label_set[name].id, matrix, crossing(start, end))
    return replace(scene, instances=(*scene.instances, mover), attribution=sources)


def _longest_free_line(space: FreeSpace, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of a straight way through free space, at most 3 m: the longest of a few hundred tried."""
    free = space.points(np.argwhere(space.clearance > 0))
    if len(free) == 0:
        raise InputError("moving thing: expected free ground, found none")
    starts = free[rng.integers(len(free), size=300)]
    angles = rng.uniform(-np.pi, np.pi, 300)
    steps = np.arange(0, 3.0, 0.05)
    points = starts[:, None] + steps[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)[:, None]
    free_steps = space.is_free(points.reshape(-1, 2)).reshape(len(starts), -1)
    lengths = np.where(free_steps.all(1), free_steps.shape[1], free_steps.argmin(1))
    best = int(np.argmax(lengths))
    if lengths[best] < 20:
        raise InputError("moving thing: expected 1 m of free ground to cross, found less")
    return points[best, 0], points[best, lengths[best] - 1]
