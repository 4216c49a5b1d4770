# SPDX-License-Identifier: Apache-2.0
"""``perception evaluate`` over small bags that the test makes."""

import json
import os
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from perception.cli.main import main
from perception.costmap import read_costmap
from perception.errors import InputError
from perception.evaluation.run_folder import FRAME_COLUMNS, find_runs, load_run, read_rows
from perception.evaluation.run_key import fingerprint
from perception.labels import LabelSet
from perception.mapping import SemanticOcTree
from perception.pipeline import PerceptionPipeline
from perception.simulation.boxes import synthetic_room_frames
from perception.simulation.voxels import VoxelMap
from perception.sources.bag_writer import BagWriter, write_bag
from perception.types import LabelImage


class HalfBlind:
    """Sees floor everywhere, surely."""

    name, device, label_set = "half_blind", "cpu", LabelSet.load("ade20k32")

    def __call__(self, rgb):
        return LabelImage.certain(np.full(rgb.shape[:2], 4, np.int32), self.label_set, 0.75)

    def warm_up(self):
        return None


def build(device="cpu"):
    return HalfBlind()


MODEL = ("--model", f"{__name__}:build")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "room"
    frames = list(synthetic_room_frames(6, 160, 120))
    write_bag(path, frames)
    # What six frames with true labels make of the room stands in for its true voxels.
    output = tmp_path_factory.mktemp("truth")
    assert main(["evaluate", str(path), "--labels", "truth", "--output", str(output)]) == 0
    tree = SemanticOcTree.read(output / "map.ot")
    leaves = tree.leaves()
    occupied = np.flatnonzero((leaves.log_odds >= 0) & (leaves.sizes < 0.06))
    keys = np.floor(leaves.centers[occupied] / 0.05).astype(np.int32)
    VoxelMap(keys, leaves.labels[occupied], 0.05, frames[0].labels.label_set).save(path / "ground_truth_voxels.npz")
    return path


@pytest.fixture(scope="module")
def run(bag, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    assert main(["evaluate", str(bag), *MODEL, "--output", str(output), "--held-out", "3", "--worst", "2"]) == 0
    return load_run(output)


def test_run_folder_holds_everything(run):
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "summary.json", "frames.csv", "path.csv", "confusion.csv", "config.yaml", "map.ot", "map.bt", "map_truth.npz",
        "costmap.yaml", "costmap.pgm", "costmap_truth.yaml", "costmap_truth.pgm", "costmap_path.png", "octree_top.png",
        "octree_angle.png", "worst",
    }  # fmt: skip
    assert run.summary["not_scored"] == []
    assert len(run.frames) == 6 and list(run.frames[0]) == list(FRAME_COLUMNS)
    assert len(read_rows(run.path / "path.csv")) == 6


def test_scores_of_a_network_that_says_floor_everywhere_are_those_of_the_share_of_floor(run, bag):
    frames = list(synthetic_room_frames(6, 160, 120))
    labels = np.stack([frame.labels.labels for frame in frames])
    share = float((labels == 4).sum() / (labels >= 0).sum())
    segmentation = run.summary["segmentation"]
    assert segmentation["pixels"] == int((labels >= 0).sum())
    assert segmentation["pixel_accuracy"] == pytest.approx(share)
    classes = len(np.unique(labels[labels >= 0]))
    assert segmentation["mean_accuracy"] == pytest.approx(1 / classes)
    assert segmentation["mean_iou"] == pytest.approx(share / classes)
    assert segmentation["frequency_weighted_iou"] == pytest.approx(share * share)
    assert segmentation["expected_calibration_error"] == pytest.approx(abs(0.75 - share), abs=1e-6)
    by_frame = [float((image == 4).sum() / (image >= 0).sum()) for image in labels]
    assert [row["pixel_accuracy"] for row in run.frames] == pytest.approx(by_frame, rel=1e-5)
    worst = run.summary["worst"]
    assert [entry["frame"] for entry in worst] == np.argsort(by_frame, kind="stable")[:2].tolist()
    assert [entry["score"] for entry in worst] == pytest.approx(sorted(by_frame)[:2])


