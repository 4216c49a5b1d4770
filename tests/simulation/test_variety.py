# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from perception.errors import InputError
from perception.simulation.doors import folding_leaves, glazed_leaf
from perception.simulation.floorplan import generate_plan
from perception.simulation.furniture import FurnitureCatalog
from perception.simulation.houses import generate_house
from perception.simulation.primitives import box_model
from perception.simulation.scene import Material, Model
from perception.simulation.variety import VARIETIES, happens, repainted, variety_named


def test_what_cannot_happen_takes_no_random_number():
    rng = np.random.default_rng(0)
    assert not happens(rng, 0.0)
    assert rng.random() == np.random.default_rng(0).random()
    assert happens(rng, 1.0)


def test_unknown_variety_is_refused():
    with pytest.raises(InputError, match=r"usual.*wide.*got 'odd'"):
        variety_named("odd")


@pytest.mark.parametrize("seed", range(10))
def test_wide_plans_keep_every_room_reachable_and_openings_in_their_walls(seed: int):
    plan = generate_plan(np.random.default_rng(seed), variety=VARIETIES["wide"])
    reached, before = {0}, set()
    while reached != before:
        before = set(reached)
        for opening in plan.openings:
            sides = plan.walls[opening.wall].sides
            if opening.kind in ("door", "passage") and set(sides) & reached:
                reached |= set(sides)
    assert reached == set(range(len(plan.rooms)))
    for opening in plan.openings:
        wall = plan.walls[opening.wall]
        assert wall.start < opening.start < opening.end < wall.end and opening.bottom < opening.top < plan.height


def test_glazed_leaf_fills_its_size_and_folded_leaves_stay_within_the_opening():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        lower, upper = Model("leaf", glazed_leaf(0.8, 2.0, rng)).bounds
        assert lower == pytest.approx((0, -0.04, 0), abs=1e-6) and upper == pytest.approx((0.8, 0, 2.0), abs=1e-6)
        lower, upper = Model("row", tuple(folding_leaves(1.0, 3.4, 2.1, rng))).bounds
        assert lower[0] > 0.95 and upper[0] < 3.45 and lower[2] >= 0 and upper[2] <= 2.1
        assert max(-lower[1], upper[1]) < 1.0


def test_repainting_keeps_glass_and_shape():
    wood, glass = Material((0.5, 0.3, 0.2, 1.0)), Material((0.8, 0.9, 1.0, 0.3))
    parts = (*box_model((1, 1, 1), wood).parts, *box_model((1, 1, 1), glass).parts)
    model = Model("m", parts)
    again = repainted(model, np.random.default_rng(3), pale=False)
    assert all(old.vertices is new.vertices for old, new in zip(model.parts, again.parts, strict=True))
    assert all(part.material is glass for part in again.parts[6:])
    assert any(part.material is not wood for part in again.parts[:6])


def test_a_house_without_variety_is_the_same_as_ever_and_a_wide_one_differs(catalog: FurnitureCatalog):
    usual, wide = (generate_house(4, catalog, 3, variety=variety) for variety in ("usual", "wide"))
    assert usual.scene.name == "house_4" and wide.scene.name == "wide_house_4"
    assert usual.scene.background == (0.7, 0.8, 0.9)
    assert len(wide.plan.rooms) == 3 and wide.scene.bounds[1, 2] <= wide.plan.height + 1e-6
