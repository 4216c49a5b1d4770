# SPDX-License-Identifier: Apache-2.0
"""Recorded scans end in the same bits as OctoMap's discretised insertion."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from perception.cloud import label_cloud
from perception.mapping import SensorModel
from perception.sources import SourceOptions, open_source

spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)


@pytest.mark.parametrize(
    ("folder", "config", "resolution", "max_range", "frames"),
    [
        ("rgbd/open3d_redwood", None, 0.05, 5.0, 5),
        ("rgbd/open3d_redwood", None, 0.02, 2.5, 2),
        ("rgbd/slambook2_ch5", None, 0.05, -1.0, 5),
        ("label_fusion/labels", "label_fusion_labels", 0.01, -1.0, 6),
    ],
)
def test_recorded_frames_end_in_the_same_bits(shared, tmp_path, folder, config, resolution, max_range, frames):
    tree, judge = oracle.make_pair(resolution, SensorModel(max_range=max_range))
    with open_source(shared / "data" / folder, SourceOptions(config=config)) as source:
        for _, frame in zip(range(frames), source, strict=False):
            points = frame.map_T_camera.apply(label_cloud(frame.depth, frame.camera).points)
            oracle.insert_both(tree, judge, points, frame.map_T_camera.translation)
    assert oracle.assert_equal(tree, judge, tmp_path) > 10_000


def test_recorded_laser_scan_ends_in_the_same_bits(shared, tmp_path):
    # One scan: number of scans, number of points, then each point as its dimension and three doubles.
    data = (shared / "data" / "octomap" / "spherical_scan.graph").read_bytes()
    scans, count = np.frombuffer(data[:8], "<u4")
    points = np.frombuffer(data, [("dimension", "<u4"), ("point", "<f8", 3)], count, offset=8)
    assert scans == 1
    assert (points["dimension"] == 3).all()
    tree, judge = oracle.make_pair(0.05, SensorModel())
    oracle.insert_both(tree, judge, points["point"], [0.01, 0.01, 0.02])
    assert oracle.assert_equal(tree, judge, tmp_path) > 10_000
