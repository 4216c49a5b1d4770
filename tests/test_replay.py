# SPDX-License-Identifier: Apache-2.0
"""The command line over a bag that the test makes."""

import contextlib
import json
import os
import shutil

import numpy as np
import pytest
import yaml

from perception import image_codec
from perception.cli.main import main
from perception.config import PerceptionConfig
from perception.errors import PerceptionError
from perception.labels import LabelSet
from perception.mapping import SemanticOcTree
from perception.record import RecordOptions, record
from perception.replay import Replay
from perception.simulation.boxes import synthetic_room_frames
from perception.sources import bag_messages, bags, open_source
from perception.sources.bag_writer import BagLayout, BagWriter, write_bag

OUTPUTS = {
    "map.ot", "map.bt", "costmap.yaml", "costmap.pgm", "costmap_path.png", "octree_top.png", "octree_angle.png",
    "result.json", "config.yaml",
}  # fmt: skip


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "room"
    write_bag(path, synthetic_room_frames(6, 160, 120))
    return path


@pytest.fixture(scope="module")
def replayed(bag, tmp_path_factory):
    output = tmp_path_factory.mktemp("replayed")
    assert main(["replay", str(bag), "--labels", "truth", "--output", str(output)]) == 0
    return output


def test_replay_writes_map_costmap_pictures_and_figures(replayed):
    names = {path.name for path in replayed.iterdir()}
    assert names >= OUTPUTS
    assert any(name.startswith("labels_") for name in names)
    result = json.loads((replayed / "result.json").read_text())
    assert result["frames"] == 6
    assert result["dropped"] == {}
    assert result["voxels"]["occupied"] == sum(result["voxels"]["per_class"].values())
    assert result["truth"]["readback"]["agreement"] > 0.9
    assert {"cloud", "insert", "costmap"} <= result["stages"].keys()
    assert result["memory"]["map_mb"] > 0


