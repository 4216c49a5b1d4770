# SPDX-License-Identifier: Apache-2.0
"""The pinned environments: every package at one version, and none absent that a test would be skipped without."""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")
NOT_ON_PYPI = {"launch", "launch_ros", "launch_testing"}
"""ROS 2's launch tools: the only modules that tests want and pip cannot install."""


def pins(*files: str) -> dict[str, Requirement]:
    """Requirements of the files by canonical name."""
    lines = [line for name in files for line in (ROOT / name).read_text("utf-8").splitlines()]
    found = (Requirement(line) for line in lines if line and not line.startswith(("#", "-")))
    return {canonicalize_name(entry.name): entry for entry in found}


@pytest.fixture
def full_environment() -> None:
    if not Path(sys.prefix).name.startswith("env-full-"):
        pytest.skip("needs the environment of make test")


def test_requirements_agree_with_the_constraints():
    constraints, wanted = pins("constraints.txt"), pins(*REQUIREMENTS)
    assert all(str(entry.specifier).startswith("==") for entry in (*constraints.values(), *wanted.values()))
    both = constraints.keys() & wanted.keys()
    assert {name for name in both if constraints[name].specifier != wanted[name].specifier} == set()


@pytest.mark.usefixtures("full_environment")
def test_every_package_that_the_requirements_bring_is_pinned_at_its_version():
    pinned = pins("constraints.txt", *REQUIREMENTS)
    waiting, seen, differ = list(pins(*REQUIREMENTS).values()), set(), {}
    while waiting:
        entry = waiting.pop()
        name = canonicalize_name(entry.name)
        for extra in {"", *entry.extras}:
            if (name, extra) in seen or (entry.marker and not entry.marker.evaluate()):
                continue
            seen.add((name, extra))
            try:
                installed = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                differ[name] = "none"
                continue
            if name not in pinned or installed.version not in pinned[name].specifier:
                differ[name] = installed.version
            children = [Requirement(text) for text in installed.requires or []]
            for child in children:
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    child.marker = None  # It says of which extra the child is, and is done with.
                    waiting.append(child)
    assert len(seen) > 100
    assert differ == {}, "installed, and not pinned at this version"


@pytest.mark.usefixtures("full_environment")
@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="no ROS wheels for this machine")
def test_no_test_waits_for_a_module_that_the_environment_lacks():
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    wanted = {name for text in texts for name in re.findall(r'importorskip\(\s*"(\w+)', text)}
    assert {"rclpy", "ray", "rerun"} <= wanted
    assert {name for name in wanted if importlib.util.find_spec(name) is None} <= NOT_ON_PYPI
