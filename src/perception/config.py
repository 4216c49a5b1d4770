# SPDX-License-Identifier: Apache-2.0
"""Every parameter, its default, its bounds and its description, once. Unknown keys are errors.

ROS nodes declare their parameters from these classes, the command line reads YAML files into them.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from perception.errors import InputError
from perception.yaml_text import load_yaml

T = TypeVar("T")
MAX_FLOAT = sys.float_info.max
# Python compiles the annotations of a class anew at every call.
_hints = cache(get_type_hints)


def param(
    default: Any,
    description: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its description and bounds (inclusive)."""
    metadata = {"description": description, "minimum": minimum, "maximum": maximum, "choices": choices}
    return field(default=default, metadata=metadata)


def section(cls: type) -> Any:
    """A nested group of parameters."""
    return field(default_factory=cls)


class Checked:
    """Checks every field against its type and bounds when the dataclass is made."""

    def __post_init__(self) -> None:
        hints = _hints(type(self))
        for item in fields(self):  # type: ignore[arg-type]
            value = _coerce(item.name, getattr(self, item.name), hints[item.name])
            object.__setattr__(self, item.name, value)
            _check_bounds(item.name, value, item.metadata)
        for low, high in ((name, name.replace("_min_", "_max_")) for name in hints if "_min_" in name):
            if high in hints and not getattr(self, low) < getattr(self, high):
                raise InputError(
                    f"{low}: expected less than {high}, got {getattr(self, low)} and {getattr(self, high)}"
                )


@dataclass(frozen=True)
class SensorModelConfig(Checked):
    """OctoMap's inverse sensor model; names and defaults as octomap_server's ``sensor_model.*``."""

    hit: float = param(0.7, "Probability that a voxel is occupied when a beam ends in it", 0.5, 0.999)
    miss: float = param(0.4, "Probability that a voxel is occupied when a beam passes through it", 0.001, 0.5)
    min: float = param(0.12, "Lower clamping bound of the occupancy probability", 0.001, 0.499)
    max: float = param(0.97, "Upper clamping bound of the occupancy probability", 0.501, 0.999)
    max_range: float = param(
        -1.0, "Longest ray that is inserted, m; longer ones only clear up to it; -1 for no limit", -1.0
    )


@dataclass(frozen=True)
class SegmentationConfig(Checked):
    """Which network labels the images, and how."""

    model: str = param("default", "Registry name, package.module:function, a .onnx file, or none (geometry only)")
    device: str = param("auto", "Where the network runs: auto, cpu, cuda or cuda:N")
    backend: str = param("auto", "What runs it", choices=("auto", "torch", "onnxruntime", "openvino"))
    weights: str = param("", "Weights file (.safetensors); empty searches the package and the user's cache")
    labels: str = param("", "Label set of a user's network: name of a shipped set or a YAML file")
    label_map: str = param("", "YAML file that maps classes of the network to classes of the map; empty keeps them")
    input_width: int = param(
        0, "Width to which images are resized for the network, pixels; 0 for the network's own", 0, 8192
    )
    input_height: int = param(
        0, "Height to which images are resized for the network, pixels; 0 for the network's own", 0, 8192
    )
    min_confidence: float = param(0.0, "Pixels whose label is less probable than this count as unlabeled", 0.0, 1.0)
    num_threads: int = param(0, "CPU threads of the network; 0 leaves it to the library", 0, 256)
    precision: str = param(
        "float32", "Numbers it computes with; bfloat16: openvino, torch", choices=("float32", "bfloat16")
    )


@dataclass(frozen=True)
class DetectionConfig(Checked):
    """Which network finds objects in the images, and which of them count."""

    model: str = param("default", "Registry name, or package.module:function")
    device: str = param("auto", "Where the network runs: auto, cpu, cuda or cuda:N")
    backend: str = param("auto", "What runs it", choices=("auto", "torch", "onnxruntime", "openvino"))
    weights: str = param("", "Weights file (.safetensors); empty searches the package and the user's cache")
    labels: str = param("", "Label set of a user's network: name of a shipped set or a YAML file")
    input_width: int = param(0, "Width of the network's input, pixels; 0 for the network's own", 0, 8192)
    input_height: int = param(0, "Height of the network's input, pixels; 0 for the network's own", 0, 8192)
    score_threshold: float = param(0.3, "Objects below this score are dropped", 0.0, 1.0)
    iou_threshold: float = param(
        0.45, "Of two boxes of a class that overlap by more than this share, the less sure one is dropped", 0.0, 1.0
    )
    max_detections: int = param(100, "The surest objects of an image are kept, at most this many", 1, 1000)
    classes: str = param("", "Names of the classes to keep, separated by commas; empty keeps all")
    num_threads: int = param(0, "CPU threads of the network; 0 leaves it to the library", 0, 256)


