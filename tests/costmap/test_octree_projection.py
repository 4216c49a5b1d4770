# SPDX-License-Identifier: Apache-2.0
"""The projection of a real octree that changes in every way it can."""

from __future__ import annotations

import numpy as np
import pytest

from perception.cloud import label_cloud
from perception.costmap import CostmapProjector, GridGeometry, cost_from_raw
from perception.labels import LabelClass, LabelSet
from perception.mapping import SemanticOcTree, SensorModel

HOUSE = LabelSet(
    "house",
    (
        LabelClass(0, "floor", (1, 1, 1), cost=0),
        LabelClass(1, "rug", (2, 2, 2), cost=10),
        LabelClass(2, "wall", (3, 3, 3)),
        LabelClass(3, "curtain", (4, 4, 4), cost=100, traversable=True, decay_s=2.0),
    ),
)


def random_scan(rng, tree) -> None:
    """Patches of floor, walls and curtains around a sensor that wanders."""
    parts, labels = [], []
    origin = np.append(rng.uniform(-1, 1, 2), 1.0)
    for _ in range(6):
        low, size = rng.uniform(-3, 2, 2), rng.uniform(0.2, 1.5, 2)
        label = int(rng.integers(0, 4))
        points = rng.uniform(0, 1, (400, 3)) * (*size, 0.03) + (*low, 0.0)
        if label >= 2:
            points = rng.uniform(0, 1, (400, 3)) * (size[0], 0.03, 1.2) + (*low, 0.0)
        parts.append(points)
        labels.append(np.full(400, label))
    points, ids = np.concatenate(parts), np.concatenate(labels)
    # Some are wrong, so that best classes change.
    wrong = rng.random(len(ids)) < 0.2
    ids[wrong] = rng.integers(-1, 4, int(wrong.sum()))
    clear = rng.uniform(-3, 3, (200, 3)) * (1, 1, 0.3)
    tree.insert_cloud(points, origin, ids, rng.uniform(0.3, 0.9, len(ids)), clear)


@pytest.mark.parametrize("geometry", [None, GridGeometry(0.05, 60, 50, (-1.5, -1.0))])
def test_increments_equal_a_full_rebuild_on_the_octree(geometry):
    rng = np.random.default_rng(0)
    tree = SemanticOcTree(0.05, SensorModel(max_range=4.0), HOUSE.num_classes, HOUSE.decay_s, max_memory=1 << 26)
    projector = CostmapProjector(tree, HOUSE, geometry=geometry)
    seen = set()
    for step in range(12):
        if step % 4 == 3:
            tree.decay(1.5)
            tree.clear_box(rng.uniform(-2, 0, 3), rng.uniform(0, 1, 3))
        else:
            random_scan(rng, tree)
        update = projector.update()
        whole = CostmapProjector(tree, HOUSE, geometry=update_geometry(update)).rebuild()
        assert np.array_equal(update.grid.data, whole.grid.data)
        seen |= set(np.unique(update.grid.data).tolist())
    assert {-1, 0, 100} < seen


def update_geometry(update) -> GridGeometry:
    """The same cells for another projector, whose own window may be smaller."""
    height, width = update.grid.data.shape
    return GridGeometry(update.grid.resolution, width, height, update.grid.origin)


def test_a_reset_makes_everything_unknown():
    tree = SemanticOcTree(0.05, SensorModel(max_range=4.0), HOUSE.num_classes, max_memory=1 << 26)
    projector = CostmapProjector(tree, HOUSE)
    random_scan(np.random.default_rng(0), tree)
    assert (projector.update().grid.data >= 0).any()
    tree.reset()
    assert (projector.update().grid.data == -1).all()


def test_a_room_seen_from_inside_has_free_floor_and_lethal_furniture():
    from perception.simulation.boxes import BoxRoom, default_camera, synthetic_room_frames

    room, camera = BoxRoom.generate(0), default_camera(160, 120)
    tree = SemanticOcTree(0.05, SensorModel(max_range=5.0), room.label_set.num_classes, max_memory=1 << 27)
    projector = CostmapProjector(tree, room.label_set)
    for frame in list(synthetic_room_frames(150, 160, 120))[::5]:
        cloud = label_cloud(frame.depth, camera, frame.labels, no_return_range=5.0)
        points = frame.map_T_camera.apply(cloud.points)
        tree.insert_cloud(points, frame.map_T_camera.translation, cloud.labels, cloud.confidence)
    grid = projector.update().grid
    rows, columns = np.nonzero(grid.data >= 0)
    x = grid.origin[0] + (columns + 0.5) * grid.resolution
    y = grid.origin[1] + (rows + 0.5) * grid.resolution
    values = grid.data[rows, columns]
    inside = np.zeros(len(x), bool)
    near = (x < 0.1) | (y < 0.1) | (x > room.size[0] - 0.1) | (y > room.size[1] - 0.1)
    for box in room.boxes:
        inside |= (abs(x - (box.lower[0] + box.upper[0]) / 2) < (box.upper[0] - box.lower[0]) / 2 - 0.05) & (
            abs(y - (box.lower[1] + box.upper[1]) / 2) < (box.upper[1] - box.lower[1]) / 2 - 0.05
        )
        near |= (abs(x - (box.lower[0] + box.upper[0]) / 2) < (box.upper[0] - box.lower[0]) / 2 + 0.1) & (
            abs(y - (box.lower[1] + box.upper[1]) / 2) < (box.upper[1] - box.lower[1]) / 2 + 0.1
        )
    assert inside.sum() > 300 and (values[inside] == 100).all()
    floor = cost_from_raw(int(np.median(values[~near])))
    assert (~near).sum() > 2000 and floor == room.label_set["floor"].cost
    assert (values[~near] == 100).mean() < 0.001
