# SPDX-License-Identifier: Apache-2.0
"""Rooms with known truth: scenes, a renderer, robots that drive through them, and recordings of what they see."""
