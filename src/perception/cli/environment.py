# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine for ``perception doctor``: libraries, ROS, kernels, weights, graphics, disk."""

from __future__ import annotations

import ctypes.util
import importlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from perception.errors import PerceptionError
from perception.ros.findings import Finding, error, ok, warning

PYTHON = ((3, 10), (3, 13))
"""Oldest and newest Python that the package was written for."""
LIBRARIES = {
    "numpy": (1, 26),
    "numba": (0, 60),
    "cv2": (4, 6),
    "yaml": (6, 0),
    "rosbags": (0, 11),
    "safetensors": (0, 4),
    "matplotlib": (3, 6),
    "psutil": (5, 9),
    "tqdm": (4, 60),
}
"""Modules that are always needed, and the oldest version of each, as in setup.py."""
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "yaml": "PyYAML"}
MESSAGES = {
    "octomap_msgs": "octomap_binary and octomap_full",
    "vision_msgs": "label_info and detections",
    "map_msgs": "semantic_costmap_updates",
    "tf2_msgs": "transforms",
    "nav2_msgs": "masks for Nav2's costmap filters",
}
"""Message packages and what needs them."""
KERNELS = {"cloud_kernels", "update", "scan", "rays", "columns"}
"""Files whose kernels every map needs."""
MIN_DISK_GB = 1.0
MIN_SHARED_MEMORY_MB = 100.0


