# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cli.main import main
from perception.errors import InputError
from perception.labels import LabelSet
from perception.simulation.furniture import FurnitureCatalog
from perception.simulation.view_sets import IGNORE, MAX_SHELL, ViewSetOptions, render_view_set, write_view_set

LABELS = LabelSet.load("ade20k32")


def test_views_come_with_labels_of_the_label_set_and_repeat_by_seed(
    catalog: FurnitureCatalog, egl: None, tmp_path: Path
):
    # Two houses of few rooms.
    options = ViewSetOptions(3, per_house=2, width=96, height=72, seed=37, variety="wide", samples=1)
    counts: list[int] = []
    assert write_view_set(tmp_path, options, counts.append, catalog) == 3
    assert counts == [1, 2, 3]
    images = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert images == ["000000.jpg", "000001.jpg", "000002.jpg"]
    about = json.loads((tmp_path / "views.json").read_text())
    assert about["houses"] == ["wide_house_37", "wide_house_37", "wide_house_38"]
    assert about["label_set"] == "ade20k32" and about["attribution"] and about["options"]["seed"] == 37
    again = [view for view, _ in render_view_set(options, catalog)]
    for i, view in enumerate(again):
        written = cv2.imread(str(tmp_path / "labels" / f"{i:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert written.shape == (72, 96) and written.dtype == np.uint8
        np.testing.assert_array_equal(written, np.where(view.labels < 0, IGNORE, view.labels))
        shell = np.isin(view.labels, [LABELS[name].id for name in ("wall", "floor", "ceiling")]).mean()
        assert shell <= MAX_SHELL and len(np.unique(view.labels)) >= 4
    assert any((first.color != second.color).any() for first, second in itertools.pairwise(again))


@pytest.mark.parametrize("changes", [{"views": 0}, {"width": 0}, {"fov_deg": (0.0, 90.0)}, {"fov_deg": (90.0, 60.0)}])
def test_options_without_meaning_are_refused(changes: dict[str, object]):
    with pytest.raises(InputError, match="view set"):
        ViewSetOptions(**{"views": 1, **changes})  # type: ignore[arg-type]


def test_command_writes_views_of_houses_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", "boxes", "--views", "2", "--output", str(tmp_path / "v")]) == 1
    assert "--views: expected the scene house" in capsys.readouterr().err
