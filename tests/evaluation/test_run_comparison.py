# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest

from perception.cli.compare import table
from perception.cli.main import main
from perception.errors import InputError
from perception.evaluation.run_comparison import compare_folders
from perception.evaluation.run_folder import FRAME_COLUMNS, RowWriter, read_rows, write_json

ACCURACY, TIME = "segmentation.pixel_accuracy", "timing.stages.frame.p50_ms"


def make_run(folder: Path, accuracies, milliseconds=10.0, name="room") -> Path:
    folder.mkdir(parents=True)
    with RowWriter(folder / "frames.csv", FRAME_COLUMNS) as writer:
        for index, accuracy in enumerate(accuracies):
            writer.write(
                {"index": index, "stamp_ns": 100 * index, "pixel_accuracy": accuracy, "frame_ms": milliseconds}
            )
    scalars = {ACCURACY: {"value": float(np.mean(accuracies))}, TIME: {"value": milliseconds}}
    write_json(folder / "summary.json", {"format": 1, "name": name, "scalars": scalars})
    return folder


def metrics(found):
    return {entry["name"]: entry for entry in found["metrics"]}


def test_frames_are_paired_by_stamp(tmp_path: Path):
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 1, 30)
    a = make_run(tmp_path / "a", hard * 0.8)
    b = make_run(tmp_path / "b", hard * 0.8 + 0.1)
    entry = metrics(compare_folders(a, b))[ACCURACY]
    # Frames differ widely among each other, but each by 0.1 from its partner.
    assert entry["difference"] == pytest.approx(0.1)
    assert entry["low"] == pytest.approx(0.1, abs=1e-6) and entry["high"] == pytest.approx(0.1, abs=1e-6)
    assert entry["frames"] == 30 and not entry["worse"]


def test_recordings_are_paired_by_name(tmp_path: Path):
    for side, shift in (("a", 0.0), ("b", 0.2)):
        names = ["00_x", "01_y", "02_only" + side]
        for name, base in zip(names, (0.1, 0.5, 0.3), strict=True):
            make_run(tmp_path / side / name, [base + shift], name=name[3:])
        write_json(tmp_path / side / "evaluation.json", {"format": 1, "runs": names})
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    assert [pair["name"] for pair in found["pairs"]] == ["x", "y"]
    assert found["unpaired"] == ["onlya", "onlyb"]
    assert metrics(found)[ACCURACY]["a"] == pytest.approx(0.3)
    assert metrics(found)[ACCURACY]["difference"] == pytest.approx(0.2)


def sweep(folder: Path, cells: dict[tuple[str, float], float | None], **source: object) -> Path:
    """A sweep with accuracies by network and resolution; None failed."""
    listed = []
    for (network, resolution), accuracy in cells.items():
        name = f"cells/{network}{resolution}"
        listed.append({"folder": name, "status": "failed" if accuracy is None else "done"})
        if accuracy is not None:
            run = make_run(folder / name, [accuracy])
            config = {"octomap": {"resolution": resolution}, "segmentation": {"model": network}}
            known = json.loads((run / "summary.json").read_text())
            write_json(run / "summary.json", {**known, "network": network, "config": config, "source": source})
    write_json(folder / "sweep.json", {"format": 1, "cells": listed})
    return folder


def test_cells_of_two_sweeps_meet_by_network_and_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a = sweep(tmp_path / "a", {("n1", 0.1): 0.5, ("n2", 0.1): 0.6, ("n3", 0.1): 0.7})
    b = sweep(tmp_path / "b", {("n3", 0.1): 0.7, ("n1", 0.1): None, ("n2", 0.1): 0.6})
    found = compare_folders(a, b)
    assert [(Path(pair["a"]).name, Path(pair["b"]).name) for pair in found["pairs"]] == [("n20.1",) * 2, ("n30.1",) * 2]
    assert found["unpaired"] == [f"room ({a}/cells/n10.1)"]
    assert metrics(found)[ACCURACY]["difference"] == 0
    assert main(["compare", str(a), str(b), "--metric", ACCURACY]) == 1
    assert "missing room (" in capsys.readouterr().err


def test_what_was_changed_between_two_sweeps_does_not_keep_their_cells_apart(tmp_path: Path):
    a = sweep(tmp_path / "a", {("n1", 0.1): 0.5, ("n2", 0.1): 0.6})
    b = sweep(tmp_path / "b", {("n2", 0.05): 0.7, ("n1", 0.05): 0.6}, path="/elsewhere/room")
    found = compare_folders(a, b)
    assert found["unpaired"] == [] and metrics(found)[ACCURACY]["difference"] == pytest.approx(0.1)
    names = [(Path(pair["a"]).name, Path(pair["b"]).name) for pair in found["pairs"]]
    assert names == [("n10.1", "n10.05"), ("n20.1", "n20.05")]


def test_runs_that_nothing_tells_apart_meet_in_order(tmp_path: Path):
    for side in "ab":
        for number in range(2):
            make_run(tmp_path / side / str(number), [0.5])
        write_json(tmp_path / side / "evaluation.json", {"format": 1, "runs": ["0", "1"]})
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    assert [(Path(pair["a"]).name, Path(pair["b"]).name) for pair in found["pairs"]] == [("0", "0"), ("1", "1")]


def test_interval_is_over_recordings_where_frames_of_one_have_nothing_in_common(tmp_path: Path):
    for side, x, y in (("a", 0.5, 0.5), ("b", 0.6, 0.1)):
        for name, accuracy in (("x", x), ("y", y)):
            make_run(tmp_path / side / name, [accuracy] * 10, name=name)
        write_json(tmp_path / side / "evaluation.json", {"format": 1, "runs": ["x", "y"]})
    (tmp_path / "b" / "y" / "frames.csv").write_text("index\n0\n")
    entry = metrics(compare_folders(tmp_path / "a", tmp_path / "b"))[ACCURACY]
    assert entry["difference"] == entry["mean_difference"] == pytest.approx(-0.15)
    assert (entry["low"], entry["high"], entry["frames"]) == (None, None, 2)


