# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main
from perception.errors import InputError
from perception.simulation.boxes import BoxRoom
from perception.simulation.drive import START_NS, Drive, DriveOptions, drive_around
from perception.simulation.recording import write_bag, write_folder
from perception.simulation.sensor import DepthSensor, depth_edges
from perception.simulation.voxels import VoxelMap
from perception.sources import open_source
from perception.sources.bag_writer import BagLayout

OPTIONS = DriveOptions(frames=4, width=64, height=48, drift=0.1)


@pytest.fixture(scope="module")
def drive() -> Drive:
    return drive_around(BoxRoom.generate(0), OPTIONS)


def test_folder_reads_back_to_the_same_frames(drive: Drive, tmp_path: Path):
    assert write_folder(drive, tmp_path / "out") == 4
    with open_source(tmp_path / "out") as source:
        frames = list(source)
    for read, made in zip(frames, drive.frames(), strict=True):
        assert np.array_equal(read.color, made.frame.color)
        assert np.abs(read.depth - made.frame.depth).max() <= 0.00051
        assert np.array_equal(read.labels.labels, made.frame.labels.labels)
        assert read.labels.label_set.to_dict() == made.frame.labels.label_set.to_dict()
        assert read.map_T_camera.matrix == pytest.approx(made.frame.map_T_camera.matrix, abs=1e-7)
        assert read.camera.matrix == pytest.approx(made.frame.camera.matrix, abs=1e-6)
    assert len(VoxelMap.load(tmp_path / "out" / "ground_truth_voxels.npz").keys) == len(drive.voxels.keys)
    odometry = np.loadtxt(tmp_path / "out" / "odometry.txt")
    head = (tmp_path / "out" / "groundtruth.txt").read_text().splitlines()[0]
    assert head == "# base_link (not the camera) in map: stamp tx ty tz qx qy qz qw"
    assert odometry.shape == (4, 8) and odometry[0, 1:] == pytest.approx((0, 0, 0, 0, 0, 0, 1))


def test_bag_reads_back_with_poses_through_map_odom_base_and_camera(drive: Drive, tmp_path: Path):
    layout = BagLayout(compressed=True, color="png", depth="32FC1")
    assert write_bag(drive, tmp_path / "bag", layout) == 4
    with open_source(tmp_path / "bag") as source:
        frames = list(source)
        assert source.label_set is not None
    for read, made in zip(frames, drive.frames(), strict=True):
        assert read.stamp_ns == made.frame.stamp_ns
        assert np.array_equal(read.color, made.frame.color) and np.array_equal(read.depth, made.frame.depth)
        assert np.array_equal(read.labels.labels, made.frame.labels.labels)
        # Drift of odometry is undone by map → odom.
        assert read.map_T_camera.matrix == pytest.approx(made.frame.map_T_camera.matrix, abs=1e-6)


def test_jittered_stamps_get_the_pose_of_their_moment(tmp_path: Path):
    jittered = drive_around(BoxRoom.generate(0), replace(OPTIONS, stamp_jitter_s=0.03))
    gaps = np.diff(jittered.times())
    assert gaps.min() > 0 and np.ptp(gaps) > 0.005
    write_bag(jittered, tmp_path / "bag")
    with open_source(tmp_path / "bag") as source:
        for read, seconds in zip(source, jittered.times(), strict=True):
            assert read.stamp_ns == START_NS + round(seconds * 1e9)
            # Between transforms 20 ms apart the robot turns at most 0.018 rad.
            assert read.map_T_camera.matrix == pytest.approx(jittered.map_T_camera(seconds).matrix, abs=1e-3)


def test_same_options_give_the_same_frames_and_another_seed_others():
    noisy = replace(OPTIONS, depth=DepthSensor(noise=0.01, edge_dropout=0.5))
    first, again = (list(drive_around(BoxRoom.generate(0), noisy).frames()) for _ in range(2))
    other = list(drive_around(BoxRoom.generate(0), replace(noisy, seed=1)).frames())
    assert all(np.array_equal(a.frame.depth, b.frame.depth) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].frame.depth, other[0].frame.depth)


