# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from perception.errors import InputError
from perception.geometry import PinholeCamera
from perception.labels import LabelSet
from perception.simulation.boxes import BoxRoom, default_camera
from perception.simulation.poses import camera_pose, pose
from perception.simulation.primitives import box_model, quad
from perception.simulation.renderer import Renderer, projection
from perception.simulation.scene import Instance, Material, Model, Scene

LABELS = LabelSet.load("ade20k32")
GRAY = Material((0.5, 0.5, 0.5, 1.0))


@pytest.mark.parametrize("samples", [1, 4])
def test_depth_and_labels_equal_those_of_the_numpy_ray_caster(egl: None, samples: int):
    room, camera = BoxRoom.generate(4), default_camera(160, 120)
    positions, yaw = room.path(np.linspace(0, 8, 5))
    with Renderer(room.scene(), samples) as renderer:
        for position, heading in zip(positions, yaw, strict=True):
            map_T_camera = camera_pose((*position, 1.0), heading + 0.4, 0.2)
            view = renderer.render(camera, map_T_camera)
            _, depth, labels = room.render(camera, map_T_camera)
            same = view.labels == labels
            # A pixel on the edge of two surfaces may fall to either; with several samples it is one beside the center.
            assert same.mean() > (0.999 if samples == 1 else 0.985)
            error = np.abs(view.depth - depth)[same] / depth[same]
            assert np.median(error) < (1e-5 if samples == 1 else 5e-3)
            assert np.quantile(error, 0.99) < (1e-4 if samples == 1 else 5e-2)


def test_instances_name_the_thing_and_labels_follow_from_them(egl: None):
    red = Instance("a", box_model((1, 1, 1), GRAY), LABELS["chair"].id, pose((3, 0.8, 0)).matrix)
    green = Instance("b", box_model((1, 1, 1), GRAY), LABELS["chair"].id, pose((3, -0.8, 0)).matrix)
    camera = PinholeCamera(65, 49, 60.0, 60.0, 32.0, 24.0)
    with Renderer(Scene("two", LABELS, (red, green)), 1) as renderer:
        view = renderer.render(camera, camera_pose((0, 0, 0), 0.0))
    # The box on the left (y > 0) is on the left of the image; 0.8 / 2.5 · 60 = 19 pixels from the center.
    assert view.instances[24, 32 - 19] == 0 and view.instances[24, 32 + 19] == 1
    assert view.labels[24, 32 - 19] == view.labels[24, 32 + 19] == LABELS["chair"].id
    assert view.instances[24, 32] == -1 and view.labels[24, 32] == -1 and np.isposinf(view.depth[24, 32])
    assert view.depth[24, 32 - 19] == pytest.approx(2.5, abs=1e-5)


def test_first_row_of_the_image_is_up_and_first_column_left(egl: None):
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[..., 3] = 255
    texture[0, 0, 0] = texture[1, 1, 1] = 255  # lower left red, upper right green
    face = quad((2, 1, -1), (0, -2, 0), (0, 0, 2), Material((1, 1, 1, 1), texture, emission=1.0))
    with Renderer(Scene("sign", LABELS, (Instance("sign", Model("sign", (face,)), -1),)), 1) as renderer:
        view = renderer.render(PinholeCamera(64, 64, 64.0, 64.0, 31.5, 31.5), camera_pose((0, 0, 0), 0.0))
    assert view.color[60, 4, 0] > 120 > view.color[60, 4, 1]
    assert view.color[4, 60, 1] > 120 > view.color[4, 60, 0]
    assert view.labels[4, 4] == -1 and view.instances[4, 4] == 0


