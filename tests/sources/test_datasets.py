# SPDX-License-Identifier: Apache-2.0
"""Folders of images: what is read from each layout, and what bad folders do."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from perception.errors import InputError
from perception.sources import SourceOptions, describe, open_source

sys.path.insert(0, str(Path(__file__).parent))
import folders


def test_seven_scenes_folder_gives_colors_depth_in_meters_poses_and_stamps(tmp_path):
    frames = list(open_source(folders.seven_scenes(tmp_path / "seq")))
    assert [frame.stamp_ns for frame in frames] == [0, 33_333_333, 66_666_667]
    second = frames[1]
    assert (second.color == (11, 100, 200)).all()
    assert (second.depth[1:] == np.float32(1.001)).all()
    assert (second.depth[0, :4] == 0).all() and np.isnan(second.depth[0, 4:]).all()
    assert (second.camera.fx, second.camera.cx, second.camera.size) == (5, 3.5, (6, 8))
    # The optical axis (z) looks along x of the map.
    assert np.allclose(second.map_T_camera.apply(np.array([[0, 0, 2.0]])), [[3, 2, 3]])


def test_jpg_colors_and_gaps_in_numbers_keep_their_stamps(tmp_path):
    folder = folders.seven_scenes(tmp_path)
    for name in ("color.png", "depth.png", "pose.txt"):
        (folder / f"frame-000001.{name}").unlink()
    (folder / "frame-000002.color.png").unlink()
    folders.write_rgb(folder / "frame-000002.color.jpg", folders.color_of(2))
    frames = list(open_source(folder))
    assert [frame.stamp_ns for frame in frames] == [0, 66_666_667]
    assert np.abs(frames[1].color.astype(int) - (12, 100, 200)).max() <= 4


def test_source_has_a_length_counts_nothing_and_can_be_read_twice(tmp_path):
    with open_source(folders.seven_scenes(tmp_path)) as source:
        assert len(source) == source.frame_count == 3
        assert len(list(source)) == len(list(source)) == 3
        assert not source.drops and not source.warnings and source.summary() == ""


def test_start_duration_and_every_choose_frames(tmp_path):
    folder = folders.seven_scenes(tmp_path, count=10)
    options = SourceOptions(start_s=0.06, duration_s=0.2, every=2)
    assert [frame.color[0, 0, 0] - 10 for frame in open_source(folder, options)] == [2, 4, 6]


def test_plain_label_files_are_ids_and_masks_are_object_or_not(tmp_path):
    source = open_source(folders.seven_scenes(tmp_path / "a", labels="segm"))
    labels = [frame.labels.labels for frame in source]
    assert source.label_set.name_of(3) == "class 3"
    assert (labels[2][2:] == 3).all() and (labels[2][:2] == 0).all()
    source = open_source(folders.seven_scenes(tmp_path / "b", labels="mask"))
    assert [label.name for label in source.label_set.classes] == ["other", "object"]
    assert all((frame.labels.labels[2:] == 1).all() for frame in source)


def test_description_beside_the_folder_gives_depth_coding_labels_and_intrinsics(tmp_path):
    folder = folders.seven_scenes(tmp_path, labels="segm")
    (folder / "dataset.yaml").write_text(
        "depth: {scale: 100, bit_rotation: 4, invalid: [0]}\n"
        "frame_rate: 10\n"
        "intrinsics: {fx: 7, fy: 7, cx: 4, cy: 3}\n"
        "labels:\n  files: segm\n  values: {1: 20}\n  unlabeled: [0]\n"
        "  label_set: {name: x, classes: [{id: 20, name: a}, {id: 2, name: b}, {id: 3, name: c}]}\n"
    )
    frames = list(open_source(folder))
    # 1001 = 0b0000001111101001, turned right by 4: 0b1001000000111110 = 36926.
    assert (frames[1].depth[1:] == np.float32(369.26)).all()
    assert frames[1].stamp_ns == 100_000_000 and frames[1].camera.fx == 7
    assert (frames[0].labels.labels[2:] == 20).all() and (frames[0].labels.labels[:2] == -1).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("depht: {scale: 1}", "depht"),
        ("depth: {scale: 0}", "depth.scale"),
        ("depth: {bit_rotation: 16}", "depth.bit_rotation"),
        ("depth: {invalid: [70000]}", "depth.invalid"),
        ("layout: scannet", "layout"),
        ("frame_rate: 0", "frame_rate"),
        ("intrinsics: {fx: 5}", "intrinsics|missing"),
        ("intrinsics: {fx: 5, fy: 5, cx: 300, cy: 2}", "principal point"),
        ("labels: {files: segm}", "label_set"),
        ("labels: {label_set: nothing_of_this_name}", "label set"),
        ("[1, 2]", "mapping"),
        ("a: [", "YAML"),
        ("camera_T_depth: [1]", "belong together"),
    ],
)
def test_wrong_description_is_an_input_error_that_names_the_key(tmp_path, text, expected):
    folder = folders.seven_scenes(tmp_path, labels="segm")
    (folder / "dataset.yaml").write_text(text)
    with pytest.raises(InputError, match=expected):
        open_source(folder)


def test_unregistered_depth_comes_with_its_own_camera(tmp_path):
    folder = folders.seven_scenes(tmp_path)
    (folder / "dataset.yaml").write_text(
        "depth: {scale: 1000}\ndepth_intrinsics: {fx: 6, fy: 6, cx: 3, cy: 2}\n"
        "camera_T_depth: [1, 0, 0, 0.05, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]\n"
    )
    frame = next(iter(open_source(folder)))
    assert frame.depth_camera.fx == 6 and frame.camera.fx == 5
    assert frame.camera_T_depth.translation.tolist() == [0.05, 0, 0]


def test_tum_pairs_by_stamp_and_interpolates_the_pose(tmp_path):
    folder = folders.tum(
        tmp_path,
        ["100.000000", "100.100000", "100.200000"],
        ["100.015000", "100.110000", "100.300000"],
        "100.0 0 0 0 0 0 0 1\n100.2 1 0 0 0 0 1 0\n",
    )
    source = open_source(folder)
    frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [100_000_000_000, 100_100_000_000]
    assert source.drops == {"no_depth": 1}
    assert (frames[1].depth == np.float32(5001 / 5000)).all()
    # Half way between no turn and half a turn about z: a quarter turn, and half of the way.
    assert np.allclose(frames[1].map_T_camera.apply(np.array([[1.0, 0, 0]])), [[0.5, 1, 0]], atol=1e-6)


def test_tum_frames_outside_of_the_trajectory_or_in_its_gaps_are_dropped(tmp_path):
    stamps = ["99.9", "100.0", "100.5", "103.0", "105.1"]
    truth = "100.0 0 0 0 0 0 0 1\n101.0 1 0 0 0 0 0 1\n105.0 1 0 0 0 0 0 1\n"
    source = open_source(folders.tum(tmp_path, stamps, stamps, truth))
    assert [frame.stamp_ns for frame in source] == [100_000_000_000, 100_500_000_000]
    assert source.drops == {"extrapolation_past": 1, "pose_gap": 1, "extrapolation_future": 1}
    assert len(list(open_source(tmp_path, SourceOptions(pose_gap_s=4.0)))) == 3


def test_poses_option_replaces_the_recorded_poses(tmp_path):
    folder = folders.seven_scenes(tmp_path / "seq")
    poses = tmp_path / "poses.tum"
    poses.write_text("-1 5 5 5 0 0 0 1\n0.05 5 5 5 0 0 0 1\n")
    source = open_source(folder, SourceOptions(poses=poses, pose_gap_s=2.0))
    assert [frame.map_T_camera.translation.tolist() for frame in source] == [[5, 5, 5]] * 2
    assert source.drops == {"extrapolation_future": 1}


def test_tum_without_intrinsics_is_refused_not_guessed(tmp_path):
    folder = folders.tum(tmp_path, ["1.0"], ["1.0"], "1.0 0 0 0 0 0 0 1\n")
    (folder / "dataset.yaml").unlink()
    with pytest.raises(InputError, match="intrinsics"):
        open_source(folder)


def test_tum_list_may_not_name_files_outside_of_the_folder(tmp_path):
    folder = folders.tum(tmp_path, ["1.0"], ["1.0"], "1.0 0 0 0 0 0 0 1\n")
    (folder / "rgb.txt").write_text("1.0 ../secret.png\n")
    with pytest.raises(InputError, match="below"):
        open_source(folder)


def test_shipped_freiburg_descriptions_load(tmp_path):
    folder = folders.tum(tmp_path, ["1.0"], ["1.0"], "1.0 0 0 0 0 0 0 1\n")
    for name, fx, distorted in (("1", 517.3, True), ("2", 520.9, True), ("3", 535.4, False)):
        source = open_source(folder, SourceOptions(config=f"tum_freiburg{name}"))
        assert source._camera.fx == fx and source._camera.is_distorted == distorted
        with pytest.raises(InputError, match="640x480"):  # The images here are 8x6.
            list(source)


def test_redwood_and_slambook_layouts_are_recognized(tmp_path):
    intrinsics = "intrinsics: {fx: 5, fy: 5, cx: 3.5, cy: 2.5}\ndepth: {scale: 1000}\n"
    for i in (2, 10):  # As text 10 comes before 2.
        folders.write_rgb(tmp_path / "color" / f"{i}.png", folders.color_of(i))
        folders.write_rgb(tmp_path / "depth" / f"{i}.pgm", folders.depth_of(i))
    (tmp_path / "dataset.yaml").write_text(intrinsics)
    (tmp_path / "pose.txt").write_text("1 2 3 0 0 0 1\n4 5 6 0 0 0 1\n")
    frames = list(open_source(tmp_path))
    assert [frame.color[0, 0, 0] for frame in frames] == [12, 20]
    assert np.allclose([frame.depth[1, 0] for frame in frames], [1.002, 1.010])
    assert frames[1].map_T_camera.translation.tolist() == [4, 5, 6]
    identity = "1 0 0 7\n0 1 0 8\n0 0 1 9\n0 0 0 1\n"
    (tmp_path / "trajectory.log").write_text(f"0 0 1\n{identity}")
    source = open_source(tmp_path)
    assert [frame.map_T_camera.translation.tolist() for frame in source] == [[7, 8, 9]]
    assert source.drops == {"no_pose": 1}


def test_describe_says_layout_size_and_length(tmp_path):
    facts = describe(folders.seven_scenes(tmp_path, labels="mask"))
    assert facts["layout"] == "7scenes" and facts["frames"] == 3
    assert (facts["width"], facts["height"]) == (8, 6)
    assert facts["labels"] == ["other", "object"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "frame-000001.depth.png").unlink(), "no_depth"),
        (lambda f: (f / "frame-000001.pose.txt").unlink(), "no_pose"),
        (lambda f: (f / "frame-000001.pose.txt").write_text("1 2 3"), "no_pose"),
        (lambda f: (f / "frame-000001.pose.txt").write_text("-inf " * 16), "no_pose"),
        (lambda f: (f / "frame-000001.color.png").write_bytes(b""), "bad_image"),
        (lambda f: (f / "frame-000001.color.png").write_bytes(b"GIF89a"), "bad_image"),
        (lambda f: _cut(f / "frame-000001.color.png"), "bad_image"),
        (lambda f: _cut(f / "frame-000001.depth.png"), "bad_image"),
        (lambda f: folders.write_rgb(f / "frame-000001.depth.png", folders.color_of(1)), "bad_image"),
        (lambda f: folders.write_rgb(f / "frame-000001.depth.png", np.ones((3, 4), np.uint16)), "wrong_size"),
        (lambda f: folders.write_rgb(f / "frame-000001.color.png", np.ones((3, 4, 3), np.uint8)), "wrong_size"),
        (lambda f: (f / "frame-000001.segm.png").unlink(), "bad_labels"),
        (lambda f: folders.write_rgb(f / "frame-000001.segm.png", np.full((6, 8), 300, np.uint16)), "bad_labels"),
    ],
)
def test_bad_files_cost_their_own_frame_only_and_are_counted(tmp_path, damage, reason):
    folder = folders.seven_scenes(tmp_path, labels="segm")
    damage(folder)
    source = open_source(folder)
    assert [frame.color[0, 0, 0] - 10 for frame in source] == [0, 2]
    assert source.drops == {reason: 1}
    assert "frame-000001" in source.summary()


def test_depth_without_a_single_valid_pixel_is_passed_on_and_reported(tmp_path):
    folder = folders.seven_scenes(tmp_path)
    folders.write_rgb(folder / "frame-000001.depth.png", np.zeros((6, 8), np.uint16))
    source = open_source(folder)
    assert len(list(source)) == 3
    assert source.warnings == {"empty_depth": 1}


def test_when_no_frame_is_left_the_reason_is_an_error(tmp_path):
    folder = folders.seven_scenes(tmp_path)
    for path in folder.glob("*.pose.txt"):
        path.unlink()
    with pytest.raises(InputError, match=r"no frame could be used.*no_pose: 3"):
        list(open_source(folder))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: p / "missing", "no such file"),
        (lambda p: p, r"expected a bag .* frame-"),
        (lambda p: _file(p / "notes.txt"), "expected a folder of images or a bag"),
        (lambda p: _without(folders.seven_scenes(p), "camera-intrinsics.txt"), "intrinsics"),
        (lambda p: _with(folders.seven_scenes(p), "camera-intrinsics.txt", "1 2 3"), "3x3"),
        (lambda p: _with(folders.seven_scenes(p), "camera-intrinsics.txt", "a b c\n" * 3), "3x3"),
    ],
)
def test_what_is_no_recording_is_refused_with_one_sentence(tmp_path, make, expected):
    with pytest.raises(InputError, match=expected) as caught:
        open_source(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_implausible_depth_asks_for_the_coding(tmp_path):
    folder = folders.seven_scenes(tmp_path)
    for path in folder.glob("*.depth.png"):
        folders.write_rgb(path, np.full((6, 8), 30_000, np.uint16))
    with pytest.raises(InputError, match=r"30\.0 m.*--source-config"):
        open_source(folder)
    (folder / "dataset.yaml").write_text("depth: {scale: 1000}")
    assert len(list(open_source(folder))) == 3


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"start_s": -1}, {"duration_s": float("nan")}, {"topics": {"x": "/x"}}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(InputError):
        SourceOptions(**options)


def test_recorded_label_fusion_reads_right_only_with_its_description(shared):
    folder = shared / "data" / "label_fusion" / "labels"
    with pytest.raises(InputError, match="label_fusion_labels"):
        open_source(folder)
    source = open_source(folder, SourceOptions(config="label_fusion_labels", every=5))
    frames = list(source)
    assert len(frames) == 3 and not source.drops
    assert {int(i) for frame in frames for i in np.unique(frame.labels.labels)} == {0, 48, 132}
    valid = frames[0].depth[frames[0].depth > 0]
    assert 0.3 < np.median(valid) < 1.0


@pytest.mark.parametrize(
    ("name", "config", "tolerance"),
    [
        ("label_fusion/labels", "label_fusion_labels", 0.02),
        ("label_fusion/masks", "label_fusion_masks", 0.02),
        ("rgbd/open3d_redwood", None, 0.01),
        ("rgbd/slambook2_ch5", None, 0.12),
    ],
)
def test_recorded_depth_agrees_between_frames_with_the_poses_given(shared, name, config, tolerance):
    source = open_source(shared / "data" / name, SourceOptions(config=config))
    frames = list(source)
    assert _reprojection_error(frames[0], frames[1]) < tolerance


def _reprojection_error(first, second) -> float:
    """Median difference in meters of the first frame's depth, seen from the second, to the second's depth."""
    v, u = np.nonzero(first.depth > 0)
    z, camera = first.depth[v, u].astype(float), first.camera
    points = np.column_stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z])
    seen = (second.map_T_camera.inverse() @ first.map_T_camera).apply(points)
    seen = seen[seen[:, 2] > 0.1]
    pixels = np.rint(second.camera.project(seen)).astype(int)
    inside = ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(1)
    depth = second.depth[pixels[inside, 1], pixels[inside, 0]]
    valid = depth > 0
    assert valid.sum() > 1000
    return float(np.median(np.abs(depth - seen[inside, 2])[valid]))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _file(path: Path) -> Path:
    path.write_text("text")
    return path


def _without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def _with(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder
