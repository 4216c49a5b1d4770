# SPDX-License-Identifier: Apache-2.0
"""Scores, timings and pictures of a run."""
