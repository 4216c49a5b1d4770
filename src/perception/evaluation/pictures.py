# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run: image beside labels, the octree from above and at an angle, the costmap with the path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.colors import cost_table, height_colors
from perception.evaluation.render import TOP_VIEW, View, render_voxels
from perception.labels import LabelSet
from perception.types import CostGrid, LabelImage

LEGEND_ROWS = 16
HEIGHT_ROWS = 6
UNLABELED_COLOR = (214, 214, 222)
UNKNOWN = 101
"""Row of :func:`~perception.evaluation.colors.cost_table` for cells without a cost."""


def overlay(color: NDArray[np.uint8], labels: LabelImage, strength: float = 0.55) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: the image tinted by its labels; unlabeled pixels stay as they are."""
    tint = labels.label_set.colorize(labels.labels).astype(np.float32)
    mixed = (1 - strength) * color + strength * tint
    return np.where((labels.labels >= 0)[..., None], mixed, color).astype(np.uint8)


def _percent(share: float) -> str:
    """What is there at all is never 0%."""
    return f"{share:.0%}" if share >= 0.005 else "< 1%"


def label_picture(path: Path, color: NDArray[np.uint8], labels: LabelImage, title: str) -> None:
    """Write the image beside the same image tinted by its labels, with a legend of the classes in it."""
    ids, counts = np.unique(labels.labels[labels.labels >= 0], return_counts=True)
    shares = [
        (int(i), f"{labels.label_set.name_of(int(i))} {_percent(n / labels.labels.size)}")
        for i, n in zip(ids, counts, strict=True)
    ]
    shares = [shares[i] for i in np.argsort(-counts)[:LEGEND_ROWS]]
    both = np.hstack([color, overlay(color, labels)])
    _figure(path, both, title, [(labels.label_set.colors[i], text) for i, text in shares])


def octree_pictures(
    folder: Path,
    leaves: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    label_set: LabelSet | None,
    resolution: float,
    cut_height: float | None = None,
    azimuth_deg: float = View.azimuth_deg,
) -> list[Path]:
    """Write ``octree_top.png`` and ``octree_angle.png``.

    Args:
        folder: where to write.
        leaves: centers (M, 3) meters, sizes (M,) meters and labels (M,) of the occupied leaves.
        label_set: names and colors; None colors by height.
        resolution: edge of the smallest voxel, meters, for the caption.
        cut_height: voxels above this z, meters, are not drawn, so that a ceiling does not hide the room.
        azimuth_deg: from where the picture at an angle is seen, see :class:`~perception.evaluation.render.View`.
    """
    centers, sizes, labels = leaves
    if cut_height is not None:
        shown = centers[:, 2] <= cut_height
        centers, sizes, labels = centers[shown], sizes[shown], labels[shown]
    colors, legend = _voxel_colors(centers, sizes, labels, label_set, resolution)
    cut = "" if cut_height is None else f", cut above z = {cut_height:.1f} m"
    written = []
    for name, view, what in (("top", TOP_VIEW, "from above"), ("angle", View(azimuth_deg), "at an angle")):
        image, scale = render_voxels(centers, sizes, colors, view)
        written.append(folder / f"octree_{name}.png")
        caption = f"Occupied voxels {what}, {resolution * 100:g} cm{cut}"
        _figure(written[-1], image, caption, legend, pixels_per_meter=scale)
    return written


def _voxel_colors(
    centers: NDArray[Any], sizes: NDArray[Any], labels: NDArray[Any], label_set: LabelSet | None, resolution: float
) -> tuple[NDArray[np.uint8], list[tuple[Any, str]]]:
    """Colors of leaves and the rows of their legend."""
    if label_set is None or not (labels >= 0).any():
        z = centers[:, 2]
        low, high = (float(z.min()), float(z.max())) if len(z) else (0.0, 0.0)
        span = max(high - low, 1e-6)
        heights = np.linspace(high, low, HEIGHT_ROWS) if high > low else np.array([low])
        names = [f"z = {height:.2f} m" for height in heights]
        return height_colors((z - low) / span), list(zip(height_colors((heights - low) / span), names, strict=True))
    colors = label_set.colorize(labels)
    colors[labels < 0] = UNLABELED_COLOR
    volumes = np.rint((sizes / resolution) ** 3).astype(np.int64)
    ids = np.unique(labels)
    counts = np.array([volumes[labels == i].sum() for i in ids])
    order = np.argsort(-counts)[:LEGEND_ROWS]
    legend = []
    for i in order:
        color = UNLABELED_COLOR if ids[i] < 0 else label_set.colors[ids[i]]
        legend.append((color, f"{label_set.name_of(int(ids[i]))} ({counts[i]:,})"))
    return colors, legend


def costmap_picture(path: Path, grid: CostGrid, trajectory: Sequence[NDArray[Any]]) -> None:
    """Write the costmap with the camera's path on it.

    Args:
        path: of the picture.
        grid: costs.
        trajectory: (3,) positions of the camera in the map frame, meters.
    """
    positions = np.asarray(trajectory, np.float64).reshape(-1, 3)[:, :2]
    cells = (positions - grid.origin) / grid.resolution - 0.5
    data, first = _cropped(grid.data, cells)
    height = data.shape[0]
    table = cost_table()
    image = table[np.where(data < 0, UNKNOWN, data)]
    cells = cells - first
    costs = np.unique(data[(data > 0) & (data < 100)]).tolist()
    steps = costs if len(costs) <= 4 else [25, 50, 75]
    legend = [(table[0], "free"), *((table[cost], f"cost {cost}") for cost in steps)]
    legend += [(table[100], "lethal"), (table[UNKNOWN], "unknown")]
    _figure(
        path,
        np.flipud(image),
        f"Costmap, {grid.resolution * 100:g} cm cells, with the camera's path",
        legend,
        pixels_per_meter=1 / grid.resolution,
        path_pixels=np.stack([cells[:, 0], height - 1 - cells[:, 1]], axis=1),
    )


def bar_chart(path: Path, title: str, unit: str, groups: Sequence[str], series: dict[str, list[float | None]]) -> None:
    """Write bars side by side on a logarithmic axis, with their values on top.

    Args:
        path: of the picture.
        title: above it.
        unit: of the values.
        groups: names along the axis.
        series: name of each kind of bar, and its value in each group; None is left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 2.6 * len(groups) + 2), 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        places = [i + (number - (len(series) - 1) / 2) * width for i, value in enumerate(values) if value is not None]
        bars = axes.bar(places, [value for value in values if value is not None], width * 0.94, label=name)
        axes.bar_label(bars, fmt="%.3g", fontsize=9)
    axes.set_yscale("log")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, facecolor="white")


