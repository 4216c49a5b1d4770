# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from perception.errors import InputError
from perception.simulation.boxes import synthetic_room_frames
from perception.sources import SourceOptions, open_source
from perception.sources.bag_writer import write_bag
from perception.sources.base import UP_ROTATIONS


@pytest.mark.parametrize(("up", "axis"), [("+x", 0), ("-x", 0), ("+y", 1), ("-y", 1), ("-z", 2)])
def test_named_axis_becomes_z_by_a_proper_rotation(up, axis):
    rotation = np.array(UP_ROTATIONS[up], float)
    vector = np.zeros(3)
    vector[axis] = 1.0 if up[0] == "+" else -1.0
    assert (rotation @ vector).tolist() == [0, 0, 1]
    assert np.linalg.det(rotation) == 1


def test_poses_are_turned_only_when_asked(tmp_path):
    frame = next(iter(synthetic_room_frames(1, 40, 30)))
    write_bag(tmp_path / "bag", [frame, replace(frame, stamp_ns=frame.stamp_ns + 10**8)])
    plain = next(iter(open_source(tmp_path / "bag"))).map_T_camera.translation
    turned = next(iter(open_source(tmp_path / "bag", SourceOptions(up="+y")))).map_T_camera.translation
    assert turned == pytest.approx([plain[0], -plain[2], plain[1]])


def test_unknown_axis_is_refused():
    with pytest.raises(InputError, match=r"up: expected one of .*got 'y'"):
        SourceOptions(up="y")
