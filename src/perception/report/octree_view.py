# SPDX-License-Identifier: Apache-2.0
"""What a page needs to show an octree: faces, classes, heights and the path, as JSON beside the controls."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.pictures import UNLABELED_COLOR
from perception.labels import LabelSet
from perception.report.colors import HEIGHT_COLORS
from perception.report.mesh import Faces

MAX_PATH_POINTS = 2000


def octree_entry(
    name: str, faces: Faces, resolution: float, label_set: LabelSet | None, path: NDArray[Any] | None = None
) -> dict[str, Any]:
    """One map of an octree view, as JSON can write it.

    Args:
        name: as shown.
        faces: what to draw, see :mod:`perception.report.mesh`.
        resolution: edge of the map's own voxels, meters.
        label_set: names and colors of its classes; None where it has none.
        path: (N, 3) positions of the camera, meters, map frame; None for no path.
    """
    path = np.zeros((0, 3)) if path is None else np.asarray(path, np.float64).reshape(-1, 3)
    path = path[np.isfinite(path).all(axis=1)]
    path = path[:: max(1, -(-len(path) // MAX_PATH_POINTS))]
    indices = np.searchsorted(faces.class_ids, faces.labels).astype(np.uint16)
    low, high = _bounds(faces)
    cut = cut_height(faces, path)
    focus = _focus(faces, cut)
    return {
        "name": name,
        "note": _note(faces, resolution),
        "size": faces.size,
        "origin": [float(value) for value in faces.origin],
        "heights": [round(low, 4), round(high, 4)],
        "color_heights": [round(low, 2), round(high, 2)],
        "cut": cut,
        "focus": focus,
        "azimuth": _azimuth(np.mean(focus, axis=0), path),
        "counts": [int(count) for count in faces.counts],
        "labeled": bool(label_set is not None and (faces.class_ids >= 0).any()),
        "palette": _palette(faces, label_set),
        "height_scale": [list(color) for color in HEIGHT_COLORS],
        "path": [round(float(value), 3) for value in path.ravel()],
        "faces": packed_faces(faces, indices),
    }


def packed_faces(faces: Faces, indices: NDArray[np.uint16]) -> str:
    """Six columns of 16 bits, the low bytes of each before its high bytes, through zlib and base64."""
    columns = [*faces.corners.T, *faces.extents.T, indices]
    halves = [np.ascontiguousarray(column, "<u2").view(np.uint8).reshape(-1, 2).T.tobytes() for column in columns]
    return base64.b64encode(zlib.compress(b"".join(halves), 9)).decode("ascii")


def _palette(faces: Faces, label_set: LabelSet | None) -> list[dict[str, Any]]:
    """Name, color and number of voxels, of the drawn size, of every class."""
    names = label_set or LabelSet.anonymous(range(int(faces.class_ids.max(initial=0)) + 1))
    entries = []
    for label, voxels in zip(faces.class_ids.tolist(), faces.class_voxels.tolist(), strict=True):
        known = 0 <= label < names.num_classes
        color = names.colors[label].tolist() if known else list(UNLABELED_COLOR)
        entries.append({"name": names.name_of(label), "color": color, "voxels": voxels})
    return entries


def _bounds(faces: Faces) -> tuple[float, float]:
    """Lowest and highest z of the map, meters."""
    if not len(faces):
        return 0.0, 1.0
    top = faces.corners[:, 2].max().astype(np.int64) + 1
    return float(faces.origin[2]), float(faces.origin[2] + top * faces.size)


def _focus(faces: Faces, cut: float | None) -> list[list[float]]:
    """Lowest and highest corner of what is to be looked at; stray voxels far away and what is cut do not count."""
    corners = faces.origin + faces.corners.astype(np.float64) * faces.size
    if cut is not None:
        corners = corners[corners[:, 2] < cut]
    if not len(corners):
        return [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    low, high = np.percentile(corners, [0.5, 99.5], axis=0)
    return [[round(float(value), 4) for value in corner] for corner in (low, high + faces.size)]


def cut_height(faces: Faces, path: NDArray[Any]) -> float | None:
    """Height above which a room's ceiling would hide it: half a meter over the camera, if much lies above that."""
    if not len(faces) or not len(path):
        return None
    height = float(path[:, 2].max()) + 0.5
    area = faces.extents.astype(np.float64).prod(axis=1)
    above = float(area[faces.origin[2] + faces.corners[:, 2] * faces.size > height].sum() / area.sum())
    if not 0.02 < above < 0.6:
        return None
    steps = round((height - float(faces.origin[2])) / faces.size)
    return round(float(faces.origin[2]) + steps * faces.size, 4)


def _azimuth(center: NDArray[Any], path: NDArray[Any]) -> float:
    """Direction from the map's middle to where the camera was, turned a little, radians: the mapped side is in view."""
    if not len(path):
        return -1.05
    x, y = path.mean(axis=0)[:2] - center[:2]
    return round(float(np.arctan2(y, x)) + 0.44, 4)


def _note(faces: Faces, resolution: float) -> str:
    """How fine the map is drawn."""
    text = f"{faces.voxels:,} occupied voxels of {100 * faces.size:g} cm, drawn as {len(faces):,} rectangles."
    if faces.size > 1.5 * resolution:
        text += f" The map itself has {100 * resolution:g} cm; it is drawn coarser to keep this page small."
    return text
