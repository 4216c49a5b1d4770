# SPDX-License-Identifier: Apache-2.0
"""What simulation needs beyond the package: tests that need it are skipped with the reason."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from perception.errors import MissingDependencyError
from perception.simulation.class_map import ClassMap
from perception.simulation.furniture import FurnitureCatalog
from perception.simulation.requirements import FURNITURE_FOLDER, FURNITURE_PACKAGE, create_context
from perception.simulation.scene import Scene
from perception.simulation.sdf import load_world


@pytest.fixture(scope="session")
def egl() -> None:
    """Skips the test where nothing can be rendered."""
    try:
        create_context().release()
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def furniture() -> Path:
    """Folder of the furniture; skips the test where it is not installed."""
    pytest.importorskip("trimesh", reason="needs perception[simulation]")
    if not FURNITURE_FOLDER.is_dir():
        pytest.skip(f"needs the system package {FURNITURE_PACKAGE}")
    return FURNITURE_FOLDER


@pytest.fixture(scope="session")
def catalog(furniture: Path) -> FurnitureCatalog:
    """The furniture, each model read once for all tests."""
    return FurnitureCatalog(furniture)


@pytest.fixture(scope="session")
def small_house(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """World file of the AWS small house, unpacked; skips the test where it is not at hand."""
    pytest.importorskip("collada", reason="needs perception[simulation]")
    archive = shared / "scenes" / "aws_small_house_visual_1024.tar.xz"
    if not archive.is_file():
        pytest.skip("needs aws_small_house_visual_1024.tar.xz")
    folder = tmp_path_factory.mktemp("small_house")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / "worlds" / "small_house.world"


@pytest.fixture(scope="session")
def small_house_scene(small_house: Path) -> Scene:
    """The AWS small house, read once for all tests."""
    return load_world(small_house, ClassMap.load("aws_small_house"))