def _cropped(data: NDArray[np.int8], cells: NDArray[Any]) -> tuple[NDArray[np.int8], tuple[int, int]]:
    """The part of a grid that is known or was visited, with a margin, and its first column and row."""
    rows, columns = np.nonzero(data >= 0)
    inside = np.vstack([np.stack([columns, rows], axis=1), cells.reshape(-1, 2)])
    if not len(inside):
        return data, (0, 0)
    limit = np.array([data.shape[1], data.shape[0]])
    low = np.clip(np.floor(inside.min(axis=0)).astype(int) - 5, 0, limit - 1)
    high = np.clip(np.ceil(inside.max(axis=0)).astype(int) + 6, low + 1, limit)
    return data[low[1] : high[1], low[0] : high[0]], (int(low[0]), int(low[1]))


def _figure(
    path: Path,
    image: NDArray[np.uint8],
    title: str,
    legend: list[tuple[Any, str]],
    pixels_per_meter: float | None = None,
    path_pixels: NDArray[Any] | None = None,
) -> None:
    """One picture with title, scale bar and legend, written without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    height, width = image.shape[:2]
    figure = Figure(figsize=(12, max(3.0, min(12.0, 9.6 * height / width + 0.6))), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.02, 0.79 if legend else 0.98, 0.91))
    axes.imshow(image, interpolation="nearest" if max(width, height) < 600 else "antialiased")
    axes.set_axis_off()
    axes.set_title(title, fontsize=13)
    handles: list[Any] = [Patch(facecolor=np.asarray(c) / 255, edgecolor="0.4", label=text) for c, text in legend]  # pyright: ignore[reportArgumentType]
    if path_pixels is not None and len(path_pixels):
        axes.plot(path_pixels[:, 0], path_pixels[:, 1], color="#1f6fd6", linewidth=2)
        axes.plot(*path_pixels[0], "o", color="#1f6fd6", markersize=7)
        axes.plot(*path_pixels[-1], "s", color="#1f6fd6", markersize=7)
        handles.append(Line2D([], [], color="#1f6fd6", marker="o", label="camera (■ = end)"))
        axes.set_xlim(min(-0.5, path_pixels[:, 0].min() - 2), max(width - 0.5, path_pixels[:, 0].max() + 2))
        axes.set_ylim(max(height - 0.5, path_pixels[:, 1].max() + 2), min(-0.5, path_pixels[:, 1].min() - 2))
    if pixels_per_meter:
        _scale_bar(axes, width, height, pixels_per_meter)
    if handles:
        figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.805, 0.5), fontsize=10, frameon=False)
    figure.savefig(path, facecolor="white")


def _scale_bar(axes: Any, width: int, height: int, pixels_per_meter: float) -> None:
    """A bar of a round length, about a sixth of the picture."""
    target = width / pixels_per_meter / 6
    length = max(
        (step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if step <= target), default=0.01
    )
    x, y = 0.03 * width, 0.965 * height
    ends = [x, x + length * pixels_per_meter]
    # With a rim, since a wall in a costmap is black, too.
    for color, thickness, cap in (("white", 8, "projecting"), ("black", 4, "butt")):
        axes.plot(ends, [y, y], color=color, linewidth=thickness, solid_capstyle=cap, zorder=3)
    text = f"{length:g} m" if length >= 1 else f"{length * 100:g} cm"
    backing = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    axes.text(x, y - 0.018 * height, text, fontsize=11, va="bottom", bbox=backing, zorder=3)
