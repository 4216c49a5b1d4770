# SPDX-License-Identifier: Apache-2.0
"""The map: a semantic octree with OctoMap's occupancy, and its files."""

from perception.mapping.inputs import InsertReport
from perception.mapping.insertion import CollectedScan
from perception.mapping.lookup import RayHits
from perception.mapping.merging import merge_maps
from perception.mapping.octree import SemanticOcTree, SensorModel
from perception.mapping.ray_casting import FREE, HIT, OUTSIDE, UNKNOWN
from perception.mapping.results import OccupiedColumns, OctreeLeaves
from perception.mapping.warmup import warm_up, warm_up_insertion, warm_up_reading

__all__ = [
    "FREE",
    "HIT",
    "OUTSIDE",
    "UNKNOWN",
    "CollectedScan",
    "InsertReport",
    "OccupiedColumns",
    "OctreeLeaves",
    "RayHits",
    "SemanticOcTree",
    "SensorModel",
    "merge_maps",
    "warm_up",
    "warm_up_insertion",
    "warm_up_reading",
]
