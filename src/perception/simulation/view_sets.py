# SPDX-License-Identifier: Apache-2.0
"""Many random views of many houses with their labels: what a network learns from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError, PerceptionError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelSet
from perception.simulation.furniture import FurnitureCatalog
from perception.simulation.houses import House, generate_house
from perception.simulation.poses import camera_pose
from perception.simulation.renderer import Renderer, View
from perception.simulation.views import SCORED_CLASSES, scored_groups

IGNORE = 255
"""In label images: a pixel without a class."""
KEEP_OFF = 0.3
"""Distance of a camera from furniture as high as itself, meters."""
MAX_SHELL = 0.88
"""Views with more wall, floor and ceiling together are left away."""
_TRIES = 30


@dataclass(frozen=True)
class ViewSetOptions:
    """What to render.

    Attributes:
        views: how many.
        per_house: of each house; the last has fewer.
        width: pixels.
        height: pixels.
        seed: of the first house and its views; the next house has the next.
        variety: of the houses, as :func:`generate_house` takes it.
        fov_deg: horizontal field of view from … to, degrees.
        camera_height: above the floor from … to, meters.
        pitch_deg: downward tilt from … to, degrees.
        samples: per pixel, against jagged edges.
    """

    views: int
    per_house: int = 25
    width: int = 480
    height: int = 360
    seed: int = 0
    variety: str = "usual"
    fov_deg: tuple[float, float] = (50.0, 95.0)
    camera_height: tuple[float, float] = (0.5, 1.5)
    pitch_deg: tuple[float, float] = (-8.0, 24.0)
    samples: int = 4

    def __post_init__(self) -> None:
        if min(self.views, self.per_house, self.width, self.height) < 1:
            raise InputError(
                f"view set: expected at least one view, one per house and one pixel, got {self.views}, "
                f"{self.per_house}, {self.width}x{self.height}"
            )
        if not 0 < self.fov_deg[0] <= self.fov_deg[1] < 170:
            raise InputError(f"view set: expected a field of view between 0 and 170 degrees, got {self.fov_deg}")


def render_view_set(options: ViewSetOptions, catalog: FurnitureCatalog | None = None) -> Iterator[tuple[View, House]]:
    """Views and the house of each; the same options give the same pixels.

    Raises:
        InputError: a house in which no place shows enough.
        MissingDependencyError: no furniture, or nothing to render with.
    """
    catalog = catalog or FurnitureCatalog()
    left, seed = options.views, options.seed
    while left > 0:
        house = generate_house(seed, catalog, variety=options.variety)
        with Renderer(house.scene, options.samples) as renderer:
            for view in _house_views(house, renderer, options, min(left, options.per_house), seed):
                left -= 1
                yield view, house
        seed += 1


def write_view_set(
    folder: Path,
    options: ViewSetOptions,
    progress: Callable[[int], None] = lambda count: None,
    catalog: FurnitureCatalog | None = None,
) -> int:
    """Write ``images/000000.jpg`` …, ``labels/000000.png`` (class ids, 255 for none) and ``views.json``.

    Returns:
        How many views were written.

    Raises:
        PerceptionError: the folder cannot be written.
    """
    import cv2

    attribution: set[str] = set()
    houses: list[str] = []
    label_set: LabelSet | None = None
    count = 0
    for view, house in render_view_set(options, catalog):
        _write(folder / "images" / f"{count:06d}.jpg", view.color[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        labels = np.where(view.labels < 0, IGNORE, view.labels).astype(np.uint8)
        _write(folder / "labels" / f"{count:06d}.png", labels, [cv2.IMWRITE_PNG_COMPRESSION, 4])
        attribution.update(house.scene.attribution)
        houses.append(house.scene.name)
        label_set = house.scene.label_set
        count += 1
        progress(count)
    about = {
        "options": asdict(options),
        "label_set": label_set.name if label_set else "",
        "ignore": IGNORE,
        "houses": houses,
        "attribution": sorted(attribution),
    }
    (folder / "views.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return count


def _write(path: Path, pixels: NDArray[np.uint8], parameters: list[int]) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels, parameters):
        raise PerceptionError(f"{path}: cannot be written")


def _house_views(house: House, renderer: Renderer, options: ViewSetOptions, count: int, seed: int) -> Iterator[View]:
    """Views from free places in all rooms, turned anywhere, that do not show one thing alone."""
    rng = np.random.default_rng((seed, 1))
    groups = scored_groups(house.scene.label_set)
    obstacles = _obstacles(house)
    found = 0
    for _ in range(_TRIES * count):
        if found == count:
            return
        pose = _random_pose(house, obstacles, options, rng)
        camera = _camera(options, float(rng.uniform(*options.fov_deg)))
        if pose is None:
            continue
        view = renderer.render(camera, pose)
        if _shows_enough(view, groups):
            found += 1
            yield view
    raise InputError(f"views of {house.scene.name}: expected {count} that show enough, found {found}")


def _camera(options: ViewSetOptions, fov_deg: float) -> PinholeCamera:
    focal = options.width / 2 / float(np.tan(np.deg2rad(fov_deg) / 2))
    center = (options.width - 1) / 2, (options.height - 1) / 2
    return PinholeCamera(options.width, options.height, focal, focal, *center)


def _obstacles(house: House) -> NDArray[np.float64]:
    """(N, 5) lowest x, y, highest x, y and top of what stands on the floor, meters; thin things do not count."""
    rows = []
    for instance in house.scene.instances:
        if instance.name.startswith(("floor", "ceiling", "wall", "window")):
            continue
        corners = instance.triangles().reshape(-1, 3)
        if len(corners) and corners[:, 2].min() < 1.2 and corners[:, 2].max() > 0.1:
            rows.append((*corners[:, :2].min(0), *corners[:, :2].max(0), corners[:, 2].max()))
    return np.array(rows, np.float64).reshape(-1, 5)


def _random_pose(
    house: House, obstacles: NDArray[np.float64], options: ViewSetOptions, rng: np.random.Generator
) -> Transform | None:
    """A camera in a room, by area, not within furniture; None where it would be."""
    areas = np.array([room.area for room in house.plan.rooms])
    room = house.plan.rooms[rng.choice(len(areas), p=areas / areas.sum())]
    lower, upper = room.inner(house.plan.thickness)
    x, y = rng.uniform(lower + 0.25, upper - 0.25)
    z = rng.uniform(*options.camera_height)
    yaw, pitch = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(*options.pitch_deg))
    near = (obstacles[:, :2] - KEEP_OFF < (x, y)).all(1) & ((x, y) < obstacles[:, 2:4] + KEEP_OFF).all(1)
    if (near & (obstacles[:, 4] > z - 0.3)).any():
        return None
    return camera_pose((x, y, z), yaw, pitch)


def _shows_enough(view: View, groups: NDArray[np.int64]) -> bool:
    """At least 4 classes with 0.5 % of the pixels each, not the shell alone, and nothing close before the camera."""
    seen = np.isfinite(view.depth)
    if seen.mean() < 0.6 or np.quantile(view.depth[seen], 0.1) < 0.5:
        return False
    shares = np.bincount(groups[view.labels][seen] + 1, minlength=len(SCORED_CLASSES) + 1)[1:] / view.labels.size
    shell = sum(shares[list(SCORED_CLASSES).index(name)] for name in ("wall", "floor", "ceiling"))
    return bool((shares >= 0.005).sum() >= 4 and shares.max() <= 0.75 and shell <= MAX_SHELL)