def test_every_frame_says_how_right_the_finished_map_is_on_its_pixels(run):
    # A network that says one thing everywhere is as right fused as not, but for voxels that lost a label.
    fused, single = ([row[f"{which}_accuracy"] for row in run.frames] for which in ("fused", "single"))
    assert fused == pytest.approx(single, abs=0.02) and min(fused) > 0.05
    assert all(0 < row["fused_mean_iou"] < row["fused_accuracy"] for row in run.frames)
    assert min(fused) <= run.scalar("fusion.fused.pixel_accuracy") <= max(fused)


def test_map_and_costmap_equal_to_the_truth_are_scored_full_and_labels_are_not(run):
    assert run.scalar("map.occupancy.precision") == run.scalar("map.occupancy.recall") == 1.0
    assert run.scalar("map.occupancy.coverage") == 1.0
    floor = next(entry for entry in run.summary["map"]["semantic"]["classes"] if entry["name"] == "floor")
    assert floor["accuracy"] == 1.0 and run.summary["map"]["semantic"]["mean_iou"] < 0.5
    costmap = run.summary["costmap"]
    assert costmap["false_free_rate"] == 0.0 and costmap["cells"] > 50
    grid, truth = read_costmap(run.path / "costmap.yaml"), read_costmap(run.path / "costmap_truth.yaml")
    assert grid.resolution == truth.resolution == 0.05
    assert run.summary["held_out"]["scans"] == 2 and run.summary["held_out"]["accuracy"] > 0.9


def test_pictures_of_worst_frames_are_the_frame_its_truth_and_its_labels(run):
    entry = run.summary["worst"][0]
    frame = list(synthetic_room_frames(6, 160, 120))[entry["frame"]]
    images = {
        name: cv2.imread(str(run.path / entry[name]))[..., ::-1] for name in ("color", "truth", "labels", "error")
    }
    assert np.array_equal(images["color"], frame.color)
    label_set = LabelSet.load("ade20k32")
    assert np.array_equal(images["truth"], label_set.colorize(frame.labels.labels))
    assert (images["labels"] == label_set["floor"].color).all()


def test_timing_memory_and_identity_are_recorded(run):
    timing = run.summary["timing"]
    assert {"read", "prepare", "segment", "cloud", "insert", "costmap", "frame"} == timing["stages"].keys()
    assert {"p50_ms", "p95_ms", "p99_ms"} <= timing["stages"]["insert"].keys()
    assert timing["real_time_factor"] == pytest.approx(
        run.summary["source"]["recording_seconds"] / timing["processing_seconds"]
    )
    assert run.summary["memory"]["peak_process_mb"] > run.frames[-1]["map_mb"] > 0
    assert len(run.summary["key"]) == 64 and run.summary["network"] == MODEL[1]


def test_true_labels_in_the_map_are_scored_after_fusion_only(bag, tmp_path):
    assert main(["evaluate", str(bag), "--labels", "truth", "--held-out", "0", "--output", str(tmp_path)]) == 0
    run = load_run(tmp_path)
    assert run.summary["segmentation"] is None and run.frames[0]["pixel_accuracy"] is None
    assert "segmentation: the map was given the true labels" in run.summary["not_scored"]
    assert run.scalar("fusion.single.mean_iou") == 1.0 and 0.8 < run.scalar("fusion.fused.mean_iou") <= 1.0
    assert run.scalar("map.semantic.mean_iou") == 1.0 and run.scalar("costmap.agreement") == 1.0
    assert not (tmp_path / "confusion.csv").exists()


def test_recording_without_truth_is_scored_as_far_as_it_goes(tmp_path, capsys):
    frames = (replace(frame, labels=None) for frame in synthetic_room_frames(5, 80, 60))
    write_bag(tmp_path / "bare", frames)
    assert main(["evaluate", str(tmp_path / "bare"), *MODEL, "--output", str(tmp_path / "out"), "--worst", "2"]) == 0
    summary = load_run(tmp_path / "out").summary
    assert summary["segmentation"] is summary["map"] is summary["costmap"] is None
    assert [sentence.split(":")[0] for sentence in summary["not_scored"]] == ["segmentation", "map", "costmap"]
    assert summary["held_out"]["scans"] == 1 and len(summary["worst"]) == 2
    assert "not scored: segmentation: the recording has no true labels" in capsys.readouterr().out