def check_environment() -> Iterator[Finding]:
    """Look at everything that needs no running graph; one finding after another, as some take a second."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _libraries,
        _networks,
        _kernels,
        _weights,
        _ros,
        _graphics,
        _disk,
    ]
    for check in checks:
        yield from check()


def _python() -> Iterator[Finding]:
    have = ".".join(map(str, sys.version_info[:3]))
    oldest, newest = (".".join(map(str, version)) for version in PYTHON)
    if sys.version_info[:2] < PYTHON[0]:
        yield error("Python", f"Python {have} is too old", f"install Python {oldest} to {newest}")
    elif sys.version_info[:2] > PYTHON[1]:
        yield warning("Python", f"Python {have} is newer than any that was tried", f"expect trouble, or take {newest}")
    else:
        yield ok("Python", f"Python {have} in {sys.prefix}")


def _libraries() -> Iterator[Finding]:
    for module, oldest in LIBRARIES.items():
        wanted = ".".join(map(str, oldest))
        package = DISTRIBUTIONS.get(module, module)
        try:
            have = version_of(importlib.import_module(module), package)
        except Exception as problem:
            # numba refuses a NumPy that it does not know with an ImportError; broken wheels raise anything.
            reason = " ".join(str(problem).split())
            yield error("library", f"{module} cannot be imported ({reason})", f"pip install '{package}>={wanted}'")
            continue
        if numbers(have) < oldest:
            yield error("library", f"{package} {have} is too old", f"pip install '{package}>={wanted}'")
        else:
            yield ok("library", f"{package} {have}")


def _networks() -> Iterator[Finding]:
    found = []
    if find_spec("onnxruntime"):
        runtime = importlib.import_module("onnxruntime")
        found.append(f"ONNX Runtime {runtime.__version__} ({', '.join(runtime.get_available_providers())})")
    if find_spec("torch"):
        torch = importlib.import_module("torch")
        device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU only"
        found.append(f"PyTorch {torch.__version__} ({device})")
    if found:
        yield ok("networks", "; ".join(found))
    else:
        advice = "pip install onnx onnxruntime, or torch; or map geometry only with segmentation.model none"
        yield error("networks", "neither ONNX Runtime nor PyTorch is installed", advice)


def _kernels() -> Iterator[Finding]:
    try:
        from perception import numba_cache  # noqa: F401  (sets the folder)

        folder = Path(importlib.import_module("numba").config.CACHE_DIR)
    except ImportError:
        return
    compiled = {path.name.partition(".")[0] for path in folder.rglob("*.nbi")}
    if compiled >= KERNELS:
        yield ok("kernels", f"compiled, in {folder}")
    else:
        advice = "run perception warmup once, so that nodes start in seconds"
        yield warning("kernels", "not compiled for this version yet: the first start takes minutes", advice)


def _weights() -> Iterator[Finding]:
    from perception.models.cards import shipped_card
    from perception.models.weights import find_weights

    for name in ("deeplabv3plus_mobilenetv2_rooms", "deeplabv3plus_mobilenetv2", "yolox_nano"):
        source = shipped_card(name).weights
        if source is None:
            continue
        try:
            path = find_weights(source, download=False)
        except PerceptionError as problem:
            yield error("weights", str(problem), "install the package again")
        else:
            yield ok("weights", f"{path.name}: its checksum is right")


def _ros() -> Iterator[Finding]:
    if find_spec("rclpy") is None:
        advice = "source /opt/ros/jazzy/setup.bash, or pip install ros-jazzy-rclpy; not needed for recordings"
        yield warning("ROS", "rclpy is not there: offline commands only", advice)
        return
    # The wheels from PyPI have no set-up script that would name the place of installed packages.
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    try:
        utilities = importlib.import_module("rclpy.utilities")
        middleware = utilities.get_rmw_implementation_identifier()
    except Exception as problem:
        reason = " ".join(str(problem).split())
        yield error(
            "ROS", f"rclpy is there but cannot be imported ({reason})", "source ROS's setup.bash, then try again"
        )
        return
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    distribution = os.environ.get("ROS_DISTRO", "from PyPI")
    yield ok("ROS", f"rclpy ({distribution}) over {middleware}, domain {domain}")
    for package, purpose in MESSAGES.items():
        if find_spec(package) is None:
            advice = f"sudo apt install ros-jazzy-{package.replace('_', '-')}, or pip install ./src/ros_msgs"
            yield error("ROS", f"{package} is missing ({purpose})", advice)
    yield from _shared_memory(middleware)


def _shared_memory(middleware: str) -> Iterator[Finding]:
    place = Path("/dev/shm")
    if "fastrtps" not in middleware or not place.is_dir():
        return
    free_mb = shutil.disk_usage(place).free / 1e6
    if free_mb < MIN_SHARED_MEMORY_MB:
        advice = "containers: run with --ipc=host or --shm-size=512m; else remove old segments with fastdds shm clean"
        yield warning("ROS", f"only {free_mb:.0f} MB of shared memory are free for images", advice)
    elif not os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE"):
        advice = "export FASTRTPS_DEFAULT_PROFILES_FILE=…/share/perception/config/fastdds_shm.xml for camera and nodes"
        yield warning("ROS", "Fast DDS has its default buffers: large images are often lost", advice)


def _graphics() -> Iterator[Finding]:
    if ctypes.util.find_library("EGL"):
        yield ok("EGL", "found; perception simulate can render")
    else:
        advice = "sudo apt install libegl1 libgl1 libgl1-mesa-dri; needed for perception simulate alone"
        yield warning("EGL", "no libEGL", advice)


def _disk() -> Iterator[Finding]:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = next(folder for folder in (base, *base.parents) if folder.exists())
    free_gb = shutil.disk_usage(place).free / 1e9
    if free_gb < MIN_DISK_GB:
        yield error("disk", f"only {free_gb:.1f} GB free at {place}", "make room: kernels, weights and maps need it")
    else:
        yield ok("disk", f"{free_gb:.0f} GB free at {place}")


def version_of(module: Any, distribution: str) -> str:
    """Version of a module, by itself or by its package's metadata."""
    from importlib.metadata import PackageNotFoundError, version

    own = getattr(module, "__version__", None)
    if isinstance(own, str):
        return own
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "0"


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.1rc3" gives (2, 1)."""
    result = []
    for part in version.split("."):
        digits = re.match(r"\d{1,9}", part)
        if digits is None:
            break
        result.append(int(digits[0]))
    return tuple(result)
