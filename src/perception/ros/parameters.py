# SPDX-License-Identifier: Apache-2.0
"""Parameters of nodes, declared from the config classes. A name that nobody knows is an error, never ignored."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from perception.config import MAX_FLOAT, flatten, from_dict, nest
from perception.errors import InputError
from perception.ros.node_config import CHANGEABLE, GROUPS, RENAMED, ROS1_NAMES

T = TypeVar("T")

FOREIGN_PREFIXES = ("qos_overrides.", "use_sim_time", "start_type_description_service")
"""Parameters that rclpy itself declares."""
CLASS_PREFIX, COST_SUFFIX = "classes.", ".cost"
"""Navigation costs by class are declared once the classes are known."""
MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        group: key of ``GROUPS``.
        path: dotted name within the group's class.
        default: its value when nobody sets it.
        metadata: description, minimum, maximum, choices.
    """

    group: str
    path: str
    default: Any
    metadata: Mapping[str, Any]


def parameter_specs(groups: Iterable[str], single: Iterable[str] = ()) -> dict[str, ParameterSpec]:
    """Specs by ROS name.

    Args:
        groups: keys of ``GROUPS``.
        single: further parameters, as "group.path".
    """
    specs: dict[str, ParameterSpec] = {}
    wanted = [(group, None) for group in groups]
    wanted += [(name.partition(".")[0], name.partition(".")[2]) for name in single]
    for group, only in wanted:
        cls, prefix = GROUPS[group]
        for path, (default, metadata) in flatten(cls).items():
            if isinstance(default, dict) or (only is not None and path != only):
                continue
            specs[RENAMED.get(f"{group}.{path}", prefix + path)] = ParameterSpec(group, path, default, metadata)
    return specs


def all_parameter_names() -> set[str]:
    """Names that any of the nodes knows."""
    return set(parameter_specs(GROUPS))


