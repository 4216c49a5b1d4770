# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perception.errors import InputError
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.simulation.boxes import BoxRoom, synthetic_room_frames
from perception.simulation.poses import pose
from perception.simulation.primitives import box_model, quad
from perception.simulation.scene import Instance, Material, Model, Scene
from perception.simulation.voxels import VoxelMap, _lattice, voxelize

LABELS = LabelSet.load("ade20k32")
GRAY = Material()
CHAIR, TABLE = LABELS["chair"].id, LABELS["table"].id


def scene_of(*instances: Instance) -> Scene:
    return Scene("test", LABELS, instances)


def test_a_box_has_the_voxels_of_its_shell_and_none_within():
    box = Instance("box", box_model((0.4, 0.4, 0.4), GRAY), CHAIR, pose((0.25, 0.25, 0.25)).matrix)
    voxels = voxelize(scene_of(box), 0.1)
    keys = {tuple(key) for key in voxels.keys.tolist()}
    # Faces at 0.05 and 0.45 lie in voxels 0 and 4: 5³ − 3³ of them.
    assert keys == {k for k in np.ndindex(5, 5, 5) if 0 in k or 4 in k}
    assert (voxels.labels == CHAIR).all()
    assert voxels.centers.min() == pytest.approx(0.05)


def test_a_voxel_takes_the_class_with_most_area_in_it():
    large = Instance("a", Model("a", (quad((0, 0, 0.01), (0.1, 0, 0), (0, 0.1, 0), GRAY),)), TABLE)
    small = Instance("b", Model("b", (quad((0, 0, 0.05), (0.04, 0, 0), (0, 0.1, 0), GRAY),)), CHAIR)
    voxels = voxelize(scene_of(small, large), 0.1)
    assert voxels.label_at(np.array([[0.05, 0.05, 0.05]])).tolist() == [TABLE]


def test_negative_coordinates_fall_into_voxels_as_in_the_octree():
    face = Instance("f", Model("f", (quad((-0.19, -0.19, -0.05), (0.08, 0, 0), (0, 0.08, 0), GRAY),)), CHAIR)
    assert voxelize(scene_of(face), 0.1).keys.tolist() == [[-2, -2, -1]]


def test_what_moves_is_left_away_or_taken_where_it_is_at_a_time():
    mover = Instance("m", box_model((0.1, 0.1, 0.1), GRAY), CHAIR, motion=lambda t: pose((t, 0, 0)))
    rest = Instance("r", box_model((0.1, 0.1, 0.1), GRAY), TABLE, pose((0, 5, 0)).matrix)
    scene = scene_of(mover, rest)
    assert (voxelize(scene).labels == TABLE).all()
    later = voxelize(scene, 0.05, seconds=2.0)
    assert later.centers[later.labels == CHAIR].mean(0) == pytest.approx((2, 0, 0), abs=0.03)


def test_nearly_every_exact_depth_of_a_room_falls_into_a_true_voxel_of_its_class():
    room = BoxRoom.generate(2)
    voxels = voxelize(room.scene(), 0.05)
    frame = next(iter(synthetic_room_frames(1, 64, 48, 2)))
    v, u = np.indices(frame.depth.shape)
    camera, z = frame.camera, frame.depth
    points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], -1).reshape(-1, 3)
    points = frame.map_T_camera.apply(points)
    found = np.stack(
        [voxels.label_at(points + offset) for offset in (np.zeros(3), *np.eye(3) * -1e-3, *np.eye(3) * 1e-3)]
    )
    assert (found >= 0).any(0).all()
    # Where floor, wall and furniture meet in a voxel, only one of them can have it.
    assert (found == frame.labels.labels.ravel()).any(0).mean() > 0.97


def test_lattice_covers_a_triangle_evenly():
    weights = _lattice(4)
    assert len(weights) == 16 and weights.sum(1) == pytest.approx(1) and (weights > 0).all()
    assert weights.mean(0) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_maps_are_saved_and_read_back_and_broken_files_are_refused(tmp_path: Path):
    box = Instance("box", box_model((0.3, 0.3, 0.3), GRAY), CHAIR)
    voxels = voxelize(scene_of(box), 0.1)
    voxels.save(tmp_path / "v.npz")
    again = VoxelMap.load(tmp_path / "v.npz")
    assert np.array_equal(again.keys, voxels.keys) and np.array_equal(again.labels, voxels.labels)
    assert again.resolution == 0.1 and again.label_set.to_dict() == LABELS.to_dict()
    (tmp_path / "cut.npz").write_bytes((tmp_path / "v.npz").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        VoxelMap.load(tmp_path / "cut.npz")
    with pytest.raises(InputError, match="cannot be read"):
        VoxelMap.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": np.array([[0.5, 0, 0], [1, 0, 0]])}, "expected integers, got keys float64"),
        ({"keys": np.array([["a", "b", "c"]] * 2)}, "expected integers, got keys <U1"),
        ({"labels": np.array([1j, 2])}, "expected integers, .* labels complex128"),
        ({"keys": np.array([[1 << 33, 0, 0], [1, 0, 0]])}, r"within ±1048576, got 0 to 8589934592"),
        ({"keys": np.zeros((2, 3), np.int32)}, "each voxel once, got 2 keys of 1 voxels"),
        ({"keys": np.zeros((0, 3), np.int32), "labels": np.zeros(0, np.int32)}, r"got \(0, 3\)"),
        ({"labels": np.array([0, 32])}, "expected labels below 32, .* got 0 to 32"),
        ({"labels": np.array([0, -2])}, "expected labels below 32, .* got -2 to 0"),
        ({"resolution": np.inf}, "got inf"),
        ({"resolution": np.nan}, "got nan"),
        ({"resolution": 1e-300}, "got 1e-300"),
    ],
)
def test_numbers_that_no_map_can_have_are_refused(changes, message, tmp_path: Path):
    good = {"keys": np.array([[0, 0, 0], [1, 0, -1]]), "labels": np.array([-1, 31]), "resolution": 0.05}
    names = json.dumps(LABELS.to_dict())
    np.savez(tmp_path / "v.npz", label_set=names, **good)
    assert VoxelMap.load(tmp_path / "v.npz").labels.tolist() == [-1, 31]
    np.savez(tmp_path / "v.npz", label_set=names, **{**good, **changes})
    with pytest.raises(InputError, match=message):
        VoxelMap.load(tmp_path / "v.npz")


def test_impossible_resolutions_are_refused():
    box = Instance("box", box_model((0.3, 0.3, 0.3), GRAY), CHAIR, Transform.identity().matrix)
    with pytest.raises(InputError, match="positive resolution"):
        voxelize(scene_of(box), 0.0)
    far = Instance("far", box_model((1, 1, 1), GRAY), CHAIR, pose((1e6, 0, 0)).matrix)
    with pytest.raises(InputError, match="too far"):
        voxelize(scene_of(far), 0.05)