def test_written_config_gives_the_same_map_again(replayed, bag, tmp_path):
    arguments = [
        "replay",
        str(bag),
        "--labels",
        "truth",
        "--config",
        str(replayed / "config.yaml"),
        "--output",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    assert (tmp_path / "map.bt").read_bytes() == (replayed / "map.bt").read_bytes()
    assert (tmp_path / "map.ot").read_bytes() == (replayed / "map.ot").read_bytes()


def test_octomap_reads_both_maps_and_they_agree(replayed):
    octomap = pytest.importorskip("octomap")
    full = octomap.ColorOcTree.read(str(replayed / "map.ot").encode())
    binary = octomap.OcTree(str(replayed / "map.bt").encode())
    tree = SemanticOcTree.read(replayed / "map.ot")
    assert full.getNumLeafNodes() == len(tree.leaves().sizes)
    leaves = tree.leaves()
    for center, log_odds in list(zip(leaves.centers, leaves.log_odds, strict=True))[::97]:
        node = binary.search(np.asarray(center, np.float64))
        assert binary.isNodeOccupied(node) == (log_odds >= 0)


def test_map_file_brings_its_labels_back(replayed):
    tree = SemanticOcTree.read(replayed / "map.ot")
    result = json.loads((replayed / "result.json").read_text())
    label_set = LabelSet.load("ade20k32")
    leaves = tree.leaves()
    volumes = np.rint((leaves.sizes / tree.resolution) ** 3).astype(int)
    floor = (leaves.log_odds >= 0) & (leaves.labels == label_set["floor"].id)
    assert volumes[floor].sum() == result["voxels"]["per_class"]["floor"]


def test_costmap_file_is_what_map_server_reads(replayed):
    info = yaml.safe_load((replayed / "costmap.yaml").read_text())
    assert info["mode"] == "raw"
    assert info["image"] == "costmap.pgm"
    assert info["resolution"] == 0.05
    assert (replayed / "costmap.pgm").read_bytes().startswith(b"P5")


@pytest.mark.parametrize("name", ["map.ot", "map.bt"])
def test_info_describes_maps(replayed, name, capsys):
    assert main(["info", str(replayed / name), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["resolution_m"] == 0.05
    assert facts["occupied_voxels"] > 0


def test_info_describes_bags(bag, capsys):
    assert main(["info", str(bag)]) == 0
    assert "sensor_msgs/msg/Image" in capsys.readouterr().out


def one_error(capsys, *arguments):
    """Run a command that must fail; returns its only line on stderr."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("\r") and "frame/s" not in line]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def test_missing_source_is_one_line(tmp_path, capsys):
    assert "no such file" in one_error(capsys, "replay", tmp_path / "absent", "--output", tmp_path / "out")


def test_map_cut_in_half_is_one_line(replayed, tmp_path, capsys):
    for name in ("map.bt", "map.ot"):
        data = (replayed / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        assert "expected" in one_error(capsys, "info", tmp_path / name)


def test_bag_without_the_topics_is_one_line(bag, tmp_path, capsys):
    message = one_error(capsys, "replay", bag, "--labels", "none", "--topic", "color=/absent", "--output", tmp_path)
    assert "/absent" in message


def test_the_recordings_own_folder_is_no_output(bag, capsys):
    before = sorted(path.name for path in bag.iterdir())
    assert "expected another folder" in one_error(capsys, "replay", bag, "--labels", "none", "--output", f"{bag}/.")
    assert sorted(path.name for path in bag.iterdir()) == before


def test_an_output_that_cannot_be_written_to_is_found_before_the_run(bag, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_bytes(b"")
    message = one_error(capsys, "replay", bag, "--labels", "none", "--output", tmp_path / "file")
    assert "file: expected a folder for the results, got a file" in message
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(Replay, "_run", None)
    message = one_error(capsys, "replay", bag, "--labels", "none", "--output", tmp_path / "folder")
    assert "expected a folder that can be written to" in message


def test_two_topics_for_one_role_are_refused(bag, tmp_path, capsys):
    topics = ["--topic", "color=/a", "--topic", "color=/b"]
    assert "expected one topic for color, got /a and /b" in one_error(
        capsys, "replay", bag, *topics, "--output", tmp_path / "out"
    )


def test_nothing_of_an_earlier_run_stays_beside_a_new_one(bag, tmp_path, monkeypatch):
    _run(bag, tmp_path, "truth")
    (tmp_path / "labels_of_mine.png").write_bytes(b"mine")
    assert (tmp_path / "labels_000000.png").exists()
    _run(bag, tmp_path, "none")
    assert [path.name for path in tmp_path.glob("labels_*")] == ["labels_of_mine.png"]

    def full(self, *_, **options):
        raise PerceptionError("disk full")

    monkeypatch.setattr(SemanticOcTree, "write_binary", full)
    with pytest.raises(PerceptionError, match="disk full"):
        _run(bag, tmp_path, "none")
    assert not (tmp_path / "result.json").exists()


def test_pictures_in_a_folder_that_is_no_replay_are_left_alone(bag, tmp_path):
    (tmp_path / "labels_000123.png").write_bytes(b"mine")
    _run(bag, tmp_path, "none")
    assert (tmp_path / "labels_000123.png").read_bytes() == b"mine"


def test_misspelt_parameter_is_one_line(bag, tmp_path, capsys):
    message = one_error(capsys, "replay", bag, "--set", "octomap.resolutoin=1", "--output", tmp_path)
    assert "octomap.resolutoin" in message


def test_truth_labels_of_a_recording_without_truth_are_refused(tmp_path, capsys):
    frames = (frame for frame in synthetic_room_frames(2, 80, 60))
    from dataclasses import replace

    write_bag(tmp_path / "bare", [replace(frame, labels=None) for frame in frames])
    message = one_error(capsys, "replay", tmp_path / "bare", "--labels", "truth", "--output", tmp_path / "out")
    assert "no ground-truth labels" in message


def test_truncated_bag_is_used_up_to_the_break_or_refused_in_one_line(bag, tmp_path, capsys):
    cut = tmp_path / "cut"
    shutil.copytree(bag, cut)
    storage = next(cut.glob("*.mcap"))
    storage.write_bytes(storage.read_bytes()[: storage.stat().st_size * 2 // 3])
    code = main(["replay", str(cut), "--labels", "none", "--output", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    if code == 0:
        assert 0 < json.loads((tmp_path / "out" / "result.json").read_text())["frames"] < 6


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="no such file"):
        main(["--debug", "info", str(tmp_path / "absent")])


@pytest.fixture(scope="module")
def jpeg_bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "jpeg"
    write_bag(path, synthetic_room_frames(4, 160, 120), BagLayout(color="jpeg"))
    return path


def _run(bag, output, labels, observe=None):
    with open_source(bag) as source:
        return Replay(source, PerceptionConfig(), output, labels).run(observe=observe)


def test_images_that_nobody_looks_at_are_not_decoded(jpeg_bag, tmp_path, monkeypatch):
    decoded = []

    def decode(format, data):
        decoded.append(format)
        return image_codec.decode_compressed_color(format, data)

    monkeypatch.setattr(bag_messages, "decode_compressed_color", decode)
    plain = _run(jpeg_bag, tmp_path / "a", "none", lambda result: None)
    assert len(decoded) == 4
    monkeypatch.setattr(bags, "labels_from", None)
    result = _run(jpeg_bag, tmp_path / "b", "none")
    assert len(decoded) == 4
    assert result["frames"] == 4 and result["voxels"] == plain["voxels"]
    assert not result["dropped"] and not result["warnings"]


@pytest.fixture(scope="module")
def bag_with_a_bad_picture(tmp_path_factory):
    """Three frames, the second one's JPEG with zeros in place of its content; its header and its end are good."""
    path = tmp_path_factory.mktemp("bags") / "bad_picture"
    with BagWriter(path, BagLayout(color="jpeg")) as bag:
        write, pictures = bag.write_compressed, []

        def damaging(topic, stamp_ns, frame_id, format, data):
            pictures.append(topic)
            if len(pictures) == 2:
                scan = data.index(b"\xff\xda") + 2
                data = data[:scan] + b"\x00\x0c" + bytes(10) + b"\xff\xd9"
            write(topic, stamp_ns, frame_id, format, data)

        bag.write_compressed = damaging
        for frame in synthetic_room_frames(3, 160, 120):
            bag.write_frame(frame)
    assert len(pictures) == 3
    return path


def test_a_damaged_color_image_costs_its_frame_wherever_it_is_looked_at(bag_with_a_bad_picture, tmp_path):
    def looked_at(result):
        assert result.frame.color.shape == (120, 160, 3)

    blind = _run(bag_with_a_bad_picture, tmp_path / "a", "none")
    assert blind["frames"] == 3 and not blind["dropped"]
    for name, labels, observe in (("b", "none", looked_at), ("c", "truth", None)):
        seen = _run(bag_with_a_bad_picture, tmp_path / name, labels, observe)
        assert seen["frames"] == 2 and seen["dropped"] == {"bad_color": 1}
        assert "damaged" in seen["details"]["bad_color"]
    with open_source(bag_with_a_bad_picture) as source:
        recorded = record(source, tmp_path / "d", options=RecordOptions(labels="none"))
    assert recorded["frames"] == 2 and recorded["dropped"] == {"bad_color": 1}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", [(True, False), (False, True)])
def test_a_replay_leaves_the_source_as_it_was(jpeg_bag, tmp_path, fails, before):
    def progress():
        if fails:
            raise KeyError("stopped")

    with open_source(jpeg_bag) as source:
        source.color_when_asked, source.with_labels = before
        with pytest.raises(KeyError) if fails else contextlib.nullcontext():
            Replay(source, PerceptionConfig(), tmp_path, "none").run(progress)
        assert (source.color_when_asked, source.with_labels) == before
