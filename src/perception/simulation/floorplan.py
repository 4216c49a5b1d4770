# SPDX-License-Identifier: Apache-2.0
"""Floor plans from random numbers: a rectangle split into rooms, joined by doors, with windows to the outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.simulation.variety import Variety, happens

MIN_ROOM = 2.5
"""Shortest edge of a room, meters."""
DOOR_MARGIN = 0.3
"""From the end of a wall to an opening in it, meters."""


@dataclass(frozen=True)
class Room:
    """A room: its kind and its cell, (2,) corners in meters in the middle of its walls."""

    kind: str
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Square meters of the cell."""
        return float(np.prod(self.upper - self.lower))

    def inner(self, thickness: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(2,) corners between the faces of the walls."""
        return self.lower + thickness / 2, self.upper - thickness / 2


@dataclass(frozen=True)
class Wall:
    """A straight wall between two rooms, or a room and the outside.

    Attributes:
        axis: 0 runs along x, 1 along y.
        position: coordinate of its middle on the other axis, meters.
        start: where it begins along its axis, meters.
        end: where it ends.
        sides: rooms toward lower and higher coordinates; −1 is outside.
    """

    axis: int
    position: float
    start: float
    end: float
    sides: tuple[int, int]

    @property
    def length(self) -> float:
        """Meters."""
        return self.end - self.start

    @property
    def exterior(self) -> bool:
        """Whether one side is outside."""
        return -1 in self.sides


@dataclass(frozen=True)
class Opening:
    """A hole in a wall.

    Attributes:
        kind: "door" (with a leaf), "passage", "entrance" (closed, to the outside) or "window".
        wall: the wall's place in ``FloorPlan.walls``.
        start: where it begins along the wall's axis, meters.
        end: where it ends.
        bottom: height of its lower edge, meters.
        top: of its upper edge.
    """

    kind: str
    wall: int
    start: float
    end: float
    bottom: float
    top: float


@dataclass(frozen=True)
class FloorPlan:
    """Rooms, the walls between them and the openings in those; ``height`` and ``thickness`` in meters."""

    rooms: tuple[Room, ...]
    walls: tuple[Wall, ...]
    openings: tuple[Opening, ...]
    height: float
    thickness: float

    def openings_of(self, room: int) -> Iterator[tuple[Opening, Wall]]:
        """Openings in the walls of a room."""
        for opening in self.openings:
            wall = self.walls[opening.wall]
            if room in wall.sides:
                yield opening, wall


def generate_plan(rng: np.random.Generator, rooms: int | None = None, variety: Variety | None = None) -> FloorPlan:
    """A house of 3 to 6 rooms (or as many as asked), every one of them reachable through doors."""
    variety = variety or Variety()
    count = int(rng.integers(3, 7)) if rooms is None else rooms
    size = np.sqrt(count * rng.uniform(*variety.room_area)) * np.array([1.2, 1 / 1.2])
    cells = _split(np.zeros(2), np.round(size, 2), count, rng)
    kinds = _kinds([float(np.prod(upper - lower)) for lower, upper in cells], rng)
    plan_rooms = tuple(Room(kind, *cell) for kind, cell in zip(kinds, cells, strict=True))
    walls = tuple(_walls(plan_rooms))
    height, thickness = float(rng.uniform(2.4, 2.9)), float(rng.uniform(0.1, 0.2))
    openings = _without_overlap(
        (*_doors(walls, len(plan_rooms), rng, variety), *_windows(walls, plan_rooms, rng, variety))
    )
    return FloorPlan(plan_rooms, walls, openings, height, thickness)


def _split(
    lower: NDArray[np.float64], upper: NDArray[np.float64], count: int, rng: np.random.Generator
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Split the largest cell across its longer edge until there are enough, or none is large enough."""
    cells = [(lower, upper)]
    while len(cells) < count:
        cells.sort(key=lambda cell: float(np.prod(cell[1] - cell[0])))
        low, high = cells[-1]
        axis = int(np.argmax(high - low))
        extent = high[axis] - low[axis]
        if extent < 2 * MIN_ROOM:
            break
        cells.pop()
        cut = float(np.round(low[axis] + np.clip(rng.uniform(0.35, 0.65) * extent, MIN_ROOM, extent - MIN_ROOM), 2))
        first, second = high.copy(), low.copy()
        first[axis] = second[axis] = cut
        cells += [(low, first), (second, high)]
    return cells


def _kinds(areas: list[float], rng: np.random.Generator) -> list[str]:
    """The largest is the living room, the smallest a bathroom or hall, the others as they come."""
    order = np.argsort(areas)[::-1]
    kinds = [""] * len(areas)
    others = ["bedroom", "kitchen", *rng.permutation(["bedroom", "office", "kitchen", "living"]).tolist()]
    for rank, room in enumerate(order):
        if rank == 0:
            kinds[room] = "living" if len(areas) > 1 or rng.random() < 0.5 else "bedroom"
        elif rank == len(areas) - 1 and rank >= 3:
            kinds[room] = "bathroom" if rng.random() < 0.7 else "hall"
        else:
            kinds[room] = others[(rank - 1) % len(others)]
    return kinds


def _walls(rooms: tuple[Room, ...]) -> Iterator[Wall]:
    bounds_low = np.min([room.lower for room in rooms], 0)
    bounds_high = np.max([room.upper for room in rooms], 0)
    for i, room in enumerate(rooms):
        for axis in (0, 1):
            across = 1 - axis
            for j, other in enumerate(rooms):
                start = max(room.lower[axis], other.lower[axis])
                end = min(room.upper[axis], other.upper[axis])
                if np.isclose(room.upper[across], other.lower[across]) and end - start > 1e-6:
                    yield Wall(axis, float(room.upper[across]), float(start), float(end), (i, j))
            span = float(room.lower[axis]), float(room.upper[axis])
            if np.isclose(room.lower[across], bounds_low[across]):
                yield Wall(axis, float(room.lower[across]), *span, (-1, i))
            if np.isclose(room.upper[across], bounds_high[across]):
                yield Wall(axis, float(room.upper[across]), *span, (i, -1))


def _doors(walls: tuple[Wall, ...], rooms: int, rng: np.random.Generator, variety: Variety) -> Iterator[Opening]:
    """A door in every wall of a random spanning tree, some more, and an entrance from outside."""
    reached = list(range(rooms))

    def root(room: int) -> int:
        while reached[room] != room:
            room = reached[room]
        return room

    wide = [i for i, wall in enumerate(walls) if wall.length >= 0.9 + 2 * DOOR_MARGIN]
    for i in rng.permutation([i for i in wide if not walls[i].exterior]).astype(int).tolist():
        first, second = (root(side) for side in walls[i].sides)
        if first != second or rng.random() < 0.25:
            reached[first] = second
            yield _door(walls[i], i, rng, variety)
    outer = [i for i in wide if walls[i].exterior]
    if outer:
        i = int(rng.choice(outer))
        start = rng.uniform(walls[i].start + DOOR_MARGIN, walls[i].end - DOOR_MARGIN - 0.95)
        yield Opening("entrance", i, start, start + 0.95, 0.0, 2.1)


def _door(wall: Wall, index: int, rng: np.random.Generator, variety: Variety) -> Opening:
    room = wall.length - 2 * DOOR_MARGIN
    if room > 1.3 and happens(rng, variety.open_plan):
        width = float(rng.uniform(1.2, min(4.5, room)))
        start = float(rng.uniform(wall.start + DOOR_MARGIN, wall.end - DOOR_MARGIN - width))
        return Opening("passage", index, start, start + width, 0.0, float(rng.uniform(2.05, 2.35)))
    passage = room > 1.3 and rng.random() < 0.35
    width = float(rng.uniform(1.2, min(2.2, room)) if passage else rng.uniform(0.8, 0.9))
    start = float(rng.uniform(wall.start + DOOR_MARGIN, wall.end - DOOR_MARGIN - width))
    top = float(rng.uniform(2.1, 2.3) if passage else 2.05)
    return Opening("passage" if passage else "door", index, start, start + width, 0.0, top)


def _windows(
    walls: tuple[Wall, ...], rooms: tuple[Room, ...], rng: np.random.Generator, variety: Variety
) -> Iterator[Opening]:
    for i, wall in enumerate(walls):
        room = rooms[max(wall.sides)]
        if not wall.exterior or wall.length < 2.4 or rng.random() < 0.2:
            continue
        small = room.kind in ("bathroom", "kitchen")
        width = float(rng.uniform(0.7, 1.0) if small else rng.uniform(1.0, min(2.2, wall.length - 1.2)))
        if not small and happens(rng, variety.wide_window):
            width = float(rng.uniform(0.5, 1.0) * (wall.length - 1.2))
        start = float(rng.uniform(wall.start + 0.5, wall.end - 0.5 - width))
        bottom = float(rng.uniform(1.1, 1.3) if small else rng.choice([0.1, 0.8, 0.9]))
        yield Opening("window", i, start, start + width, bottom, float(rng.uniform(2.0, 2.2)))


def _without_overlap(openings: tuple[Opening, ...]) -> tuple[Opening, ...]:
    """The openings without those that meet an earlier one in the same wall."""
    kept: list[Opening] = []
    for opening in openings:
        near = (o for o in kept if o.wall == opening.wall)
        if all(opening.end + 0.2 < o.start or opening.start > o.end + 0.2 for o in near):
            kept.append(opening)
    return tuple(kept)