@dataclass(frozen=True)
class BoxConfig(Checked):
    """How detections become boxes in space, and how these are followed over time."""

    min_points: int = param(20, "Objects with fewer depth pixels get no box", 1, 100000)
    min_range: float = param(0.1, "Nearer depth is ignored, m", 0.0)
    max_range: float = param(0.0, "Farther depth is ignored, m; 0 for no limit", 0.0)
    min_depth: float = param(0.1, "Depth this near to an object's median always counts to it, m", 0.001, 10.0)
    percentile: float = param(
        5.0, "A box reaches from this percentile of the points' coordinates to 100 minus it", 0.0, 40.0
    )
    track_distance: float = param(0.8, "An object is the one last seen within this distance of here, m", 0.01, 100.0)
    track_memory: float = param(2.0, "How long an object keeps its id unseen, s", 0.1, 3600.0)
    min_sightings: int = param(2, "An object gets its id when it is seen this often", 1, 100)


@dataclass(frozen=True)
class CloudConfig(Checked):
    """How depth becomes labeled points."""

    stride: int = param(1, "Use every n-th pixel in both directions", 1, 64)
    min_range: float = param(0.1, "Nearer depth is dropped, m", 0.0)
    max_range: float = param(0.0, "Farther points mark nothing and clear up to this distance, m; 0 for no limit", 0.0)
    edge_threshold: float = param(
        0.05, "Neighbors whose depth differs by more than this share of it are an edge; 0 for off", 0.0, 10.0
    )
    edge_radius: int = param(1, "Pixels around a depth edge that lose their label (not their geometry)", 0, 16)
    moving_margin: int = param(2, "Pixels by which the mask of moving classes is widened", 0, 64)
    clear_no_return: bool = param(True, "Pixels with +inf depth clear up to the maximum range")
    clear_zero: bool = param(
        False, "Pixels with zero depth clear too (glass and black surfaces also give zero: unsafe)"
    )
    sync_tolerance: float = param(0.02, "Largest difference between the stamps of color and depth, s", 0.0, 10.0)
    transform_timeout: float = param(0.2, "How long a frame waits for its transform, s", 0.0, 60.0)


@dataclass(frozen=True)
class OctomapConfig(Checked):
    """The semantic octree; names and defaults as octomap_server's where it has them."""

    frame_id: str = param("map", "Fixed frame of the map")
    base_frame_id: str = param("base_footprint", "Frame of the robot on the ground")
    resolution: float = param(0.05, "Edge of a voxel, m", 0.001, 10.0)
    sensor_model: SensorModelConfig = section(SensorModelConfig)
    labels_per_voxel: int = param(4, "Classes remembered per voxel", 1, 8)
    max_label_score: float = param(
        10.0, "Bound of a class's log score: how sure a voxel can get of its label", 0.1, 1000.0
    )
    max_memory_mb: float = param(
        0.0, "Bound of the map's memory, MB; the farthest parts are forgotten; 0 for no bound", 0.0
    )


@dataclass(frozen=True)
class GroundFilterConfig(Checked):
    """Limits of the ground plane; names and defaults as octomap_server's ``ground_filter.*``."""

    distance: float = param(0.04, "Points within this distance of the plane belong to it, m", 0.0, 10.0)
    angle: float = param(0.15, "Largest angle between the plane and the horizontal, rad", 0.0, 1.5707963267948966)
    plane_distance: float = param(0.07, "Largest height of the plane above or below the base frame, m", 0.0, 100.0)


