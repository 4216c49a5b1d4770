# SPDX-License-Identifier: Apache-2.0
"""Semantic perception for robots: camera frames in, semantic octree and Nav2 costmap out.

The package is layered; each layer imports only the ones before it:
``errors, labels, geometry`` ← ``types, config`` ← ``cloud, models, mapping, sources`` ← ``costmap, evaluation``
← ``pipeline, training`` ← ``cli, ros``. Heavy libraries (numba, torch, rclpy) load only when first used.
"""

__version__ = "0.1.0"
