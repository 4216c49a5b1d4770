# SPDX-License-Identifier: Apache-2.0
"""The sample in the package, and the demo that replays it."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest

from perception.cli.demo import SAMPLE
from perception.cli.main import main
from perception.sources import open_source


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="needs perception[onnx]")
    output = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--output", str(output)]) == 0
    return output, json.loads((output / "result.json").read_text())


def test_sample_is_small_and_brings_truth_for_every_frame():
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) <= 8_000_000
    with open_source(next(SAMPLE.glob("*.mcap"))) as source:
        frames = list(source)
        assert source.drops == {}
    assert 60 <= len(frames) <= 120
    assert all(frame.labels is not None and np.isfinite(frame.depth).any() for frame in frames)
    assert len({int(i) for frame in frames for i in np.unique(frame.labels.labels)}) >= 12


def test_odometry_of_the_sample_drifts_and_map_to_odom_undoes_it():
    truth, odometry = (np.loadtxt(SAMPLE / name)[:, 1:4] for name in ("groundtruth.txt", "odometry.txt"))
    driven = np.linalg.norm(np.diff(truth, axis=0), axis=1).sum()
    assert driven > 5
    # Odometry begins at the origin: only distances can be compared.
    assert abs(np.linalg.norm(truth[-1] - truth[0]) - np.linalg.norm(odometry[-1] - odometry[0])) > 0.02
    with open_source(next(SAMPLE.glob("*.mcap"))) as source:
        camera = np.array([frame.map_T_camera.translation for frame in source])
    # The camera sits 10 cm before the robot's middle.
    assert np.linalg.norm(camera[:, :2] - truth[:, :2], axis=1) == pytest.approx(np.full(len(truth), 0.1), abs=2e-3)


def test_documented_command_is_one_that_the_command_line_takes(tmp_path):
    lines = (SAMPLE / "README.md").read_text().replace("\\\n", " ").splitlines()
    command = shlex.split(next(line for line in lines if line.strip().startswith("perception simulate")))[1:]
    # Everything is parsed; the scene alone is replaced by one that takes no time.
    command[1], command[command.index("--output") + 1] = "boxes", str(tmp_path / "sample.mcap")
    command[command.index("--frames") + 1] = "1"
    del command[command.index("--rooms") : command.index("--rooms") + 2]
    assert main(command) == 0


def test_demo_maps_every_frame_and_says_how_right_it_is(demo):
    output, result = demo
    truth = result["truth"]
    assert result["dropped"] == {} and result["frames"] == len(truth["by_frame"]) == len(
        truth["readback"]["agreement_by_frame"]
    )
    assert truth["pixel_accuracy"] > 0.5
    assert {"octree_top.png", "octree_angle.png", "costmap_path.png"} <= {path.name for path in output.glob("*.png")}


def test_fused_map_is_more_accurate_than_single_frames(demo):
    truth = demo[1]["truth"]
    assert truth["readback"]["agreement"] > truth["single_frames"]["agreement"]
    assert truth["readback"]["mean_iou"] > truth["single_frames"]["mean_iou"]
