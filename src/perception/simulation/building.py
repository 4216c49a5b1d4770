# SPDX-License-Identifier: Apache-2.0
"""Walls, floors, ceilings, doors, windows and curtains of a floor plan as instances with a class each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.geometry import Transform
from perception.labels import LabelSet
from perception.simulation import textures
from perception.simulation.doors import folding_leaves, glazed_leaf
from perception.simulation.floorplan import FloorPlan, Opening, Wall
from perception.simulation.poses import pose
from perception.simulation.primitives import box_parts, quad, surface
from perception.simulation.scene import Instance, Material, Model, Motion, Part
from perception.simulation.variety import Variety, happens, pane, plain_wall

WHITE = Material((0.92, 0.92, 0.9, 1.0))
WALL_TEXTURE, FLOOR_TEXTURE = 1.2, 1.6
"""Meters that one texture covers."""
DOOR_SWING_S = 4.0
"""A door that moves opens and closes in this many seconds each."""


@dataclass(frozen=True)
class RoomStyle:
    """Materials of a room."""

    wall: Material
    floor: Material
    ceiling: Material
    baseboard: Material | None

    @classmethod
    def random(cls, kind: str, rng: np.random.Generator, pale: bool = False) -> RoomStyle:
        """Tiles where it is wet, else what living rooms have; walls near white where pale."""
        wet = kind in ("bathroom", "kitchen")
        baseboard = None if kind == "bathroom" else (WHITE if rng.random() < 0.6 else textures.plain(rng))
        return cls(
            plain_wall(rng) if pale else textures.choose(rng, textures.WET_WALLS if wet else textures.WALLS),
            textures.choose(rng, textures.WET_FLOORS if wet else textures.FLOORS),
            WHITE if rng.random() < 0.7 else textures.choose(rng, textures.CEILINGS),
            baseboard,
        )


def build(
    plan: FloorPlan,
    label_set: LabelSet,
    rng: np.random.Generator,
    moving_doors: bool = False,
    variety: Variety | None = None,
    pale: bool = False,
) -> Iterator[Instance]:
    """Everything of a house that is not furniture.

    Args:
        plan: what to build.
        label_set: must know wall, floor, ceiling, door, windowpane and curtain.
        rng: chooses materials and how far doors stand open.
        moving_doors: doors swing between closed and open all the time.
        variety: how much it may differ from usual houses.
        pale: walls are near white.
    """
    variety = variety or Variety()
    styles = [RoomStyle.random(room.kind, rng, pale) for room in plan.rooms]
    open_above = happens(rng, variety.no_ceiling)
    for i, (room, style) in enumerate(zip(plan.rooms, styles, strict=True)):
        x, y = (room.upper - room.lower).tolist()
        low = (*room.lower.tolist(), 0.0)
        scale = FLOOR_TEXTURE
        if variety.texture_scale[0] < variety.texture_scale[1]:
            scale *= float(rng.uniform(*variety.texture_scale))
        floor = quad(low, (x, 0, 0), (0, y, 0), style.floor, scale)
        ceiling = quad((low[0], low[1], plan.height), (x, 0, 0), (0, y, 0), style.ceiling, FLOOR_TEXTURE)
        yield Instance(f"floor {i}", Model("floor", (floor,)), label_set["floor"].id)
        if not open_above:
            yield Instance(f"ceiling {i}", Model("ceiling", (ceiling,)), label_set["ceiling"].id)
    for i, wall in enumerate(plan.walls):
        openings = sorted((o for o in plan.openings if o.wall == i), key=lambda o: o.start)
        parts = tuple(_wall_parts(wall, openings, plan, styles))
        yield Instance(f"wall {i}", Model("wall", parts), label_set["wall"].id)
    for i, opening in enumerate(plan.openings):
        wall = plan.walls[opening.wall]
        if opening.kind == "window":
            yield from _window(f"{i}", opening, wall, plan, label_set, rng, variety)
        elif opening.kind != "passage":
            yield from _door(f"{i}", opening, wall, plan, label_set, rng, moving_doors, variety)
        elif happens(rng, variety.folding_door):
            leaves = folding_leaves(opening.start, opening.end, opening.top, rng)
            model = Model("folding door", tuple(part.transformed(wall_frame(wall)) for part in leaves))
            yield Instance(f"door folding {i}", model, label_set["door"].id)


def wall_frame(wall: Wall) -> NDArray[np.float64]:
    """(4, 4) from a wall's own frame (x along it, y across toward the second side, z up) to the map."""
    matrix = np.eye(4)
    if wall.axis == 1:
        # Along y, and across toward higher x: mirrored, so that "second side" is always toward +y here.
        matrix[:2, :2] = ((0, 1), (1, 0))
        matrix[0, 3] = wall.position
    else:
        matrix[1, 3] = wall.position
    return matrix