def explain_unknown(name: str, known: Iterable[str]) -> str:
    """One sentence about a name that is not known: ROS 1's gets today's, a misspelt one the closest."""
    known = set(known)
    dotted = name.strip("~/").replace("/", ".")
    renamed = ROS1_NAMES.get(dotted) or (dotted if dotted in known else None)
    if renamed is not None:
        return f"parameter {name!r}: a name of ROS 1's octomap_server; use {renamed!r}"
    close = difflib.get_close_matches(name, sorted(known), 1, 0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {sorted(known)}"
    return f"parameter {name!r}: unknown; {hint}"


class NodeParameters:
    """Declares the parameters of a node and reads them as config classes.

    Args:
        node: just created, nothing declared yet.
        specs: parameters by ROS name (:func:`parameter_specs`).

    Raises:
        InputError: the node was started with a parameter that no node knows, or with a wrong value.
    """

    def __init__(self, node: Node, specs: Mapping[str, ParameterSpec]) -> None:
        self._node = node
        self._specs = dict(specs)
        overrides = self._overrides()
        elsewhere = self._check_names(overrides)
        if elsewhere:
            node.get_logger().info(f"parameters of other nodes, not used here: {', '.join(sorted(elsewhere))}")
        values = {name: _lenient(spec.default, overrides.get(name, spec.default)) for name, spec in specs.items()}
        self._check_values(values)
        for name, spec in specs.items():
            descriptor = describe(name, spec.default, spec.metadata)
            node.declare_parameter(name, values[name], descriptor, ignore_override=True)

    def values(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Current values by ROS name, with changes laid over them."""
        current = {name: self._node.get_parameter(name).value for name in self._specs}
        return {**current, **{name: value for name, value in (changes or {}).items() if name in self._specs}}

    def config(self, group: str, changes: Mapping[str, Any] | None = None) -> Any:
        """A group as its config class; defaults for what this node does not declare.

        Raises:
            InputError: a value is out of bounds.
        """
        return _config(group, self._specs, self.values(changes))

    def declare_costs(self, costs: Mapping[str, int]) -> dict[str, int]:
        """Declare the navigation cost of every class, with the label set's as default; returns those in force.

        Raises:
            InputError: the node was started with a cost for a class that is not there.
        """
        overrides = self._overrides()
        names = {f"{CLASS_PREFIX}{name}{COST_SUFFIX}": name for name in costs}
        for override in overrides:
            if override.startswith(CLASS_PREFIX) and override not in names:
                raise InputError(explain_unknown(override, names))
        result = {}
        for parameter, name in names.items():
            if not self._node.has_parameter(parameter):
                metadata = {"description": f"Navigation cost of {name}", "minimum": 0, "maximum": 254}
                value = overrides.get(parameter, int(costs[name]))
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 254:
                    raise InputError(f"parameter {parameter!r}: expected a whole number 0 to 254, got {value!r}")
                self._node.declare_parameter(parameter, value, describe(parameter, 0, metadata), ignore_override=True)
            result[name] = int(self._node.get_parameter(parameter).value or 0)
        return result

    def check_changes(self, changes: Mapping[str, Any], fixed: bool) -> None:
        """Whether parameters may change to these values.

        Args:
            changes: new values by ROS name.
            fixed: the node is configured, so that only ``CHANGEABLE`` parameters may change.

        Raises:
            InputError: why they may not.
        """
        for name in changes:
            if fixed and name in self._specs and not name.startswith(CHANGEABLE):
                raise InputError(f"parameter {name!r}: fixed while the node is configured; clean it up first")
        self._check_values(self.values(changes))

    def _overrides(self) -> dict[str, Any]:
        # rclpy has no public way to list overrides of parameters that are not declared.
        overrides: Mapping[str, Any] = self._node._parameter_overrides  # type: ignore[attr-defined]
        return {name: parameter.value for name, parameter in overrides.items()}

    def _check_names(self, overrides: Mapping[str, Any]) -> set[str]:
        """Names that only other nodes know; they come from wildcards in a file for several nodes."""
        elsewhere = set()
        for name in overrides:
            if name in self._specs or name.startswith((*FOREIGN_PREFIXES, CLASS_PREFIX)):
                continue
            if name not in all_parameter_names():
                raise InputError(explain_unknown(name, self._specs))
            elsewhere.add(name)
        return elsewhere

    def _check_values(self, values: Mapping[str, Any]) -> None:
        for group in {spec.group for spec in self._specs.values()}:
            _config(group, self._specs, values)


def describe(name: str, default: Any, metadata: Mapping[str, Any]) -> ParameterDescriptor:
    """The descriptor that ``ros2 param describe`` shows: description, range, choices."""
    descriptor = ParameterDescriptor(name=name, description=str(metadata.get("description", "")))
    low, high, choices = (metadata.get(key) for key in ("minimum", "maximum", "choices"))
    if choices:
        descriptor.additional_constraints = f"One of: {', '.join(choices)}."
    if not name.startswith(CHANGEABLE):
        fixed = "Fixed while the node is configured."
        descriptor.additional_constraints = " ".join(filter(None, (descriptor.additional_constraints, fixed)))
    if isinstance(default, bool) or (low is None and high is None):
        return descriptor
    if isinstance(default, int):
        bounds = IntegerRange(
            from_value=-MAX_INTEGER if low is None else int(low), to_value=MAX_INTEGER if high is None else int(high)
        )
        descriptor.integer_range = [bounds]
    elif isinstance(default, float):
        bounds = FloatingPointRange(
            from_value=-MAX_FLOAT if low is None else float(low), to_value=MAX_FLOAT if high is None else float(high)
        )
        descriptor.floating_point_range = [bounds]
    return descriptor


def _lenient(default: Any, value: Any) -> Any:
    """Whole numbers for decimals, as YAML writes them: ``resolution: 1``."""
    return float(value) if isinstance(default, float) and type(value) is int else value


def _config(group: str, specs: Mapping[str, ParameterSpec], values: Mapping[str, Any]) -> Any:
    cls, prefix = GROUPS[group]
    mine = {specs[name].path: value for name, value in values.items() if name in specs and specs[name].group == group}
    try:
        return from_dict(cls, nest(mine), prefix.rstrip("."))
    except InputError as error:
        message = str(error)
        for path, name in RENAMED.items():
            message = message.replace(path, name)
        raise InputError(f"parameter {message}") from error
