# SPDX-License-Identifier: Apache-2.0
"""Training of segmentation networks: data, losses, the loop and what it leaves on disk."""
