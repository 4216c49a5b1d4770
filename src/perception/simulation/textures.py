# SPDX-License-Identifier: Apache-2.0
"""Materials of rooms, drawn from random numbers: every texture repeats without a seam."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perception.simulation.scene import Material

SIZE = 256
"""Edge of a texture, pixels."""
Color = tuple[float, float, float]
Painter = Callable[[np.random.Generator], NDArray[np.float64]]
"""Draws (SIZE, SIZE, 3) colors 0 to 1."""

_WOODS = ((0.55, 0.36, 0.2), (0.72, 0.54, 0.35), (0.4, 0.26, 0.16), (0.8, 0.66, 0.48), (0.5, 0.42, 0.36))
_PAINTS = (
    (0.93, 0.91, 0.86),
    (0.85, 0.84, 0.8),
    (0.8, 0.85, 0.88),
    (0.88, 0.84, 0.72),
    (0.78, 0.84, 0.76),
    (0.95, 0.95, 0.95),
)


def noise(rng: np.random.Generator, slope: float = 1.5, stretch: float = 1.0, size: int = SIZE) -> NDArray[np.float64]:
    """(size, size) random field without seams, mean 0 and deviation 1.

    Args:
        rng: source of randomness.
        slope: how fast the spectrum falls; 0 is white, 2 is cloudy.
        stretch: above 1 draws it out along the rows.
        size: pixels.

    Source: filtered white noise in the Fourier domain, amplitude 1 / frequency ** slope.
    """
    y, x = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    frequency = np.hypot(x * stretch, y)
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) / frequency**slope, (size, size))
    return (field - field.mean()) / field.std()


def material(colors: NDArray[np.float64], emission: float = 0.0) -> Material:
    """A material from (H, W, 3) colors 0 to 1, first row lowest."""
    rgba = np.full((*colors.shape[:2], 4), 255, np.uint8)
    rgba[..., :3] = np.clip(colors * 255 + 0.5, 0, 255)
    return Material((1.0, 1.0, 1.0, 1.0), rgba, emission)


def _flat(color: Color | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.tile(np.asarray(color, np.float64), (SIZE, SIZE, 1))


def _pick(rng: np.random.Generator, colors: tuple[Color, ...], spread: float = 0.05) -> NDArray[np.float64]:
    return np.clip(np.asarray(colors[rng.integers(len(colors))]) + rng.normal(0, spread, 3) * 0.6, 0.03, 1)


def _any_color(rng: np.random.Generator) -> NDArray[np.float64]:
    gray = rng.uniform(0.2, 0.85)
    return np.clip(gray + rng.normal(0, 0.15, 3), 0.05, 0.95)


def paint(rng: np.random.Generator) -> NDArray[np.float64]:
    """A painted wall, now and then in a strong color."""
    color = _pick(rng, _PAINTS) if rng.random() < 0.75 else _any_color(rng)
    return _flat(color) * (1 + 0.015 * noise(rng, 1.0)[..., None])


def wallpaper(rng: np.random.Generator) -> NDArray[np.float64]:
    """Stripes, or diamonds, in two near shades."""
    v, u = np.indices((SIZE, SIZE)) / SIZE
    first = _pick(rng, _PAINTS)
    second = np.clip(first * rng.uniform(0.82, 0.96) + rng.normal(0, 0.03, 3), 0, 1)
    count = int(rng.integers(4, 12))
    wave = np.sin(2 * np.pi * count * u)
    if rng.random() < 0.5:
        wave = wave + np.sin(2 * np.pi * count * v)
    share = np.clip(wave * 4 + 0.5, 0, 1)[..., None]
    return (first * share + second * (1 - share)) * (1 + 0.01 * noise(rng, 0.5)[..., None])


def tiles(rng: np.random.Generator) -> NDArray[np.float64]:
    """Square tiles with grout."""
    count = int(rng.choice([2, 4, 8]))
    step = SIZE // count
    row, column = np.indices((SIZE, SIZE)) // step
    shade = 1 + rng.normal(0, 0.025, (count, count))[row, column]
    colors = _flat(_pick(rng, (*_PAINTS, (0.6, 0.6, 0.62), (0.45, 0.4, 0.36)))) * shade[..., None]
    if rng.random() < 0.15:
        colors[(row + column) % 2 == 0] *= 0.45
    colors *= 1 + 0.03 * noise(rng, 1.6)[..., None]
    place = np.indices((SIZE, SIZE)) % step
    colors[(place < 2).any(0)] = rng.uniform(0.45, 0.8)
    return colors


def planks(rng: np.random.Generator) -> NDArray[np.float64]:
    """Wooden planks along the rows, each with a shade and grain of its own."""
    count = int(rng.choice([4, 8]))
    step = SIZE // count
    row, column = np.indices((SIZE, SIZE))
    plank = row // step
    start = rng.integers(0, SIZE, count)[plank]
    piece = ((column + start) % SIZE) // (SIZE // 2)
    shade = 1 + rng.normal(0, 0.08, (count, 2))[plank, piece]
    grain = 1 + 0.07 * noise(rng, 1.0, stretch=14.0)
    colors = _flat(_pick(rng, _WOODS)) * (shade * grain)[..., None]
    seam = (row % step < 1) | ((column + start) % (SIZE // 2) < 1)
    colors[seam] *= 0.55
    return colors


def carpet(rng: np.random.Generator) -> NDArray[np.float64]:
    """Carpet: one color with a pile."""
    return _flat(_any_color(rng)) * (1 + 0.09 * noise(rng, 0.2) + 0.04 * noise(rng, 1.2))[..., None]


def stone(rng: np.random.Generator) -> NDArray[np.float64]:
    """Marble or concrete."""
    vein = np.abs(noise(rng, 1.9))
    dark, light = sorted(rng.uniform(0.35, 0.9, 2))
    tone = np.array([1.0, rng.uniform(0.94, 1.0), rng.uniform(0.85, 1.0)])
    return (dark + (light - dark) * np.clip(vein, 0, 1.5) / 1.5)[..., None] * tone


def brick(rng: np.random.Generator) -> NDArray[np.float64]:
    """Bricks in a running bond."""
    row, column = np.indices((SIZE, SIZE))
    course = row // 32
    shifted = (column + 32 * (course % 2)) % SIZE
    shade = 1 + rng.normal(0, 0.1, (8, 4))[course, shifted // 64]
    color = _pick(rng, ((0.62, 0.3, 0.22), (0.55, 0.38, 0.3), (0.85, 0.82, 0.78)))
    colors = _flat(color) * (shade * (1 + 0.06 * noise(rng, 0.6)))[..., None]
    colors[(row % 32 < 4) | (shifted % 64 < 4)] = rng.uniform(0.6, 0.85)
    return colors


def fabric(rng: np.random.Generator) -> NDArray[np.float64]:
    """Cloth with bands or none."""
    _, u = np.indices((SIZE, SIZE)) / SIZE
    first, second = _any_color(rng), _any_color(rng)
    share = (np.sin(2 * np.pi * int(rng.integers(2, 9)) * u) > rng.uniform(-0.5, 1.3))[..., None]
    return np.where(share, first, second) * (1 + 0.05 * noise(rng, 0.1)[..., None])


def rug(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rug with borders, mirrored in both directions as woven ones are."""
    quarter = noise(rng, 1.3)[: SIZE // 2, : SIZE // 2]
    field = np.block([[quarter, quarter[:, ::-1]], [quarter[::-1], quarter[::-1, ::-1]]])
    shades = np.array([_any_color(rng) for _ in range(4)])
    colors = shades[np.digitize(field, (-0.5, 0.5))]
    edge = np.minimum(*np.minimum(np.indices((SIZE, SIZE)), SIZE - 1 - np.indices((SIZE, SIZE))))
    colors[(edge > 12) & (edge < 28)] = shades[3]
    return colors * (1 + 0.08 * noise(rng, 0.1)[..., None])


def artwork(rng: np.random.Generator) -> NDArray[np.float64]:
    """A painting: a landscape or shapes."""
    v, _ = np.indices((SIZE, SIZE)) / SIZE
    if rng.random() < 0.5:
        horizon = rng.uniform(0.3, 0.6) + 0.05 * noise(rng, 1.8)[0]
        sky, land = _any_color(rng), _any_color(rng)
        return np.where((v > horizon)[..., None], sky * (0.7 + 0.4 * v[..., None]), land) * (
            1 + 0.1 * noise(rng, 1.4)[..., None]
        )
    colors = _flat(_any_color(rng))
    for _ in range(int(rng.integers(3, 12))):
        a, b = np.sort(rng.integers(0, SIZE, (2, 2)), 0)
        colors[a[0] : b[0], a[1] : b[1]] = _any_color(rng)
    return colors * (1 + 0.05 * noise(rng, 0.8)[..., None])


def outside(rng: np.random.Generator) -> NDArray[np.float64]:
    """What a window shows: sky over trees or houses, out of focus, bright."""
    v, _ = np.indices((SIZE, SIZE)) / SIZE
    sky = np.array([0.75, 0.86, 1.0]) * rng.uniform(0.8, 1.0) + 0.15 * (1 - v[..., None])
    treetop = rng.uniform(0.2, 0.55) + 0.05 * noise(rng, 1.5)[0]
    green = np.array([0.3, 0.42, 0.22]) * (1 + 0.35 * noise(rng, 1.3)[..., None])
    return np.where((v > treetop)[..., None], sky, green) * rng.uniform(0.75, 1.1)


WALLS: tuple[Painter, ...] = (paint, paint, paint, wallpaper, brick)
WET_WALLS: tuple[Painter, ...] = (tiles, tiles, paint)
FLOORS: tuple[Painter, ...] = (planks, planks, planks, tiles, carpet, stone)
WET_FLOORS: tuple[Painter, ...] = (tiles, tiles, stone)
CEILINGS: tuple[Painter, ...] = (paint,)


def choose(rng: np.random.Generator, painters: tuple[Painter, ...], emission: float = 0.0) -> Material:
    """A material by one of several painters."""
    return material(painters[rng.integers(len(painters))](rng), emission)


def plain(rng: np.random.Generator, colors: tuple[Color, ...] = _WOODS) -> Material:
    """One color without texture."""
    red, green, blue = _pick(rng, colors).tolist()
    return Material((red, green, blue, 1.0))
