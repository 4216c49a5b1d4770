# SPDX-License-Identifier: Apache-2.0
"""What rendering needs beyond the package itself, said in one place."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from perception.errors import MissingDependencyError

PYTHON_EXTRA = "simulation"
SYSTEM_PACKAGES = ("libegl1", "libgl1", "libgl1-mesa-dri")
"""Debian and Ubuntu packages of the software renderer."""
FURNITURE_PACKAGE = "sweethome3d-furniture"
"""Debian and Ubuntu package of the models that procedural houses are furnished with."""
FURNITURE_FOLDER = Path("/usr/share/sweethome3d/furniture")
APT_LINE = f"apt-get install {' '.join(SYSTEM_PACKAGES)} {FURNITURE_PACKAGE}"


def require(module: str) -> Any:
    """Import an optional module.

    Raises:
        MissingDependencyError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"simulation needs the Python package {module}: install perception[{PYTHON_EXTRA}] ({error})"
        ) from error


def create_context() -> Any:
    """An OpenGL 3.3 context without a window, through EGL (Mesa renders in software where there is no GPU).

    Raises:
        MissingDependencyError: no moderngl, no EGL or no driver; the message says what to install.
    """
    moderngl = require("moderngl")
    try:
        return moderngl.create_context(
            require=330, standalone=True, backend="egl", libgl="libGL.so.1", libegl="libEGL.so.1"
        )
    except Exception as error:
        # moderngl raises bare Exception for every trouble with the driver.
        raise MissingDependencyError(f"simulation cannot open EGL ({error}); run: {APT_LINE}") from error
