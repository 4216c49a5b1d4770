# SPDX-License-Identifier: Apache-2.0
"""What two runs of a recording say of the same frames."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.run_folder import Run
from perception.evaluation.scalars import Scalar

MIN_COMMON_SHARE = 0.5
"""Of the frames that the run with fewer values has one for; fewer common ones could say something else than all."""


def series_by_frame(scalar: Scalar, pairs: Sequence[tuple[Run, Run]]) -> list[NDArray[np.float64]]:
    """(N, 2) values of a number for the frames that both runs of a pair have, pair by pair, in order of time.

    Empty, so that recordings are compared in place of frames, where frames do not have the number, or where those of a
    pair that both scored have too few in common: means over frames would leave that recording out.
    """
    if not scalar.frame_column:
        return []
    found = []
    for one, other in pairs:
        values = common_values(one.frames, other.frames, scalar.frame_column)
        if not len(values) and None not in (one.scalar(scalar.name), other.scalar(scalar.name)):
            return []
        found.append(values)
    return found if any(len(values) for values in found) else []


def common_values(
    frames_a: Sequence[Mapping[str, Any]], frames_b: Sequence[Mapping[str, Any]], column: str
) -> NDArray[np.float64]:
    """(N, 2) values of a column for the frames, by stamp, that both have one for, in the order of the first.

    Of a stamp that comes again, the first frame meets the first one, the second the second, and so on. Empty where less
    than :data:`MIN_COMMON_SHARE` is common.
    """
    first, second = _by_stamp(frames_a, column), _by_stamp(frames_b, column)
    known = [(value, second[place]) for place, value in first.items() if place in second]
    if len(known) < MIN_COMMON_SHARE * min(len(first), len(second)):
        known = []
    return np.asarray(known, np.float64).reshape(-1, 2)


def _by_stamp(frames: Sequence[Mapping[str, Any]], column: str) -> dict[tuple[Any, int], float]:
    """Values of a column by stamp and how often that stamp came before."""
    seen: dict[Any, int] = {}
    found = {}
    for row in frames:
        stamp, value = row.get("stamp_ns"), row.get(column)
        if stamp is None:
            continue
        count = seen[stamp] = seen.get(stamp, -1) + 1
        if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
            found[stamp, count] = float(value)
    return found
