# SPDX-License-Identifier: Apache-2.0
"""Settings of a process that works through frames: its memory and its threads."""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_S = 0.0005
"""A thread that runs Python gives way after this; Python's own 5 ms are a sixth of a frame at 30 Hz."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
"""Numbers of glibc's mallopt."""
MALLOC_OPTIONS = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 256 << 20, M_TOP_PAD: 64 << 20, M_ARENA_MAX: 2}
"""A frame needs the same megabytes as the one before. As glibc comes, it gives them back to the system in between, and
every frame pays for thousands of page faults: more than half of its latency."""


_tuned = False


def tune() -> None:
    """Make the whole process fit for frames at camera rate: threads give way soon, memory is kept.

    For programs of our own; who uses the package in a program of theirs may call it too.
    """
    global _tuned
    _tuned = True
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_memory()


def settle() -> None:
    """Have the garbage collector pass over all that was loaded until now, in a process that is tuned; else nothing.

    The libraries are more than a hundred thousand objects. To look through them takes longer than two frames.
    """
    if _tuned:
        gc.unfreeze()
        gc.collect()
        gc.freeze()


def keep_memory() -> bool:
    """Let the process reuse the memory of its arrays; False where the C library is not glibc."""
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in MALLOC_OPTIONS.items())
