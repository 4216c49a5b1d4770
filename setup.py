# SPDX-License-Identifier: Apache-2.0
"""Package metadata: the only place for it, read by pip and by colcon."""

from collections import defaultdict
from glob import glob
from os.path import dirname, isfile
from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup


def shared_files():
    """Launch and configuration files, installed below share/perception folder by folder."""
    folders = defaultdict(list)
    for path in sorted(glob("launch/*.launch.py") + glob("config/**/*", recursive=True)):
        if isfile(path):
            folders[f"share/perception/{dirname(path)}"].append(path)
    return list(folders.items())


# colcon build --symlink-install links this file into another folder, and not the text beside it.
HERE = Path(__file__).resolve().parent
NODES = [
    "segmentation_node",
    "labeled_cloud_node",
    "octomap_node",
    "pipeline_node",
    "detection_node",
    "simulation_node",
    "lifecycle_manager_perception",
]

setup(
    name="perception",
    version=ElementTree.parse("package.xml").getroot().findtext("version"),
    description="Semantic perception for robots: camera frames in, semantic octree and Nav2 costmap out",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    package_dir={"": "src"},
    packages=find_packages("src", include=["perception", "perception.*"]),
    package_data={"perception": ["data/**/*", "report/assets/*"]},
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.26",
        "numba>=0.60",
        "opencv-python-headless>=4.6",
        "PyYAML>=6",
        "matplotlib>=3.6",
        "psutil>=5.9",
        "rosbags>=0.11",
        "safetensors>=0.4",
        "tqdm>=4.60",
    ],
    extras_require={
        "onnx": ["onnx>=1.15", "onnxruntime>=1.17"],
        "openvino": ["onnx>=1.15", "openvino>=2024.4"],
        "torch": ["torch>=2.4", "torchvision>=0.19"],
        "evaluation": ["pycocotools>=2.0.8"],
        "ray": ["ray>=2.9"],
        "recordings": ["isal>=1.6"],
        "tracking": ["norfair-enough>=2.4"],
        # colcon test runs pytest only where it finds it here.
        "test": ["pytest", "pytest-timeout", "hypothesis"],
        "training": [
            "albumentations>=2.0,<3",
            "pillow>=9",
            "pycocotools>=2.0.8",
            "tensorboard>=2.15",
            "torch>=2.4",
            "torchvision>=0.19",
        ],
        "viewer": ["rerun-sdk>=0.23"],
        "simulation": ["moderngl>=5.10", "pycollada>=0.8", "trimesh>=4.0"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/perception"]),
        ("share/perception", ["package.xml"]),
        *shared_files(),
    ],
    entry_points={
        "console_scripts": ["perception = perception.cli.main:main"]
        + [f"{node} = perception.ros.{node}:main" for node in NODES]
    },
    zip_safe=False,
)
