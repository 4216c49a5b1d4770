# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from perception.errors import InputError
from perception.labels import LabelSet
from perception.simulation.boxes import default_camera
from perception.simulation.class_map import ClassMap
from perception.simulation.poses import camera_pose, rotation_rpy
from perception.simulation.renderer import Renderer
from perception.simulation.sdf import load_world

LABELS = LabelSet.load("ade20k32")
OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf 1//1 2//1 3//1\n"
WORLD = """<sdf version='1.6'><world name='w'>
  <include><uri>model://chair</uri><pose>1 2 3 0 0 1.5707963267948966</pose></include>
  <model name='cabinet'><pose>0 0 1 0 0 0</pose><link name='l'><pose>0 0 1 0 0 0</pose>
    <visual name='v'><pose>0 0 1 0 0 0</pose><geometry><box><size>2 4 6</size></box></geometry></visual></link></model>
  <light name='sun' type='directional'/>
  <light name='lamp' type='point'><pose>0 0 2 0 0 0</pose><diffuse>1 0.5 0.25 1</diffuse></light>
</world></sdf>"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "chair"
    folder.mkdir(parents=True)
    (folder / "triangle.obj").write_text(OBJ)
    (folder / "model.sdf").write_text(
        "<sdf version='1.6'><model name='x'><link name='l'><visual name='v'><geometry><mesh>"
        "<uri>model://chair/triangle.obj</uri><scale>2 2 2</scale></mesh></geometry></visual></link></model></sdf>"
    )
    path = tmp_path / "room.world"
    path.write_text(WORLD)
    return path


def class_map(**changes: object) -> ClassMap:
    classes = [{"label": "chair", "models": ["chair"]}, {"label": "cabinet", "models": ["cab*"]}]
    return ClassMap.from_dict({"classes": classes, **changes})


def test_poses_of_model_link_and_visual_add_up_and_names_give_classes(world: Path):
    pytest.importorskip("trimesh")
    scene = load_world(world, class_map())
    labels = {instance.name: LABELS.name_of(instance.label) for instance in scene.instances}
    assert labels == {"cabinet#1": "cabinet", "chair#1": "chair"}
    cabinet, chair = scene.instances
    # 1 + 1 + 1 m up, a box of 2 × 4 × 6 m around that.
    assert np.array_equal(cabinet.triangles().reshape(-1, 3).min(0), (-1, -2, 0))
    assert np.array_equal(cabinet.triangles().reshape(-1, 3).max(0), (1, 2, 6))
    # Scaled by 2, turned left by a quarter (x to y, y to −x), moved to (1, 2, 3).
    corners = {tuple(np.round(corner, 5).tolist()) for corner in chair.triangles()[0]}
    assert corners == {(1.0, 2.0, 3.0), (1.0, 4.0, 3.0), (-1.0, 2.0, 3.0)}
    assert len(scene.lights) == 1 and scene.lights[0].color == (1.0, 0.5, 0.25)


def test_fixed_axis_rotation_is_that_of_ros():
    # 90° about x, then about y, then about z, by hand: x → −z → −z; y → z → x → y; z → −y → −y → x.
    quarter = np.pi / 2
    expected = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    assert rotation_rpy(quarter, quarter, quarter) == pytest.approx(expected, abs=1e-12)


def test_a_missing_model_is_an_error_unless_the_class_map_says_it_may_be(world: Path, caplog):
    pytest.importorskip("trimesh")
    world.write_text(WORLD.replace("<light name='sun'", "<include><uri>model://ghost</uri></include><light name='sun'"))
    with pytest.raises(InputError, match=r"model://ghost.*not found"):
        load_world(world, class_map())
    scene = load_world(world, class_map(absent=["gho*"]))
    assert len(scene.instances) == 2 and "ghost" in caplog.text


def test_a_missing_mesh_is_an_error_that_names_it(world: Path):
    (world.parent / "models" / "chair" / "triangle.obj").unlink()
    with pytest.raises(InputError, match=r"triangle\.obj.*no such file"):
        load_world(world, class_map())


def test_a_model_that_includes_itself_ends_in_an_error(world: Path):
    text = "<sdf version='1.6'><model name='x'><include><uri>model://chair</uri></include></model></sdf>"
    (world.parent / "models" / "chair" / "model.sdf").write_text(text)
    with pytest.raises(InputError, match="includes within each other"):
        load_world(world, class_map())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<sdf><world>", "cannot be read as SDF"),
        ("<urdf/>", "expected an SDF file with a <world>"),
        ("<sdf><world name='w'/></sdf>", "at least one thing"),
        (WORLD.replace("1 2 3 0 0 1.5707963267948966", "1 2 x 0 0 0"), "expected 6 numbers"),
        (WORLD.replace("1 2 3 0 0 1.5707963267948966", "1 2 nan 0 0 0"), "expected 6 finite numbers"),
    ],
)
def test_bad_worlds_are_refused(world: Path, text: str, message: str):
    world.write_text(text)
    with pytest.raises(InputError, match=message):
        load_world(world, class_map())


def test_class_maps_with_unknown_keys_or_classes_are_refused():
    with pytest.raises(InputError, match="unknown keys"):
        class_map(colour=1)
    with pytest.raises(InputError, match="no class 'spaceship'"):
        ClassMap.from_dict({"classes": [{"label": "spaceship", "models": ["*"]}]})
    with pytest.raises(InputError, match="cannot be read"):
        ClassMap.load("no_such_map")


def test_small_house_is_complete_and_shows_its_rooms(small_house: Path, egl: None, caplog):
    scene = load_world(small_house, ClassMap.load("aws_small_house"))
    counts = Counter(LABELS.name_of(instance.label) for instance in scene.instances)
    assert counts["windowpane"] == 9 and counts["chair"] == 8 and counts["floor"] == 1 and counts["rug"] == 2
    assert scene.bounds[1] - scene.bounds[0] == pytest.approx((19.0, 11.4, 3.0), abs=0.01)
    with Renderer(scene, 1) as renderer:
        view = renderer.render(default_camera(160, 120), camera_pose((4.2, 2.2, 1.2), 3.0, 0.15))
    seen = {LABELS.name_of(int(i)) for i in np.unique(view.labels)}
    assert {"wall", "floor"} <= seen and len(seen) >= 6
    # A textured floor is not one flat color.
    assert view.color[view.labels == LABELS["floor"].id].std(0).max() > 5
