# SPDX-License-Identifier: Apache-2.0
"""A depth image inserted as it is gives the map that its cloud gives, in every bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.cloud import depth_scan, lift
from perception.config import CloudConfig
from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelClass, LabelSet
from perception.mapping import SemanticOcTree, SensorModel, collection, insertion, threads
from perception.types import DepthScan, LabelImage

CLASSES = LabelSet(
    "rooms",
    (
        LabelClass(0, "floor", (9, 9, 9)),
        LabelClass(1, "chair", (90, 9, 9)),
        LabelClass(2, "person", (9, 90, 9), moves=True),
        LabelClass(3, "wall", (9, 9, 90)),
    ),
)
POSE = Transform.from_translation_quaternion((0.4, -0.3, 1.1), (0.5, -0.5, 0.5, -0.5))


def make_scan(
    seed: int, size: tuple[int, int], config: CloudConfig, with_labels: bool, farthest: float = 6.0, least: float = 0.3
) -> DepthScan:
    """Slanted surfaces with steps, holes, no-returns and impossible values, and labels in blocks."""
    rng, (height, width) = np.random.default_rng(seed), size
    depth = np.add.outer(np.linspace(0.4, farthest, height), np.linspace(0, 1.0, width)).astype(np.float32)
    depth[:, width // 3 :] *= 0.6
    for value, share in ((0.0, 0.05), (np.inf, 0.05), (np.nan, 0.02), (-1.0, 0.02), (-np.inf, 0.01)):
        depth[rng.random(size) < share] = value
    labels = None
    if with_labels:
        ids = np.kron(rng.integers(-1, 4, (height // 4 + 1, width // 4 + 1)), np.ones((4, 4), int))[:height, :width]
        labels = LabelImage(ids.astype(np.int32), rng.random(size, np.float32), CLASSES)
    camera = PinholeCamera(width, height, width * 0.8, width * 0.8, width / 2 - 0.5, height / 2 - 0.5)
    return depth_scan(depth, camera, labels, config, min_confidence=least, no_return_range=4.0)


def both(scan: DepthScan, pose: Transform, **options) -> tuple[SemanticOcTree, SemanticOcTree]:
    """The map of the image and that of its cloud, after two scans each; their reports are equal."""
    image, cloud = SemanticOcTree(**options), SemanticOcTree(**options)
    for shift in (0.0, 0.21):
        moved = replace(pose, matrix=pose.matrix + shift * np.eye(4, k=3))
        points = lift(scan)
        known = bool(options.get("num_classes"))
        report = cloud.insert_cloud(
            moved.apply(points.points),
            moved.translation,
            points.labels if known else None,
            points.confidence if known else None,
            moved.apply(points.clear_points),
        )
        assert asdict(image.insert_depth(scan, moved)) == asdict(report)
    return image, cloud


def assert_same(image: SemanticOcTree, cloud: SemanticOcTree) -> None:
    assert image.octomap_data(binary=False) == cloud.octomap_data(binary=False)
    mine, other = image.leaves(), cloud.leaves()
    assert len(mine.log_odds) > 20
    np.testing.assert_array_equal(mine.labels, other.labels)
    if image.num_classes:
        for probabilities in zip(image.top_labels(mine.centers, 4), cloud.top_labels(mine.centers, 4), strict=True):
            np.testing.assert_array_equal(*probabilities)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([(24, 32), (1, 7), (17, 1), (5, 1300), (3, 2)]),
    stride=st.integers(1, 5),
    max_range=st.sampled_from([0.0, 2.0, 3.5]),
    min_range=st.sampled_from([0.0, 0.7]),
    with_labels=st.booleans(),
    edges=st.sampled_from([0, 1, 2]),
    clear_zero=st.booleans(),
)
def test_image_gives_the_map_of_its_cloud(seed, size, stride, max_range, min_range, with_labels, edges, clear_zero):
    config = CloudConfig(
        stride=stride, max_range=max_range, min_range=min_range, edge_radius=edges, clear_zero=clear_zero
    )
    scan = make_scan(seed, size, config, with_labels)
    options = {"num_classes": 4} if with_labels else {}
    image, cloud = both(scan, POSE, resolution=0.1, sensor_model=SensorModel(max_range=3.0), **options)
    assert image.octomap_data(binary=False) == cloud.octomap_data(binary=False)
    mine, other = image.leaves(), cloud.leaves()
    np.testing.assert_array_equal(mine.labels, other.labels)


def test_large_labeled_image_with_things_that_move_gives_the_map_of_its_cloud():
    scan = make_scan(0, (240, 320), CloudConfig(moving_margin=2), with_labels=True)
    assert scan.moving.any() and scan.unsure.any()
    image, cloud = both(scan, POSE, resolution=0.05, sensor_model=SensorModel(max_range=5.0), num_classes=4)
    assert_same(image, cloud)


def test_scan_that_is_done_in_parts_gives_the_map_of_its_cloud(monkeypatch):
    from perception.mapping import insertion

    monkeypatch.setattr(insertion, "MAX_CELLS", 1 << 15)
    scan = make_scan(1, (60, 80), CloudConfig(), with_labels=True)
    image, cloud = both(scan, POSE, resolution=0.1, sensor_model=SensorModel(max_range=5.0), num_classes=4)
    assert_same(image, cloud)


def test_points_outside_of_the_map_and_beyond_all_numbers_are_dropped_and_counted():
    scan = make_scan(2, (24, 32), CloudConfig(), with_labels=False)
    depth = scan.depth.copy()
    depth[3, :5], depth[4, :7] = 1e6, 3e38
    scan = replace(scan, depth=depth, ray_x=scan.ray_x * np.float32(50))
    report = SemanticOcTree(0.1).insert_depth(scan, POSE)
    assert report.dropped_not_finite > 0 and report.dropped_out_of_map > 0
    assert_same(*both(scan, POSE, resolution=0.1))


@pytest.mark.parametrize("stage", range(5))
def test_scan_interrupted_between_stages_leaves_nothing_in_the_next_one(monkeypatch, stage):
    scan, there = make_scan(0, (24, 32), CloudConfig(), False), replace(POSE, matrix=POSE.matrix + 3 * np.eye(4, k=3))
    tree, fresh = (SemanticOcTree(0.1) for _ in range(2))
    calls = []

    def interrupted(*arguments):
        calls.append(len(calls))
        if calls[-1] == stage:
            raise KeyboardInterrupt
        return threads.run_both(*arguments)

    with monkeypatch.context() as patch:
        for module in (collection, insertion):
            patch.setattr(module, "run_both", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tree.insert_depth(scan, POSE)
    assert tree.insert_depth(scan, there) == fresh.insert_depth(scan, there)
    assert_same(tree, fresh)


def test_scans_collected_ahead_while_others_are_inserted_give_the_same_map():
    model = {"resolution": 0.1, "sensor_model": SensorModel(max_range=5.0), "num_classes": 4}
    scans = [make_scan(seed, (60, 80), CloudConfig(moving_margin=1), with_labels=True) for seed in range(4)] * 5
    poses = [replace(POSE, matrix=POSE.matrix + 0.05 * i * np.eye(4, k=3)) for i in range(len(scans))]
    ahead, plain = SemanticOcTree(**model), SemanticOcTree(**model)
    with ThreadPoolExecutor(1) as collecting, ThreadPoolExecutor(1) as inserting:
        collected = [collecting.submit(ahead.collect_depth, *pair, True) for pair in zip(scans, poses, strict=True)]
        reports = [inserting.submit(lambda one=one: ahead.insert_collected(one.result())) for one in collected]
        assert [one.result() for one in reports] == [
            plain.insert_depth(*pair) for pair in zip(scans, poses, strict=True)
        ]
    assert_same(ahead, plain)


def test_collected_scan_is_taken_once_and_by_its_own_map():
    scan = make_scan(0, (24, 32), CloudConfig(), with_labels=False)
    tree, other = SemanticOcTree(0.1), SemanticOcTree(0.1)
    collected = tree.collect_depth(scan, POSE)
    with pytest.raises(InputError, match="another map's"):
        other.insert_collected(collected)
    assert other.known_voxels() == 0
    tree.insert_collected(collected)
    known = tree.known_voxels()
    with pytest.raises(InputError, match="in the map already"):
        tree.insert_collected(collected)
    assert tree.known_voxels() == known > 0


def test_pose_in_fortran_order_gives_the_same_map():
    scan, matrix = make_scan(0, (24, 32), CloudConfig(), False), np.eye(4)
    matrix[:3] = [(0, 0, 1, 0.5), (-1, 0, 0, 0.2), (0, -1, 0, 1.0)]
    plain, fortran = (SemanticOcTree(0.1) for _ in range(2))
    plain.insert_depth(scan, Transform(matrix))
    fortran.insert_depth(scan, Transform(np.asfortranarray(matrix)))
    assert_same(plain, fortran)


def test_labels_for_a_map_without_classes_and_a_camera_outside_are_refused_and_the_map_stays():
    scan = make_scan(3, (24, 32), CloudConfig(), with_labels=True)
    tree = SemanticOcTree(0.1)
    with pytest.raises(InputError, match="num_classes > 0"):
        tree.insert_depth(scan, POSE)
    plain = make_scan(3, (24, 32), CloudConfig(), with_labels=False)
    with pytest.raises(InputError, match="sensor_origin"):
        tree.insert_depth(plain, Transform.from_translation_quaternion((1e6, 0, 0), (0, 0, 0, 1)))
    assert tree.known_voxels() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": np.ones((3, 4))}, "depth: expected"),
        ({"ray_x": np.ones(5, np.float32)}, "ray_x: expected"),
        ({"labels": np.ones((3, 4), np.int32)}, "confidence: expected"),
        ({"moving": np.ones((3, 5), np.uint8)}, "moving: expected"),
        ({"unsure": np.ones((4, 3), np.uint8)}, "unsure: expected"),
        ({"moving": np.zeros(0, np.uint8)}, "moving: expected"),
        ({"labels": np.zeros((0, 0), np.int64)}, "labels: expected"),
        ({"stride": 0}, "stride: expected a whole number, 1"),
        ({"stride": 1.5}, "stride: expected a whole number, 1"),
    ],
)
def test_scan_that_contradicts_itself_is_refused(change, words):
    good = {"depth": np.ones((3, 4), np.float32), "ray_x": np.ones(4, np.float32), "ray_y": np.ones(3, np.float32)}
    with pytest.raises(InputError, match=words):
        DepthScan(**{**good, **change})
