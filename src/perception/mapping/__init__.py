# SPDX-License-Identifier: Apache-2.0
"""The semantic octree: storage, ray casting, label fusion and OctoMap files."""