def _wall_parts(wall: Wall, openings: list[Opening], plan: FloorPlan, styles: list[RoomStyle]) -> Iterator[Part]:
    """Boxes beside, above and below the openings; each long face in the style of its room."""
    half, frame = plan.thickness / 2, wall_frame(wall)
    # Past its ends, so that corners are closed, but not up to the far face of a crossing wall.
    at, end = wall.start - half + 0.002, wall.end + half - 0.002
    blocks = []
    for opening in openings:
        blocks.append((at, opening.start, 0.0, plan.height))
        blocks.append((opening.start, opening.end, opening.top, plan.height))
        if opening.bottom > 0:
            blocks.append((opening.start, opening.end, 0.0, opening.bottom))
        at = opening.end
    blocks.append((at, end, 0.0, plan.height))
    for start, stop, low, high in blocks:
        if high - low < 1e-6:
            continue
        length, up = (stop - start, 0, 0), (0, 0, high - low)
        for side, y in zip(wall.sides, (-half, half), strict=True):
            style = styles[side] if side >= 0 else None
            material = WHITE if style is None else style.wall
            yield quad((start, y, low), length, up, material, WALL_TEXTURE).transformed(frame)
            if style is not None and style.baseboard is not None and low == 0:
                yield from _baseboard(start, stop, y, wall, frame, style.baseboard, plan.thickness)
        across = (0, plan.thickness, 0)
        for x in (start, stop):
            yield quad((x, -half, low), across, up, WHITE).transformed(frame)
        for z in (low, high):
            if 0 < z < plan.height:
                yield quad((start, -half, z), length, across, WHITE).transformed(frame)


def _baseboard(
    start: float, stop: float, y: float, wall: Wall, frame: NDArray[np.float64], material: Material, thickness: float
) -> Iterator[Part]:
    # Not into the crossing walls.
    start, stop = max(start, wall.start + thickness / 2), min(stop, wall.end - thickness / 2)
    if stop - start < 0.02:
        return
    outer = y + np.sign(y) * 0.015
    low, high = min(y, outer), max(y, outer)
    for part in box_parts((start, low, 0.0), (stop, high, 0.08), material):
        yield part.transformed(frame)


def _window(
    name: str,
    opening: Opening,
    wall: Wall,
    plan: FloorPlan,
    label_set: LabelSet,
    rng: np.random.Generator,
    variety: Variety,
) -> Iterator[Instance]:
    """Frame and panes that show the outside; sometimes curtains in front."""
    frame = wall_frame(wall)
    width, height = opening.end - opening.start, opening.top - opening.bottom
    milky = happens(rng, variety.milky_pane)
    view = pane(rng) if milky else textures.choose(rng, (textures.outside,), emission=0.8)
    glass = quad((opening.start, 0, opening.bottom), (width, 0, 0), (0, 0, height), view)
    bars = textures.plain(rng, ((0.95, 0.95, 0.93), (0.9, 0.9, 0.88), (0.35, 0.24, 0.16), (0.25, 0.25, 0.27)))
    parts = [glass]
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    bar = 0.045
    if variety.wide_window > 0:
        columns, bar = max(columns, int(width / rng.uniform(0.5, 1.3))), float(rng.uniform(0.03, 0.1))
    for x in np.linspace(opening.start, opening.end - bar, columns + 1):
        parts += box_parts((x, -0.03, opening.bottom), (x + bar, 0.03, opening.top), bars)
    for z in np.linspace(opening.bottom, opening.top - bar, rows + 1):
        parts += box_parts((opening.start, -0.03, z), (opening.end, 0.03, z + bar), bars)
    model = Model("window", tuple(part.transformed(frame) for part in parts))
    yield Instance(f"window {name}", model, label_set["windowpane"].id)
    room = plan.rooms[max(wall.sides)]
    if room.kind in ("living", "bedroom", "office") and rng.random() < 0.6:
        yield from _curtains(name, opening, wall, plan, label_set, rng)


def _curtains(
    name: str, opening: Opening, wall: Wall, plan: FloorPlan, label_set: LabelSet, rng: np.random.Generator
) -> Iterator[Instance]:
    """Two sheets in folds, drawn apart."""
    inward = 1.0 if wall.sides[0] < 0 else -1.0
    cloth = textures.choose(rng, (textures.fabric, textures.carpet))
    top = min(opening.top + 0.12, plan.height - 0.02)
    bottom = 0.03 if opening.bottom < 0.85 or rng.random() < 0.6 else opening.bottom - 0.15
    width = rng.uniform(0.25, 0.45) * (opening.end - opening.start) + 0.1
    margin = plan.thickness / 2 + 0.02
    begin = max(opening.start - 0.12, wall.start + margin)
    end = min(opening.end + 0.12, wall.end - margin)
    for side, start in (("left", begin), ("right", end - width)):
        x = np.linspace(0, width, 60)
        fold = 0.025 * np.sin(2 * np.pi * x / rng.uniform(0.07, 0.11))
        y = inward * (plan.thickness / 2 + 0.07 + fold)
        points = np.stack([np.stack([start + x, y, np.full_like(x, z)], 1) for z in (bottom, top)])
        slope = np.gradient(y, x)
        normals = np.tile(np.stack([-slope, np.ones_like(x), np.zeros_like(x)], 1), (2, 1, 1))
        sheet = surface(points, normals, cloth, (width / 0.6, (top - bottom) / 1.2)).transformed(wall_frame(wall))
        yield Instance(f"curtain {name} {side}", Model("curtain", (sheet,)), label_set["curtain"].id)


