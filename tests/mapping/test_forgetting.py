# SPDX-License-Identifier: Apache-2.0
"""A map that keeps only what is near, and files that say what they are of."""

from __future__ import annotations

import numpy as np

from perception.labels import LabelSet
from perception.mapping import SemanticOcTree


def test_only_bricks_that_touch_the_square_stay_and_the_rest_is_reported_as_changed():
    tree = SemanticOcTree(0.1, num_classes=1)
    points = np.array([(x + 0.05, 0.05, z) for x in range(-6, 7) for z in (0.05, 3.05)], np.float32)
    tree.insert_cloud(points, (0.05, 0.05, 1.0), np.zeros(len(points), np.int32))
    _, cursor = tree.changed_columns(None)
    assert tree.keep_within((1.0, 0.0), 2.0) > 0
    values = tree.log_odds(points)
    # Bricks are 0.8 m wide: from -1 to 3 all stay, and with them what shares a brick.
    inside = (points[:, 0] >= -1.0) & (points[:, 0] <= 3.0)
    assert (values[inside] > 0).all()
    assert np.isnan(values[(points[:, 0] < -1.0 - 0.8) | (points[:, 0] > 3.0 + 0.8)]).all()
    assert (tree.label_of(points)[np.isnan(values)] == -1).all()
    tiles, _ = tree.changed_columns(cursor)
    assert tiles is not None and len(tiles)
    assert tree.keep_within((1.0, 0.0), 2.0) == 0


def test_forgetting_everything_leaves_a_map_that_maps_on():
    tree = SemanticOcTree(0.1)
    tree.insert_cloud(np.array([(1.0, 0.0, 0.0)], np.float32), (0, 0, 0))
    tree.keep_within((100.0, 100.0), 1.0)
    assert tree.known_voxels() == 0
    tree.insert_cloud(np.array([(1.0, 0.0, 0.0)], np.float32), (0, 0, 0))
    assert tree.log_odds(np.array([(1.0, 0.0, 0.0)]))[0] > 0


def test_file_tells_the_frame_and_the_whole_label_set(tmp_path):
    label_set = LabelSet.load("ade20k32")
    tree = SemanticOcTree(0.1, num_classes=label_set.num_classes)
    tree.insert_cloud(np.array([(1.0, 0.0, 0.0)], np.float32), (0, 0, 0), np.array([3]))
    tree.write(tmp_path / "map.ot", label_set, {"frame_id": "odom", "stamp_ns": 5})
    read = SemanticOcTree.read(tmp_path / "map.ot")
    assert (read.metadata["frame_id"], read.metadata["stamp_ns"]) == ("odom", 5)
    assert LabelSet.from_dict(read.metadata["label_set"]) == label_set
    assert SemanticOcTree(0.1).metadata == {}