def test_glass_lets_color_through_and_keeps_its_own_depth_and_class(egl: None):
    wall = Instance(
        "wall", box_model((0.1, 4, 4), Material((1, 0, 0, 1), emission=1)), LABELS["wall"].id, pose((3, 0, 0)).matrix
    )
    glass = Material((0, 0, 1, 0.3), emission=1)
    pane = Instance("pane", box_model((0.02, 1, 1), glass), LABELS["windowpane"].id, pose((2, 0, 0)).matrix)
    camera = PinholeCamera(33, 33, 30.0, 30.0, 16.0, 16.0)
    with Renderer(Scene("glass", LABELS, (pane, wall)), 1) as renderer:
        view = renderer.render(camera, camera_pose((0, 0, 0), 0.0))
    assert view.labels[16, 16] == LABELS["windowpane"].id and view.labels[2, 2] == LABELS["wall"].id
    assert view.depth[16, 16] == pytest.approx(1.99, abs=1e-4)
    assert (
        0 < view.color[16, 16, 0] < view.color[2, 2, 0]
        and view.color[16, 16, 1] < 5
        and view.color[16, 16, 2] > view.color[2, 2, 2]
    )


def test_edges_before_the_empty_background_are_between_both_colors(egl: None):
    black = Material((0, 0, 0, 1))
    box = Instance("box", box_model((1, 1, 1), black), -1, pose((3, 0, 0), roll=0.3).matrix)
    scene = Scene("box", LABELS, (box,), background=(1.0, 0.5, 0.0))
    with Renderer(scene, 4) as renderer:
        color = renderer.render(default_camera(160, 120), camera_pose((0, 0, 0), 0.0)).color
    assert color[60, 80].tolist() == [0, 0, 0] and color[2, 2].tolist() == [255, 127, 0]
    between = color[(color[..., 0] > 0) & (color[..., 0] < 255)].astype(int)
    assert len(between) > 50 and (np.abs(between[:, 0] - 2 * between[:, 1]) <= 2).all() and (between[:, 2] == 0).all()


def test_what_moves_is_where_its_motion_says(egl: None):
    crossing = Instance(
        "person", box_model((0.4, 0.4, 2), GRAY), LABELS["person"].id, pose((3, 0, 0)).matrix, lambda t: pose((0, t, 0))
    )
    camera = PinholeCamera(65, 49, 60.0, 60.0, 32.0, 24.0)
    with Renderer(Scene("moving", LABELS, (crossing,)), 1) as renderer:
        columns = [
            np.flatnonzero(renderer.render(camera, camera_pose((0, 0, 0), 0.0), t).instances[24] == 0).mean()
            for t in (0.0, 1.0)
        ]
    assert columns[0] == pytest.approx(32, abs=0.6)
    # 1 m to the left at 2.8 m: 60 / 2.8 = 21.4 pixels; the nearer edge makes it a little more than the middle.
    assert columns[1] == pytest.approx(32 - 21.4, abs=1.5)


def test_two_renderers_give_the_same_pixels_and_do_not_disturb_each_other(egl: None):
    room, camera = BoxRoom.generate(0), default_camera(64, 48)
    view_from = camera_pose((1.3, 2.0, 1.0), 0.5)
    with Renderer(room.scene()) as first, Renderer(BoxRoom.generate(1).scene()) as other:
        one = first.render(camera, view_from)
        other.render(camera, view_from)
        again = first.render(camera, view_from)
    with Renderer(room.scene()) as third:
        fresh = third.render(camera, view_from)
    for view in (again, fresh):
        assert np.array_equal(view.color, one.color) and np.array_equal(view.depth, one.depth)
        assert np.array_equal(view.instances, one.instances)


def test_projection_puts_pixel_centers_at_whole_numbers():
    camera = PinholeCamera(100, 50, 80.0, 70.0, 49.5, 24.5)
    for u, v in ((0, 0), (99, 49), (49.5, 24.5)):
        z = 2.0
        clip = projection(camera) @ ((u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z, 1)
        assert clip[3] == z
        assert (clip[:2] / z + 1) / 2 * (100, 50) == pytest.approx((u + 0.5, v + 0.5))


def test_a_distorted_camera_is_refused(egl: None):
    camera = PinholeCamera(64, 48, 60.0, 60.0, 32.0, 24.0, "plumb_bob", (0.1, 0.0, 0.0, 0.0, 0.0))
    with (
        Renderer(BoxRoom.generate(0).scene(), 1) as renderer,
        pytest.raises(InputError, match="no distortion"),
    ):
        renderer.render(camera, camera_pose((1, 1, 1), 0.0))