def renamed(frames, names):
    for frame in frames:
        classes = tuple(
            replace(label, name=names.get(label.name, label.name)) for label in frame.labels.label_set.classes
        )
        yield replace(frame, labels=replace(frame.labels, label_set=LabelSet("mine", classes)))


def test_truth_of_other_classes_is_reported_and_mapped_by_a_file(tmp_path, capsys):
    write_bag(tmp_path / "room", renamed(synthetic_room_frames(5, 80, 60), {"floor": "ground", "wall": "plaster"}))
    command = ["evaluate", str(tmp_path / "room"), *MODEL, "--held-out", "0"]
    assert main([*command, "--output", str(tmp_path / "a")]) == 0
    summary = load_run(tmp_path / "a").summary
    assert {"ground", "plaster"} <= set(summary["truth"]["unmapped_truth"])
    assert "floor" in summary["truth"]["unmapped_network"]
    assert summary["segmentation"]["pixel_accuracy"] == 0.0
    true = np.concatenate([frame.labels.labels.ravel() for frame in synthetic_room_frames(5, 80, 60)])
    plaster = float((true == LabelSet.load("ade20k32")["wall"].id).mean())
    assert summary["truth"]["unmapped_shares"]["plaster"] == pytest.approx(plaster)
    printed = capsys.readouterr().out
    assert f"plaster {plaster:.1%}" in printed and "classes of the map that the truth lacks" in printed
    (tmp_path / "classes.yaml").write_text("truth: {ground: floor, plaster: wall}\n")
    assert main([*command, "--class-map", str(tmp_path / "classes.yaml"), "--output", str(tmp_path / "b")]) == 0
    summary = load_run(tmp_path / "b").summary
    assert summary["truth"]["unmapped_truth"] == [] and summary["segmentation"]["pixel_accuracy"] > 0.1
    assert summary["truth"]["class_map"]["ground"] == "floor"


def test_truth_without_a_common_class_is_said(tmp_path):
    names = {label.name: f"my {label.name}" for label in LabelSet.load("ade20k32").classes}
    write_bag(tmp_path / "room", renamed(synthetic_room_frames(2, 80, 60), names))
    assert main(["evaluate", str(tmp_path / "room"), *MODEL, "--output", str(tmp_path / "out")]) == 0
    summary = load_run(tmp_path / "out").summary
    assert summary["segmentation"] is None
    assert any("--class-map" in sentence for sentence in summary["not_scored"])


def test_several_sources_get_a_folder_each_and_a_bad_one_costs_only_itself(bag, tmp_path, capsys):
    output = tmp_path / "out"
    command = ["evaluate", str(bag), str(tmp_path / "absent"), str(bag), "--labels", "none", "--output", str(output)]
    assert main([*command, "--held-out", "0"]) == 1
    assert [path.name for path in find_runs(output)] == ["00_room", "02_room"]
    listed = json.loads((output / "evaluation.json").read_text())
    assert "no such file" in listed["failed"][str(tmp_path / "absent")]
    assert listed["means"]["voxels.occupied"] > 0
    assert "absent" in capsys.readouterr().err


