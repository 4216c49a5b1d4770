# SPDX-License-Identifier: Apache-2.0
"""How well a network labels fixed views of a rendered scene."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.segmentation import ConfusionMatrix
from perception.labels import LabelSet
from perception.simulation.renderer import Renderer, View
from perception.simulation.views import SCORED_CLASSES, ViewPoint, render_views, scored_groups


@dataclass(frozen=True, eq=False)
class ViewScore:
    """Agreement with the truth over the pixels of all views together.

    Attributes:
        confusion: counts by scored class; any other prediction counts as wrong, any other truth not at all.
    """

    confusion: ConfusionMatrix

    @property
    def iou(self) -> dict[str, float]:
        """Intersection over union of each scored class; 0 for one that is neither true nor predicted."""
        return dict(zip(SCORED_CLASSES, np.nan_to_num(self.confusion.iou()).tolist(), strict=True))

    @property
    def true_pixels(self) -> dict[str, int]:
        """How many pixels of the views each scored class has in truth."""
        return dict(zip(SCORED_CLASSES, self.confusion.counts.sum(axis=1).tolist(), strict=True))

    @property
    def mean_iou(self) -> float:
        """Mean over all scored classes, even those that hardly occur."""
        return float(np.mean(list(self.iou.values())))

    @property
    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right."""
        return self.confusion.accuracy()


def score_views(
    renderer: Renderer,
    predict: Callable[[NDArray[np.uint8]], NDArray[np.integer]],
    label_set: LabelSet,
    views: Sequence[ViewPoint],
) -> ViewScore:
    """Compare predicted labels of rendered views with the truth.

    Args:
        renderer: of the scene.
        predict: gives (H, W) ids for an (H, W, 3) uint8 RGB image; −1 for none.
        label_set: what those ids mean; classes are matched by name.
        views: which to compare.

    Raises:
        InputError: a prediction of another size than the image.
    """
    return score_rendered(render_views(renderer, views), renderer.scene.label_set, predict, label_set)


def score_rendered(
    views: Iterable[View],
    true_label_set: LabelSet,
    predict: Callable[[NDArray[np.uint8]], NDArray[np.integer]],
    label_set: LabelSet,
) -> ViewScore:
    """As :func:`score_views`, for views that are rendered already and ids of ``true_label_set`` in them."""
    confusion = ConfusionMatrix(len(SCORED_CLASSES))
    true_groups, groups = scored_groups(true_label_set), scored_groups(label_set)
    for view in views:
        confusion.add(true_groups[view.labels], groups[predict(view.color)])
    return ViewScore(confusion)
