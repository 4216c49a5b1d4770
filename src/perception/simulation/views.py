# SPDX-License-Identifier: Apache-2.0
"""Fixed views of a scene, on which labels are scored.

The list that ships for the AWS small house was chosen once by :func:`choose_views` with seed 0, so that scores of
different networks compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.simulation.boxes import default_camera
from perception.simulation.poses import camera_pose
from perception.simulation.renderer import Renderer, View
from perception.yaml_text import load_yaml

VIEW_WIDTH, VIEW_HEIGHT = 640, 480
SCORED_CLASSES: dict[str, tuple[str, ...]] = {
    "wall": ("wall",),
    "floor": ("floor",),
    "ceiling": ("ceiling",),
    "bed": ("bed",),
    "window": ("windowpane",),
    "cabinet": ("cabinet", "shelf"),
    "door": ("door",),
    "table": ("table",),
    "curtain": ("curtain",),
    "chair": ("chair", "armchair"),
    "picture": ("painting",),
    "sofa": ("sofa",),
    "rug": ("rug",),
}
"""The classes that are scored, and the names in label sets that count as each; all others are ignored as truth and
wrong as prediction."""


@dataclass(frozen=True)
class ViewPoint:
    """Where a camera looks from: (3,) meters, heading and downward tilt in degrees."""

    position: tuple[float, float, float]
    yaw_deg: float
    pitch_deg: float

    @property
    def map_T_camera(self) -> Transform:
        """Pose of the optical frame."""
        return camera_pose(self.position, np.deg2rad(self.yaw_deg), np.deg2rad(self.pitch_deg))


def load_views(name_or_path: str | Path = "aws_small_house_views") -> tuple[ViewPoint, ...]:
    """Views that ship with the package, by name, or a YAML file: ``views: [[x, y, z, yaw_deg, pitch_deg], …]``.

    Raises:
        InputError: no such list, or not one.
    """
    shipped = resources.files("perception") / "data" / "scenes" / f"{name_or_path}.yaml"
    try:
        source = shipped if shipped.is_file() else Path(name_or_path)
        data = load_yaml(source.read_text(encoding="utf-8"))
        rows = np.array(data["views"], np.float64).reshape(-1, 5)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"views {name_or_path}: cannot be read ({str(error).splitlines()[0]})") from error
    if len(rows) == 0 or not np.isfinite(rows).all():
        raise InputError(f"views {name_or_path}: expected at least one row of five finite numbers")
    return tuple(ViewPoint((x, y, z), yaw, pitch) for x, y, z, yaw, pitch in rows.tolist())


def render_views(renderer: Renderer, views: Sequence[ViewPoint]) -> Iterator[View]:
    """Draw views at 640×480 with the usual camera."""
    camera = default_camera(VIEW_WIDTH, VIEW_HEIGHT)
    for view in views:
        yield renderer.render(camera, view.map_T_camera)


def choose_views(renderer: Renderer, count: int, seed: int) -> tuple[ViewPoint, ...]:
    """Random views that show something: eye 0.8–1.5 m high, looking 0–20° down, in any direction.

    Kept when at least 90 % of the pixels hit something, the nearest tenth of the depths is beyond 0.7 m, and at least 6
    scored classes are visible (with 0.2 % of the pixels or more each).

    Raises:
        InputError: too few are found.
    """
    rng = np.random.default_rng(seed)
    scene = renderer.scene
    lower, upper = scene.bounds
    groups = scored_groups(scene.label_set)
    camera = default_camera(160, 120)
    kept: list[ViewPoint] = []
    for _ in range(200 * count):
        if len(kept) == count:
            return tuple(kept)
        x, y = rng.uniform(lower[:2], upper[:2])
        numbers = x, y, rng.uniform(0.8, 1.5), rng.uniform(-180, 180), rng.uniform(0, 20)
        x, y, z, yaw, pitch = (round(float(number), 3) for number in numbers)
        point = ViewPoint((x, y, z), yaw, pitch)
        if _shows_enough(renderer.render(camera, point.map_T_camera), groups):
            kept.append(point)
    raise InputError(f"views of {scene.name}: expected {count} that show enough, found {len(kept)}")


def scored_groups(label_set: LabelSet) -> NDArray[np.int64]:
    """(num_classes + 1,) scored class index of each id, −1 for others; the last entry is for −1."""
    table = np.full(label_set.num_classes + 1, -1, np.int64)
    for index, names in enumerate(SCORED_CLASSES.values()):
        for label in label_set.classes:
            if label.name in names:
                table[label.id] = index
    return table


def _shows_enough(view: View, groups: NDArray[np.int64]) -> bool:
    seen = np.isfinite(view.depth)
    if seen.mean() < 0.9 or np.quantile(view.depth[seen], 0.1) < 0.7:
        return False
    shares = np.bincount(groups[view.labels][seen] + 1, minlength=len(SCORED_CLASSES) + 1)[1:] / view.labels.size
    return int((shares >= 0.002).sum()) >= 6
