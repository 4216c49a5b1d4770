# SPDX-License-Identifier: Apache-2.0
"""Scenes by name, and what moves in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main
from perception.errors import InputError
from perception.labels import LabelSet
from perception.simulation.drive import DriveOptions
from perception.simulation.scenarios import SceneOptions, drawing, plan, world_file
from perception.sources import open_source

ROOM = """<sdf version="1.6"><world name="w">
<model name="Floor"><link name="l"><visual name="v"><pose>0 0 -0.05 0 0 0</pose>
<geometry><box><size>6 5 0.1</size></box></geometry></visual></link></model>
<model name="Wall"><link name="l"><visual name="v"><pose>3 0 1 0 0 0</pose>
<geometry>{geometry}</geometry></visual></link></model></world></sdf>
"""
BOX = "<box><size>0.1 5 2</size></box>"
CLASSES = "classes:\n- {label: floor, models: [Floor]}\n- {label: wall, models: [Wall]}\n"
SMALL = ["--frames", "3", "--size", "64x48", "--samples", "1", "--rate", "2"]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with a world of our own: a floor and a wall."""
    folder = tmp_path / "room"
    (folder / "worlds").mkdir(parents=True)
    (folder / "worlds" / "room.sdf").write_text(ROOM.format(geometry=BOX))
    (folder / "classes.yaml").write_text(CLASSES)
    return folder


def simulate(world: Path, output: Path, *more: str) -> int:
    classes = str(world / "classes.yaml")
    return main(["simulate", str(world), "--classes", classes, *SMALL, "--output", str(output), *more])


@pytest.mark.parametrize("output", ["folder", "bag.mcap"])
def test_the_only_world_of_a_folder_is_recorded_with_the_users_classes(egl, world, tmp_path, output):
    assert simulate(world, tmp_path / output) == 0
    with open_source(tmp_path / output.removesuffix(".mcap")) as source:
        frames = list(source)
    ids = np.unique(np.concatenate([frame.labels.labels.ravel() for frame in frames]))
    label_set = LabelSet.load("ade20k32")
    assert set(ids) <= {-1, label_set["floor"].id, label_set["wall"].id} and label_set["floor"].id in ids
    heights = [frame.map_T_camera.translation[2] for frame in frames]
    assert heights == pytest.approx([1.0] * 3)


def test_a_missing_mesh_is_told_in_a_line(world, tmp_path, capsys):
    text = ROOM.format(geometry="<mesh><uri>model://sofa/sofa.dae</uri></mesh>")
    (world / "worlds" / "room.sdf").write_text(text)
    assert simulate(world, tmp_path / "out") == 1
    assert "sofa.dae" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_folder_must_hold_one_world(tmp_path):
    with pytest.raises(InputError, match=r"one SDF world in the folder, got \[\]"):
        world_file(str(tmp_path))
    for name in ("a.sdf", "b.world"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"got \['a.sdf', 'b.world'\]"):
        world_file(str(tmp_path))
    assert world_file(str(tmp_path / "a.sdf")) == tmp_path / "a.sdf"


def test_a_box_that_moves_is_seen_elsewhere_later(egl, world):
    options = SceneOptions(str(world), classes=str(world / "classes.yaml"), moving="box")
    with drawing(plan(options, DriveOptions(frames=20, rate=5, width=64, height=48, samples=1))) as drive:
        assert drive.scene.instances[-1].name == "moving box"
        motion = drive.scene.instances[-1].motion
        assert motion is not None
        assert np.linalg.norm(motion(1.0).translation - motion(0.0).translation) > 0.5
        # The camera waits where it is while the box passes.
        views = [drive.draw(drive.camera, drive.map_T_camera(0.0), seconds) for seconds in np.arange(0, 8, 0.5)]
    moving = len(drive.scene.instances) - 1
    counts = [(view.instances == moving).sum() for view in views]
    # What rests in the map is not what moves.
    assert len(set(counts)) > 1
    assert LabelSet.load("ade20k32")["other"].id not in np.unique(drive.voxels.labels)


@pytest.mark.parametrize(("scene", "moving"), [("boxes", "box"), ("room.sdf", "doors"), ("house", "cat")])
def test_what_cannot_move_in_a_scene_is_refused(scene, moving):
    with pytest.raises(InputError, match="moving: expected"):
        SceneOptions(scene, moving=moving)
