# SPDX-License-Identifier: Apache-2.0
"""Furniture from the catalogs of Sweet Home 3D, as Debian's package installs them (.sh3f: a ZIP of OBJ models)."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError, MissingDependencyError
from perception.simulation.class_map import ClassMap
from perception.simulation.meshes import MAX_FILE_BYTES, parse_model
from perception.simulation.requirements import FURNITURE_FOLDER, FURNITURE_PACKAGE
from perception.simulation.scene import Model

PROPERTIES = "PluginFurnitureCatalog.properties"
LICENSES = {
    "BlendSwap-CC-0": "CC0 1.0",
    "BlendSwap-CC-BY": "CC-BY 3.0",
    "KatorLegaz": "CC-BY 3.0 US",
    "Reallusion": "CC-BY 3.0 US",
    "Scopia": "CC-BY 3.0",
}
"""Of each catalog, by the name of its file."""
_LINE = re.compile(r"(\w+)#(\d+)=(.*)")
_FROM_Y_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float64)


@dataclass(frozen=True)
class CatalogItem:
    """One model of a catalog.

    Attributes:
        id: unique name.
        name: what it is, in English.
        category: room or kind.
        label: id of its class.
        size: (width, depth, height) in meters.
        elevation: height of its lowest point above the floor, meters.
        top: height of the surface that small things stand on, meters; None where none do.
        creator: author.
        catalog: name of the catalog file, which tells the license.
        path: of the model in it.
        bytes: of the model's file, about 80 per triangle.
        rotation: (3, 3) of the model before all else.
    """

    id: str
    name: str
    category: str
    label: int
    size: tuple[float, float, float]
    elevation: float
    top: float | None
    creator: str
    catalog: str
    path: str
    bytes: int
    rotation: NDArray[np.float64]

    @property
    def attribution(self) -> str:
        """Name, author and license in one line."""
        return f"{self.name} ({self.id}) by {self.creator}, {LICENSES.get(self.catalog, 'license of its catalog')}"


class FurnitureCatalog:
    """All models of the installed catalogs, read when they are asked for and kept.

    Args:
        folder: with .sh3f files.
        class_map: classes by "Category/Name"; None takes the one that ships.

    Raises:
        MissingDependencyError: no catalogs there; the message names the package.
    """

    def __init__(self, folder: str | Path = FURNITURE_FOLDER, class_map: ClassMap | None = None) -> None:
        self.class_map = class_map or ClassMap.load("furniture")
        files = sorted(Path(folder).glob("*.sh3f")) if Path(folder).is_dir() else []
        if not files:
            raise MissingDependencyError(
                f"no furniture catalogs (*.sh3f) in {folder}: install the system package {FURNITURE_PACKAGE}"
            )
        self._archives = {path.stem: _open(path) for path in files}
        self.items = tuple(item for name, archive in self._archives.items() for item in self._read(name, archive))
        self._models: dict[str, Model] = {}

    def __iter__(self) -> Iterator[CatalogItem]:
        return iter(self.items)

    def model(self, item: CatalogItem) -> Model:
        """The model in meters, of the size the catalog says: z up, standing on z = 0 around the origin, front to −y.

        Raises:
            InputError: the catalog is broken there.
        """
        if item.id not in self._models:
            self._models[item.id] = self._load(item)
        return self._models[item.id]

    def _load(self, item: CatalogItem) -> Model:
        archive, folder = self._archives[item.catalog], PurePosixPath(item.path).parent

        def read(name: str) -> bytes:
            entry = archive.getinfo(str(folder / name))
            if entry.file_size > MAX_FILE_BYTES:
                raise OSError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
            return archive.read(entry)

        try:
            data = read(PurePosixPath(item.path).name)
        except (KeyError, OSError, zipfile.BadZipFile) as error:
            raise InputError(f"furniture {item.id}: cannot be read ({error})") from error
        model = parse_model(data, item.path, read)
        matrix = np.eye(4)
        matrix[:3, :3] = _FROM_Y_UP @ item.rotation
        upright = model.transformed(matrix)
        lower, upper = upright.bounds
        # Flat things have no height to scale by.
        extent = np.maximum(upper - lower, 1e-6)
        fit = np.diag((*(np.asarray(item.size) / extent), 1.0))
        fit[:3, 3] = -fit.diagonal()[:3] * ((lower[0] + upper[0]) / 2, (lower[1] + upper[1]) / 2, lower[2])
        return Model(item.id, upright.transformed(fit).parts)

    def _read(self, name: str, archive: zipfile.ZipFile) -> Iterator[CatalogItem]:
        entries: dict[int, dict[str, str]] = defaultdict(dict)
        try:
            lines = archive.read(PROPERTIES).decode("latin-1").splitlines()
        except (KeyError, zipfile.BadZipFile, OSError) as error:
            raise InputError(f"furniture catalog {name}: expected {PROPERTIES} in it ({error})") from error
        for line in lines:
            match = _LINE.match(line)
            if match:
                entries[int(match[2])][match[1]] = match[3].strip()
        for number in sorted(entries):
            try:
                yield self._item(entries[number], name)
            except (KeyError, ValueError) as error:
                raise InputError(f"furniture catalog {name}: entry {number} is not complete ({error})") from error

    def _item(self, entry: dict[str, str], catalog: str) -> CatalogItem:
        # Lengths are in centimeters.
        size = float(entry["width"]) / 100, float(entry["depth"]) / 100, float(entry["height"]) / 100
        rotation = np.array(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), np.float64).reshape(3, 3)
        return CatalogItem(
            id=entry["id"],
            name=entry["name"],
            category=entry["category"],
            label=self.class_map.label_of(f"{entry['category']}/{entry['name']}"),
            size=size,
            elevation=float(entry.get("elevation", 0)) / 100,
            top=float(entry["dropOnTopElevation"]) / 100 if "dropOnTopElevation" in entry else None,
            creator=entry.get("creator", "unknown"),
            catalog=catalog,
            path=entry["model"].lstrip("/"),
            bytes=self._archives[catalog].getinfo(entry["model"].lstrip("/")).file_size,
            rotation=rotation,
        )


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"furniture catalog {path}: cannot be read ({error})") from error
