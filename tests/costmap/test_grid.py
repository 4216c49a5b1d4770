# SPDX-License-Identifier: Apache-2.0
"""Nav2's costs through a grid message and back."""

from __future__ import annotations

import pytest

from perception.costmap.grid import cost_from_raw, raw_costs, raw_from_cost
from perception.errors import InputError


def test_free_inscribed_and_lethal_keep_their_meaning():
    assert [raw_from_cost(cost) for cost in (0, 1, 252, 253, 254)] == [0, 1, 98, 99, 100]
    assert cost_from_raw(100) == 254 and cost_from_raw(0) == 0


def test_costs_come_back_within_one_up_to_249_and_within_four_above():
    errors = {cost: abs(cost_from_raw(raw_from_cost(cost)) - cost) for cost in range(253)}
    assert max(errors[cost] for cost in range(250)) == 1
    assert [errors[cost] for cost in (250, 251, 252)] == [2, 3, 4]


def test_the_scale_never_falls():
    table = raw_costs()
    assert (table[1:] >= table[:-1]).all() and (table[1:253] >= 1).all() and (table[:253] <= 98).all()


def test_costs_out_of_range_are_refused():
    for cost in (-1, 255):
        with pytest.raises(InputError, match="0 to 254"):
            raw_from_cost(cost)
