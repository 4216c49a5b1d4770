# SPDX-License-Identifier: Apache-2.0
"""The network that ships: better in a house it never saw than the one it was made from, and much the same elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.evaluation.photographs import Agreement, compare_on_photographs
from perception.evaluation.scene_views import score_rendered
from perception.models import create_segmenter
from perception.simulation.renderer import Renderer
from perception.simulation.scene import Scene
from perception.simulation.views import load_views, render_views

ORIGINAL, DEFAULT = "deeplabv3plus_mobilenetv2", "default"


def test_default_network_labels_the_small_house_better_than_the_original(small_house_scene: Scene, egl: None):
    with Renderer(small_house_scene, 1) as renderer:
        views = list(render_views(renderer, load_views()[::6]))
    scores = []
    for name in (ORIGINAL, DEFAULT):
        network = create_segmenter(name, "cpu")
        scores.append(
            score_rendered(
                views, small_house_scene.label_set, lambda image, n=network: n(image).labels, network.label_set
            )
        )
    before, after = scores
    assert after.mean_iou > before.mean_iou + 0.08
    assert after.pixel_accuracy > before.pixel_accuracy + 0.08


@pytest.mark.parametrize("folder", ["rgbd/open3d_redwood/color", "label_fusion/masks"])
def test_default_network_agrees_with_the_original_on_photographs_it_never_learned_from(shared: Path, folder: str):
    path = shared / "data" / folder
    if not path.is_dir():
        pytest.skip(f"needs {folder} in ../shared/data")
    total = Agreement()
    compared = compare_on_photographs(create_segmenter(ORIGINAL, "cpu"), [create_segmenter(DEFAULT, "cpu")], path)
    for number, (_, (found,)) in enumerate(compared):
        total += found
        if number == 3:
            break
    assert total.confident > 100_000
    assert total.confident_share >= 0.93