def _door(
    name: str,
    opening: Opening,
    wall: Wall,
    plan: FloorPlan,
    label_set: LabelSet,
    rng: np.random.Generator,
    moving: bool,
    variety: Variety,
) -> Iterator[Instance]:
    """A casing and a leaf that hangs at the start of the opening and opens toward the second side."""
    frame, half = wall_frame(wall), plan.thickness / 2
    wood = textures.plain(
        rng, ((0.93, 0.92, 0.9), (0.9, 0.88, 0.84), (0.55, 0.36, 0.2), (0.7, 0.52, 0.33), (0.35, 0.4, 0.45))
    )
    parts: list[Part] = []
    for x in (opening.start, opening.end - 0.04):
        parts += box_parts((x, -half - 0.012, 0), (x + 0.04, half + 0.012, opening.top), wood)
    parts += box_parts(
        (opening.start, -half - 0.012, opening.top - 0.04), (opening.end, half + 0.012, opening.top), wood
    )
    casing = Model("door casing", tuple(part.transformed(frame) for part in parts))
    yield Instance(f"door casing {name}", casing, label_set["door"].id)
    extent = opening.end - opening.start - 0.09, opening.top - 0.06
    leaf = glazed_leaf(*extent, rng) if happens(rng, variety.glazed_door) else _leaf(*extent, wood)
    hinge = (opening.start + 0.045, half, 0.01)
    angle = 0.0 if opening.kind == "entrance" else float(np.deg2rad(rng.uniform(75, 92)))
    if variety.glazed_door > 0 and rng.random() < 0.4:
        # Shut, or anything between.
        angle *= float(rng.choice([0.0, rng.random()]))
    closed = Model("door leaf", tuple(part.transformed(pose(hinge).matrix).transformed(frame) for part in leaf))
    axis = (frame @ (*hinge, 1.0))[:3]
    # The frame of a wall along y is mirrored, which turns the sense of rotation.
    turn = 1.0 if wall.axis == 0 else -1.0
    swings = moving and opening.kind == "door"
    # Also one that swings rests open: it keeps the light of that place, and in the wall no lamp reaches it.
    matrix = hinged(axis, turn * angle).matrix
    motion = swing(axis, turn * angle) if swings else None
    yield Instance(f"door leaf {name}", closed, label_set["door"].id, matrix, motion)


def _leaf(width: float, height: float, wood: Material) -> tuple[Part, ...]:
    """From the hinge along x, 4 cm thick toward −y, with two panels and a handle on each face."""
    parts = list(box_parts((0, -0.04, 0), (width, 0, height), wood))
    red, green, blue, _ = wood.color
    shade = Material((0.85 * red, 0.85 * green, 0.85 * blue, 1.0))
    for low, high in ((0.12, 0.42), (0.5, 0.93)):
        for y in (-0.044, 0.004):
            start, end = (0.15 * width, min(y, -0.02), low * height), (0.85 * width, max(y, -0.02), high * height)
            parts += box_parts(start, end, shade)
    metal = Material((0.6, 0.6, 0.62, 1.0))
    parts += box_parts((width - 0.16, -0.1, 0.98), (width - 0.05, -0.085, 1.0), metal)
    parts += box_parts((width - 0.16, 0.045, 0.98), (width - 0.05, 0.06, 1.0), metal)
    parts += box_parts((width - 0.065, -0.1, 0.98), (width - 0.05, 0.06, 1.0), metal)
    return tuple(parts)


def hinged(axis: NDArray[np.float64], angle: float) -> Transform:
    """Turned by an angle about an upright axis through a point, radians and meters."""
    return pose(axis) @ pose((0, 0, 0), yaw=angle) @ pose(-axis)


def swing(axis: NDArray[np.float64], angle: float) -> Motion:
    """How a door moves that stands open by an angle: shut at 0 s, it opens, closes and so on, resting at both ends."""

    def motion(seconds: float) -> Transform:
        return hinged(axis, angle * (-0.5 - 0.5 * np.cos(np.pi * seconds / DOOR_SWING_S)))

    return motion
