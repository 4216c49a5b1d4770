# SPDX-License-Identifier: Apache-2.0
"""Eight rays walked side by side in vector registers.

Numba does not vectorize the walk by itself: which axis comes next differs from ray to ray, and plain code mispredicts
that branch all the time. The inner loop is therefore built here as LLVM vector code, which LLVM fits to any processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from perception.numba_cache import kernel

LANES = 8

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_REALS = ir.VectorType(ir.DoubleType(), LANES)
_WHOLES = ir.VectorType(_I64, LANES)


@intrinsic
def _walk_together(typing_context, cells, reals, wholes, steps):
    """Let all lanes mark their voxel and step on, `steps` times; arguments as in walk_lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cells_at, reals_at, wholes_at = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args[:3], arguments[:3], strict=True)
        )
        start = [_load(builder, reals_at, row, _REALS) for row in range(3)]
        start.append(_load(builder, wholes_at, 0, _WHOLES))
        deltas = [_load(builder, reals_at, 3 + row, _REALS) for row in range(3)]
        steps = [[_load(builder, wholes_at, first + row, _WHOLES) for row in range(3)] for first in (1, 5)]
        end = _build_loop(builder, cells_at, arguments[3], start, deltas, steps)
        for row in range(3):
            _store(builder, reals_at, row, end[row], _REALS)
        _store(builder, wholes_at, 0, end[3], _WHOLES)
        return context.get_dummy_value()

    return types.void(cells, reals, wholes, types.int64), generate


def _build_loop(builder: Any, cells: Any, count: Any, start: list[Any], deltas: list[Any], steps: list[Any]) -> list:
    """The loop itself; returns the lanes' state behind it."""
    before = builder.block
    loop, behind = builder.append_basic_block("walk"), builder.append_basic_block("walked")
    builder.cbranch(builder.icmp_signed(">", count, _I64(0)), loop, behind)
    builder.position_at_end(loop)
    left = builder.phi(_I64)
    state = [builder.phi(value.type) for value in start]
    for lane in range(LANES):
        builder.store(_I8(1), builder.gep(cells, [builder.extract_element(state[3], _I32(lane))]))
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


def _build_step(builder: Any, state: list[Any], deltas: list[Any], steps: list[Any]) -> list[Any]:
    """One step of all lanes to the nearest border, with OctoMap's rule for ties."""
    a, b, c, place = state
    a_before_b = builder.fcmp_ordered("<", a, b)
    along_a = builder.and_(a_before_b, builder.fcmp_ordered("<", a, c))
    along_b = builder.and_(builder.not_(a_before_b), builder.fcmp_ordered("<", b, c))
    step, others = (builder.select(along_a, x, builder.select(along_b, y, z)) for x, y, z in steps)
    # The bits of the other axes are ones while the step is added: a carry passes through them.
    moved = builder.add(builder.or_(place, others), step)
    return [
        builder.select(along_a, builder.fadd(a, deltas[0]), a),
        builder.select(along_b, builder.fadd(b, deltas[1]), b),
        builder.select(builder.or_(along_a, along_b), c, builder.fadd(c, deltas[2])),
        builder.or_(builder.and_(place, others), builder.and_(moved, builder.not_(others))),
    ]


def _row(builder: Any, base: Any, row: int, kind: Any) -> Any:
    return builder.bitcast(builder.gep(base, [_I64(row * LANES)]), kind.as_pointer())


def _load(builder: Any, base: Any, row: int, kind: Any) -> Any:
    value = builder.load(_row(builder, base, row, kind))
    value.align = 8
    return value


def _store(builder: Any, base: Any, row: int, value: Any, kind: Any) -> None:
    builder.store(value, _row(builder, base, row, kind)).align = 8


@kernel
def walk_lanes(cells, reals, wholes):
    """Walk all lanes until the shortest ray is done.

    Args:
        cells: window of uint8, in the order of keys.cell_place.
        reals: (6, LANES) float64: distance to the next border along x, y, z; distance between borders.
        wholes: (8, LANES) int64: place in the window; what a step along x, y, z adds to the bits of that axis; voxels
            left to mark; the bits of the other axes for x, y, z.
    """
    steps = np.int64(wholes[4, 0])
    for lane in range(1, LANES):
        steps = min(steps, wholes[4, lane])
    _walk_together(cells, reals, wholes, steps)  # pyright: ignore[reportCallIssue]
    for lane in range(LANES):
        wholes[4, lane] -= steps
