# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from perception.config import load_config
from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelClass, LabelSet
from perception.pipeline import PerceptionPipeline, registered
from perception.types import Frame, LabelImage

CLASSES = LabelSet(
    "test",
    (
        LabelClass(0, "floor", (10, 10, 10), cost=0),
        LabelClass(1, "wall", (20, 20, 20)),
        LabelClass(2, "person", (30, 30, 30), moves=True),
    ),
)
CAMERA = PinholeCamera(64, 48, 40.0, 40.0, 31.5, 23.5)
FORWARD = Transform(np.array([[0, 0, 1, 0.0], [-1, 0, 0, 0.0], [0, -1, 0, 1.0], [0, 0, 0, 1]]))
"""A camera 1 m above the origin that looks along x."""


def wall_frame(distance=2.0, label=1, stamp_ns=0, **changes):
    labels = LabelImage.certain(np.full(CAMERA.size, label), CLASSES)
    values = {
        "stamp_ns": stamp_ns,
        "color": np.zeros((*CAMERA.size, 3), np.uint8),
        "depth": np.full(CAMERA.size, distance, np.float32),
        "camera": CAMERA,
        "map_T_camera": FORWARD,
        "labels": labels,
    }
    return Frame(**{**values, **changes})


def make_pipeline(*settings):
    return PerceptionPipeline(load_config(None, ["segmentation.model=none", *settings]), None, CLASSES)


def test_wall_is_mapped_where_it_stands_with_its_label_and_free_space_before_it():
    pipeline = make_pipeline()
    pipeline.process(wall_frame())
    points = np.array([[2.02, 0.0, 1.02], [1.0, 0.0, 1.02], [3.0, 0.0, 1.02]])
    log_odds = pipeline.tree.log_odds(points)
    assert log_odds[0] == np.float32(np.log(0.7 / 0.3))
    assert log_odds[1] == np.float32(np.log(0.4 / 0.6))
    assert np.isnan(log_odds[2])
    assert pipeline.tree.label_of(points).tolist() == [1, -1, -1]


def test_moving_class_clears_its_rays_but_is_not_fused():
    pipeline = make_pipeline("cloud.moving_margin=0")
    result = pipeline.process(wall_frame(label=2))
    assert len(result.cloud) == 0
    assert len(result.cloud.moving_points) == CAMERA.width * CAMERA.height
    assert not (pipeline.tree.leaves().log_odds >= 0).any()
    assert pipeline.tree.log_odds(np.array([[1.0, 0.0, 1.02]]))[0] < 0


@pytest.mark.parametrize("depth", [0.0, np.nan, -np.inf])
def test_frame_without_a_single_valid_depth_changes_nothing(depth):
    pipeline = make_pipeline()
    pipeline.process(wall_frame())
    before = pipeline.tree.leaves()
    pipeline.process(wall_frame(depth=np.full(CAMERA.size, depth, np.float32)))
    after = pipeline.tree.leaves()
    assert np.array_equal(before.centers, after.centers)
    assert np.array_equal(before.log_odds, after.log_odds)


def test_no_return_clears_up_to_the_maximum_range():
    pipeline = make_pipeline("octomap.sensor_model.max_range=3.0")
    pipeline.process(wall_frame(depth=np.full(CAMERA.size, np.inf, np.float32)))
    log_odds = pipeline.tree.log_odds(np.array([[2.8, 0.0, 1.02], [3.2, 0.0, 1.02]]))
    assert log_odds[0] < 0
    assert np.isnan(log_odds[1])


def test_frame_with_an_unknown_label_is_refused_and_the_map_stays():
    pipeline = make_pipeline()
    pipeline.process(wall_frame())
    before = pipeline.tree.leaves().log_odds
    other = LabelSet("other", (LabelClass(9, "alien", (1, 1, 1)),))
    with pytest.raises(InputError, match="9"):
        pipeline.process(wall_frame(labels=LabelImage.certain(np.full(CAMERA.size, 9), other)))
    assert np.array_equal(before, pipeline.tree.leaves().log_odds)


def test_network_labels_frames_that_bring_none():
    class Toy:
        name, device, label_set = "toy", "cpu", CLASSES

        def __call__(self, rgb):
            return LabelImage.certain(np.ones(rgb.shape[:2], np.int32), CLASSES)

        def warm_up(self):
            pass

    pipeline = PerceptionPipeline(load_config(None), Toy())
    result = pipeline.process(replace(wall_frame(), labels=None))
    assert result.labels is not None
    assert (result.cloud.labels == 1).all()


def test_depth_of_another_camera_is_moved_into_the_color_image():
    camera = PinholeCamera(64, 48, 40.0, 40.0, 31.5, 23.5)
    shifted = Transform.from_translation_quaternion((0.1, 0.0, 0.0), (0, 0, 0, 1))
    depth = np.full(camera.size, 2.0, np.float32)
    depth[:, 32:] = 4.0
    frame = registered(wall_frame(depth=depth, depth_camera=camera, camera_T_depth=shifted))
    assert frame.depth_camera is None
    # A shift of 0.1 m moves pixels at 2 m by 40 · 0.1 / 2 = 2 columns to the right.
    assert frame.depth[24, 33] == pytest.approx(2.0)
    assert frame.depth[24, 36] == pytest.approx(4.0)


def test_costmap_shows_the_floor_free_and_the_wall_lethal():
    pipeline = make_pipeline("octomap.sensor_model.max_range=5.0", "cloud.edge_threshold=0")
    v = np.arange(CAMERA.height)[:, None] - CAMERA.cy
    floor = np.where(v > 0, CAMERA.fy / np.maximum(v, 1e-3), np.inf)
    depth = np.broadcast_to(np.minimum(floor, 2.5), CAMERA.size).astype(np.float32)
    labels = LabelImage.certain(np.where(depth < 2.49, 0, 1), CLASSES)
    for _ in range(3):
        pipeline.process(wall_frame(depth=np.ascontiguousarray(depth), labels=labels))
    grid = pipeline.costmap()

    def cost(x, y):
        column, row = int((x - grid.origin[0]) / grid.resolution), int((y - grid.origin[1]) / grid.resolution)
        return grid.data[row, column]

    assert cost(2.17, 0.02) == 0
    assert cost(2.52, 0.02) == 100


def test_class_costs_are_overridden_by_name():
    pipeline = make_pipeline("costs={floor: 77}")
    assert pipeline.label_set is not None
    assert pipeline.label_set["floor"].cost == 77
    with pytest.raises(InputError, match="no class 'lava'"):
        make_pipeline("costs={lava: 1}")