def test_a_folder_of_recordings_is_evaluated_one_by_one(bag, tmp_path):
    folder = tmp_path / "day"
    folder.mkdir()
    (folder / "notes.txt").write_text("rain")
    for name in ("b", "a"):
        (folder / name).symlink_to(bag)
    command = ["evaluate", str(folder), "--labels", "none", "--held-out", "0", "--no-report"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    assert [path.name for path in find_runs(tmp_path / "out")] == ["00_room", "01_room"]


def test_an_earlier_run_of_the_recording_is_replaced_as_a_whole(bag, tmp_path):
    output, bare = tmp_path / "out", tmp_path / "room"
    shutil.copytree(bag, bare)
    assert main(["evaluate", str(bare), *MODEL, "--held-out", "0", "--worst", "1", "--output", str(output)]) == 0
    left = [output / name for name in ("confusion.csv", "map_truth.npz", "costmap_truth.yaml", "worst/000_truth.png")]
    (output / "mine.txt").write_text("kept")
    assert all(path.exists() for path in left)
    shutil.rmtree(bare)
    write_bag(bare, (replace(frame, labels=None) for frame in synthetic_room_frames(2, 80, 60)))
    command = ["evaluate", str(bare), "--output", str(output)]
    assert main([*command, "--model", "no_such_network"]) == 1
    assert load_run(output).summary["source"]["frames"] == 6
    assert main([*command, "--labels", "none", "--no-report"]) == 0
    assert load_run(output).summary["source"]["frames"] == 2
    assert not any(path.exists() for path in [*left, output / "report.html", output / "report_scalars.csv"])
    assert (output / "mine.txt").read_text() == "kept"


def test_results_of_something_else_are_not_written_over(bag, tmp_path, capsys):
    output = tmp_path / "out"
    options = ["--labels", "none", "--held-out", "0", "--no-report", "--output", str(output)]
    assert main(["evaluate", str(bag), *options]) == 0
    other = tmp_path / "other"
    write_bag(other, synthetic_room_frames(2, 80, 60))
    assert main(["evaluate", str(other), *options]) == 1
    assert "it holds one of 'room'" in capsys.readouterr().err
    assert main(["evaluate", str(bag), str(other), *options]) == 1
    assert "it holds an evaluation of one recording" in capsys.readouterr().err
    assert load_run(output).name == "room" and not (output / "evaluation.json").exists()
    same_name = tmp_path / "tuesday" / "room"
    write_bag(same_name, synthetic_room_frames(2, 80, 60))
    assert main(["evaluate", str(same_name), *options]) == 1
    assert load_run(output).summary["source"]["frames"] == 6


@pytest.mark.parametrize("place", [".", "results", "results/today"])
def test_results_do_not_go_into_a_recording(place, bag, tmp_path, capsys):
    room, link = tmp_path / "room", tmp_path / "link"
    shutil.copytree(bag, room)
    link.symlink_to(room)
    before = fingerprint(room)
    options = ["--labels", "none", "--held-out", "0", "--no-report", "--output", str(link / place)]
    for sources in ([room], [bag, room]):
        assert main(["evaluate", *map(str, sources), *options]) == 1
        assert "expected a folder for the results outside of the recording" in capsys.readouterr().err
    assert fingerprint(room) == before and not (room / "results").exists()


def test_files_in_a_folder_that_is_no_evaluation_outlive_an_attempt(bag, tmp_path, capsys):
    names = ("costmap_params.yaml", "costmap.pgm", "report_2024.csv", "map.ot", "config.yaml")
    for name in names:
        (tmp_path / name).write_text(name)
    assert main(["evaluate", str(bag), "--labels", "none", "--output", str(tmp_path)]) == 1
    assert main(["evaluate", str(bag), str(bag), "--labels", "none", "--output", str(tmp_path)]) == 1
    assert "expected a new or empty folder" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: name for name in names}


