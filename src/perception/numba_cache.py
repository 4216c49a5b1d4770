# SPDX-License-Identifier: Apache-2.0
"""How kernels are compiled, and where numba keeps them.

Numba renews a cached function when the file of that function changes, but not when a compiled function it calls, in
another file, does. The folder is therefore named by a hash over all files with kernels and numba's version: other
sources, other folder. A user's own NUMBA_CACHE_DIR is left alone. Importing this module sets the folder, so every file
with kernels takes its decorator from here.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numba
from numba.core.registry import CPUDispatcher


def source_digest() -> str:
    """16 hexadecimal digits over this package's files with kernels and numba's version."""
    digest = hashlib.sha256(numba.__version__.encode())
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        if b"numba" in content:
            digest.update(path.relative_to(package).as_posix().encode() + content)
    return digest.hexdigest()[:16]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def set_cache_folder() -> None:
    """Point numba at a folder of our own; where the user's cache is not writable, at one that ends with the process."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "perception" / "numba" / source_digest()
    if not _writable(folder):
        folder = Path(tempfile.mkdtemp(prefix="perception-numba-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]


set_cache_folder()


njit = functools.partial(numba.njit, no_cfunc_wrapper=True)  # pyright: ignore[reportCallIssue]
"""Decorator of functions that allocate, used as ``@njit(cache=True, nogil=True)``. Nobody calls them from C: the way in
from there takes as long to compile as the function itself."""
_OPTIONS = {"cache": True, "nogil": True, "no_cfunc_wrapper": True, "_nrt": False, "error_model": "numpy"}
kernel = numba.njit(**_OPTIONS)  # pyright: ignore[reportCallIssue]
"""Decorator of functions that allocate nothing. Without numba's reference counts they can hand their arrays on to
other such functions for free; counting twenty arrays at each call would cost more than most of them do. A division by
zero gives infinity or NaN as in NumPy: a check for it would keep loops from vectorizing."""


class _Inner(CPUDispatcher):
    """A kernel that only kernels call. A way in from Python, which takes named tuples apart, costs time to compile."""

    def __call__(self, *arguments: object, **named: object) -> NoReturn:  # pyright: ignore
        raise TypeError(f"{self.__name__}: expected a call from a kernel, got one from Python")


def inner(function: Callable[..., Any], forceinline: bool = False) -> Any:
    """Decorator of kernels that only kernels call."""
    dispatcher = numba.njit(**_OPTIONS, forceinline=forceinline, no_cpython_wrapper=True)(function)  # pyright: ignore
    # With NUMBA_DISABLE_JIT, for a debugger, it is the function itself.
    if isinstance(dispatcher, CPUDispatcher):
        dispatcher.__class__ = _Inner
    return dispatcher


inlined = functools.partial(inner, forceinline=True)
"""The same for small functions of named tuples of arrays: a call would push every field of every array."""
