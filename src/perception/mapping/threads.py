# SPDX-License-Identifier: Apache-2.0
"""Two threads for compiled functions that release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_helper: ThreadPoolExecutor | None = None


def _forget_helper() -> None:
    # A forked child has no helper thread, whatever the object says.
    global _helper
    _helper = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helper)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The machine code of a kernel that was called before, else the kernel.

    The kernel would find out the type of every argument first, in Python for named tuples: half a millisecond a scan,
    while no other thread can run. Only for kernels that are always called with the same types.
    """
    overloads = getattr(function, "overloads", ())
    return next(iter(overloads.values())).entry_point if len(overloads) == 1 else function


def run_both(function: Callable[..., Any], first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, Any]:
    """Call a function with two sets of arguments, at the same time where there are two cores."""
    global _helper
    if available_cores() < 2:
        return function(*first), function(*second)
    if _helper is None:
        _helper = ThreadPoolExecutor(1, thread_name_prefix="perception-map")
    other = _helper.submit(function, *second)
    try:
        mine = function(*first)
    finally:
        # On a busy machine the helper may not have begun yet: then this thread is faster. Whatever happens, the other
        # half must not be left writing.
        theirs = function(*second) if other.cancel() else other.result()
    return mine, theirs
