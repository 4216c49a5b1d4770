# SPDX-License-Identifier: Apache-2.0
"""Files for Nav2's map_server."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception.costmap import read_costmap, write_costmap
from perception.errors import InputError, PerceptionError
from perception.types import CostGrid

GRID = CostGrid(np.array([[0, 50, 100], [-1, 98, 99]], np.int8), 0.05, (-1.5, 2.25))


def test_raw_files_hold_the_values_with_the_highest_y_first_and_the_fields_nav2_needs(tmp_path):
    path = write_costmap(tmp_path / "map", GRID)
    assert path == tmp_path / "map.yaml"
    assert yaml.safe_load(path.read_text()) == {
        "image": "map.pgm",
        "mode": "raw",
        "resolution": 0.05,
        "origin": [-1.5, 2.25, 0.0],
        "negate": 0,
        "occupied_thresh": 0.65,
        "free_thresh": 0.196,
    }
    content = (tmp_path / "map.pgm").read_bytes()
    assert content.startswith(b"P5")
    assert list(content[-6:]) == [255, 98, 99, 0, 50, 100]


def test_whoever_runs_map_server_may_read_the_files(tmp_path):
    before = os.umask(0o077)
    try:
        path = write_costmap(tmp_path / "map", GRID)
    finally:
        os.umask(before)
    assert [file.stat().st_mode & 0o777 for file in (path, tmp_path / "map.pgm")] == [0o644, 0o644]


def test_scale_files_are_transparent_where_unknown(tmp_path):
    write_costmap(tmp_path / "map", GRID, mode="scale")
    pixels = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (2, 3, 4)
    assert pixels[0, :, 3].tolist() == [0, 255, 255]
    # White is free, black is lethal.
    assert pixels[1, :, 0].tolist() == [255, 127, 0]


def test_trinary_files_use_map_savers_three_values(tmp_path):
    grid = CostGrid(np.array([[0, 25, 26, 64, 65, 100, -1]], np.int8), 0.05, (0.0, 0.0))
    write_costmap(tmp_path / "map", grid, mode="trinary")
    pixels = cv2.imread(str(tmp_path / "map.pgm"), cv2.IMREAD_UNCHANGED)
    assert pixels.tolist() == [[254, 254, 205, 205, 0, 0, 205]]
    assert read_costmap(tmp_path / "map.yaml").data.tolist() == [[0, 0, -1, -1, 100, 100, -1]]


@settings(max_examples=40, deadline=None)
@given(
    data=arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 100)),
    mode=st.sampled_from(["raw", "scale"]),
    resolution=st.floats(0.001, 10.0),
    x=st.floats(-1e6, 1e6),
)
def test_graded_modes_come_back_exactly(tmp_path_factory, data, mode, resolution, x):
    folder = tmp_path_factory.mktemp("costmap")
    grid = CostGrid(data, resolution, (x, -x))
    again = read_costmap(write_costmap(folder / "map", grid, mode))
    assert np.array_equal(again.data, data) and again.data.dtype == np.int8
    assert (again.resolution, again.origin) == (grid.resolution, grid.origin)


def test_names_with_dots_keep_them(tmp_path):
    assert write_costmap(tmp_path / "map.v2", GRID).name == "map.v2.yaml"
    assert (tmp_path / "map.v2.pgm").exists()


def test_a_missing_mode_is_trinary_and_negate_turns_shades_around(tmp_path):
    path = write_costmap(tmp_path / "map", GRID, mode="trinary")
    info = yaml.safe_load(path.read_text())
    del info["mode"]
    info["negate"] = 1
    path.write_text(yaml.safe_dump(info))
    # 254 is now occupied and 0 free; 205 has a shade of 0.80.
    assert read_costmap(path).data.tolist() == [[100, 100, 0], [100, 0, 0]]


def test_an_old_file_stays_whole_when_writing_fails(tmp_path, monkeypatch):
    path = write_costmap(tmp_path / "map", GRID)
    before = (tmp_path / "map.pgm").read_bytes()

    def full_disk(_descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(PerceptionError, match="No space left"):
        write_costmap(tmp_path / "map", CostGrid(np.zeros((5, 5), np.int8), 0.1, (0.0, 0.0)))
    assert (tmp_path / "map.pgm").read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["map.pgm", path.name]


def test_unknown_modes_and_values_are_refused(tmp_path):
    with pytest.raises(InputError, match="mode: expected one of"):
        write_costmap(tmp_path / "map", GRID, mode="color")
    with pytest.raises(InputError, match="-1 to 100"):
        write_costmap(tmp_path / "map", CostGrid(np.full((1, 1), 101, np.int8), 0.1, (0.0, 0.0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 0}, "positive resolution"),
        ({"resolution": None}, "wrong value"),
        ({"origin": [0, 0]}, r"origin \[x, y, yaw\]"),
        ({"origin": [0, 0, 1.57]}, "yaw 0"),
        ({"mode": "other"}, "expected mode"),
        ({"free_thresh": 0.7}, "free_thresh < occupied_thresh"),
        ({"image": "none.pgm"}, "cannot be read"),
    ],
)
def test_wrong_fields_are_named(tmp_path, change, message):
    path = write_costmap(tmp_path / "map", GRID)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        read_costmap(path)


def test_missing_fields_files_and_broken_images_are_named(tmp_path):
    path = write_costmap(tmp_path / "map", GRID)
    with pytest.raises(InputError, match="cannot be read"):
        read_costmap(tmp_path / "none.yaml")
    (tmp_path / "map.pgm").write_bytes(b"P5 3 2 255 ")
    with pytest.raises(InputError, match="image"):
        read_costmap(path)
    (tmp_path / "map.pgm").write_bytes(b"")
    with pytest.raises(InputError, match="image"):
        read_costmap(path)
    path.write_text("image: map.pgm")
    with pytest.raises(InputError, match="'resolution'"):
        read_costmap(path)
    path.write_text("[1, 2]")
    with pytest.raises(InputError, match="mapping"):
        read_costmap(path)
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_costmap(path)