def test_noise_grows_with_the_square_of_depth_and_limits_give_infinities():
    depth = np.repeat(np.array([[0.2, 1.0, 4.0, 12.0]], np.float32), 20000, axis=0)
    sensor = DepthSensor(noise=0.002, min_range=0.3, max_range=10.0)
    measured = sensor.measure(depth, np.random.default_rng(0))
    assert np.isneginf(measured[:, 0]).all() and np.isposinf(measured[:, 3]).all()
    assert measured[:, 1].std() == pytest.approx(0.002, rel=0.05)
    assert measured[:, 2].std() == pytest.approx(0.032, rel=0.05)
    assert measured[:, 2].mean() == pytest.approx(4.0, abs=1e-3)
    assert np.array_equal(DepthSensor().measure(depth, np.random.default_rng(0)), depth)


def test_dropouts_fall_on_edges_only():
    depth = np.full((40, 60), 2.0, np.float32)
    depth[:, 30:] = 3.0
    edges = depth_edges(depth)
    assert np.array_equal(np.unique(np.nonzero(edges)[1]), (29, 30))
    lost = DepthSensor(edge_dropout=0.5).measure(depth, np.random.default_rng(0)) == 0
    assert not lost[~edges].any() and lost[edges].mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    "changes",
    [{"frames": 0}, {"rate": 0.0}, {"camera_height": 2.0}, {"drift": 0.9}, {"stamp_jitter_s": 0.1}],
)
def test_impossible_drives_are_refused(changes: dict):
    with pytest.raises(InputError, match="expected"):
        replace(OPTIONS, **changes)


def test_a_folder_with_something_in_it_is_left_alone(drive: Drive, tmp_path: Path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(InputError, match="new or empty"):
        write_folder(drive, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_command_records_folder_and_bag_and_names_what_is_wrong(tmp_path: Path, capsys):
    small = ["--frames", "2", "--size", "32x24"]
    assert main(["simulate", "boxes", "--output", str(tmp_path / "f"), *small]) == 0
    assert main(["simulate", "boxes", "--output", str(tmp_path / "b.mcap"), *small]) == 0
    assert (tmp_path / "b" / "b.mcap").is_file() and (tmp_path / "f" / "frame-000001.segm.png").is_file()
    capsys.readouterr()
    for arguments, message in [
        (["castle", "--output", str(tmp_path / "x")], "expected house, boxes, a file"),
        (["boxes", "--output", str(tmp_path / "f")], "new or empty"),
        (["boxes", "--output", str(tmp_path / "x"), "--size", "big"], "WIDTHxHEIGHT"),
        ([str(tmp_path / "none.world"), "--output", str(tmp_path / "x")], "cannot be read as SDF"),
    ]:
        assert main(["simulate", *arguments]) == 1
        error = capsys.readouterr().err.strip().splitlines()
        assert message in error[-1]


def test_command_records_a_house_that_replays(furniture: Path, egl: None, tmp_path: Path):
    output = tmp_path / "house.mcap"
    command = ["simulate", "house", "--rooms", "2", "--frames", "2", "--size", "64x48", "--samples", "1"]
    assert main([*command, "--moving", "box", "--output", str(output)]) == 0
    with open_source(tmp_path / "house") as source:
        frames = list(source)
    assert len(frames) == 2 and "CC" in (tmp_path / "house" / "ATTRIBUTION.txt").read_text()
    assert len(np.unique(frames[0].labels.labels)) >= 3


def test_a_full_disk_ends_in_one_line_and_no_bag_that_looks_whole(tmp_path: Path):
    # The kernel refuses to let a file grow, as a full disk does.
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from perception.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["simulate", "boxes", "--frames", "20", "--size", "160x120", "--color", "raw"]
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--output", str(tmp_path / "drive.mcap")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "File too large" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "drive" / "metadata.yaml").exists()
