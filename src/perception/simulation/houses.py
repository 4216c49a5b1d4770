# SPDX-License-Identifier: Apache-2.0
"""Furnished houses from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perception.simulation.building import build
from perception.simulation.floorplan import FloorPlan, generate_plan
from perception.simulation.furnishing import Furnisher
from perception.simulation.furniture import FurnitureCatalog
from perception.simulation.scene import Light, Scene
from perception.simulation.variety import Variety, happens, variety_named


@dataclass(frozen=True, eq=False)
class House:
    """A scene and the plan that it was built by."""

    scene: Scene
    plan: FloorPlan


def generate_house(
    seed: int,
    catalog: FurnitureCatalog | None = None,
    rooms: int | None = None,
    people: bool = True,
    moving_doors: bool = False,
    variety: str = "usual",
) -> House:
    """A house of several rooms with doors, windows, lamps and furniture; the same seed gives the same house.

    Args:
        seed: of everything.
        catalog: of the furniture; None opens the installed one.
        rooms: how many; None lets the seed choose 3 to 6.
        people: let people stand about.
        moving_doors: doors swing open and shut.
        variety: "usual", or "wide" for training: unusual rooms, materials and light as well.

    Raises:
        InputError: no such variety.
        MissingDependencyError: the furniture is not installed.
    """
    catalog = catalog or FurnitureCatalog()
    chances = variety_named(variety)
    rng = np.random.default_rng(seed)
    plan = generate_plan(rng, rooms, chances)
    label_set = catalog.class_map.label_set
    pale = happens(rng, chances.pale)
    instances = list(build(plan, label_set, rng, moving_doors, chances, pale))
    furnisher = Furnisher(plan, catalog, rng, people, chances, pale)
    for room in range(len(plan.rooms)):
        instances += furnisher.furnish(room)
    daylight = rng.uniform(0.35, 1.0)
    scene = Scene(
        name=f"house_{seed}" if variety == "usual" else f"{variety}_house_{seed}",
        label_set=label_set,
        instances=tuple(instances),
        lights=tuple(_lights(plan, daylight, rng)),
        ambient=tuple(
            (rng.uniform(0.16, 0.4) * np.array([1.0, rng.uniform(0.93, 1), rng.uniform(0.85, 1.0)])).tolist()
        ),
        attribution=tuple(sorted(item.attribution for item in furnisher.used.values())),
    )
    return House(_relit(scene, chances, rng), plan)


def _relit(scene: Scene, variety: Variety, rng: np.random.Generator) -> Scene:
    """The scene in other light and before another background, where houses vary."""
    low, high = variety.light
    if low == high:
        return scene
    around, lamps = rng.uniform(low, high, 2)
    lights = tuple(replace(light, color=tuple(lamps * value for value in light.color)) for light in scene.lights)
    background = np.clip(rng.uniform(0.3, 1.0) * np.array([rng.uniform(0.7, 1), rng.uniform(0.85, 1), 1.0]), 0, 1)
    return replace(
        scene,
        lights=lights if rng.random() < 0.85 else (),
        ambient=tuple(around * value + 0.25 * (around - low) for value in scene.ambient),
        background=tuple(background.tolist()),
    )


def without_people(scene: Scene) -> Scene:
    """The scene without instances of classes that move."""
    kept = tuple(i for i in scene.instances if i.label < 0 or not scene.label_set.moves[i.label])
    return replace(scene, instances=kept)


def _lights(plan: FloorPlan, daylight: float, rng: np.random.Generator) -> list[Light]:
    """A lamp below the ceiling of each room, and daylight at its windows; both stay in the room."""
    lights = []
    for i, room in enumerate(plan.rooms):
        lower = (*room.lower.tolist(), -0.1)
        upper = (*room.upper.tolist(), plan.height + 0.1)
        middle = (room.lower + room.upper) / 2 + rng.uniform(-0.3, 0.3, 2)
        warm = np.array([1.0, rng.uniform(0.8, 0.97), rng.uniform(0.6, 0.95)])
        strength = rng.uniform(0.5, 1.5) * (0.7 + room.area / 25)
        position = (*middle.tolist(), plan.height - rng.uniform(0.3, 0.6))
        lights.append(Light(position, tuple((warm * strength).tolist()), lower, upper, (0.6, 0.0, 0.25)))
        for opening, wall in plan.openings_of(i):
            if opening.kind != "window":
                continue
            place = np.zeros(2)
            place[wall.axis] = (opening.start + opening.end) / 2
            inward = 1.0 if wall.sides[1] == i else -1.0
            place[1 - wall.axis] = wall.position + inward * (plan.thickness / 2 + 0.1)
            area = (opening.end - opening.start) * (opening.top - opening.bottom)
            cold = daylight * np.clip(0.8 * area, 0.5, 2.0) * np.array([0.9, 0.97, 1.05])
            height = (opening.bottom + opening.top) / 2
            lights.append(Light((*place.tolist(), height), tuple(cold.tolist()), lower, upper, (0.7, 0.0, 0.35)))
    return lights
