# SPDX-License-Identifier: Apache-2.0
"""Parameters of nodes: declared from the config classes, unknown names refused, YAML equal to the code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.node import Node
from rclpy.parameter import Parameter

from perception.errors import InputError
from perception.ros.detection_node import DetectionNode
from perception.ros.labeled_cloud_node import LabeledCloudNode
from perception.ros.node_config import CHANGEABLE, GROUPS, RENAMED, ROS1_NAMES
from perception.ros.octomap_node import OctomapNode
from perception.ros.parameters import NodeParameters, all_parameter_names, explain_unknown, parameter_specs
from perception.ros.pipeline_node import PipelineNode
from perception.ros.segmentation_node import SegmentationNode
from perception.ros.simulation_node import SimulationNode

CONFIG = Path(__file__).resolve().parents[2] / "config" / "perception.yaml"
NODES = {
    "segmentation_node": SegmentationNode,
    "labeled_cloud_node": LabeledCloudNode,
    "octomap_node": OctomapNode,
    "pipeline_node": PipelineNode,
    "detection_node": DetectionNode,
    "simulation_node": SimulationNode,
}
OCTOMAP_SERVER_DEFAULTS = {
    "frame_id": "map",
    "base_frame_id": "base_footprint",
    "resolution": 0.05,
    "sensor_model.max_range": -1.0,
    "sensor_model.hit": 0.7,
    "sensor_model.miss": 0.4,
    "sensor_model.min": 0.12,
    "sensor_model.max": 0.97,
    "compress_map": True,
    "incremental_2D_projection": False,
    "max_depth": 16,
    "point_cloud_min_x": -1.7976931348623157e308,
    "point_cloud_max_x": 1.7976931348623157e308,
    "point_cloud_min_y": -1.7976931348623157e308,
    "point_cloud_max_y": 1.7976931348623157e308,
    "point_cloud_min_z": -100.0,
    "point_cloud_max_z": 100.0,
    "occupancy_min_z": -100.0,
    "occupancy_max_z": 100.0,
    "min_x_size": 0.0,
    "min_y_size": 0.0,
    "filter_speckles": False,
    "filter_ground_plane": False,
    "ground_filter.distance": 0.04,
    "ground_filter.angle": 0.15,
    "ground_filter.plane_distance": 0.07,
    "use_height_map": False,
    "colored_map": False,
    "color_factor": 0.8,
    "color.r": 0.0,
    "color.g": 0.0,
    "color.b": 1.0,
    "color.a": 1.0,
    "color_free.r": 0.0,
    "color_free.g": 1.0,
    "color_free.b": 0.0,
    "color_free.a": 1.0,
    "publish_free_space": False,
    "latch": True,
    "octomap_path": "",
}


def specs_of(name: str) -> dict[str, Any]:
    return NODES[name].parameter_specs()


@pytest.fixture
def declare(nodes):
    """Declares the parameters of octomap_node with overrides, on a bare node."""
    made: list[Node] = []

    def make(**overrides: Any) -> tuple[Node, NodeParameters]:
        values = [Parameter(name.replace("__", "."), value=value) for name, value in overrides.items()]
        made.append(Node("parameters", context=nodes.context, parameter_overrides=values))
        return made[-1], NodeParameters(made[-1], specs_of("octomap_node"))

    yield make
    for node in made:
        node.destroy_node()


def test_octomap_node_has_octomap_servers_parameters_with_its_defaults():
    specs = specs_of("octomap_node")
    assert {name: specs[name].default for name in OCTOMAP_SERVER_DEFAULTS} == OCTOMAP_SERVER_DEFAULTS


def test_every_parameter_has_a_description_and_every_name_means_one_thing():
    described: dict[str, set[str]] = {}
    for group in GROUPS:
        for name, spec in parameter_specs([group]).items():
            assert spec.metadata["description"].strip(), name
            described.setdefault(name, set()).add(f"{group}.{spec.path}")
    assert {name: paths for name, paths in described.items() if len(paths) > 1} == {}


def test_renamed_ros1_and_changeable_names_exist():
    known = all_parameter_names()
    assert set(RENAMED.values()) <= known
    assert set(ROS1_NAMES.values()) <= known
    assert all(prefix == "classes." or any(name.startswith(prefix) for name in known) for prefix in CHANGEABLE)


def test_yaml_repeats_the_defaults_of_the_code_except_the_range_limit():
    document = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert {key.removeprefix("/**/") for key in document} == set(NODES)
    for key, content in document.items():
        written = flat(content["ros__parameters"])
        defaults = {name: spec.default for name, spec in specs_of(key.removeprefix("/**/")).items()}
        if "sensor_model.max_range" in defaults:
            assert written.pop("sensor_model.max_range") == 5.0
            del defaults["sensor_model.max_range"]
        assert written == defaults
        assert {name: type(value) for name, value in written.items()} == {
            name: type(value) for name, value in defaults.items()
        }


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in tree.items():
        result.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return result


def test_declared_parameters_carry_description_range_and_whether_they_are_fixed(declare):
    node, _ = declare()
    descriptor = node.describe_parameter("resolution")
    assert "voxel" in descriptor.description
    assert (descriptor.floating_point_range[0].from_value, descriptor.floating_point_range[0].to_value) == (0.001, 10.0)
    assert "Fixed" in descriptor.additional_constraints
    depth = node.describe_parameter("max_depth")
    assert (depth.integer_range[0].from_value, depth.integer_range[0].to_value) == (1, 16)
    assert depth.additional_constraints == ""


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ({"resolutoin": 0.1}, "did you mean 'resolution'"),
        ({"sensor_model__hits": 0.8}, "did you mean 'sensor_model.hit'"),
        ({"xyzzy": 1}, "expected one of"),
        ({"height_map": True}, "use 'use_height_map'"),
        ({"sensor_model/max_range": 3.0}, "use 'sensor_model.max_range'"),
        ({"sensor_model/min_range": 0.3}, "use 'min_range'"),
        ({"pointcloud_min_z": 0.0}, "use 'point_cloud_min_z'"),
        ({"filter_ground": True}, "use 'filter_ground_plane'"),
        ({"resolution": 99.0}, "resolution: expected 0.001 to 10.0, got 99.0"),
        ({"resolution": "fine"}, "resolution: expected a number, got 'fine'"),
        ({"latch": 1}, "latch: expected a bool, got 1"),
        ({"sensor_model__hit": math.nan}, "sensor_model.hit: expected a number, got NaN"),
        ({"transform_timeout": -1.0}, "transform_timeout: expected 0.0 to 60.0, got -1.0"),
    ],
)
def test_wrong_parameter_stops_the_node_with_a_sentence(declare, override, sentence):
    with pytest.raises(InputError) as error:
        declare(**override)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_whole_number_is_taken_for_a_decimal(declare):
    _, parameters = declare(resolution=1)
    assert parameters.config("octomap").resolution == 1.0


def test_parameter_of_another_node_is_left_alone(declare):
    # A file with /** gives every node everything.
    _, parameters = declare(segmentation__model="none")
    assert "segmentation.model" not in parameters.values()


def test_overrides_reach_the_config_classes(declare):
    _, parameters = declare(resolution=0.1, sensor_model__max_range=4.0, transform_timeout=0.5, color__r=1.0)
    assert parameters.config("octomap").resolution == 0.1
    assert parameters.config("octomap").sensor_model.max_range == 4.0
    assert parameters.config("cloud").transform_timeout == 0.5
    assert parameters.config("server").color.r == 1.0


def test_fixed_parameter_cannot_change_while_configured_but_others_can(declare):
    _, parameters = declare()
    parameters.check_changes({"sensor_model.hit": 0.8}, fixed=True)
    parameters.check_changes({"resolution": 0.1}, fixed=False)
    with pytest.raises(InputError, match="'resolution': fixed while the node is configured"):
        parameters.check_changes({"resolution": 0.1}, fixed=True)
    with pytest.raises(InputError, match=r"sensor_model.hit: expected 0.5 to 0.999"):
        parameters.check_changes({"sensor_model.hit": 0.2}, fixed=True)


def test_cost_of_a_class_is_a_parameter_and_an_unknown_class_an_error(declare):
    _, parameters = declare(classes__rug__cost=30)
    assert parameters.declare_costs({"floor": 0, "rug": 10}) == {"floor": 0, "rug": 30}
    _, parameters = declare(classes__rgu__cost=30)
    with pytest.raises(InputError, match=r"did you mean 'classes.rug.cost'"):
        parameters.declare_costs({"floor": 0, "rug": 10})
    _, parameters = declare(classes__rug__cost=300)
    with pytest.raises(InputError, match="0 to 254, got 300"):
        parameters.declare_costs({"rug": 10})


def test_private_name_of_ros1_is_recognized():
    assert "use 'resolution'" in explain_unknown("~resolution", {"resolution"})
