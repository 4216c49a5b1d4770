# SPDX-License-Identifier: Apache-2.0
"""The map: a semantic octree with OctoMap's occupancy, and its files."""

from perception.mapping._numba import set_cache_folder

# Before the first compiled function is imported.
set_cache_folder()

from perception.mapping.inputs import InsertReport  # noqa: E402
from perception.mapping.lookup import RayHits  # noqa: E402
from perception.mapping.octree import SemanticOcTree, SensorModel  # noqa: E402
from perception.mapping.queries import FREE, HIT, OUTSIDE, UNKNOWN  # noqa: E402
from perception.mapping.results import OccupiedColumns, OctreeLeaves  # noqa: E402
from perception.mapping.warmup import warm_up  # noqa: E402

__all__ = [
    "FREE",
    "HIT",
    "OUTSIDE",
    "UNKNOWN",
    "InsertReport",
    "OccupiedColumns",
    "OctreeLeaves",
    "RayHits",
    "SemanticOcTree",
    "SensorModel",
    "warm_up",
]