@dataclass(frozen=True)
class MarkerColorConfig(Checked):
    """A color of markers."""

    r: float = param(0.0, "Red", 0.0, 1.0)
    g: float = param(0.0, "Green", 0.0, 1.0)
    b: float = param(1.0, "Blue", 0.0, 1.0)
    a: float = param(1.0, "Opacity", 0.0, 1.0)


@dataclass(frozen=True)
class FreeColorConfig(MarkerColorConfig):
    """Color of free voxels."""

    g: float = param(1.0, "Green", 0.0, 1.0)
    b: float = param(0.0, "Blue", 0.0, 1.0)


@dataclass(frozen=True)
class CloudFilterConfig(Checked):
    """Which points of an incoming cloud count; names and defaults as octomap_server's.

    Limits are of the map frame, with ``filter_ground_plane`` of the base frame.
    """

    point_cloud_min_x: float = param(-MAX_FLOAT, "Points below this x are ignored, m")
    point_cloud_max_x: float = param(MAX_FLOAT, "Points above this x are ignored, m")
    point_cloud_min_y: float = param(-MAX_FLOAT, "Points below this y are ignored, m")
    point_cloud_max_y: float = param(MAX_FLOAT, "Points above this y are ignored, m")
    point_cloud_min_z: float = param(-100.0, "Points below this z are ignored, m")
    point_cloud_max_z: float = param(100.0, "Points above this z are ignored, m")
    filter_ground_plane: bool = param(False, "Points of the ground plane clear the way to them and mark nothing")
    ground_filter: GroundFilterConfig = section(GroundFilterConfig)


@dataclass(frozen=True)
class OctomapServerConfig(Checked):
    """How the map is shown and projected; names and defaults as octomap_server's."""

    compress_map: bool = param(True, "Without effect, for octomap_server's users: the map is always pruned")
    incremental_2D_projection: bool = param(
        False, "Without effect, for octomap_server's users: projected_map is always complete"
    )
    max_depth: int = param(16, "Depth down to which the map is shown and projected; 16 is single voxels", 1, 16)
    occupancy_min_z: float = param(-100.0, "Voxels below this z are neither shown nor projected, m")
    occupancy_max_z: float = param(100.0, "Voxels above this z are neither shown nor projected, m")
    min_x_size: float = param(0.0, "Least extent of projected_map along x, m", 0.0, 10000.0)
    min_y_size: float = param(0.0, "Least extent of projected_map along y, m", 0.0, 10000.0)
    filter_speckles: bool = param(False, "Neither show nor project occupied voxels without an occupied neighbor")
    use_height_map: bool = param(False, "Color the markers by height, also those with a class")
    colored_map: bool = param(False, "A map without classes takes the colors of the clouds (rgb)")
    color_factor: float = param(0.8, "Share of the color circle that heights run through", 0.0, 1.0)
    color: MarkerColorConfig = section(MarkerColorConfig)
    color_free: FreeColorConfig = section(FreeColorConfig)
    publish_free_space: bool = param(False, "Publish free_cells_vis_array too")
    latch: bool = param(True, "Late subscribers receive the last map (transient local)")
    octomap_path: str = param("", "Map file (.bt or .ot) to start from and for load_map; empty starts with nothing")


@dataclass(frozen=True)
class CostmapConfig(Checked):
    """How the octree becomes a Nav2 grid."""

    step_height: float = param(0.08, "Highest step that the robot drives over, m", 0.0, 10.0)
    robot_height: float = param(
        1.5, "Occupied space between step and this height above the ground blocks, m", 0.0, 100.0
    )
    max_slope_deg: float = param(20.0, "Steepest slope the ground may have, degrees", 0.0, 60.0)
    min_traversable_probability: float = param(
        0.7, "How sure a traversable label must be to let the robot through", 0.0, 1.0
    )
    floor_search_height: float = param(
        0.5, "Ground is looked for up to this height above the lowest ground nearby, m", 0.0, 10.0
    )
    default_ground_cost: int = param(0, "Cost of ground without a label, 0 (free) to 254 (lethal)", 0, 254)
    inflation_radius: float = param(0.0, "Widen obstacles by this, m; 0 leaves it to Nav2's InflationLayer", 0.0, 10.0)
    cost_scaling_factor: float = param(
        10.0, "Exponential decay of inflated cost, 1/m, as Nav2's InflationLayer", 0.0, 1000.0
    )


