# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.errors import InputError
from perception.evaluation.scene_views import score_views
from perception.labels import LabelSet
from perception.simulation.poses import pose
from perception.simulation.primitives import box_model
from perception.simulation.renderer import Renderer
from perception.simulation.scene import Instance, Material, Scene
from perception.simulation.views import SCORED_CLASSES, ViewPoint, choose_views, load_views, render_views, scored_groups

LABELS = LabelSet.load("ade20k32")


def test_the_shipped_list_has_60_views_within_the_house():
    views = load_views()
    assert len(views) == 60 and len(set(views)) == 60
    for view in views:
        x, y, z = view.position
        assert abs(x) < 9.5 and abs(y) < 5.71 and 0.8 <= z <= 1.5 and 0 <= view.pitch_deg <= 20
    # Chosen once: the first stays what it was.
    assert views[0] == ViewPoint((2.602, -2.624, 0.829), -174.05, 16.265)


def test_scored_classes_take_synonyms_and_leave_others():
    groups = scored_groups(LABELS)
    names = list(SCORED_CLASSES)
    assert names[groups[LABELS["armchair"].id]] == "chair" and names[groups[LABELS["shelf"].id]] == "cabinet"
    assert names[groups[LABELS["windowpane"].id]] == "window" and names[groups[LABELS["painting"].id]] == "picture"
    assert groups[LABELS["other"].id] == groups[LABELS["person"].id] == groups[-1] == -1
    assert len(names) == 13


def test_score_counts_other_predictions_as_wrong_and_other_truth_not_at_all(egl: None):
    gray = Material()
    wall = Instance("wall", box_model((0.2, 20, 20), gray), LABELS["wall"].id, pose((3, 0, 0)).matrix)
    lamp = Instance("lamp", box_model((0.2, 20, 5), gray), LABELS["other"].id, pose((2, 0, -2.5)).matrix)
    views = [ViewPoint((0.0, 0.0, 0.0), 0.0, 0.0)]

    def predict(image: np.ndarray) -> np.ndarray:
        # The upper half is wall: a quarter of the image is called wall, a quarter sofa, the lower half person.
        labels = np.full(image.shape[:2], LABELS["person"].id)
        labels[:240, :320], labels[:240, 320:] = LABELS["wall"].id, LABELS["sofa"].id
        return labels

    with Renderer(Scene("s", LABELS, (wall, lamp)), 1) as renderer:
        score = score_views(renderer, predict, LABELS, views)
        with pytest.raises(InputError, match="expected"):
            score_views(renderer, lambda image: np.zeros((2, 2), int), LABELS, views)
    assert score.confusion.total == 240 * 640
    assert score.pixel_accuracy == pytest.approx(0.5)
    assert score.iou["wall"] == pytest.approx(0.5) and score.iou["sofa"] == 0.0
    assert score.mean_iou == pytest.approx(0.5 / 13)


def test_perfect_labels_score_one_for_all_that_occurs_and_the_choice_is_reproducible(
    small_house_scene: Scene, egl: None
):
    views = load_views()[:6]
    with Renderer(small_house_scene, 1) as renderer:
        assert choose_views(renderer, 2, 0) == load_views()[:2]
        answers = iter([view.labels for view in render_views(renderer, views)])
        score = score_views(renderer, lambda image: next(answers), LABELS, views)
    assert score.pixel_accuracy == 1.0
    assert set(score.iou.values()) == {0.0, 1.0} and sum(score.iou.values()) >= 6


@pytest.mark.parametrize("text", ["views: []", "views: [[1, 2]]", "other: 1", "[", "views: [[1, 2, 3, 4, .nan]]"])
def test_broken_lists_are_refused(tmp_path: Path, text: str):
    (tmp_path / "v.yaml").write_text(text)
    with pytest.raises(InputError, match="views"):
        load_views(tmp_path / "v.yaml")
