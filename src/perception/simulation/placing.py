# SPDX-License-Identifier: Apache-2.0
"""Places for furniture in a room: without overlap, with the ways between its doors kept free."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.simulation.floorplan import FloorPlan

CELL = 0.05
"""Of the grid on which ways are looked for, meters."""
WAY = 0.33
"""Half the width of a way that must stay free, meters."""
DOOR_CLEARANCE = 0.9
"""Depth of the space in front of a door that stays free, meters."""
WINDOW_CLEARANCE = 0.35
SIDES = ((0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0))
"""Directions into the room from its walls at low y, low x, high y and high x."""
_TURNS = (np.pi, np.pi / 2, 0.0, -np.pi / 2)
"""Yaw that turns a model's front (−y) into those directions."""


@dataclass(frozen=True)
class Rectangle:
    """An upright rectangle on the floor: (2,) corners in meters."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    def meets(self, other: Rectangle, gap: float = 0.0) -> bool:
        """Whether two rectangles come closer than ``gap`` meters."""
        return bool((self.lower < other.upper + gap).all() and (other.lower < self.upper + gap).all())

    def within(self, other: Rectangle) -> bool:
        """Whether this one lies inside of the other."""
        return bool((self.lower >= other.lower - 1e-9).all() and (self.upper <= other.upper + 1e-9).all())


@dataclass(frozen=True)
class Place:
    """Where a model stands: (2,) meters, yaw in radians, and the rectangle that it covers."""

    position: NDArray[np.float64]
    yaw: float
    covers: Rectangle


def footprint(position: NDArray[np.float64], size: tuple[float, float], yaw: float) -> Rectangle:
    """The rectangle around a turned one of (width, depth) meters."""
    cosine, sine = abs(np.cos(yaw)), abs(np.sin(yaw))
    half = np.array([size[0] * cosine + size[1] * sine, size[0] * sine + size[1] * cosine]) / 2
    return Rectangle(position - half, position + half)


class RoomPlacer:
    """Finds places in one room and remembers what is taken.

    Args:
        plan: the house.
        room: the room's place in it.
        rng: source of randomness.
    """

    def __init__(self, plan: FloorPlan, room: int, rng: np.random.Generator) -> None:
        self._rng = rng
        lower, upper = plan.rooms[room].inner(plan.thickness)
        self.room = Rectangle(lower, upper)
        self.taken: list[Rectangle] = []
        self.doors: list[Rectangle] = []
        self.windows: list[Rectangle] = []
        for opening, wall in plan.openings_of(room):
            depth = WINDOW_CLEARANCE if opening.kind == "window" else DOOR_CLEARANCE
            low, high = np.zeros(2), np.zeros(2)
            low[wall.axis], high[wall.axis] = opening.start - 0.05, opening.end + 0.05
            toward_high = wall.sides[1] == room
            face = wall.position + (plan.thickness / 2 if toward_high else -plan.thickness / 2)
            low[1 - wall.axis], high[1 - wall.axis] = (face, face + depth) if toward_high else (face - depth, face)
            (self.windows if opening.kind == "window" else self.doors).append(Rectangle(low, high))

    def against_wall(self, size: tuple[float, float, float], tries: int = 30, gap: float = 0.02) -> Place | None:
        """A place with its back to a wall for something of (width, depth, height) meters, now taken; None if full."""
        for _ in range(tries):
            side = int(self._rng.integers(4))
            inward, axis = np.array(SIDES[side]), side % 2
            space = self.room.upper[axis] - self.room.lower[axis] - size[0] - 0.04
            if space <= 0:
                continue
            position = np.zeros(2)
            position[axis] = self.room.lower[axis] + 0.02 + size[0] / 2 + self._rng.uniform(0, space)
            wall = self.room.lower if side < 2 else self.room.upper
            position[1 - axis] = wall[1 - axis] + inward[1 - axis] * (size[1] / 2 + gap + 0.015)
            place = self.at(position, (size[0], size[1]), _TURNS[side], size[2])
            if place is not None:
                return place
        return None

    def in_middle(self, size: tuple[float, float, float], tries: int = 30) -> Place | None:
        """A place away from the walls, in any quarter turn, now taken; None if full."""
        yaw = float(self._rng.choice(_TURNS))
        half = footprint(np.zeros(2), (size[0], size[1]), yaw).upper
        for _ in range(tries):
            low, high = self.room.lower + half + 0.3, self.room.upper - half - 0.3
            if (high <= low).any():
                return None
            place = self.at(self._rng.uniform(low, high), (size[0], size[1]), yaw, size[2])
            if place is not None:
                return place
        return None

    def at(self, position: NDArray[np.float64], size: tuple[float, float], yaw: float, height: float) -> Place | None:
        """This very place, now taken; None when it is not free."""
        covers = footprint(position, size, yaw)
        if not covers.within(self.room) or any(covers.meets(other, 0.02) for other in (*self.taken, *self.doors)):
            return None
        if height > 0.9 and any(covers.meets(window) for window in self.windows):
            return None
        if not self._ways_remain(covers):
            return None
        self.taken.append(covers)
        return Place(position, yaw, covers)

    def emptied(self) -> RoomPlacer:
        """The same room as if nothing stood in it."""
        empty = copy(self)
        empty.taken = []
        return empty

    def _ways_remain(self, added: Rectangle) -> bool:
        """Whether a robot can still drive from every door to every other."""
        import cv2

        extent = np.ceil((self.room.upper - self.room.lower) / CELL).astype(int)
        free = np.ones((extent[1], extent[0]), np.uint8)
        margin = int(np.ceil(WAY / CELL))
        free[:margin], free[-margin:], free[:, :margin], free[:, -margin:] = 0, 0, 0, 0
        for taken in (*self.taken, added):
            low = np.floor((taken.lower - WAY - self.room.lower) / CELL).astype(int).clip(0)
            high = np.ceil((taken.upper + WAY - self.room.lower) / CELL).astype(int).clip(0)
            free[low[1] : high[1], low[0] : high[0]] = 0
        _, parts = cv2.connectedComponents(free, connectivity=4)
        centers = [(door.lower + door.upper) / 2 for door in self.doors]
        cells = [np.clip(((c - self.room.lower) / CELL).astype(int), margin, extent - margin - 1) for c in centers]
        found = {int(parts[y, x]) for x, y in cells}
        return 0 not in found and len(found) <= 1
