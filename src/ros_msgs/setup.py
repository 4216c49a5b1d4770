# SPDX-License-Identifier: Apache-2.0
"""ROS 2 message packages that PyPI lacks, in one wheel: ``pip install ./src/ros_msgs``.

Only for environments whose ROS 2 comes from PyPI. On an apt installation the same packages come from apt: there
COLCON_IGNORE keeps colcon away from this folder.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # PEP 517 builds do not put the project's folder on the path.

from rosidl_wheel import BuildInterfaces, extension_name  # noqa: E402

# Message packages that each package's definitions refer to, theirs included.
DEPENDENCIES = {
    "bond": ["builtin_interfaces", "std_msgs"],
    "map_msgs": ["builtin_interfaces", "std_msgs"],
    "nav2_msgs": ["builtin_interfaces", "std_msgs"],
    "octomap_msgs": ["builtin_interfaces", "std_msgs", "geometry_msgs", "service_msgs"],
    "tf2_msgs": ["builtin_interfaces", "std_msgs", "geometry_msgs"],
    "vision_msgs": ["builtin_interfaces", "std_msgs", "geometry_msgs"],
}


def interface_package(name: str) -> Extension:
    """One extension module per message package; its sources are the definitions."""
    definitions = sorted(path.relative_to(HERE).as_posix() for path in (HERE / name).glob("*/*.[ms][sr][gv]"))
    return Extension(extension_name(name), sources=definitions, libraries=DEPENDENCIES[name])


setup(
    name="perception-ros-msgs",
    version="0.1.0",
    description="bond, map_msgs, nav2_msgs, octomap_msgs, tf2_msgs and vision_msgs for ROS 2 Jazzy from PyPI",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[],
    py_modules=[],
    ext_modules=[interface_package(name) for name in DEPENDENCIES],
    cmdclass={"build_ext": BuildInterfaces},
    install_requires=["numpy", "ros-jazzy-rclpy>=7.1,<8", "ros-jazzy-sensor-msgs"],
)
