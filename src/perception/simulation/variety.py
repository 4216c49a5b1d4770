# SPDX-License-Identifier: Apache-2.0
"""How much houses differ: as usual, or as widely as a network that learns from them should see (domain randomization).

Source: Tobin et al., Domain randomization for transferring deep networks from simulation to the real world, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perception.errors import InputError
from perception.simulation import textures
from perception.simulation.scene import Material, Model, Part


@dataclass(frozen=True)
class Variety:
    """Chances of what is unusual, 0 to 1, and ranges. The zeros of a usual house draw no random numbers.

    Attributes:
        room_area: mean area of a room from … to, square meters.
        open_plan: of each passage: twice as wide, up to the whole wall.
        wide_window: of each window: as long as the wall allows, in many panes.
        milky_pane: of each window: panes of one light color (frosted or overexposed), or dark as by night.
        glazed_door: of each door: panes in a grid in place of panels.
        folding_door: of each passage: a row of leaves, folded more or less.
        no_ceiling: of a house: open above, as many simulated worlds are.
        pale: of a house: near white walls and furniture.
        repaint: of each piece of furniture: other materials.
        plain_rug: of each rug: one color.
        texture_scale: factor of the size of floor textures from … to.
        light: factor of all light from … to.
        max_bytes: of a furniture model's file; finer ones are left away, as they cost more to draw than they show.
    """

    room_area: tuple[float, float] = (13.0, 18.0)
    open_plan: float = 0.0
    wide_window: float = 0.0
    milky_pane: float = 0.0
    glazed_door: float = 0.0
    folding_door: float = 0.0
    no_ceiling: float = 0.0
    pale: float = 0.0
    repaint: float = 0.0
    plain_rug: float = 0.0
    texture_scale: tuple[float, float] = (1.0, 1.0)
    light: tuple[float, float] = (1.0, 1.0)
    max_bytes: int = 1_500_000


VARIETIES = {
    "usual": Variety(),
    "wide": Variety(
        room_area=(12.0, 36.0),
        open_plan=0.5,
        wide_window=0.35,
        milky_pane=0.6,
        glazed_door=0.5,
        folding_door=0.5,
        no_ceiling=0.35,
        pale=0.35,
        repaint=0.5,
        plain_rug=0.5,
        texture_scale=(0.6, 2.5),
        light=(0.7, 2.0),
        max_bytes=700_000,
    ),
}


def variety_named(name: str) -> Variety:
    """One of ``VARIETIES``; raises InputError for another name."""
    if name not in VARIETIES:
        raise InputError(f"variety: expected one of {sorted(VARIETIES)}, got {name!r}")
    return VARIETIES[name]


def happens(rng: np.random.Generator, chance: float) -> bool:
    """A draw that takes no random number when it cannot happen, so that usual houses stay as they are."""
    return chance > 0 and bool(rng.random() < chance)


def near_white(rng: np.random.Generator) -> tuple[float, float, float]:
    """A light color with a tinge, sRGB 0 to 1."""
    red, green, blue = np.clip(rng.uniform(0.72, 0.97) + rng.normal(0, 0.02, 3), 0, 1).tolist()
    return red, green, blue


def pane(rng: np.random.Generator) -> Material:
    """A window's pane without a view: frosted, overexposed, or night."""
    if rng.random() < 0.15:
        return Material((*rng.uniform(0.02, 0.2, 3).tolist(), 1.0), emission=0.5)
    warm = np.clip(rng.uniform(0.7, 1.0) * np.array([1.0, rng.uniform(0.93, 1.0), rng.uniform(0.75, 1.0)]), 0, 1)
    return Material((*warm.tolist(), 1.0), emission=float(rng.uniform(0.2, 1.0)))


def plain_wall(rng: np.random.Generator) -> Material:
    """Near white paint."""
    return Material((*near_white(rng), 1.0))


def repainted(model: Model, rng: np.random.Generator, pale: bool) -> Model:
    """The model in new colors, some parts in wood or cloth; glass stays glass."""
    light = pale or rng.random() < 0.35
    painters = (textures.planks, textures.fabric, textures.carpet)
    shared = textures.choose(rng, painters) if rng.random() < 0.3 else None
    base = near_white(rng) if light else tuple(rng.uniform(0.03, 0.8, 3).tolist())

    def repaint(part: Part) -> Part:
        old = part.material
        if old.transparent or old.emission > 0 or (old.texture is not None and old.texture[..., 3].min() < 128):
            return part
        if rng.random() < 0.25:
            return part
        shade = np.clip(np.array(base) * rng.uniform(0.8, 1.1), 0, 1).tolist()
        texture = None if shared is None or rng.random() < 0.5 else shared.texture
        color = (1.0, 1.0, 1.0, 1.0) if texture is not None else (*shade, 1.0)
        return replace(part, material=Material(color, texture))

    return Model(model.name, tuple(repaint(part) for part in model.parts))
