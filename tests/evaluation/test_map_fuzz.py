# SPDX-License-Identifier: Apache-2.0
"""Damaged maps: a few thousand of them, and a check that the search would see a failure."""

from __future__ import annotations

import numpy as np
import pytest

from perception.evaluation import map_fuzz
from perception.evaluation.map_fuzz import fuzz, random_leaves
from perception.mapping import octomap_io
from perception.mapping.octomap_stream import prune_leaves


def test_damaged_maps_end_in_a_map_or_an_input_error():
    result = fuzz(4000, seed=0)
    assert result["failures"] == []
    assert result["accepted"] + result["refused"] == result["mutations"] == 4000
    assert result["accepted"] > 100
    places = {"map header", "map data", "tree data", "label section", "after the tree data", "label index"}
    assert places <= set(result["refusals"])
    assert result["growth"] <= map_fuzz.MAX_GROWTH and result["peak_memory_mb"] < 50


def test_the_same_seed_gives_the_same_damage():
    first, second = fuzz(200, seed=3), fuzz(200, seed=3)
    assert first["refusals"] == second["refusals"] and first["accepted"] == second["accepted"]
    assert fuzz(200, seed=4)["refusals"] != first["refusals"]


def test_an_error_that_is_no_input_error_is_a_failure(monkeypatch):
    def parse(data: bytes) -> octomap_io.MapFile:
        if len(data) < 100:
            raise KeyError("res")
        return octomap_io.parse_map(data)

    monkeypatch.setattr(map_fuzz, "parse_map", parse)
    failures = fuzz(300, seed=0)["failures"]
    assert failures and all("KeyError: 'res'" in failure for failure in failures)


def test_a_map_that_changes_when_written_again_is_a_failure(monkeypatch):
    monkeypatch.setattr(map_fuzz, "_survives", lambda parsed: False)
    assert any("changed when written again" in failure for failure in fuzz(100, seed=0)["failures"])


@pytest.mark.parametrize("colored", [False, True])
def test_random_trees_have_leaves_of_many_depths_and_some_that_merge(colored):
    trees = [random_leaves(np.random.default_rng(seed), colored) for seed in range(30)]
    assert {16, 15, 14, 13} < {depth for tree in trees for depth in tree.depths.tolist()}
    merged = [len(tree.depths) - len(prune_leaves(*tree[:3])[0]) for tree in trees]
    assert sum(count > 0 for count in merged) > 10
    assert all((tree.colors is not None) == colored for tree in trees)
