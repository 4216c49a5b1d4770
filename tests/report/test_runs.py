# SPDX-License-Identifier: Apache-2.0
"""How runs are named, and which files of them are read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_runs import write_run

from perception.errors import InputError
from perception.report.comparison import paired_differences
from perception.report.runs import load_runs


def test_a_single_run_is_named_after_its_recording(tmp_path):
    (run,) = load_runs([write_run(tmp_path / "a", source="hall")])
    assert run.name == "hall"
    assert run.variant == ""


def test_runs_are_named_by_what_distinguishes_them(tmp_path):
    config = {"octomap": {"resolution": 0.05}, "segmentation": {"model": "first"}}
    folders = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", config=config),
        write_run(tmp_path / "c", 0.7, "other"),
    ]
    assert [run.name for run in load_runs(folders)] == [
        "first resolution=0.1",
        "first resolution=0.05",
        "other resolution=0.1",
    ]


def test_equal_runs_are_numbered(tmp_path):
    runs = load_runs([write_run(tmp_path / "a"), write_run(tmp_path / "b")])
    assert [run.variant for run in runs] == ["", "run 2"]


def test_different_recordings_of_one_name_are_told_apart(tmp_path):
    other = {"name": "bag", "path": "/elsewhere/bag"}
    runs = load_runs([write_run(tmp_path / "a"), write_run(tmp_path / "b", **{"source": "bag"}),
                      write_run(tmp_path / "c")])  # fmt: skip
    assert {run.source for run in runs} == {"bag"}
    summary = tmp_path / "c" / "summary.json"
    summary.write_text(summary.read_text().replace('"path": "/data/bag"', f'"path": "{other["path"]}"'))
    assert [run.source for run in load_runs([tmp_path / "a", tmp_path / "c"])] == ["bag (1)", "bag (2)"]


def test_runs_with_labels_from_elsewhere_are_of_the_same_recording(tmp_path):
    folders = [write_run(tmp_path / "a", 0.8, "first"), write_run(tmp_path / "b", network=None, labels="none")]
    runs = load_runs(folders)
    assert [(run.name, run.source) for run in runs] == [("first", "bag"), ("labels: none", "bag")]


def test_a_recording_that_was_moved_is_the_same_and_another_part_of_it_is_not(tmp_path):
    places = {"a": ("/here/bag", 1), "b": ("/there/bag", 1), "c": ("/here/bag", 2)}
    for name, (path, every) in places.items():
        summary = write_run(tmp_path / name, network=name) / "summary.json"
        content = json.loads(summary.read_text())
        content["source"] |= {"path": path, "fingerprint": "abc", "options": {"every": every}}
        summary.write_text(json.dumps(content))
    assert [run.source for run in load_runs([tmp_path / name for name in places])] == ["bag (1)", "bag (1)", "bag (2)"]


@pytest.mark.parametrize("prints", [(None, "abc"), ("abc", "of more files")])
def test_a_recording_at_its_place_is_the_same_also_without_its_fingerprint_or_with_files_added(tmp_path, prints):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, value in zip(folders, prints, strict=True):
        summary = write_run(folder, network=folder.name) / "summary.json"
        content = json.loads(summary.read_text())
        content["source"] |= {"fingerprint": value} if value else {}
        summary.write_text(json.dumps(content))
    runs = load_runs(folders)
    assert [run.source for run in runs] == ["bag", "bag"]
    found = {one.metric: one for one in paired_differences(runs)}
    assert found["segmentation.pixel_accuracy"].frames == 40


def test_a_summary_cannot_name_files_outside_of_its_folder(tmp_path):
    (run,) = load_runs([write_run(tmp_path / "a")])
    (tmp_path / "secret.png").write_bytes(b"x")
    assert run.file("../secret.png") is None
    assert run.file(str(tmp_path / "secret.png")) is None
    assert run.file("worst/000_color.png") is not None


def test_path_is_read_from_its_file(tmp_path):
    (run,) = load_runs([write_run(tmp_path / "a")])
    path = run.path()
    assert path.shape == (40, 3)
    np.testing.assert_allclose(path[10], [0.6, 1.0, 0.6])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        load_runs([tmp_path])
