# SPDX-License-Identifier: Apache-2.0
"""The label sets that ship with the package."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from perception.labels import LabelSet


@pytest.mark.parametrize(("name", "count"), [("ade20k32", 32), ("voc21", 21), ("coco", 80)])
def test_shipped_sets_have_their_classes_in_distinct_colors(name, count):
    labels = LabelSet.load(name)
    assert labels.name == name
    assert [label.id for label in labels.classes] == list(range(count))
    assert len({label.color for label in labels.classes}) == count
    assert all((label.decay_s or 0) <= 5 for label in labels.classes if label.moves)


def test_colors_of_the_default_set_can_be_told_apart():
    colors = LabelSet.load("ade20k32").colors.astype(int)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2)) > 25


def test_default_set_drives_on_floors_and_not_through_walls():
    labels = LabelSet.load("ade20k32")
    assert labels["floor"].cost == 0
    assert 0 < labels["rug"].cost < labels["grass"].cost < labels["wall"].cost == 254
    assert labels["person"].moves
    assert labels["car"].moves
    assert not labels.moves[labels["wall"].id]
    # A box mislabeled as floor must block: nothing that one drives on may be passed through.
    assert not any(labels[name].traversable for name in ("floor", "rug", "road", "sidewalk", "earth"))
    assert np.isinf(labels.decay_s[labels["wall"].id])
