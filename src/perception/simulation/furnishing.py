# SPDX-License-Identifier: Apache-2.0
"""Furnish the rooms of a house as people do: sofas face the television, chairs stand around tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.simulation import textures
from perception.simulation.floorplan import FloorPlan
from perception.simulation.furniture import CatalogItem, FurnitureCatalog
from perception.simulation.placing import Place, RoomPlacer, footprint
from perception.simulation.poses import pose
from perception.simulation.primitives import box_parts
from perception.simulation.scene import Instance, Material, Model, Part
from perception.simulation.variety import Variety, happens, near_white, repainted


@dataclass(frozen=True)
class Wish:
    """One kind of thing that a room wants.

    Attributes:
        kind: class name, or "=Name" for catalog items of that name.
        where: "wall", "middle", "ceiling", or "mounted" (on a wall, above the floor).
        chance: that it is wanted at all.
        count: at most so many, at least one.
        size: longest edge of the footprint from … to, meters.
        category: of the catalog; "" for any.
    """

    kind: str
    where: str = "wall"
    chance: float = 1.0
    count: int = 1
    size: tuple[float, float] = (0.0, 3.5)
    category: str = ""


WISHES: dict[str, tuple[Wish, ...]] = {
    "living": (
        Wish("sofa", size=(1.2, 2.9), count=2),
        Wish("=TV stand|Television cabinet|Dresser with drawers|Chest", chance=0.8),
        Wish("table", "middle", 0.6, size=(1.3, 2.1), category="Living room"),
        Wish("shelf", chance=0.8, count=2),
        Wish("armchair", chance=0.7, count=2, category="Living room"),
        Wish("cabinet", chance=0.5, category="Bedroom"),
        Wish("plant", chance=0.8, count=2, size=(0.3, 1.1)),
        Wish("=Fireplace|Grand piano|Upright piano|Aquarium|Radiator|Vase|Electric guitar", chance=0.6, count=2),
        Wish("painting", "mounted", 0.8, 3),
        Wish("=Wall flat TV|Air conditioning - Internal unit|Cuckoo clock", "mounted", 0.4),
        Wish("=Lamp|Hanging light|Ceiling lamp|Pendant lamp", "ceiling", 0.8),
    ),
    "bedroom": (
        Wish("bed", size=(1.7, 2.4)),
        Wish("=Bedside table", count=2),
        Wish("=Wardrobe|Cupboard", chance=0.9),
        Wish("=Dresser with drawers|Chest|Dressing table|Desk", chance=0.6),
        Wish("chair", chance=0.6, size=(0.3, 0.8), category="Living room"),
        Wish("plant", chance=0.5, size=(0.3, 1.0)),
        Wish("shelf", chance=0.4),
        Wish("=Teddy bear|Suitcase|Clothes rack|Backpack|Doll house|Rocking horse|Radiator", chance=0.5, count=2),
        Wish("painting", "mounted", 0.8, 2),
        Wish("=Lamp|Hanging light|Ceiling lamp|Ceiling fan", "ceiling", 0.8),
    ),
    "kitchen": (
        Wish("=Refrigerator|Large fridge|Fridge"),
        Wish("=Lower cabinet|Drawers cabinet|Sink cabinet|Small lower cabinet|Sink", count=5),
        Wish("=Large stove|Oven|Washing machine|Clothes washing machine", chance=0.8, count=2),
        Wish("=High cabinet|Cupboard", chance=0.6),
        Wish("=Upper cabinet|Glass door cabinet|Small upper cabinet|Hood|Range hood", "mounted", 0.9, 4),
        Wish("table", "middle", 0.9, size=(0.7, 1.7), category="Living room"),
        Wish("=Stool|Bullet trash can|Shopping basket|Plant", chance=0.6),
        Wish("painting", "mounted", 0.3),
        Wish("=Lamp|Hanging light|Ceiling lamp|Pendant lamp|Fluorescent light", "ceiling", 0.8),
    ),
    "office": (
        Wish("=Desk|Desk table|Wooden desk|Technical table", count=2, category="Office"),
        Wish("shelf", count=2),
        Wish("=Filing cabinet|Safe|Cupboard|Dustbin", chance=0.8, count=2),
        Wish("armchair", chance=0.5),
        Wish("plant", chance=0.7, size=(0.3, 1.0)),
        Wish("=White board|Water cooler|Box|Cardboard box|Globe", chance=0.5),
        Wish("painting", "mounted", 0.7, 2),
        Wish("=Ceiling lamp|Fluorescent light|Hanging light", "ceiling", 0.8),
    ),
    "bathroom": (
        Wish("=Bath|Shower stall|Corner bathtub|Island bath"),
        Wish("=Toilets unit|Bidet"),
        Wish("=Washbasin|Vanity|Double vanity", category="Bathroom"),
        Wish("=Washing machine|Dryer machine|Clothes basket|Radiator", chance=0.6),
        Wish("=Towel rack|Toilet paper dispenser", "mounted", 0.7),
        Wish("=Ceiling lamp", "ceiling", 0.7),
    ),
    "hall": (
        Wish("=Dresser with drawers|Chest|Bookcase|Wardrobe", chance=0.9),
        Wish("=Umbrella|Sneakers|Suitcase|Bench|Piano bench", chance=0.7, count=2),
        Wish("plant", chance=0.7, size=(0.3, 0.9)),
        Wish("painting", "mounted", 0.9, 2),
        Wish("=Lamp|Ceiling lamp|Hanging light", "ceiling", 0.8),
    ),
}
ON_TOP = {
    "table": "=Laptop|Vase|Book|Bowl with fruits|Teapot|Newspaper|Little lamp|Desk lamp|Coffee mug|Apples|Phone|Tulips",
    "cabinet": "=TV|TV 16:9|Vase|Little lamp|Radio|Mini stereo|Coffee maker|Microwave|Toaster|Aquarium|Orchids",
}
PERSON_CHANCE = 0.25
RUG_CHANCE = 0.6


class Furnisher:
    """Fills rooms from a catalog.

    Args:
        plan: the house.
        catalog: what there is.
        rng: source of randomness.
        people: let people stand about.
        variety: how much the pieces differ from the catalog's.
        pale: they are near white.
    """

    def __init__(
        self,
        plan: FloorPlan,
        catalog: FurnitureCatalog,
        rng: np.random.Generator,
        people: bool,
        variety: Variety | None = None,
        pale: bool = False,
    ) -> None:
        self._plan, self._catalog, self._rng, self._people = plan, catalog, rng, people
        self._variety, self._pale = variety or Variety(), pale
        self._labels = catalog.class_map.label_set
        self._count = 0
        self.used: dict[str, CatalogItem] = {}

    def furnish(self, room: int) -> Iterator[Instance]:
        """Things for a room, placed."""
        placer = RoomPlacer(self._plan, room, self._rng)
        kind = self._plan.rooms[room].kind
        for wish in WISHES[kind]:
            if self._rng.random() > wish.chance:
                continue
            for _ in range(int(self._rng.integers(1, wish.count + 1))):
                yield from self._grant(wish, placer)
        if kind not in ("bathroom", "kitchen") and self._rng.random() < RUG_CHANCE:
            yield from self._rug(placer)
        if self._people and self._rng.random() < PERSON_CHANCE:
            yield from self._grant(Wish("person", "middle", size=(0.3, 0.9), category="Characters"), placer)

    def _grant(self, wish: Wish, placer: RoomPlacer) -> Iterator[Instance]:
        if wish.kind == "painting":
            yield from self._painting(placer)
            return
        item = self._pick(wish)
        if item is None:
            return
        width, depth, height = item.size
        if wish.where == "ceiling":
            middle = (placer.room.lower + placer.room.upper) / 2 + self._rng.uniform(-0.4, 0.4, 2)
            yield from self._put(item, middle, 0.0, self._plan.height - height)
        elif wish.where == "mounted":
            yield from self._mounted(item, placer)
        elif wish.where == "middle" or item.elevation == 0:
            size = width, depth, height
            place = placer.in_middle(size) if wish.where == "middle" else placer.against_wall(size)
            if place is not None:
                yield from self._put(item, place.position, place.yaw, 0.0)
                yield from self._companions(item, place, placer)

    def _companions(self, item: CatalogItem, place: Place, placer: RoomPlacer) -> Iterator[Instance]:
        """What belongs to a piece: chairs at tables, a low table before a sofa, things on top."""
        name = self._labels.name_of(item.label)
        forward = np.array([np.sin(place.yaw), -np.cos(place.yaw)])
        if name == "table" and 0.6 < item.size[2] < 1.0 and max(item.size[:2]) > 0.6:
            yield from self._chairs(item, place, placer)
        elif name == "sofa":
            low = self._pick(Wish("=Coffee table", size=(0.4, 1.5)))
            if low is not None and self._rng.random() < 0.8:
                gap = (item.size[1] + low.size[1]) / 2 + self._rng.uniform(0.25, 0.45)
                beside = placer.at(place.position + gap * forward, low.size[:2], place.yaw, low.size[2])
                if beside is not None:
                    yield from self._put(low, beside.position, beside.yaw, 0.0)
                    yield from self._on_top(low, beside, "table")
        if name in ON_TOP:
            yield from self._on_top(item, place, name)

    def _chairs(self, table: CatalogItem, place: Place, placer: RoomPlacer) -> Iterator[Instance]:
        """The same chair at the free sides of a table, turned toward it."""
        office = table.category == "Office" or table.name.startswith("Dress")
        chair = self._pick(Wish("chair", size=(0.3, 0.75), category="Office" if office else "Living room"))
        if chair is None:
            return
        sides = [0] if office else [0, 1, 2, 3]
        for side in sides:
            yaw = place.yaw + side * np.pi / 2
            outward = np.array([np.sin(yaw), -np.cos(yaw)])
            along = np.array([outward[1], -outward[0]])
            reach, width = (table.size[1], table.size[0]) if side % 2 == 0 else (table.size[0], table.size[1])
            seats = 1 if office else max(1, min(3, int(width / (chair.size[0] + 0.15))))
            for seat in range(seats):
                if self._rng.random() < 0.15:
                    continue
                offset = (seat - (seats - 1) / 2) * width / seats
                away = reach / 2 + chair.size[1] / 2 + self._rng.uniform(0.02, 0.15)
                position = place.position + outward * away + along * offset
                # Its front looks along −outward.
                spot = placer.at(position, chair.size[:2], yaw + np.pi, 0.8)
                if spot is not None:
                    turn = float(self._rng.normal(0, 0.06))
                    yield from self._put(chair, spot.position, spot.yaw + turn, 0.0)

    def _on_top(self, item: CatalogItem, place: Place, name: str) -> Iterator[Instance]:
        """Small things on a surface, not touching each other."""
        top = item.top if item.top is not None else item.size[2]
        if not 0.25 < top < 1.3 or top < 0.8 * item.size[2]:
            return
        taken = []
        for _ in range(int(self._rng.integers(0, 4))):
            small = self._pick(Wish(ON_TOP[name], size=(0.05, 0.8)))
            if small is None:
                continue
            room = np.array(item.size[:2]) - small.size[:2] - (0.1, 0.1)
            if (room <= 0).any():
                continue
            offset = self._rng.uniform(-room / 2, room / 2)
            covers = footprint(offset, small.size[:2], 0.0)
            if any(covers.meets(other, 0.02) for other in taken):
                continue
            taken.append(covers)
            cosine, sine = np.cos(place.yaw), np.sin(place.yaw)
            turned = np.array([[cosine, -sine], [sine, cosine]]) @ offset
            yield from self._put(small, place.position + turned, place.yaw, top)

    def _mounted(self, item: CatalogItem, placer: RoomPlacer) -> Iterator[Instance]:
        """On a wall at the height that the catalog says; nothing below has to move."""
        elevation = item.elevation if item.elevation > 0.3 else 1.4
        if elevation + item.size[2] > self._plan.height - 0.02:
            return
        place = self._on_wall(placer, (item.size[0], item.size[1]), elevation)
        if place is not None:
            yield from self._put(item, place.position, place.yaw, elevation)

    def _on_wall(self, placer: RoomPlacer, size: tuple[float, float], elevation: float) -> Place | None:
        """A place on a wall clear of doors, windows and what else hangs there; only low things stand below."""
        place = placer.emptied().against_wall((size[0], size[1], 2.0), gap=-0.012)
        if place is None or any(place.covers.meets(other) for other in placer.taken if elevation < 1.3):
            return None
        placer.windows.append(place.covers)
        return place

    def _painting(self, placer: RoomPlacer) -> Iterator[Instance]:
        width, height = self._rng.uniform(0.35, 1.1), self._rng.uniform(0.3, 0.8)
        place = self._on_wall(placer, (float(width), 0.03), 1.5)
        if place is None:
            return
        art = textures.choose(self._rng, (textures.artwork,))
        frame = textures.plain(self._rng, ((0.1, 0.1, 0.1), (0.9, 0.9, 0.88), (0.5, 0.35, 0.2), (0.7, 0.6, 0.3)))
        half = np.array([width, 0.03]) / 2
        parts = list(box_parts((-half[0], -half[1], 0), (half[0], half[1], height), frame))
        parts += box_parts((-half[0] + 0.03, -half[1] - 0.004, 0.03), (half[0] - 0.03, -half[1], height - 0.03), art)
        base = min(1.62 - height / 2 + self._rng.uniform(-0.1, 0.15), self._plan.height - height - 0.1)
        matrix = pose((*place.position, base), yaw=place.yaw).matrix
        yield self._instance("painting", Model("painting", tuple(parts)), self._labels["painting"].id, matrix)

    def _rug(self, placer: RoomPlacer) -> Iterator[Instance]:
        """A flat rug; furniture may stand on it, as rugs do not stop anything."""
        room = placer.room
        size = self._rng.uniform(0.35, 0.6, 2) * (room.upper - room.lower)
        middle = (room.lower + room.upper) / 2 + self._rng.uniform(-0.3, 0.3, 2)
        if happens(self._rng, self._variety.plain_rug):
            plain = near_white(self._rng) if self._rng.random() < 0.5 else self._rng.uniform(0.05, 0.9, 3).tolist()
            red, green, blue = plain
            weave = Material((red, green, blue, 1.0))
        else:
            weave = textures.choose(self._rng, (textures.rug, textures.rug, textures.carpet, textures.fabric))
        low, high = middle - size / 2, middle + size / 2
        parts = box_parts((*low, 0.001), (*high, 0.012), weave)
        yield self._instance("rug", Model("rug", parts), self._labels["rug"].id, np.eye(4))

    def _pick(self, wish: Wish) -> CatalogItem | None:
        """A random item that fits a wish."""
        names = set(wish.kind[1:].split("|")) if wish.kind.startswith("=") else None
        fitting = [
            item
            for item in self._catalog
            if (item.name in names if names is not None else self._labels.name_of(item.label) == wish.kind)
            and wish.category in ("", item.category)
            and wish.size[0] <= max(item.size[:2]) <= wish.size[1]
            and item.bytes <= self._variety.max_bytes
            and item.size[2] < self._plan.height - 0.05
            and not item.name.startswith(("Lying", "Sitting"))
        ]
        return fitting[self._rng.integers(len(fitting))] if fitting else None

    def _put(
        self, item: CatalogItem, position: NDArray[np.float64], yaw: float, elevation: float
    ) -> Iterator[Instance]:
        self.used[item.id] = item
        model = self._catalog.model(item)
        thing = self._labels.name_of(item.label) != "person"
        if thing and happens(self._rng, self._variety.repaint):
            model = repainted(model, self._rng, self._pale)
        elif self._rng.random() < 0.35 and thing:
            model = _tinted(model, self._rng)
        matrix = pose((*position, elevation), yaw=yaw).matrix
        yield self._instance(item.name, model, item.label, matrix)

    def _instance(self, name: str, model: Model, label: int, matrix: NDArray[np.float64]) -> Instance:
        self._count += 1
        return Instance(f"{name} {self._count}", model, label, matrix)


def _tinted(model: Model, rng: np.random.Generator) -> Model:
    """The model in another color."""
    factors = rng.uniform(0.55, 1.15) * rng.uniform(0.75, 1.15, 3)

    def tint(part: Part) -> Part:
        color = np.clip(np.asarray(part.material.color[:3]) * factors, 0, 1).tolist()
        material = Material((*color, part.material.color[3]), part.material.texture, part.material.emission)
        return replace(part, material=material)

    return Model(model.name, tuple(tint(part) for part in model.parts))
