# SPDX-License-Identifier: Apache-2.0
"""Eight rays walked side by side in vector registers.

Numba does not vectorize the walk by itself: which axis comes next differs from ray to ray, and plain code mispredicts
that branch all the time. The inner loop is therefore built here as LLVM vector code, which LLVM fits to any processor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from perception.numba_cache import inlined, inner

LANES = 8
RAYS = 512
"""Rays that are prepared at once, a multiple of LANES."""

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_REALS = ir.VectorType(ir.DoubleType(), LANES)
_WHOLES = ir.VectorType(_I32, LANES)


class Rays(NamedTuple):
    """Rays that start in one voxel, ready to be walked."""

    reals: np.ndarray
    """(6, RAYS) float64: distance to the next border along x, y, z; distance between borders."""
    steps: np.ndarray
    """(3, RAYS) int32: what a step along x, y, z adds to the bits of that axis."""
    left: np.ndarray
    """(RAYS,) int32: voxels to mark."""
    places: np.ndarray
    """(RAYS,) int32: place in the window."""


def make_rays() -> Rays:
    """Room for RAYS rays."""
    return Rays(np.zeros((6, RAYS)), np.zeros((3, RAYS), np.int32), np.zeros(RAYS, np.int32), np.zeros(RAYS, np.int32))


@intrinsic
def _walk_together(typing_context, cells, reals, steps, places, first, count, place, others_x, others_y, others_z):
    """Let the lanes from `first` on mark their voxel and step on, `count` times; arguments as in walk_lanes."""

    def generate(context: Any, builder: Any, call: Any, arguments: Any) -> Any:
        cells_at, reals_at, steps_at, places_at = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(call.args[:4], arguments[:4], strict=True)
        )
        first, count, place = arguments[4:7]
        reals = [_row(builder, reals_at, row, first, _REALS) for row in range(6)]
        home = _row(builder, places_at, 0, first, _WHOLES)
        start = [_load(builder, row) for row in reals[:3]] + [_splat(builder, place)]
        deltas = [_load(builder, row) for row in reals[3:]]
        others = [_splat(builder, mask) for mask in arguments[7:]]
        moves = [_load(builder, _row(builder, steps_at, row, first, _WHOLES)) for row in range(3)]
        end = _build_loop(builder, (cells_at, home), count, start, deltas, [moves, others])
        for value, row in zip(end, [*reals[:3], home], strict=True):
            builder.store(value, row).align = 4
        return context.get_dummy_value()

    numbers = (types.int64,) * 2 + (types.int32,) * 4
    return signature(types.void, cells, reals, steps, places, *numbers), generate


def _build_loop(builder: Any, memory: Any, count: Any, start: list[Any], deltas: list[Any], steps: list[Any]) -> list:
    """The loop itself; returns the lanes' state behind it."""
    before = builder.block
    loop, behind = builder.append_basic_block("walk"), builder.append_basic_block("walked")
    builder.cbranch(builder.icmp_signed(">", count, _I64(0)), loop, behind)
    builder.position_at_end(loop)
    left = builder.phi(_I64)
    state = [builder.phi(value.type) for value in start]
    _mark(builder, memory, state[3])
    following = _build_step(builder, state, deltas, steps)
    fewer = builder.sub(left, _I64(1))
    for phi, first, later in zip([left, *state], [count, *start], [fewer, *following], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed(">", fewer, _I64(0)), loop, behind)
    builder.position_at_end(behind)
    end = []
    for first, later in zip(start, following, strict=True):
        phi = builder.phi(first.type)
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
        end.append(phi)
    return end


def _mark(builder: Any, memory: Any, places: Any) -> None:
    """Set the lanes' cells."""
    cells, home = memory
    builder.store(places, home).align = 4
    first = builder.bitcast(home, _I32.as_pointer())
    for lane in range(LANES):
        # Loaded one by one: taking a vector apart costs more than the whole step. Only an atomic load stays a load.
        place = builder.load_atomic(builder.gep(first, [_I32(lane)]), "monotonic", 4)
        builder.store(_I8(1), builder.gep(cells, [builder.zext(place, _I64)]))


def _build_step(builder: Any, state: list[Any], deltas: list[Any], steps: list[Any]) -> list[Any]:
    """One step of all lanes to the nearest border, with OctoMap's rule for ties."""
    a, b, c, place = state
    # a < b and a < c, else b <= a and b < c: where a is not before both, it is not before b if b is before c.
    b_before_c = builder.fcmp_ordered("<", b, c)
    along_a = builder.fcmp_ordered("<", a, builder.select(b_before_c, b, c))
    along_b = builder.and_(builder.not_(along_a), b_before_c)
    step, others = (builder.select(along_a, x, builder.select(along_b, y, z)) for x, y, z in steps)
    # The bits of the other axes are ones while the step is added: a carry passes through them.
    moved = builder.add(builder.or_(place, others), step)
    return [
        builder.select(along_a, builder.fadd(a, deltas[0]), a),
        builder.select(along_b, builder.fadd(b, deltas[1]), b),
        builder.select(builder.or_(along_a, along_b), c, builder.fadd(c, deltas[2])),
        builder.or_(builder.and_(place, others), builder.and_(moved, builder.not_(others))),
    ]


def _row(builder: Any, base: Any, row: int, first: Any, kind: Any) -> Any:
    place = builder.add(first, _I64(row * RAYS))
    return builder.bitcast(builder.gep(base, [place]), kind.as_pointer())


def _load(builder: Any, row: Any) -> Any:
    value = builder.load(row)
    value.align = 4
    return value


def _splat(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(_WHOLES, ir.Undefined)
    vector = builder.insert_element(nothing, value, _I32(0))
    return builder.shuffle_vector(vector, nothing, ir.Constant(_WHOLES, [0] * LANES))


@inlined
def _walk_on(cells, rays, ray, done, others):
    """Mark what is left of a ray behind the voxels that are done."""
    reals, place = rays.reals, rays.places[ray]
    a, b, c = reals[0, ray], reals[1, ray], reals[2, ray]
    for _ in range(done, rays.left[ray]):
        cells[np.uint64(place)] = 1
        if a < b and a < c:
            axis = 0
            a += reals[3, ray]
        elif b <= a and b < c:
            axis = 1
            b += reals[4, ray]
        else:
            axis = 2
            c += reals[5, ray]
        rest = others[axis]
        place = (place & rest) | (((place | rest) + rays.steps[axis, ray]) & ~rest)


@inner
def walk_lanes(cells, rays, first, place, others):
    """Walk LANES rays; those with about as many voxels left cost least.

    Args:
        cells: window of uint8, in the order of keys.cell_place; set to 1 where a ray passes.
        rays: places are set, distances changed.
        first: number of the first ray.
        place: where all of them start.
        others: the bits of a place that are not of the x, y, z axis.
    """
    shortest = np.int64(rays.left[first])
    for ray in range(first + 1, first + LANES):
        shortest = min(shortest, np.int64(rays.left[ray]))
    lanes = (rays.reals, rays.steps, rays.places, first, shortest, place)
    _walk_together(cells, *lanes, *others)  # pyright: ignore[reportCallIssue]
    for ray in range(first, first + LANES):
        _walk_on(cells, rays, ray, shortest, others)
