# SPDX-License-Identifier: Apache-2.0
"""Holds the layers, the size of files and what an import may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "perception"
SOURCES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"errors", "labels", "geometry", "geometry_kernels", "numba_cache", "process"}
    | {"atomic_file", "inflate", "yaml_text"},
    {"types", "config", "tf_buffer", "cloud_codec", "depth_kernels"}
    | {"image_codec", "image_headers", "image_kernels", "png_depth"},
    {
        "cloud",
        "cloud_kernels",
        "cloud_labels",
        "detections3d",
        "instance_labels",
        "registration",
        "self_filter",
        "tracking",
        "models",
        "mapping",
        "sources",
        "simulation",
    },
    {"costmap", "evaluation"},
    {"pipeline", "overlap", "replay", "evaluate", "report", "sweep", "sweep_ray", "record", "training", "compilation"},
    {"cli", "ros"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
APART = {
    "mapping": {"models", "sources", "cloud"},
    "models": {"mapping", "sources", "cloud", "detections3d", "tracking"},
    "sources": {"models", "mapping"},
}
MESSAGE_PACKAGES = {
    "bond", "builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs", "map_msgs", "nav2_msgs",
    "nav_msgs",
    "octomap_msgs", "rcl_interfaces", "rclpy", "rosgraph_msgs", "sensor_msgs", "std_msgs", "std_srvs", "tf2_msgs",
    "vision_msgs", "visualization_msgs", "launch", "launch_ros",
}  # fmt: skip
HEAVY = {"numba", "torch", "rclpy", "onnxruntime", "onnx", "matplotlib", "cv2", "ray", "rerun", "pycocotools"}


def room(path: Path) -> str:
    """The module or folder of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, runtime_only: bool = False) -> set[str]:
    """Full names of everything a file imports; with ``runtime_only``, not what only type checkers see."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    if runtime_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                skipped.update(child for statement in node.body for child in ast.walk(statement))
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def identify(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_file_imports_no_higher_layer(path: Path):
    own = room(path)
    if own in {"__init__", "__main__"}:
        return
    for name in imports(path, runtime_only=True):
        parts = name.split(".")
        if parts[0] == "perception" and len(parts) > 1 and parts[1] in RANK and parts[1] != own:
            assert RANK[parts[1]] <= RANK[own], f"{own} imports {parts[1]}, a higher layer"
            assert parts[1] not in APART.get(own, set()), f"{own} must not know {parts[1]}"


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_file_begins_with_its_license(path: Path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_file_has_at_most_400_lines(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_only_the_ros_layer_imports_ros_and_only_models_and_training_import_torch(path: Path):
    packages = {name.split(".")[0] for name in imports(path)}
    if room(path) != "ros":
        assert not packages & MESSAGE_PACKAGES
    if room(path) not in {"models", "training"}:
        assert not packages & {"torch", "torchvision"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("perception", HEAVY),
        ("perception.cli.main", HEAVY),
        ("perception.types", HEAVY),
        ("perception.config", HEAVY),
        ("perception.models", HEAVY - {"cv2"}),
        ("perception.sources", HEAVY - {"cv2"}),
        ("perception.pipeline", {"torch", "rclpy", "onnxruntime", "onnx", "matplotlib"}),
    ],
)
def test_import_does_not_load_heavy_libraries(module: str, heavy: set[str]):
    code = f"import sys, {module}; print(' '.join(sorted(set(sys.modules) & {heavy!r})))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert loaded.stdout.strip() == ""


def test_package_xml_lists_every_ros_package_that_the_code_imports():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    listed = {element.text for kind in ("depend", "exec_depend") for element in manifest.findall(kind)}
    files = [*(PACKAGE / "ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    used = {name.split(".")[0] for path in files for name in imports(path)} & MESSAGE_PACKAGES
    assert used <= listed, f"package.xml lacks {sorted(used - listed)}"
    assert listed & MESSAGE_PACKAGES <= used, (
        f"package.xml lists but nothing imports {sorted(listed & MESSAGE_PACKAGES - used)}"
    )


def test_every_console_script_points_to_a_function():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    nodes = next(
        ast.literal_eval(node.value)
        for node in ast.parse(setup).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "NODES"
    )
    for node in nodes:
        tree = ast.parse((PACKAGE / "ros" / f"{node}.py").read_text(encoding="utf-8"))
        assert any(isinstance(item, ast.FunctionDef) and item.name == "main" for item in tree.body), node


def test_versions_agree():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    sys.path.insert(0, str(ROOT / "src"))
    import perception

    assert manifest.findtext("version") == perception.__version__
