# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.errors import MissingDependencyError
from perception.simulation.boxes import default_camera
from perception.simulation.floorplan import generate_plan
from perception.simulation.furniture import LICENSES, FurnitureCatalog
from perception.simulation.houses import House, generate_house
from perception.simulation.poses import camera_pose
from perception.simulation.renderer import Renderer
from perception.simulation.scene import Instance

STRUCTURE = ("floor", "ceiling", "wall", "window", "curtain", "door")


@pytest.fixture(scope="module")
def house(catalog: FurnitureCatalog) -> House:
    return generate_house(1, catalog)


def extent(instance: Instance) -> np.ndarray:
    corners = instance.triangles().reshape(-1, 3)
    return np.array([corners.min(0), corners.max(0)])


def is_furniture(instance: Instance) -> bool:
    return not instance.name.startswith(STRUCTURE)


def test_catalog_knows_sizes_classes_and_authors(catalog: FurnitureCatalog):
    assert len(catalog.items) == 820
    labels = catalog.class_map.label_set
    by_id = {item.id: item for item in catalog}
    armchair = by_id["Blend Swap CC-0#armchair"]
    assert armchair.size == pytest.approx((0.594, 0.627, 1.05)) and labels.name_of(armchair.label) == "armchair"
    assert armchair.attribution == "Armchair (Blend Swap CC-0#armchair) by Absfrm, CC0 1.0"
    assert all(item.catalog in LICENSES for item in catalog)
    named = {(item.name, labels.name_of(item.label)) for item in catalog}
    expected = {("Bed", "bed"), ("Desk", "table"), ("Wardrobe", "cabinet"), ("Bookcase", "shelf"), ("Sofa", "sofa")}
    expected |= {("Refrigerator", "other"), ("Female", "person"), ("Cat", "other"), ("Table tennis", "other")}
    assert expected <= named


def test_model_stands_on_the_floor_in_the_size_of_the_catalog(catalog: FurnitureCatalog):
    item = next(item for item in catalog if item.id == "Blend Swap CC-0#bed1")
    lower, upper = catalog.model(item).bounds
    assert upper - lower == pytest.approx(item.size, abs=1e-4)
    assert lower == pytest.approx((-item.size[0] / 2, -item.size[1] / 2, 0), abs=1e-4)


def test_missing_furniture_names_the_package(tmp_path: Path):
    with pytest.raises(MissingDependencyError, match="sweethome3d-furniture"):
        FurnitureCatalog(tmp_path)


@pytest.mark.parametrize("seed", range(25))
def test_every_room_is_reached_through_doors_and_openings_fit_their_walls(seed: int):
    plan = generate_plan(np.random.default_rng(seed))
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
        assert wall.start < opening.start < opening.end < wall.end and 0 <= opening.bottom < opening.top < plan.height
        assert (opening.kind in ("window", "entrance")) == wall.exterior
    # The rooms tile the house.
    size = np.max([r.upper for r in plan.rooms], 0)
    assert sum(room.area for room in plan.rooms) == pytest.approx(float(np.prod(size)))


def test_furniture_stands_in_rooms_without_overlap(house: House):
    boxes = {i.name: extent(i) for i in house.scene.instances if is_furniture(i) and not i.name.startswith("rug")}
    rooms = [room.inner(house.plan.thickness) for room in house.plan.rooms]
    for name, (lower, upper) in boxes.items():
        inside = [(lower[:2] > low - 0.05).all() and (upper[:2] < high + 0.05).all() for low, high in rooms]
        assert any(inside), f"{name} is in no room"
        assert lower[2] > -0.01 and upper[2] < house.plan.height + 0.01
    names = list(boxes)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            overlap = np.minimum(boxes[first][1], boxes[second][1]) - np.maximum(boxes[first][0], boxes[second][0])
            # What stands on a piece stands on its top, above which its edge may rise by a fifth of its height.
            lower_height = min((boxes[first], boxes[second]), key=lambda box: box[0][2])[1][2]
            standing_on = overlap[2] <= 0.2 * lower_height
            # Chairs are turned a little within the rectangle that was kept free.
            assert standing_on or overlap.min() < 0.06, f"{first} overlaps {second} by {overlap}"


def test_doors_stay_free(house: House):
    furniture = [extent(i) for i in house.scene.instances if is_furniture(i) and not i.name.startswith("rug")]
    for opening in house.plan.openings:
        if opening.kind == "window":
            continue
        wall = house.plan.walls[opening.wall]
        middle = np.zeros(2)
        middle[wall.axis], middle[1 - wall.axis] = (opening.start + opening.end) / 2, wall.position
        for lower, upper in furniture:
            if lower[2] < 1.5:
                gap = np.maximum(lower[:2] - middle, middle - upper[:2]).max()
                assert gap > 0.4


def test_house_has_what_a_house_has_and_names_its_sources(house: House):
    labels = house.scene.label_set
    seen = {labels.name_of(i.label) for i in house.scene.instances}
    assert {"wall", "floor", "ceiling", "door", "windowpane", "table", "chair", "cabinet", "other"} <= seen
    assert len(house.scene.attribution) >= 15
    assert all(line.endswith(tuple(LICENSES.values())) for line in house.scene.attribution)
    textures = [p.material.texture for i in house.scene.instances if i.name.startswith("floor") for p in i.model.parts]
    assert len({id(texture) for texture in textures}) == len(house.plan.rooms)


def test_same_seed_gives_the_same_house_and_pixels(house: House, catalog: FurnitureCatalog, egl: None):
    again = generate_house(1, catalog)
    assert [i.name for i in again.scene.instances] == [i.name for i in house.scene.instances]
    assert all(
        np.array_equal(a.matrix, b.matrix) for a, b in zip(again.scene.instances, house.scene.instances, strict=True)
    )
    low, high = house.plan.rooms[1].inner(house.plan.thickness)
    pose, camera = camera_pose((*(low + 0.4), 1.2), np.arctan2(*(high - low)[::-1]), 0.15), default_camera(80, 60)
    views = []
    for scene in (house.scene, again.scene):
        with Renderer(scene, 1) as renderer:
            views.append(renderer.render(camera, pose))
    assert np.array_equal(views[0].color, views[1].color) and np.array_equal(views[0].instances, views[1].instances)
    assert np.isfinite(views[0].depth).all(), "a closed house has no view to the empty outside"
    assert len(np.unique(views[0].labels)) >= 4 and views[0].color.std() > 10
