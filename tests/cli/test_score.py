# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from perception.cli.main import main
from perception.cli.score import _views_without_truth, photograph_table, scene_table
from perception.evaluation.photographs import Agreement
from perception.evaluation.scene_views import ViewScore
from perception.evaluation.segmentation import ConfusionMatrix
from perception.labels import LabelSet
from perception.simulation.views import SCORED_CLASSES


def test_tables_show_every_class_and_network():
    confusion = ConfusionMatrix(len(SCORED_CLASSES))
    confusion.add(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]))
    lines = scene_table({"old": ViewScore(confusion), "new": ViewScore(confusion)}).splitlines()
    assert lines[0] == "| class | old | new |" and len(lines) == 2 + 13 + 2 + 2
    assert lines[2] == "| wall | 0.667 | 0.667 |" and lines[3] == "| floor | 0.500 | 0.500 |"
    assert lines[-4] == "| mean IoU | 0.090 | 0.090 |" and lines[-3] == "| pixel accuracy | 75.0% | 75.0% |"
    assert lines[4] == "| ceiling* | 0.000 | 0.000 |"
    assert lines[-1].startswith("\\* no pixel of these views is ceiling or bed or window or")
    assert lines[-1].endswith("; the mean counts it as 0 all the same")
    every = np.arange(len(SCORED_CLASSES))
    confusion.add(every, every)
    assert "*" not in scene_table({"new": ViewScore(confusion)})
    table = photograph_table("old", {"new": Agreement(10, 9, 4, 4)}, 3)
    assert table.splitlines()[-1] == "| new | 90.0% | 100.0% |"


def test_views_that_show_no_scored_class_are_numbered():
    labels = LabelSet.load("ade20k32")
    nothing, wall = np.full((2, 2), -1), np.array([[-1, labels["wall"].id]])
    views = [SimpleNamespace(labels=ids) for ids in (nothing, wall, nothing)]
    assert _views_without_truth(views, SimpleNamespace(label_set=labels)) == [0, 2]  # type: ignore[arg-type]


def test_photographs_are_scored_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    output = tmp_path / "out"
    command = ["score", "--photos", str(photos), "--output", str(output), "--input-size", "64x48"]
    assert main(command) == 0
    assert "1 photographs, agreement with deeplabv3plus_mobilenetv2" in capsys.readouterr().out
    found = json.loads((output / "score.json").read_text())["photographs"]
    assert found["networks"]["default"]["pixels"] == 48 * 64 and list(found["images"]) == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --scene, --photos or both"),
        (["--photos", "x", "--model", "default"], "at least two networks"),
        (["--photos", "x", "--model", "default", "--model", "default"], "expected different networks"),
        (["--photos", "x", "--input-size", "64"], "expected WIDTHxHEIGHT"),
        (["--scene", "house"], "expected --random-views"),
    ],
)
def test_wrong_use_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["score", *arguments]) == 1
    assert message in capsys.readouterr().err