@dataclass(frozen=True)
class PerceptionConfig(Checked):
    """Everything the pipeline needs."""

    segmentation: SegmentationConfig = section(SegmentationConfig)
    cloud: CloudConfig = section(CloudConfig)
    octomap: OctomapConfig = section(OctomapConfig)
    costmap: CostmapConfig = section(CostmapConfig)
    costs: Mapping[str, int] = field(
        default_factory=dict, metadata={"description": "Navigation cost by class name, in place of the label set's"}
    )


def from_dict(cls: type[T], data: Mapping[str, Any] | None, where: str = "") -> T:
    """Build a config from nested mappings.

    Raises:
        InputError: an unknown key (the message lists the known ones), a wrong type or a value out of bounds.
    """
    data = {} if data is None else data
    if not isinstance(data, Mapping):
        raise InputError(f"{where or 'config'}: expected a mapping, got {type(data).__name__}")
    hints, values = _hints(cls), {}
    for key, value in data.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise InputError(f"{name}: unknown parameter; expected one of {sorted(hints)}")
        values[key] = from_dict(hints[key], value, name) if is_dataclass(hints[key]) else value
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(f"{where}.{error}" if where else str(error)) from error


def to_dict(config: Any) -> dict[str, Any]:
    """The inverse of :func:`from_dict`, plain values only."""
    result = {}
    for item in fields(config):
        value = getattr(config, item.name)
        result[item.name] = (
            to_dict(value) if is_dataclass(value) else dict(value) if isinstance(value, Mapping) else value
        )
    return result


def flatten(cls: type, prefix: str = "") -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """All parameters of a config class: dotted name to (default, metadata with description and bounds)."""
    hints, result = _hints(cls), {}
    for item in fields(cls):
        name = f"{prefix}{item.name}"
        if is_dataclass(hints[item.name]):
            result.update(flatten(hints[item.name], f"{name}."))
        else:
            default = item.default if item.default is not MISSING else item.default_factory()  # type: ignore[misc]
            result[name] = (default, item.metadata)
    return result


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names to nested mappings: ``{"a.b": 1}`` to ``{"a": {"b": 1}}``."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"{name}: {parent} is a value, not a group of parameters")
        place[last] = value
    return result


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, nested mappings joined."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def read_settings(path: str | Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML file (None for an empty one) with ``group.name=value`` strings laid over it.

    Raises:
        InputError: unreadable file, not a mapping, an override of another form.
    """
    data: Mapping[str, Any] = {}
    if path is not None:
        try:
            data = load_yaml(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise InputError(f"config {path}: cannot be read ({str(error).splitlines()[0]})") from error
        if not isinstance(data, Mapping):
            raise InputError(f"config {path}: expected a mapping, got {type(data).__name__}")
    changes: dict[str, Any] = {}
    for text in overrides:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InputError(f"--set: expected group.name=value, got {text!r}")
        try:
            changes[name.strip()] = load_yaml(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {name}: value {value!r} is not YAML") from error
    return merge(data, nest(changes))


def load_config(path: str | Path | None, overrides: list[str] | None = None) -> PerceptionConfig:
    """Read a YAML file (None for defaults) and lay ``group.name=value`` strings over it.

    Raises:
        InputError: unreadable file, unknown key, wrong value.
    """
    return from_dict(PerceptionConfig, read_settings(path, overrides or ()))


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """Accept ints for floats; refuse everything else of another type (YAML's ``on`` for a number, say)."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin if isinstance(origin, type) else hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        label = "a number" if expected is float else f"a {expected.__name__}"
        raise InputError(f"{name}: expected {label}, got {value!r}")
    return value


def _check_bounds(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    low, high, choices = metadata.get("minimum"), metadata.get("maximum"), metadata.get("choices")
    if isinstance(value, float) and value != value:
        raise InputError(f"{name}: expected a number, got NaN")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"{low} to {high}" if high is not None else f"at least {low}"
        raise InputError(f"{name}: expected {bounds}, got {value}")
    if choices and value not in choices:
        raise InputError(f"{name}: expected one of {list(choices)}, got {value!r}")