def test_a_run_that_did_not_finish_can_be_tried_again(bag, tmp_path, monkeypatch):
    options = ["--labels", "none", "--held-out", "0", "--no-report", "--output", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr("perception.evaluate._Evaluation._summary", None)
        with pytest.raises(TypeError):
            main(["--debug", "evaluate", str(bag), *options])
    assert (tmp_path / "map.ot").exists() and not (tmp_path / "summary.json").exists()
    assert main(["evaluate", str(bag), *options]) == 0
    assert load_run(tmp_path).name == "room" and not (tmp_path / "begun.json").exists()


def test_whatever_is_said_of_a_lost_frame_costs_only_that_frame(bag, tmp_path, monkeypatch):
    process = PerceptionPipeline.process

    def lose_the_third(pipeline, frame):
        if frame.stamp_ns == third:
            raise InputError("no pose:\r\n" + "x" * 200_000)
        return process(pipeline, frame)

    third = [frame.stamp_ns for frame in synthetic_room_frames(6, 160, 120)][2]
    monkeypatch.setattr(PerceptionPipeline, "process", lose_the_third)
    assert main(["evaluate", str(bag), *MODEL, "--held-out", "0", "--no-report", "--output", str(tmp_path)]) == 0
    run = load_run(tmp_path)
    assert run.summary["source"]["frames"] == 5
    lost = run.frames[2]["dropped"]
    assert lost.startswith("no pose: xxx") and len(lost) == 1000
    assert run.frames[3]["fused_accuracy"] is not None


def test_peak_of_memory_is_the_recordings_own(bag, tmp_path):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not count the peak anew")
    hog = np.ones(40_000_000)
    before = hog.nbytes / 2**20
    command = ["evaluate", str(bag), "--labels", "none", "--held-out", "0", "--no-report"]
    assert main([*command, "--output", str(tmp_path / "a")]) == 0
    del hog
    assert main([*command, "--output", str(tmp_path / "b")]) == 0
    first, second = (load_run(tmp_path / name).scalar("memory.peak_process_mb") for name in "ab")
    assert first - second > 0.8 * before


def test_empty_bag_is_one_line(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    write_bag(tmp_path / "empty", [])
    assert main(["evaluate", str(tmp_path / "empty"), "--output", str(tmp_path / "out")]) == 1
    assert "the bag holds no messages" in capsys.readouterr().err
    assert not (tmp_path / "out" / "summary.json").exists()


class InOrder(BagWriter):
    """Records messages as they come, whatever their stamps say."""

    count = 0

    def write_raw(self, topic, msgtype, log_ns, data):
        self.count += 1
        super().write_raw(topic, msgtype, 1_000_000_000 + self.count * 10_000_000, data)


def test_clock_that_goes_back_takes_no_time_and_is_reported(tmp_path):
    frames = list(synthetic_room_frames(6, 80, 60))
    later = [replace(frame, stamp_ns=frame.stamp_ns + 3_600_000_000_000) for frame in frames[:3]]
    with InOrder(tmp_path / "jump") as bag:
        for frame in (*later, *frames[3:]):
            bag.write_frame(frame)
    assert main(["evaluate", str(tmp_path / "jump"), "--labels", "none", "--output", str(tmp_path / "out")]) == 0
    source = load_run(tmp_path / "out").summary["source"]
    assert source["warnings"]["clock_reset"] == 1
    assert 0 < source["recording_seconds"] < 10
    assert source["frames"] + sum(source["dropped"].values()) == 6


def test_voxels_that_do_not_fit_are_said(bag, tmp_path):
    command = ["evaluate", str(bag), "--labels", "none", "--output", str(tmp_path), "--set", "octomap.resolution=0.02"]
    assert main(command) == 0
    summary = load_run(tmp_path).summary
    assert summary["map"] is None
    assert any("expected at most 0.02 m" in sentence for sentence in summary["not_scored"])


class SeesTwo:
    """Finds a box in the upper left corner, whatever the image."""

    name, device, label_set = "sees_two", "cpu", LabelSet.load("coco")

    def __call__(self, rgb):
        return np.array([[0, 0, 40, 30]], np.float32), np.array([0.9], np.float32), np.array([56])

    def warm_up(self):
        return None


def build_detector(device="cpu"):
    return SeesTwo()


def test_detector_is_scored_against_instance_images(tmp_path):
    pytest.importorskip("pycocotools")
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = list(synthetic_room_frames(2, 80, 60))
    np.savetxt(folder / "camera-intrinsics.txt", frames[0].camera.matrix)
    instances = np.full((60, 80), 65535, np.uint16)
    instances[:30, :40] = 0
    for i, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"frame-{i:06d}.color.png"), frame.color)
        cv2.imwrite(str(folder / f"frame-{i:06d}.depth.png"), np.rint(frame.depth * 1000).astype(np.uint16))
        cv2.imwrite(str(folder / f"frame-{i:06d}.instance.png"), instances)
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", frame.map_T_camera.matrix)
    (folder / "instances.json").write_text('[{"name": "a", "class": "chair"}]')
    command = ["evaluate", str(folder), "--labels", "none", "--detector", f"{__name__}:build_detector"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    run = load_run(tmp_path / "out")
    assert run.summary["detection"]["objects"] == 2
    assert run.scalar("detection.coco.AP") == pytest.approx(1.0)
    assert run.scalar("detection.voc.mAP50") == 1.0
    assert run.summary["timing"]["stages"]["detect"]["count"] == 2


def test_detector_on_a_bag_is_timed_and_its_missing_truth_is_said(bag, tmp_path):
    command = ["evaluate", str(bag), "--labels", "none", "--detector", f"{__name__}:build_detector", "--held-out", "0"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    summary = load_run(tmp_path).summary
    assert summary["detection"] is None
    assert any(
        sentence.startswith("detection: expected true objects in one topic") for sentence in summary["not_scored"]
    )
