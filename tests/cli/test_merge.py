# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main
from perception.labels import LabelClass, LabelSet
from perception.mapping import SemanticOcTree

SET = LabelSet("two", (LabelClass(0, "wall", (9, 9, 9)), LabelClass(1, "chair", (8, 8, 8))))


def write_map(path: Path, point, label=0, label_set=SET, **about):
    tree = SemanticOcTree(0.1, num_classes=2)
    tree.insert_cloud(np.array([point]), (0.05, 0.05, 0.05), np.array([label]))
    tree.write(path, label_set, about)
    return tree


def test_maps_are_added_and_keep_their_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_map(tmp_path / "a.ot", (1.05, 0.05, 0.05), 0, frame_id="map")
    write_map(tmp_path / "b.ot", (1.05, 0.05, 0.05), 1, frame_id="map")
    files = [str(tmp_path / name) for name in ("a.ot", "b.ot")]
    command = ["merge", *files, "--transform", "2=0,1,0,0", "--output", str(tmp_path / "c.ot")]
    assert main(command) == 0
    merged = SemanticOcTree.read(tmp_path / "c.ot")
    assert merged.label_of(np.array([[1.05, 0.05, 0.05], [1.05, 1.05, 0.05]])).tolist() == [0, 1]
    assert merged.metadata["frame_id"] == "map" and merged.metadata["label_set"]["name"] == "two"
    assert "22 known voxels" in capsys.readouterr().out


def test_the_frame_is_that_of_the_map_that_stays_in_place(tmp_path: Path):
    plain = SemanticOcTree(0.1)
    plain.insert_cloud(np.array([[1.05, 0.05, 0.05]]), (0.05, 0.05, 0.05))
    plain.write(tmp_path / "plain.ot", None, {"frame_id": "map"})
    plain.write_binary(tmp_path / "nameless.bt")
    write_map(tmp_path / "labeled.ot", (1.05, 0.05, 0.05), frame_id="odom")
    output = tmp_path / "merged.ot"
    command = ["merge", str(tmp_path / "plain.ot"), str(tmp_path / "labeled.ot"), "--transform", "2=10,0,0,0"]
    assert main([*command, "--output", str(output)]) == 0
    assert SemanticOcTree.read(output).metadata["frame_id"] == "map"
    nameless = ["merge", str(tmp_path / "nameless.bt"), str(tmp_path / "labeled.ot")]
    assert main([*nameless, "--output", str(output)]) == 0
    assert SemanticOcTree.read(output).metadata["frame_id"] == "odom"


def test_yaw_turns_a_map(tmp_path: Path):
    write_map(tmp_path / "a.ot", (1.05, 0.05, 0.05))
    assert main(["merge", str(tmp_path / "a.ot"), "--transform", "1=0,0,0,90", "--output", str(tmp_path / "b.ot")]) == 0
    assert SemanticOcTree.read(tmp_path / "b.ot").log_odds(np.array([[-0.05, 1.05, 0.05]]))[0] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--transform", "3=0,0,0,0"], "expected the number of a map, 1 to 2"),
        (["--transform", "²=0,0,0,0"], "expected the number of a map, 1 to 2"),
        (["--transform", f"{'1' * 5000}=0,0,0,0"], "expected the number of a map, 1 to 2"),
        (["--transform", "1=0,0"], "expected N=X,Y,Z,YAW"),
        (["--transform", "1=0,0,0,inf"], "expected N=X,Y,Z,YAW"),
        (["--transform", "1=0,nan,0,0"], "expected three finite numbers"),
        (["--transform", "1=0,0,0,0", "--transform", "1=0,0,0,1"], "got two for map 1"),
        ([], "expected maps of one frame or --transform"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_map(tmp_path / "a.ot", (1, 0, 0), frame_id="map")
    write_map(tmp_path / "b.ot", (1, 0, 0), frame_id="odom")
    files = [str(tmp_path / name) for name in ("a.ot", "b.ot")]
    assert main(["merge", *files, *arguments, "--output", str(tmp_path / "c.ot")]) == 1
    assert message in capsys.readouterr().err


def test_other_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = LabelSet("other", (LabelClass(0, "floor", (9, 9, 9)), LabelClass(1, "chair", (8, 8, 8))))
    write_map(tmp_path / "a.ot", (1, 0, 0))
    write_map(tmp_path / "b.ot", (1, 0, 0), label_set=other)
    files = [str(tmp_path / name) for name in ("a.ot", "b.ot")]
    assert main(["merge", *files, "--output", str(tmp_path / "c.ot")]) == 1
    assert "expected the classes of" in capsys.readouterr().err


def test_a_bt_is_added_to_a_map_with_labels_which_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_map(tmp_path / "a.ot", (1.05, 0.05, 0.05), 1, frame_id="map")
    write_map(tmp_path / "b.ot", (1.05, 0.05, 0.05)).write_binary(tmp_path / "b.bt")
    files = [str(tmp_path / name) for name in ("b.bt", "a.ot")]
    assert main(["merge", *files, "--transform", "1=0,1,0,0", "--output", str(tmp_path / "c.ot")]) == 0
    merged = SemanticOcTree.read(tmp_path / "c.ot")
    points = np.array([[1.05, 0.05, 0.05], [1.05, 1.05, 0.05], [0.95, 1.05, 0.05]])
    assert merged.log_odds(points) == pytest.approx([np.log(7 / 3), np.log(97 / 3), np.log(12 / 88)])
    assert merged.label_of(points).tolist() == [1, -1, -1]
    assert merged.metadata["label_set"]["name"] == "two" and merged.metadata["frame_id"] == "map"
    assert "b.bt knows free and occupied only" in capsys.readouterr().out
