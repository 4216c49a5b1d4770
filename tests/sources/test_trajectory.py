# SPDX-License-Identifier: Apache-2.0
"""Files of poses: exact stamps, interpolation by hand, and one sentence for each kind of damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError, TransformError
from perception.sources.trajectory import (
    read_extrinsics,
    read_matrix,
    read_redwood_log,
    read_tum,
    stamp_from_text,
    trajectory_of,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**62))
def test_stamps_keep_every_nanosecond(stamp):
    assert stamp_from_text(f"{stamp // 10**9}.{stamp % 10**9:09d}") == stamp


@pytest.mark.parametrize("text", ["", "abc", "nan", "inf", "1e30", "-1e30", "1.2.3"])
def test_what_is_no_stamp_is_refused(text):
    with pytest.raises(InputError, match="expected seconds"):
        stamp_from_text(text)


def test_tum_trajectory_is_sorted_and_the_later_of_two_equal_stamps_counts(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("# comment\n2.0 2 0 0 0 0 0 1\n\n1.0, 9, 0, 0, 0, 0, 0, 1\n1.0 1 0 0 0 0 0 1\n")
    trajectory = read_tum(path)
    assert trajectory.stamps_ns.tolist() == [10**9, 2 * 10**9]
    assert trajectory.at(1_250_000_000).translation.tolist() == [1.25, 0, 0]


@pytest.mark.parametrize(
    ("stamp", "reason"), [(-1, "extrapolation_past"), (21, "extrapolation_future"), (15, "pose_gap"), (5, None)]
)
def test_poses_are_interpolated_in_short_gaps_only_and_never_extrapolated(stamp, reason):
    values = np.array([[x, 0, 0, 0, 0, 0, 1.0] for x in (0, 8, 20)])
    trajectory = trajectory_of(np.array([0, 8, 20]), values, max_gap_s=1e-8)
    if reason is None:
        assert trajectory.at(stamp).translation[0] == stamp
        return
    with pytest.raises(TransformError) as caught:
        trajectory.at(stamp)
    assert caught.value.reason == reason


def test_a_pose_that_is_not_rigid_costs_only_the_stamps_beside_it():
    values = np.array([[0, 0, 0, 0, 0, 0, 1.0], [1, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 1]])
    trajectory = trajectory_of(np.array([0, 10, 20]), values, max_gap_s=1)
    assert trajectory.at(20).translation[0] == 2
    with pytest.raises(InputError, match="quaternion"):
        trajectory.at(15)


@pytest.mark.parametrize(
    ("reader", "text", "expected"),
    [
        (read_tum, "", "at least one pose"),
        (read_tum, "1 2 3\n", "8 numbers"),
        (read_tum, "1 0 0 0 0 0 0 x\n", "expected numbers"),
        (read_matrix, "1 2 3 4", "4x4"),
        (read_matrix, "0 " * 16, "last row"),
        (read_redwood_log, "0 0 1\n1 0 0 0\n", "5 lines per pose"),
        (read_redwood_log, "0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1\n0 0 0 1\n", "3 integers and 4x4"),
        (read_extrinsics, "", "list of transforms"),
        (read_extrinsics, "- {parent: a, child: b}", "rotation"),
        (read_extrinsics, "- {parent: a, child: b, translation: [1, 2], rotation: [0, 0, 0, 1]}", "a to b"),
        (read_extrinsics, "- {parent: a, child: b, translation: [1, 2, 3], rotation: [0, 0, 0, 0]}", "quaternion"),
        (read_extrinsics, "a: [", "not YAML"),
    ],
)
def test_damaged_files_are_refused_with_one_sentence(tmp_path, reader, text, expected):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(InputError, match=expected) as caught:
        reader(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", [read_tum, read_matrix, read_redwood_log, read_extrinsics])
def test_missing_and_binary_files_are_refused(tmp_path, reader):
    with pytest.raises(InputError, match="cannot be read"):
        reader(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError):
        reader(tmp_path / "binary")


def test_redwood_log_and_extrinsics_are_read(tmp_path):
    path = tmp_path / "trajectory.log"
    path.write_text("4 4 5\n1 0 0 7\n0 1 0 8\n0 0 1 9\n0 0 0 1\n")
    assert read_redwood_log(path)[4][:3, 3].tolist() == [7, 8, 9]
    path = tmp_path / "extrinsics.yaml"
    path.write_text("transforms:\n  - {parent: a, child: b, translation: [1, 2, 3], rotation: [0, 0, 0, 1]}\n")
    ((parent, child, transform),) = read_extrinsics(path)
    assert (parent, child, transform.translation.tolist()) == ("a", "b", [1, 2, 3])
