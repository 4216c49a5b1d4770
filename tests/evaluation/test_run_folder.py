# SPDX-License-Identifier: Apache-2.0
import json
import math
from pathlib import Path

import numpy as np
import pytest

from perception.errors import InputError
from perception.evaluation.run_folder import (
    EVALUATION,
    FRAME_COLUMNS,
    SUMMARY,
    SWEEP,
    RowWriter,
    begin_evaluation,
    begin_run,
    claim_folder,
    fill_frames,
    find_failures,
    find_runs,
    finish,
    load_run,
    plain,
    read_rows,
    write_json,
)
from perception.evaluation.run_key import fingerprint, run_key


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_json(folder / "summary.json", {"format": 1, "name": "room", "scalars": {"a": {"value": math.nan}}})
    return folder


def test_values_become_json_without_nan():
    found = plain({"a": np.float32(1.5), "b": [float("inf"), np.int64(3)], "c": np.arange(2), "d": Path("x")})
    assert found == {"a": 1.5, "b": [None, 3], "c": [0, 1], "d": "x"}


def test_rows_come_back_as_numbers_and_empty_cells_as_none(tmp_path: Path):
    with RowWriter(tmp_path / "rows.csv", ["index", "value", "text"]) as writer:
        writer.write({"index": 1, "value": 0.25, "text": "a, b"})
        writer.write({"index": 2, "value": float("nan")})
        assert not (tmp_path / "rows.csv").exists()
    assert read_rows(tmp_path / "rows.csv") == [
        {"index": 1, "value": 0.25, "text": "a, b"},
        {"index": 2, "value": None, "text": None},
    ]


def test_what_becomes_known_later_is_filled_in_and_all_else_stays(tmp_path: Path):
    with RowWriter(tmp_path / "frames.csv", FRAME_COLUMNS) as writer:
        writer.write({"index": 0, "stamp_ns": 10**18 + 1, "dropped": 'no pose, "map"', "read_ms": 0.1234567})
        writer.write({"index": 1, "stamp_ns": 10**18 + 2, "pixel_accuracy": 0.5})
    before = read_rows(tmp_path / "frames.csv")
    fill_frames(tmp_path / "frames.csv", {1: {"fused_accuracy": 0.75, "fused_mean_iou": float("nan")}, 9: {"x": 1.0}})
    assert read_rows(tmp_path / "frames.csv") == [before[0], before[1] | {"fused_accuracy": 0.75}]
    assert [path.name for path in tmp_path.iterdir()] == ["frames.csv"]


def test_rows_of_a_failed_run_leave_nothing(tmp_path: Path):
    with pytest.raises(RuntimeError), RowWriter(tmp_path / "rows.csv", ["a"]):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_runs_are_found_alone_and_in_collections(tmp_path: Path):
    one = make_run(tmp_path / "one")
    assert find_runs(one) == [one]
    assert load_run(one).name == "room" and load_run(one).scalar("a") is None
    both = tmp_path / "both"
    make_run(both / "00_a")
    write_json(both / "evaluation.json", {"format": 1, "runs": ["00_a", "01_missing"]})
    assert find_runs(both) == [both / "00_a"]
    sweep = tmp_path / "sweep"
    make_run(sweep / "cells" / "k")
    cells = [{"folder": "cells/k", "status": "done"}, {"folder": "cells/f", "status": "failed"}]
    write_json(sweep / "sweep.json", {"format": 1, "cells": cells})
    assert find_runs(sweep) == [sweep / "cells" / "k"]


@pytest.mark.parametrize("names", [[], ["../outside"], ["/etc"]])
def test_folder_without_runs_of_its_own_is_refused(names: list[str], tmp_path: Path):
    make_run(tmp_path / "outside")
    folder = tmp_path / "folder"
    folder.mkdir()
    write_json(folder / "evaluation.json", {"format": 1, "runs": names})
    with pytest.raises(InputError, match="found no finished run"):
        find_runs(folder)


