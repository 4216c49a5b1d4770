# SPDX-License-Identifier: Apache-2.0
"""Faces of voxels: every face that can be seen is covered once, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from perception.report.mesh import DIRECTIONS, Voxels, halved, limited_faces, merged_faces


def voxels(cells: dict[tuple[int, int, int], int], size: float = 0.1) -> Voxels:
    keys = np.array(list(cells), np.int64).reshape(-1, 3)
    return Voxels(keys, np.array(list(cells.values()), np.int32), size, np.zeros(3))


def visible_faces(cells: dict[tuple[int, int, int], int]) -> set[tuple]:
    """(voxel, axis, sign, class) of all faces behind which is no voxel of the same class, one by one."""
    found = set()
    for cell, label in cells.items():
        for axis, sign in DIRECTIONS:
            beyond = tuple(value + sign * (axis == i) for i, value in enumerate(cell))
            if cells.get(beyond) != label:
                found.add((cell, axis, sign, label))
    return found


def covered_faces(faces) -> list[tuple]:
    """The same, of the rectangles; a face that two rectangles cover is listed twice."""
    found, first = [], 0
    for (axis, sign), count in zip(DIRECTIONS, faces.counts, strict=True):
        u, v = (other for other in range(3) if other != axis)
        for i in range(first, first + count):
            for du in range(faces.extents[i, 0]):
                for dv in range(faces.extents[i, 1]):
                    cell = (faces.corners[i].astype(int) + faces.low).tolist()
                    cell[u] += du
                    cell[v] += dv
                    found.append((tuple(cell), axis, sign, int(faces.labels[i])))
        first += count
    return found


def test_one_voxel_has_six_faces():
    faces = merged_faces(voxels({(3, -4, 5): 7}))
    assert faces.counts.tolist() == [1] * 6
    assert faces.labels.tolist() == [7] * 6
    assert faces.origin.tolist() == pytest.approx([0.3, -0.4, 0.5])
    assert faces.voxels == 1


def test_faces_of_a_block_of_one_class_merge_into_six_rectangles():
    faces = merged_faces(voxels({(x, y, z): 1 for x in range(4) for y in range(3) for z in range(2)}))
    assert faces.counts.tolist() == [1] * 6
    assert faces.extents.tolist() == [[3, 2], [3, 2], [4, 2], [4, 2], [4, 3], [4, 3]]


def test_classes_that_touch_keep_the_faces_between_them():
    faces = merged_faces(voxels({(0, 0, 0): 1, (1, 0, 0): 2}))
    assert len(faces) == 12


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_rectangles_cover_every_visible_face_exactly_once(share):
    rng = np.random.default_rng(0)
    grid = rng.random((7, 6, 5)) < share
    cells = {(int(x) - 3, int(y), int(z) + 100): int(rng.integers(-1, 2)) for x, y, z in np.argwhere(grid)}
    covered = covered_faces(merged_faces(voxels(cells)))
    assert len(covered) == len(set(covered))
    assert set(covered) == visible_faces(cells)


def test_no_voxels_have_no_faces():
    faces = merged_faces(voxels({}))
    assert len(faces) == 0
    assert faces.counts.tolist() == [0] * 6


def test_halved_voxels_take_the_class_of_most():
    cells = {(0, 0, 0): 3, (1, 0, 0): 2, (0, 1, 0): 2, (-1, 0, 0): -1, (-2, 0, 0): 5, (4, 4, 4): 1}
    coarse = halved(voxels(cells))
    found = {tuple(key): label for key, label in zip(coarse.keys.tolist(), coarse.labels.tolist(), strict=True)}
    # Of two classes with one voxel each, the one that is a class wins.
    assert found == {(0, 0, 0): 2, (-1, 0, 0): 5, (2, 2, 2): 1}
    assert coarse.size == pytest.approx(0.2)


def test_a_bound_of_rectangles_makes_voxels_larger():
    rng = np.random.default_rng(0)
    cells = {tuple(cell): 0 for cell in rng.integers(0, 40, (3000, 3)).tolist()}
    faces = limited_faces(voxels(cells), 1500)
    assert len(faces) <= 1500
    assert faces.size in (0.2, 0.4, 0.8)
