# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may use."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FE_DFL_ENV = ctypes.c_void_p(-1)
"""The floating-point environment that a program starts with, as glibc's fenv.h writes it."""
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of recorded data and weights beside the repository; skips the test where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the folder of recorded data (../shared) beside the repository")
    return SHARED


@pytest.fixture(autouse=True)
def gradual_underflow() -> Iterator[None]:
    """Networks make the processor flush denormal numbers, for speed; the next test gets plain IEEE arithmetic again."""
    yield
    if sys.platform == "linux":
        ctypes.CDLL(None).fesetenv(FE_DFL_ENV)