def test_summary_of_another_format_is_refused(tmp_path: Path):
    (tmp_path / "summary.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="expected format 1, got 99"):
        load_run(tmp_path)


def test_key_depends_on_contents_config_and_options_not_on_place(tmp_path: Path):
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text(text)
    a, b, c = (fingerprint(tmp_path / name) for name in "abc")
    assert a == b != c
    keys = {
        run_key(a, {"x": 1}, {}),
        run_key(a, {"x": 2}, {}),
        run_key(a, {"x": 1}, {"every": 2}),
        run_key(c, {"x": 1}, {}),
    }
    assert len(keys) == 4


def test_failures_are_those_of_an_evaluation_or_a_sweep(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    write_json(tmp_path / "a" / "evaluation.json", {"format": 1, "runs": [], "failed": {"bag": "no frames"}})
    cells = [
        {
            "status": "failed",
            "source": "bag",
            "network": "net",
            "parameters": {"octomap.resolution": 0.1},
            "error": "x",
        },
        {"status": "done", "source": "bag", "network": "net", "parameters": {}, "error": ""},
    ]
    write_json(tmp_path / "b" / "sweep.json", {"format": 1, "cells": cells})
    assert find_failures(tmp_path / "a") == [("bag", "no frames")]
    assert find_failures(tmp_path / "b") == [("bag, net, octomap.resolution=0.1", "x")]
    assert find_failures(tmp_path) == []


@pytest.mark.parametrize("marker", [SUMMARY, EVALUATION, SWEEP])
@pytest.mark.parametrize("name", ["costmap_params.yaml", "map.ot", "summary.json", "begun.json"])
def test_a_folder_with_files_of_somebody_else_is_refused_and_nothing_in_it_is_lost(tmp_path, marker, name):
    (tmp_path / name).write_text('{"mine": true}')
    with pytest.raises(InputError, match=f"it holds .*{name}"):
        claim_folder(tmp_path, marker)
    assert (tmp_path / name).read_text() == '{"mine": true}'


@pytest.mark.parametrize("marker", [SUMMARY, EVALUATION, SWEEP])
def test_a_folder_that_is_new_or_empty_is_claimed(tmp_path, marker):
    (tmp_path / ".hidden").touch()
    claim_folder(tmp_path, marker)
    claim_folder(tmp_path / "new" / "one", marker)
    assert (tmp_path / "new" / "one").is_dir()


def test_an_evaluation_that_did_not_finish_has_its_folder_again_and_one_of_another_kind_has_not(tmp_path):
    for begin, marker, other in ((begin_run, SUMMARY, EVALUATION), (begin_evaluation, EVALUATION, SUMMARY)):
        folder = tmp_path / marker
        claim_folder(folder, marker)
        begin(folder)
        (folder / "frames.csv").touch()
        claim_folder(folder, marker)
        with pytest.raises(InputError, match=r"it holds begun\.json"):
            claim_folder(folder, other)
        finish(folder, marker, {"format": 1})
        claim_folder(folder, marker)
        assert not (folder / "begun.json").exists()


def test_a_run_that_begins_removes_what_runs_write_and_nothing_else(tmp_path):
    kept = ["costmap_params.yaml", "costmap_filter.pgm", "report_2024.csv", "worst/sketch.png", "notes.txt"]
    written = ["summary.json", "costmap.yaml", "costmap_truth.pgm", "report_scalars.csv", "worst/000_error.png"]
    (tmp_path / "worst").mkdir()
    for name in kept + written:
        (tmp_path / name).touch()
    begin_run(tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {*kept, "begun.json"}


def test_a_run_is_replaced_by_one_of_the_same_place_or_contents_and_not_of_the_same_name(tmp_path):
    for day, content in (("monday", "one"), ("tuesday", "two"), ("copy", "one")):
        (tmp_path / day).mkdir()
        (tmp_path / day / "drive.mcap").write_text(content)
    monday, tuesday, copy = (tmp_path / day / "drive.mcap" for day in ("monday", "tuesday", "copy"))
    out = make_run(tmp_path / "out")
    source = {"path": str(monday), "fingerprint": fingerprint(monday)}
    write_json(out / "summary.json", {"format": 1, "name": "drive", "source": source})
    claim_folder(out, SUMMARY, monday)
    claim_folder(out, SUMMARY, copy)
    with pytest.raises(InputError, match=r"it holds one of 'drive' \(.*monday"):
        claim_folder(out, SUMMARY, tuesday)
    monday.write_text("recorded anew")
    claim_folder(out, SUMMARY, monday)
    write_json(out / "summary.json", {"format": 1, "name": "drive", "source": {"path": "drive.mcap"}})
    with pytest.raises(InputError, match="it holds one of 'drive'"):
        claim_folder(out, SUMMARY, monday)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (EVALUATION, {"runs": 3, "failed": ["bag"]}),
        (EVALUATION, {"runs": [{"name": "a"}], "failed": 1}),
        (SWEEP, {"cells": ["x"]}),
        (SWEEP, {"cells": {"a": "b"}}),
    ],
)
def test_lists_of_another_kind_are_named(tmp_path, file, content):
    write_json(tmp_path / file, {"format": 1, **content})
    for find in (find_runs, find_failures):
        with pytest.raises(InputError, match=f"{file}: expected .* to be a "):
            find(tmp_path)


def test_parameters_of_a_failed_cell_that_are_no_mapping_are_named(tmp_path):
    write_json(tmp_path / SWEEP, {"cells": [{"status": "failed", "parameters": [1]}]})
    with pytest.raises(InputError, match="expected a cell's parameters to be a dict, got list"):
        find_failures(tmp_path)


@pytest.mark.parametrize(
    ("scalars", "message"),
    [
        (5, "expected scalars to be a dict, got int"),
        (None, "expected scalars to be a dict, got NoneType"),
        ({"a": None}, "expected scalar a to be a dict, got NoneType"),
        ({"a": {"value": math.nan}}, "expected a number as value of scalar a, got nan"),
        ({"a": {"value": -math.inf}}, "expected a number"),
        ({"a": {"value": 10**400}}, "expected a number"),
        ({"a": 5}, "expected scalar a to be a dict, got int"),
        ({"a": {"value": "high"}}, "expected a number as value of scalar a, got 'high'"),
        ({"a": {"value": [1]}}, "expected a number"),
        ({"a": {"value": True}}, "expected a number"),
    ],
)
def test_scalars_that_are_no_numbers_are_refused(scalars, message, tmp_path: Path):
    (tmp_path / SUMMARY).write_text(json.dumps({"format": 1, "scalars": scalars}))
    with pytest.raises(InputError, match=message):
        load_run(tmp_path)
