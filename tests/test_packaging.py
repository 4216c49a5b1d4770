# SPDX-License-Identifier: Apache-2.0
"""What is installed, by pip and by colcon, and what package.xml asks rosdep for."""

from __future__ import annotations

import ast
import os
import re
import runpy
import sys
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "perception"
ROSDEP_KEYS = {
    "cv2": "python3-opencv",
    "hypothesis": "python3-hypothesis",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "psutil": "python3-psutil",
    "pytest": "python3-pytest",
    "scipy": "python3-scipy",
    "setuptools": "python3-setuptools",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}
"""Modules that Ubuntu 24.04 has, by rosdep's key."""
PIP_REQUIRED = {"numba", "rosbags", "safetensors"}
"""Modules that are always needed and that Ubuntu lacks: the recipes install them with pip."""
PIP_OPTIONAL = {
    "onnx", "onnxruntime", "torch", "torchvision", "norfair", "moderngl", "collada", "trimesh", "octomap", "PIL",
    "torch_xla", "mpl_toolkits", "pycocotools", "ray", "rerun", "lz4", "backports", "compression",
    "llvmlite", "cv_bridge", "packaging", "isal",
}  # fmt: skip
"""Modules that something works better with, or that come with one of the others; tests without them are skipped."""


def manifest(*kinds: str) -> set[str]:
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    return {element.text or "" for kind in kinds for element in root.findall(kind)}


@cache
def modules(folder: Path) -> dict[str, set[str]]:
    """Top-level modules that the files of a folder import from elsewhere, and the files."""
    own = {path.stem for path in folder.rglob("*.py")} | {path.name for path in folder.rglob("*") if path.is_dir()}
    result: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names}:
                if name != "perception" and name not in sys.stdlib_module_names and name not in own:
                    result.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return result


def missing(used: dict[str, set[str]], listed: set[str]) -> dict[str, set[str]]:
    other = PIP_REQUIRED | PIP_OPTIONAL
    return {
        name: files for name, files in used.items() if name not in other and ROSDEP_KEYS.get(name, name) not in listed
    }


def setup_arguments(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """What setup.py tells setuptools when it is run in a folder."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: told.update(arguments))
    monkeypatch.chdir(folder)
    runpy.run_path("setup.py")
    return told


def test_package_xml_lists_what_the_code_and_the_launch_files_import():
    listed = manifest("depend", "exec_depend")
    assert missing(modules(PACKAGE), listed) == {}
    assert missing(modules(ROOT / "launch"), listed) == {}


def test_package_xml_lists_what_the_tests_import():
    listed = manifest("depend", "exec_depend", "test_depend")
    # rosidl_wheel is of src/ros_msgs; its test puts it on the path.
    assert missing(modules(ROOT / "tests"), listed | {"rosidl_wheel"}) == {}


def test_package_xml_asks_for_no_python_module_that_nothing_imports():
    used = {ROSDEP_KEYS.get(name) for folder in (PACKAGE, ROOT / "tests") for name in modules(folder)}
    asked = {key for key in manifest("exec_depend", "test_depend") if key.startswith("python3-")}
    assert asked - used <= {"python3-pytest-timeout"}  # A plugin of pytest.


@pytest.mark.parametrize("recipe", ["README.md", "docker/Dockerfile"])
def test_recipes_install_with_pip_what_apt_lacks(recipe):
    text = (ROOT / recipe).read_text(encoding="utf-8")
    assert "--system-site-packages" in text
    for name in PIP_REQUIRED:
        assert name in text, f"{recipe} does not install {name}"


def test_setup_requires_every_module_that_is_always_needed(monkeypatch):
    required = {text.partition(">")[0] for text in setup_arguments(monkeypatch, ROOT)["install_requires"]}
    names = {"cv2": "opencv-python-headless", "yaml": "PyYAML"}
    needed = {key for key in ROSDEP_KEYS if ROSDEP_KEYS[key] in manifest("exec_depend")} | PIP_REQUIRED
    assert {names.get(name, name) for name in needed} <= required


def test_full_environment_brings_the_packages_of_every_extra(monkeypatch):
    extras = setup_arguments(monkeypatch, ROOT)["extras_require"]
    lines = [(ROOT / name).read_text("utf-8").splitlines() for name in ("requirements.txt", "requirements-dev.txt")]
    pinned = {line.partition("==")[0] for file in lines for line in file}
    assert {text.partition(">")[0] for texts in extras.values() for text in texts} - pinned == set()


def test_every_extra_is_in_the_readme_and_every_extra_that_a_message_names_exists(monkeypatch):
    extras = setup_arguments(monkeypatch, ROOT)["extras_require"].keys()
    readme = (ROOT / "README.md").read_text("utf-8")
    assert {name for name in extras - {"test"} if f"`{name}`" not in readme and f"[{name}]" not in readme} == set()
    texts = [path.read_text("utf-8") for path in PACKAGE.rglob("*.py")]
    assert {name for text in texts for name in re.findall(r"perception\[(\w+)\]", text)} <= extras


def test_marker_manifest_launch_and_configuration_files_are_installed(monkeypatch):
    files = dict(setup_arguments(monkeypatch, ROOT)["data_files"])
    assert files["share/ament_index/resource_index/packages"] == ["resource/perception"]
    assert files["share/perception"] == ["package.xml"]
    assert set(files["share/perception/launch"]) == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "launch").glob("*.launch.py")
    }
    config = {path.relative_to(ROOT).as_posix() for path in (ROOT / "config").rglob("*") if path.is_file()}
    assert {name for target, names in files.items() if "/config" in target for name in names} == config


def test_every_package_and_every_data_file_is_installed(monkeypatch):
    told = setup_arguments(monkeypatch, ROOT)
    packages = {".".join(path.parent.relative_to(ROOT / "src").parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(told["packages"]) == packages
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT / "src").parts) for folder in folders} == packages
    loose = [
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    ]
    assert told["package_data"] == {"perception": ["data/**/*", "report/assets/*"]}
    folders = PACKAGE / "data", PACKAGE / "report" / "assets"
    assert [path for path in loose if not any(folder in path.parents for folder in folders)] == []


def test_every_executable_is_a_function_that_exists(monkeypatch):
    scripts = setup_arguments(monkeypatch, ROOT)["entry_points"]["console_scripts"]
    for script in scripts:
        name, _, target = script.partition(" = ")
        module, _, function = target.partition(":")
        path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
        defined = {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}
        assert function in defined, name
    nodes = {path.stem for path in (PACKAGE / "ros").glob("*_node.py") if "run_node(" in path.read_text("utf-8")}
    assert nodes <= {script.partition(" ")[0] for script in scripts}


def test_colcon_test_runs_pytest(monkeypatch):
    """Where neither this nor tests_require names pytest, colcon runs unittest, which finds nothing and is content."""
    assert "pytest" in setup_arguments(monkeypatch, ROOT)["extras_require"]["test"]


def test_setup_works_where_colcon_links_it(monkeypatch, tmp_path):
    """``colcon build --symlink-install`` links these, and nothing else, into its build folder."""
    for name in ("setup.py", "setup.cfg", "package.xml"):
        os.symlink(ROOT / name, tmp_path / name)
    told = setup_arguments(monkeypatch, tmp_path)
    assert told["name"] == "perception"
    assert told["long_description"].startswith("# perception")
