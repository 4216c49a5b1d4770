# SPDX-License-Identifier: Apache-2.0
"""Intervals of means of frames that resemble each other."""

from __future__ import annotations

import numpy as np
import pytest

from perception.evaluation.bootstrap import block_bootstrap_interval


def test_interval_of_equal_differences_is_that_difference():
    assert block_bootstrap_interval([np.full(50, 0.25), np.full(31, 0.25)]) == pytest.approx((0.25, 0.25))


def test_interval_of_independent_differences_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(1.0, 2.0, 1000)
    low, high = block_bootstrap_interval([values]) or (0.0, 0.0)
    half = 1.96 * values.std() / np.sqrt(1000)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_interval_is_wider_where_neighbors_resemble_each_other():
    values = np.random.default_rng(0).normal(0.0, 1.0, 125)
    slow, shuffled = np.repeat(values, 8), np.random.default_rng(1).permutation(np.repeat(values, 8))
    widths = [high - low for low, high in (block_bootstrap_interval([one]) or (0, 0) for one in (slow, shuffled))]
    assert widths[0] > 1.8 * widths[1]


def test_few_frames_give_no_interval():
    assert block_bootstrap_interval([np.ones(7)]) is None
    assert block_bootstrap_interval([]) is None
