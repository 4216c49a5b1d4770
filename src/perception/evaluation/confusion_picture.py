# SPDX-License-Identifier: Apache-2.0
"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perception.errors import InputError
from perception.evaluation.segmentation import ConfusionMatrix


def confusion_picture(path: Path, confusion: ConfusionMatrix, names: Sequence[str], title: str) -> None:
    """Write a matrix: rows are the truth with its number of pixels, columns what was said, in percent of the row.

    Args:
        path: of the picture; its folder exists.
        confusion: counts; the last column is "anything else".
        names: of the classes.
        title: above it.

    Raises:
        InputError: as many names as classes are needed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(names) != confusion.num_classes:
        raise InputError(f"names of classes: expected {confusion.num_classes}, got {len(names)}")
    counts = confusion.counts.astype(np.float64)
    rows = counts.sum(1, keepdims=True)
    percent = 100 * counts / np.maximum(rows, 1)
    figure = Figure(figsize=(2.5 + 0.6 * len(names), 1.5 + 0.5 * len(names)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(names) + 1), [*names, "other"], rotation=45, ha="right")
    axes.set_yticks(range(len(names)), [f"{n} ({r:.2g} px)" for n, r in zip(names, rows[:, 0], strict=True)])
    axes.set_xlabel("predicted, percent of the row")
    axes.set_ylabel("truth")
    axes.set_title(title)
    for (row, column), value in np.ndenumerate(percent):
        if value >= 0.5:
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 55 else "black")
    figure.savefig(path)
