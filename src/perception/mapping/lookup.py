# SPDX-License-Identifier: Apache-2.0
"""Questions about points and rays, answered for whole arrays on two threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.mapping import inputs, queries, ray_casting
from perception.mapping.store import BrickStore
from perception.mapping.threads import run_both

SMALL = 20_000
"""Below so many points a second thread costs more than it brings."""
SCRATCH_ROWS = 64
"""So many rows of a few bytes put the first and the last on different cache lines."""


@dataclass(frozen=True, slots=True)
class RayHits:
    """Where rays ended.

    Attributes:
        states: (N,) uint8: HIT, UNKNOWN, FREE (whole range passed) or OUTSIDE (left the map) of perception.mapping.
        points: (N, 3) float32 center of the last voxel, meters, map frame.
        distances: (N,) float32 from the origin to that center, meters.
    """

    states: NDArray[np.uint8]
    points: NDArray[np.float32]
    distances: NDArray[np.float32]

    @property
    def hit(self) -> NDArray[np.bool_]:
        """(N,) whether an occupied voxel was found."""
        return self.states == ray_casting.HIT


class Lookup:
    """The asking side of the octree."""

    resolution: float
    num_classes: int
    labels_per_voxel: int
    _lock: threading.RLock
    _store: BrickStore

    def log_odds(self, points: ArrayLike) -> NDArray[np.float32]:
        """(N,) float32 log-odds of the voxels that hold points (N, 3); NaN where unknown or outside the map."""
        where = inputs.checked_points("points", points)
        result = np.empty(len(where), np.float32)
        self._ask(queries.log_odds_at, where, result)
        return result

    def label_of(self, points: ArrayLike) -> NDArray[np.int32]:
        """(N,) int32 best class of the voxels that hold points (N, 3), -1 without votes, whatever the occupancy."""
        return self._best(points, 1)[0][:, 0]

    def top_labels(self, points: ArrayLike, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The k best classes of the voxels that hold points.

        Args:
            points: (N, 3) meters, map frame.
            k: at least 1; beyond labels_per_voxel there is never anything.

        Returns:
            ids (N, k) int32, best first, -1 beyond the last; probabilities (N, k) float32, 0 there.
        """
        k = int(inputs.checked_number("k", k, 1, 1 << 16))
        ids, probabilities = self._best(points, self.labels_per_voxel)
        _split(queries.softmax, len(ids), (ids, probabilities, self.num_classes), ())
        if k <= ids.shape[1]:
            return ids[:, :k], probabilities[:, :k]
        rest = ((0, 0), (0, k - ids.shape[1]))
        return np.pad(ids, rest, constant_values=-1), np.pad(probabilities, rest)

    def label_probabilities(self, points: ArrayLike) -> NDArray[np.float32]:
        """(N, num_classes) float32 probabilities at points (N, 3); uniform where nothing voted.

        Classes that never won a vote in a voxel share what the others leave.
        """
        where = inputs.checked_points("points", points)
        result = np.empty((len(where), self.num_classes), np.float32)
        scratch = (SCRATCH_ROWS, self.labels_per_voxel)
        if self.num_classes:
            self._ask(
                queries.probabilities_at, where, np.empty(scratch, np.int32), np.empty(scratch, np.float32), result
            )
        return result

    def cast_rays(
        self, origins: ArrayLike, directions: ArrayLike, max_range: float = -1.0, ignore_unknown: bool = False
    ) -> RayHits:
        """Follow rays to the first occupied voxel, or the first unknown one unless those are ignored.

        They end where OctoMap's castRay ends: the range counts to the centers of voxels, in float32.

        Args:
            origins: (N, 3) or (3,) meters, map frame.
            directions: (N, 3) any length but zero.
            max_range: meters; not positive for no limit.
            ignore_unknown: pass through unknown voxels.

        Raises:
            InputError: shapes differ, or a direction has no length or is not finite.
        """
        rays = inputs.checked_rays(origins, directions)
        count = len(rays[0])
        hits = RayHits(np.empty(count, np.uint8), np.empty((count, 3), np.float32), np.empty(count, np.float32))
        with self._lock:
            shards = (self._store.shards[0], self._store.shards[1])
            common = (shards, *rays, float(max_range), bool(ignore_unknown), self.resolution)
            _split(ray_casting.cast_rays, count, common, (hits.states, hits.points, hits.distances))
        return hits

    def cast_ray(
        self, origin: ArrayLike, direction: ArrayLike, max_range: float = -1.0, ignore_unknown: bool = False
    ) -> NDArray[np.float32] | None:
        """(3,) float32 center of the first occupied voxel along one ray, None when there is none; see cast_rays."""
        hits = self.cast_rays(origin, np.asarray(direction, np.float64).reshape(1, -1), max_range, ignore_unknown)
        return hits.points[0] if hits.hit[0] else None

    def _best(self, points: ArrayLike, kept: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        where = inputs.checked_points("points", points)
        ids = np.empty((len(where), kept), np.int32)
        scores = np.empty((len(where), kept), np.float32)
        self._ask(queries.labels_at, where, ids, scores)
        return ids, scores

    def _ask(self, function: object, points: NDArray[np.float32], *results: NDArray) -> None:
        with self._lock:
            shards = (self._store.shards[0], self._store.shards[1])
            _split(function, len(points), (shards, points, 1.0 / self.resolution), results)


def _split(function: object, count: int, common: tuple, results: tuple) -> None:
    """Call function(*common, start, stop, *results) for all, in two halves when there are many."""
    if count < SMALL:
        function(*common, 0, count, *results)  # type: ignore[operator]
    else:
        half = count // 2
        run_both(function, (*common, 0, half, *results), (*common, half, count, *results))  # type: ignore[arg-type]
