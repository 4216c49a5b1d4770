# SPDX-License-Identifier: Apache-2.0
"""Read Gazebo's SDF worlds: models, links and visuals with meshes or boxes, poses, colors and lights.

Source: sdformat.org, versions 1.4 to 1.9 of the format, as far as named here; joints, sensors and physics play no part.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.simulation.class_map import ClassMap
from perception.simulation.meshes import load_model
from perception.simulation.poses import pose
from perception.simulation.primitives import box_model, cylinder_model, sphere_model
from perception.simulation.scene import Instance, Light, Material, Model, Scene

MODEL_PATHS = ("GZ_SIM_RESOURCE_PATH", "GAZEBO_MODEL_PATH")
"""Variables of the environment that list folders of models, as Gazebo's."""
MAX_DEPTH = 8
"""Includes within includes, so that one that names itself ends."""

log = logging.getLogger(__name__)


def load_world(path: str | Path, class_map: ClassMap, model_folders: tuple[str | Path, ...] = ()) -> Scene:
    """Read an SDF world.

    Args:
        path: the .world or .sdf file.
        class_map: classes of its models.
        model_folders: where ``model://`` is looked for, before ``models`` beside the world or its folder and
            :data:`MODEL_PATHS`.

    Raises:
        InputError: missing, not SDF, a model or mesh that is missing (unless the class map says it may be), or
            without anything to see.
    """
    path = Path(path)
    root = _parse(path)
    world = root.find("world")
    if world is None:
        raise InputError(f"{path}: expected an SDF file with a <world>, got <{root.tag}>")
    loader = _Loader(class_map, _folders(path, model_folders))
    instances = tuple(loader.instances(world, np.eye(4), "", path.parent))
    if loader.absent:
        log.warning("%s: left away, as not handed out with it: %s", path.name, dict(loader.absent))
    return Scene(path.stem, class_map.label_set, instances, tuple(_lights(world)), _ambient(world))


class _Loader:
    """Walks through models and includes; each mesh file is read once."""

    def __init__(self, class_map: ClassMap, folders: list[Path]) -> None:
        self._class_map = class_map
        self._folders = folders
        self._models: dict[Path, Model] = {}
        self._names: Counter[str] = Counter()
        self.absent: Counter[str] = Counter()

    def instances(
        self, element: ElementTree.Element, map_T_element: NDArray[np.float64], kind: str, folder: Path, depth: int = 0
    ) -> Iterator[Instance]:
        """All visuals below a world, model or include.

        Args:
            element: <world> or <model>.
            map_T_element: its pose.
            kind: name of the included model that it belongs to, which tells the class; "" outside of any.
            folder: of the file, for relative names.
            depth: how many includes deep.
        """
        if depth > MAX_DEPTH:
            raise InputError(f"SDF model {kind!r}: expected at most {MAX_DEPTH} includes within each other")
        for model in element.findall("model"):
            name = kind or model.get("name", "")
            yield from self.instances(model, map_T_element @ _pose(model), name if depth else "", folder, depth)
        for include in element.findall("include"):
            yield from self._included(include, map_T_element, depth)
        for link in element.findall("link"):
            for visual in link.findall("visual"):
                yield from self._visual(
                    visual, map_T_element @ _pose(link) @ _pose(visual), kind or element.get("name", ""), folder
                )

    def _included(
        self, include: ElementTree.Element, map_T_parent: NDArray[np.float64], depth: int
    ) -> Iterator[Instance]:
        uri = (include.findtext("uri") or "").strip()
        name = uri.removeprefix("model://").strip("/").split("/")[-1]
        folder = self._find(uri.removeprefix("model://"))
        if folder is None:
            if self._class_map.may_be_absent(name):
                self.absent[name] += 1
                return
            raise InputError(f"SDF model {uri!r}: not found in {', '.join(map(str, self._folders)) or 'any folder'}")
        file = next(
            (
                folder / f
                for f in ("model.sdf", *sorted(p.name for p in folder.glob("*.sdf")))
                if (folder / f).is_file()
            ),
            None,
        )
        if file is None:
            raise InputError(f"SDF model {uri!r}: expected model.sdf in {folder}")
        model = _parse(file).find("model")
        if model is None:
            raise InputError(f"{file}: expected a <model>")
        # The pose of an include stands in for the model's own.
        placed = _pose(include) if include.find("pose") is not None else _pose(model)
        yield from self.instances(model, map_T_parent @ placed, name, folder, depth + 1)

    def _visual(
        self, visual: ElementTree.Element, map_T_visual: NDArray[np.float64], kind: str, folder: Path
    ) -> Iterator[Instance]:
        geometry = visual.find("geometry")
        if geometry is None or (model := self._geometry(geometry, visual, folder)) is None:
            return
        mesh, scale = model
        self._names[kind] += 1
        name = f"{kind}#{self._names[kind]}"
        matrix = map_T_visual @ np.diag((*scale, 1.0))
        yield Instance(name, mesh, self._class_map.label_of(kind), matrix)

    def _geometry(
        self, geometry: ElementTree.Element, visual: ElementTree.Element, folder: Path
    ) -> tuple[Model, NDArray[np.float64]] | None:
        """The model of a visual and its scale; None for shapes that are not drawn (an endless plane)."""
        one = np.ones(3)
        mesh = geometry.find("mesh")
        if mesh is not None:
            return self._mesh(mesh.findtext("uri") or "", folder), _numbers(mesh.findtext("scale") or "1 1 1", 3)
        material = _material(visual)
        shape = geometry.find("box")
        if shape is not None:
            return box_model(_numbers(shape.findtext("size") or "1 1 1", 3), material), one
        shape = geometry.find("sphere")
        if shape is not None:
            return sphere_model(_numbers(shape.findtext("radius") or "1", 1)[0], material), one
        shape = geometry.find("cylinder")
        if shape is not None:
            radius, length = (_numbers(shape.findtext(name) or "1", 1)[0] for name in ("radius", "length"))
            return cylinder_model(radius, length, material), one
        log.warning("SDF geometry left away: %s", [child.tag for child in geometry])
        return None

    def _mesh(self, uri: str, folder: Path) -> Model:
        uri = uri.strip()
        if uri.startswith("model://"):
            relative = uri.removeprefix("model://")
            candidates = [base / relative for base in self._folders]
        else:
            candidates = [folder / uri.removeprefix("file://")]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            raise InputError(f"SDF mesh {uri!r}: no such file in {', '.join(str(c.parent) for c in candidates)}")
        if path not in self._models:
            self._models[path] = load_model(path)
        return self._models[path]

    def _find(self, name: str) -> Path | None:
        return next((base / name for base in self._folders if name and (base / name).is_dir()), None)


