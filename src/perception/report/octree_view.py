# SPDX-License-Identifier: Apache-2.0
"""What a page needs to show an octree: faces, classes, heights and the path, as JSON beside the controls."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.colors import HEIGHT_COLORS
from perception.evaluation.pictures import UNLABELED_COLOR
from perception.labels import LabelSet
from perception.report.mesh import DIRECTIONS, Faces

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
    focus, outline = _focus(faces, cut, path)
    return {
        "name": name,
        "note": _note(faces, resolution),
        "size": faces.size,
        "origin": [float(value) for value in faces.origin],
        "heights": [round(low, 4), round(high, 4)],
        "color_heights": [round(low, 2), round(high, 2)],
        "cut": cut,
        "focus": focus,
        "outline": outline,
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


def _focus(faces: Faces, cut: float | None, path: NDArray[np.float64]) -> tuple[list[list[float]], list[list[float]]]:
    """Lowest and highest corner of what is to be looked at, and its outermost points, of the path as well.

    Stray voxels far away and what is cut do not count.
    """
    begin, end = _rectangles(faces)
    if cut is not None:
        shown = begin[:, 2] < cut
        begin, end = begin[shown], np.minimum(end[shown], [np.inf, np.inf, cut])
    if not len(begin):
        begin, end = np.full((1, 3), -1.0), np.full((1, 3), 1.0)
    # By area: one rectangle may be a whole wall.
    area = np.sort(np.maximum(end - begin, faces.size), axis=1)[:, 1:].prod(axis=1)
    low, high = _weighted_quantile(begin, area, 0.005), _weighted_quantile(end, area, 0.995)
    inside = ((end > low) & (begin < high)).all(axis=1)
    corners = np.where(np.indices((2, 2, 2)).reshape(3, 8).T[:, None], end[inside], begin[inside])
    points = np.vstack([np.clip(corners.reshape(-1, 3), low, high), path, [(low + high) / 2]])
    outermost = np.unique((points @ _directions().T).argmax(axis=0))
    box, outline = (np.round(values, 4).tolist() for values in (np.stack([low, high]), points[outermost]))
    return box, outline


def _rectangles(faces: Faces) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(F, 3) lowest and highest corners of the voxels behind the rectangles, meters."""
    spans = np.ones((len(faces), 3))
    axes = np.repeat([axis for axis, _ in DIRECTIONS], faces.counts)
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        spans[np.ix_(axes == axis, others)] = faces.extents[axes == axis]
    begin = faces.corners.astype(np.float64)
    return faces.origin + begin * faces.size, faces.origin + (begin + spans) * faces.size


def _weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """(3,) the value of each column below which a share of the weight lies."""
    order = np.argsort(values, axis=0)
    sums = np.cumsum(weights[order], axis=0)
    places = (sums >= share * sums[-1]).argmax(axis=0)
    return np.array([values[order[place, axis], axis] for axis, place in enumerate(places)])


def _directions(count: int = 200) -> NDArray[np.float64]:
    """(count, 3) unit vectors spread evenly over the sphere (Fibonacci's lattice: Gonzalez, 2010)."""
    numbers = np.arange(count) + 0.5
    turn, z = np.pi * (1 + np.sqrt(5)) * numbers, 1 - 2 * numbers / count
    return np.stack([np.cos(turn) * np.sqrt(1 - z**2), np.sin(turn) * np.sqrt(1 - z**2), z], axis=1)


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
