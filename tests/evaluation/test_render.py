# SPDX-License-Identifier: Apache-2.0
import numpy as np

from perception.evaluation.render import BACKGROUND, TOP_VIEW, View, render_voxels

RED, BLUE = (200, 0, 0), (0, 0, 200)


def render(centers, colors, view, size=1.0):
    centers = np.asarray(centers, np.float64)
    return render_voxels(centers, np.full(len(centers), size), np.asarray(colors, np.uint8), view)


def test_from_above_the_higher_voxel_hides_the_lower_one():
    image, _ = render([(0, 0, 0), (0, 0, 5)], [RED, BLUE], TOP_VIEW)
    assert tuple(image[450, 600]) == BLUE


def test_from_above_x_points_right_and_y_up():
    image, scale = render([(0, 0, 0), (10, 0, 0), (0, 5, 0)], [RED, BLUE, (0, 200, 0)], View(-90, 90, 400, 400))
    rows, columns = np.nonzero((image == BLUE).all(axis=2))
    assert columns.mean() > 300
    rows_up, _ = np.nonzero((image == (0, 200, 0)).all(axis=2))
    assert rows_up.mean() < rows.mean()
    assert abs(scale - 0.94 * 400 / 11) < 1e-9


def test_one_voxel_covers_the_area_of_its_size():
    image, scale = render([(0, 0, 0), (9, 9, 0)], [RED, RED], View(-90, 90, 500, 500))
    drawn = (image != BACKGROUND).any(axis=2).sum()
    assert abs(drawn / (2 * scale**2) - 1) < 0.1


def test_a_plane_of_voxels_has_no_holes():
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(30), [0], indexing="ij"), -1).reshape(-1, 3)
    image, _ = render(grid, np.tile(np.uint8(RED), (900, 1)), View(-60, 40, 300, 300))
    assert not (image[140:160, 140:160] == BACKGROUND).all(axis=2).any()


def test_a_plane_of_voxels_has_no_holes_from_straight_above():
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(30), [0], indexing="ij"), -1).reshape(-1, 3)
    for width in (300, 611, 1200):
        image, _ = render(grid, np.tile(np.uint8(RED), (900, 1)), View(-90, 90, width, width))
        middle = slice(width // 5, -width // 5)
        assert not (image[middle, middle] == BACKGROUND).all(axis=2).any()


def test_nothing_to_draw_gives_an_empty_picture():
    image, _ = render(np.empty((0, 3)), np.empty((0, 3)), View())
    assert (image == BACKGROUND).all()


def test_the_top_of_a_wall_is_in_the_picture_though_few_voxels_are_so_high():
    floor = np.array([(x, y, 0.0) for x in range(100) for y in range(100)])
    post = np.array([(0.0, 99.0, z) for z in range(1, 9)])
    colors = [RED] * len(floor) + [BLUE] * len(post)
    image, _ = render(np.concatenate([floor, post]), colors, View(-45, 5, 400, 30))
    rows, _ = np.nonzero((image[..., 2] > 100) & (image[..., 0] < 50))
    assert rows.min() > 0
    assert (image[0] == BACKGROUND).all()


def test_a_voxel_far_away_does_not_shrink_the_rest_to_a_dot():
    centers = np.array([(x, y, 0.0) for x in range(40) for y in range(40)] + [(4000.0, 0.0, 0.0)])
    _, scale = render(centers, [RED] * len(centers), View(-90, 90, 400, 400))
    assert scale > 400 / 40 / 1.5