def _folders(path: Path, given: tuple[str | Path, ...]) -> list[Path]:
    listed = [folder for name in MODEL_PATHS for folder in os.environ.get(name, "").split(os.pathsep) if folder]
    beside = [path.parent / "models", path.parent.parent / "models", path.parent]
    return [folder for folder in map(Path, (*given, *beside, *listed)) if folder.is_dir()]


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"{path}: cannot be read as SDF ({error})") from error


def _pose(element: ElementTree.Element) -> NDArray[np.float64]:
    found = element.find("pose")
    text = "" if found is None else (found.text or "")
    if not text.strip():
        return np.eye(4)
    values = _numbers(text, 6)
    if found is not None and found.get("degrees") == "true":
        values = np.append(values[:3], np.deg2rad(values[3:]))
    return pose(values[:3], *values[3:].tolist()).matrix


def _numbers(text: str, count: int) -> NDArray[np.float64]:
    try:
        values = np.array(text.split(), np.float64)
    except ValueError as error:
        raise InputError(f"SDF: expected {count} numbers, got {text.strip()!r}") from error
    if values.shape != (count,) or not np.isfinite(values).all():
        raise InputError(f"SDF: expected {count} finite numbers, got {text.strip()!r}")
    return values


def _material(visual: ElementTree.Element) -> Material:
    text = visual.findtext("material/diffuse")
    if not text:
        return Material()
    red, green, blue = np.clip(_numbers(" ".join(text.split()[:3]), 3), 0, 1).tolist()
    return Material((red, green, blue, 1.0))


def _lights(world: ElementTree.Element) -> Iterator[Light]:
    """Point lights; of spots and suns only where they are counts, as nothing casts shadows here."""
    for light in world.findall("light"):
        if light.get("type") == "directional":
            continue
        x, y, z = _pose(light)[:3, 3].tolist()
        red, green, blue = _numbers(" ".join((light.findtext("diffuse") or "1 1 1").split()[:3]), 3).tolist()
        constant, linear, quadratic = (
            float(_numbers(light.findtext(f"attenuation/{name}") or default, 1)[0])
            for name, default in (("constant", "1"), ("linear", "0"), ("quadratic", "0"))
        )
        # Gazebo's lights reach as far as they say; here the square keeps those of other rooms small.
        yield Light((x, y, z), (red, green, blue), attenuation=(max(constant, 0.2), linear, max(quadratic, 0.15)))


def _ambient(world: ElementTree.Element) -> tuple[float, float, float]:
    text = world.findtext("scene/ambient")
    red, green, blue = _numbers(" ".join(text.split()[:3]), 3).tolist() if text else (0.45, 0.45, 0.45)
    return red, green, blue
