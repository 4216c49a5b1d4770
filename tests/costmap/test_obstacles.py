# SPDX-License-Identifier: Apache-2.0
"""Obstacle and clearing points of a frame."""

from __future__ import annotations

import numpy as np
import pytest

from perception.cloud import label_cloud
from perception.config import CloudConfig, CostmapConfig
from perception.costmap import CostmapProjector, GroundGrid, clearing_points, obstacle_points
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelClass, LabelSet
from perception.types import LabeledCloud, LabelImage

CAMERA = PinholeCamera(64, 48, 40.0, 40.0, 31.5, 23.5)
# One meter up, looking along the map's x: right is −y, down is −z.
MAP_T_CAMERA = Transform(np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]], float))


def cloud_of(map_points, moving=()) -> LabeledCloud:
    inverse = MAP_T_CAMERA.inverse()
    points = inverse.apply(np.array(map_points, np.float32).reshape(-1, 3))
    movers = inverse.apply(np.array(moving, np.float32).reshape(-1, 3))
    count = len(points)
    return LabeledCloud(
        points,
        np.zeros((count, 3), np.uint8),
        np.full(count, -1, np.int32),
        np.zeros(count, np.float32),
        movers,
        np.arange(count, dtype=np.int32),
        0,
        "optical",
        movers,
    )


def heights(points) -> list[float]:
    return sorted(round(float(height), 3) for height in MAP_T_CAMERA.apply(points)[:, 2])


def test_points_between_step_and_robot_height_above_the_base_plane_are_obstacles():
    cloud = cloud_of([[2, 0, z] for z in (-0.5, 0.0, 0.07, 0.09, 1.4, 1.6)])
    config = CostmapConfig(step_height=0.08, robot_height=1.5)
    assert heights(obstacle_points(cloud, MAP_T_CAMERA, config)) == [0.09, 1.4]
    assert heights(obstacle_points(cloud, MAP_T_CAMERA, config, base_height=0.2)) == [1.4, 1.6]


def test_points_stay_in_the_optical_frame():
    cloud = cloud_of([[2, 0.5, 0.3]])
    np.testing.assert_allclose(obstacle_points(cloud, MAP_T_CAMERA), [[-0.5, 0.7, 2.0]], atol=1e-6)


def test_the_local_ground_of_the_map_replaces_the_plane_where_it_is_known():
    ground = GroundGrid(np.array([[0.4, np.nan]], np.float32), 1.0, (2.0, 0.0))
    cloud = cloud_of([[2.5, 0.5, 0.45], [2.5, 0.5, 0.6], [3.5, 0.5, 0.45], [9.0, 0.5, 0.02], [2.5, -3.0, 0.3]])
    assert heights(obstacle_points(cloud, MAP_T_CAMERA, ground=ground)) == [0.3, 0.45, 0.6]


def test_moving_points_are_obstacles_at_any_height():
    cloud = cloud_of([[2, 0, 0.0]], moving=[[1, 0, 0.01], [1, 0, 1.9]])
    assert heights(obstacle_points(cloud, MAP_T_CAMERA)) == [0.01, 1.9]


def test_the_floor_of_a_frame_without_labels_gives_no_obstacle_and_a_box_does():
    v, u = np.mgrid[:48, :64]
    with np.errstate(divide="ignore"):
        depth = np.where(v > 23.5, 40.0 / (v - 23.5), np.inf).astype(np.float32)
    box = (v >= 30) & (v < 44) & (u >= 20) & (u < 30)
    depth = np.where(box, np.minimum(depth, 1.5), depth).astype(np.float32)
    cloud = label_cloud(depth, CAMERA, config=CloudConfig(max_range=5.0))
    points = obstacle_points(cloud, MAP_T_CAMERA)
    assert len(points) and (points[:, 2] == 1.5).all()
    # Row 42 of the box would be 0.31 m high at 1.5 m distance, row 43 lies 0.27 m above the floor.
    assert len(points) == 10 * 14


def test_clearing_points_are_all_ends_of_rays_floor_and_free_space_included():
    depth = np.ones(CAMERA.size, np.float32)
    depth[0] = np.inf
    depth[1] = np.nan
    ids = np.zeros(CAMERA.size, np.int32)
    ids[20:30, 20:30] = 1
    classes = LabelSet("two", (LabelClass(0, "a", (1, 1, 1)), LabelClass(1, "person", (2, 2, 2), moves=True)))
    cloud = label_cloud(depth, CAMERA, LabelImage.certain(ids, classes), config=CloudConfig(max_range=4.0))
    assert len(clearing_points(cloud)) == 47 * 64
    assert len(cloud.moving_points) and len(cloud.clear_points) == 64 + len(cloud.moving_points)


def test_an_empty_cloud_gives_no_points():
    cloud = cloud_of([])
    assert obstacle_points(cloud, MAP_T_CAMERA).shape == (0, 3)
    assert clearing_points(cloud).shape == (0, 3)


def test_a_ramp_that_is_mapped_is_no_obstacle(voxel_map):
    rise = np.tan(np.radians(10))
    for x in range(-20, 80):
        for y in range(-8, 8):
            voxel_map.set(x, y, int(np.floor(max(x, 0) * rise)))
    projector = CostmapProjector(voxel_map)
    projector.update()
    ramp = cloud_of([[x, 0.0, x * rise] for x in np.linspace(1.0, 3.0, 20)])
    assert len(obstacle_points(ramp, MAP_T_CAMERA)) == 20
    assert len(obstacle_points(ramp, MAP_T_CAMERA, ground=projector.ground())) == 0
    post = cloud_of([[2.0, 0.0, 2.0 * rise + 0.3]])
    assert len(obstacle_points(post, MAP_T_CAMERA, ground=projector.ground())) == pytest.approx(1)