def test_evaluations_without_a_common_number_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a, b = (make_run(tmp_path / name, [0.5]) for name in "ab")
    write_json(b / "summary.json", {"format": 1, "name": "room", "scalars": {}})
    output = tmp_path / "found.csv"
    assert main(["compare", str(a), str(b), "--output", str(output)]) == 1
    assert "expected a number that both have" in capsys.readouterr().err
    assert not output.exists()


def test_exit_code_is_2_only_when_a_chosen_number_got_worse_by_more_than_its_margin(tmp_path: Path):
    a = str(make_run(tmp_path / "a", [0.8] * 6, 10.0))
    b = str(make_run(tmp_path / "b", [0.75] * 6, 14.0))
    assert main(["compare", a, b]) == 0
    assert main(["compare", a, b, "--metric", ACCURACY]) == 2
    assert main(["compare", a, b, "--metric", f"{ACCURACY}=0.06"]) == 0
    assert main(["compare", a, b, "--metric", f"{TIME}=4"]) == 0
    assert main(["compare", a, b, "--metric", f"{ACCURACY}=0.06", "--metric", f"{TIME}=3.9"]) == 2
    assert main(["compare", b, a, "--metric", ACCURACY, "--metric", TIME]) == 0


@pytest.mark.parametrize("suffix", ["json", "csv", "md"])
def test_comparison_is_written(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a, b = (str(make_run(tmp_path / name, [value] * 6)) for name, value in (("a", 0.8), ("b", 0.7)))
    output = tmp_path / f"found.{suffix}"
    assert main(["compare", a, b, "--metric", ACCURACY, "--output", str(output)]) == 2
    assert "worse: Pixel accuracy" in capsys.readouterr().out
    if suffix == "json":
        assert metrics(json.loads(output.read_text()))[ACCURACY]["worse"] is True
    elif suffix == "csv":
        assert read_rows(output)[0]["difference"] == pytest.approx(-0.1)
    else:
        assert "| Pixel accuracy, single images | 0.8 | 0.7 | -0.1 |" in output.read_text()


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("segmentation.miou", "expected one of"),
        ("voxels.occupied", "expected one of"),
        (f"{ACCURACY}=much", "with a number"),
        (f"{ACCURACY}=-1", "margin of 0 or more"),
        ("map.occupancy.f1", "was not scored"),
    ],
)
def test_wrong_metrics_are_one_line(metric, message, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a = str(make_run(tmp_path / "a", [0.8]))
    assert main(["compare", a, a, "--metric", metric]) == 1
    assert message in capsys.readouterr().err


def test_evaluations_without_a_common_recording_are_refused(tmp_path: Path):
    for side in "ab":
        for number in range(2):
            make_run(tmp_path / side / f"{number}", [0.5], name=f"{side}{number}")
        write_json(tmp_path / side / "evaluation.json", {"format": 1, "runs": ["0", "1"]})
    with pytest.raises(InputError, match="expected evaluations of the same recordings"):
        compare_folders(tmp_path / "a", tmp_path / "b")


def several(folder: Path, **accuracies: float | None) -> str:
    for name, accuracy in accuracies.items():
        run = make_run(folder / name, [0.5 if accuracy is None else accuracy], name=name)
        if accuracy is None:
            write_json(run / "summary.json", {"format": 1, "name": name, "scalars": {}})
    write_json(folder / "evaluation.json", {"format": 1, "runs": list(accuracies)})
    return str(folder)


def test_what_the_second_lacks_cannot_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a = several(tmp_path / "a", hall=0.5, room=0.5)
    lost = several(tmp_path / "b", hall=0.6, yard=0.6)
    unscored = several(tmp_path / "c", hall=0.6, room=None)
    assert main(["compare", a, lost, "--metric", ACCURACY]) == 1
    assert "missing room" in capsys.readouterr().err
    assert main(["compare", a, unscored, "--metric", ACCURACY]) == 1
    assert "was not scored in the second: ['room']" in capsys.readouterr().err
    assert main(["compare", a, lost]) == main(["compare", a, unscored]) == 0
    more = several(tmp_path / "d", hall=0.6, room=0.6, yard=0.1)
    assert main(["compare", a, more, "--metric", ACCURACY]) == 0
    assert main(["compare", unscored, a, "--metric", ACCURACY]) == 2
    assert main(["compare", unscored, a, "--metric", f"{ACCURACY}=0.2"]) == 0


def test_two_runs_of_different_names_are_compared_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a, b = make_run(tmp_path / "a", [0.5], name="hall"), make_run(tmp_path / "b", [0.5], name="yard")
    assert main(["compare", str(a), str(b)]) == 0
    printed = capsys.readouterr().out
    assert "compared although their names differ: hall and yard" in printed
    assert f"| {ACCURACY} |" in printed


def test_help_shows_percent_signs_once(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    assert "%%" not in capsys.readouterr().out


def test_the_interval_is_printed_with_the_mean_that_it_is_around():
    entry = {"title": "mIoU", "unit": "", "a": 0.5, "b": 0.25, "difference": -0.25, "frames": 50, "name": "n"}
    entry |= {"mean_difference": -0.125, "low": -0.2, "high": -0.05, "worse": False}
    assert "| 0.5 | 0.25 | -0.25 | -0.125 (-0.2 … -0.05) | 50 |" in table([entry]).splitlines()[2]
    assert "| -0.25 |  | 50 |" in table([entry | {"low": None, "high": None}]).splitlines()[2]
