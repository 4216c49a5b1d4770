# SPDX-License-Identifier: Apache-2.0
"""Scenes and drives by name: what ``perception simulate`` records is what ``simulation_node`` shows live."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from perception.errors import InputError
from perception.simulation.drive import Drive, DriveOptions, drive_around, plan_through
from perception.simulation.scene import Scene
from perception.simulation.scene_archive import is_archive, unpacked

WORLD_SUFFIXES = (".world", ".sdf")
MOVING = ("none", "box", "person", "doors")


@dataclass(frozen=True)
class SceneOptions:
    """Which scene.

    Attributes:
        name: "house" (furnished, from the seed), "boxes" (plain, needs no graphics library), an SDF world (.world,
            .sdf) or a folder that holds one.
        seed: of the house and of where things move.
        rooms: of a house; 0 lets the seed choose.
        classes: class map of a world: a shipped one or a YAML file.
        models: folders where a world's models are looked for.
        moving: "none", "box", "person" or (in a house) "doors".
        variety: of a house, see :func:`~perception.simulation.houses.generate_house`.
    """

    name: str
    seed: int = 0
    rooms: int = 0
    classes: str = "aws_small_house"
    models: tuple[str, ...] = ()
    moving: str = "none"
    variety: str = "usual"

    def __post_init__(self) -> None:
        if self.moving not in MOVING:
            raise InputError(f"moving: expected one of {list(MOVING)}, got {self.moving!r}")
        if self.moving != "none" and self.name == "boxes":
            raise InputError(f"moving: expected none in the scene boxes, got {self.moving!r}")
        if self.moving == "doors" and self.name != "house":
            raise InputError(f"moving: expected doors in the scene house only, got scene {self.name!r}")


def plan(scene: SceneOptions, drive: DriveOptions) -> Drive:
    """A drive through a scene; to draw it, use :func:`drawing`.

    Raises:
        InputError: no such scene, or the robot fits nowhere in it.
        MissingDependencyError: furniture or mesh readers are not installed.
    """
    if scene.name == "boxes":
        from perception.simulation.boxes import BoxRoom

        return drive_around(BoxRoom.generate(scene.seed), drive)
    return plan_through(open_scene(scene), drive)


@contextlib.contextmanager
def drawing(drive: Drive) -> Iterator[Drive]:
    """The drive with what draws it; frames must be drawn in the thread that opens this.

    Raises:
        MissingDependencyError: no moderngl, no EGL or no driver.
    """
    if drive.draw is not None:
        yield drive
        return
    from perception.simulation.renderer import Renderer

    with Renderer(drive.scene, drive.options.samples) as renderer:
        yield replace(drive, draw=renderer.render)


def open_scene(options: SceneOptions) -> Scene:
    """A rendered scene, with what moves in it.

    Raises:
        InputError: no such scene, a mesh that is missing, no room for what moves.
        MissingDependencyError: furniture or mesh readers are not installed.
    """
    from perception.simulation.moving import KINDS, with_crossing

    if options.name == "house":
        from perception.simulation.houses import generate_house

        scene = generate_house(
            options.seed,
            rooms=options.rooms or None,
            people=False,
            moving_doors=options.moving == "doors",
            variety=options.variety,
        ).scene
    else:
        from perception.simulation.class_map import ClassMap
        from perception.simulation.sdf import load_world

        scene = load_world(world_file(options.name), ClassMap.load(options.classes), options.models)
    return with_crossing(scene, options.moving, options.seed) if options.moving in KINDS else scene


def world_file(name: str) -> Path:
    """The SDF world that a path names: a file, or the only one in a folder or in ``worlds`` below it.

    A packed folder (.tar.xz and the like) is unpacked into the user's cache.

    Raises:
        InputError: there is none, or several, or the archive cannot be unpacked.
    """
    path = Path(name)
    if path.suffix in WORLD_SUFFIXES:
        return path
    if is_archive(path):
        path = unpacked(path)
    if not path.is_dir():
        suffixes = " or ".join(WORLD_SUFFIXES)
        raise InputError(
            f"scene: expected house, boxes, a file {suffixes}, or a folder or a .tar.xz with one, got {name!r}"
        )
    worlds = sorted(p for below in (path, path / "worlds") for p in below.glob("*") if p.suffix in WORLD_SUFFIXES)
    if len(worlds) != 1:
        raise InputError(f"scene {name}: expected one SDF world in the folder, got {[p.name for p in worlds]}")
    return worlds[0]
