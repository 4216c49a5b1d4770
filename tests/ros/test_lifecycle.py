# SPDX-License-Identifier: Apache-2.0
"""Nodes under a lifecycle manager: any transition in any order and any number of times, and nothing is left behind."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import psutil
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_kinds import NODES
from ros_bench import overrides
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Empty, Trigger

from perception.errors import InputError
from perception.mapping import SemanticOcTree
from perception.ros import bond
from perception.ros.lifecycle_manager_perception import LifecycleManager
from perception.ros.node import PerceptionNode, latched_qos
from perception.ros.octomap_node import OctomapNode
from perception.ros.transforms import TransformListener
from perception.ros.worker import FrameWorker

UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED = (
    State.PRIMARY_STATE_UNCONFIGURED,
    State.PRIMARY_STATE_INACTIVE,
    State.PRIMARY_STATE_ACTIVE,
    State.PRIMARY_STATE_FINALIZED,
)
LEADS_TO = {
    ("configure", UNCONFIGURED): INACTIVE,
    ("activate", INACTIVE): ACTIVE,
    ("deactivate", ACTIVE): INACTIVE,
    ("cleanup", INACTIVE): UNCONFIGURED,
    ("shutdown", UNCONFIGURED): FINALIZED,
    ("shutdown", INACTIVE): FINALIZED,
    ("shutdown", ACTIVE): FINALIZED,
}
"""The standard's transitions; all others are refused."""
KINDS = (FrameWorker, TransformListener, SemanticOcTree)


class Probe(PerceptionNode):
    """A node with one of everything; ``trouble`` makes the next transition fail."""

    def __init__(self, **node_arguments: Any) -> None:
        self.trouble: Exception | None = None
        self.loads = 0
        super().__init__("probe", **node_arguments)

    def load(self) -> None:
        self.loads += 1

    def setup(self) -> None:
        self.advertise(String, "probe_out", latched_qos())
        self.serve(Empty, "~/probe", lambda request, response: response)
        self._fail()

    def start(self) -> None:
        self.listen(Image, "probe_in", lambda message: None)
        self.every(0.05, lambda: None)
        self._fail()

    def _fail(self) -> None:
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble


def entities(node: Any) -> tuple[int, ...]:
    return tuple(
        len(list(kind)) for kind in (node.publishers, node.subscriptions, node.services, node.clients, node.timers)
    )


def state_of(node: Any) -> int:
    return node._state_machine.current_state[0]


def workers() -> int:
    return sum(thread.name == "frame worker" for thread in threading.enumerate())


step = st.tuples(
    st.sampled_from(["configure", "activate", "deactivate", "cleanup", "configure", "activate", "shutdown"]),
    st.sampled_from(["", "", "", "input", "bug"]),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(step, max_size=14))
def test_any_sequence_of_transitions_ends_in_the_standards_state_and_leaks_nothing(nodes, steps):
    before = workers()
    node = Probe(context=nodes.context)
    try:
        state = UNCONFIGURED
        counts = {UNCONFIGURED: entities(node)}
        for name, trouble in steps:
            target = LEADS_TO.get((name, state))
            if target is None:
                with pytest.raises(Exception, match=r"(?i)transi?tion"):
                    getattr(node, f"trigger_{name}")()
                assert state_of(node) == state
                continue
            fails = trouble and name in ("configure", "activate")
            node.trouble = (
                (InputError("refused") if trouble == "input" else ZeroDivisionError("bug")) if fails else None
            )
            getattr(node, f"trigger_{name}")()
            # A refusal leaves the state, a bug leads through error processing to the beginning.
            state = target if not fails else state if trouble == "input" else UNCONFIGURED
            assert state_of(node) == state
            key = UNCONFIGURED if state == FINALIZED else state
            assert counts.setdefault(key, entities(node)) == entities(node), (name, trouble)
            assert workers() - before == (state == ACTIVE)
    finally:
        node.destroy_node()
    assert workers() == before


@pytest.mark.parametrize("name", sorted(NODES))
def test_node_repeats_its_life_without_growing(nodes, name):
    kind, parameters = NODES[name]
    node = kind(context=nodes.context, parameter_overrides=overrides(**parameters))
    try:
        seen: dict[str, Any] = {}
        for _ in range(4):
            for step in ("configure", "activate", "deactivate", "activate", "deactivate", "cleanup"):
                assert getattr(node, f"trigger_{step}")().name == "SUCCESS", step
                found = (entities(node), workers())
                assert seen.setdefault(f"{step} {state_of(node)}", found) == found, step
        node.trigger_configure()
        node.trigger_activate()
        assert node.trigger_shutdown().name == "SUCCESS"
        assert workers() == 0
    finally:
        node.destroy_node()
    del node
    gc.collect()
    assert [kind.__name__ for kind in KINDS for item in gc.get_objects() if isinstance(item, kind)] == []


def test_destroyed_node_leaves_the_graph_at_once(nodes):
    gc.disable()
    try:
        node = Probe(context=nodes.context)
        node.trigger_configure()
        assert nodes.spin_until(lambda: "probe" in nodes.asking.get_node_names())
        node.destroy_node()
        assert nodes.spin_until(lambda: "probe" not in nodes.asking.get_node_names())
    finally:
        gc.enable()


def test_memory_of_a_node_that_is_reconfigured_again_and_again_stays(nodes):
    node = OctomapNode(context=nodes.context)
    process, sizes = psutil.Process(), []
    try:
        for cycle in range(45):
            for step in ("configure", "activate", "deactivate", "cleanup"):
                getattr(node, f"trigger_{step}")()
            if cycle in (14, 44):
                gc.collect()
                sizes.append(process.memory_info().rss)
    finally:
        node.destroy_node()
    assert sizes[1] - sizes[0] < 8e6, f"{(sizes[1] - sizes[0]) / 1e6:.1f} MB in 30 cycles"


def test_nothing_is_loaded_again_while_parameters_stay(nodes):
    node = Probe(context=nodes.context)
    assert node.loads == 1
    node.trigger_configure()
    node.trigger_activate()
    node.trigger_deactivate()
    assert node.loads == 1
    node.destroy_node()


def test_manager_takes_a_node_up_pauses_resumes_resets_and_ends_it_over_services(bench):
    """The calls that nav2_lifecycle_manager makes, in its order."""
    bench.add(OctomapNode)

    def change(name: str) -> bool:
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f"TRANSITION_{name}")
        return bench.call(ChangeState, "octomap_node/change_state", request).success

    def state() -> int:
        return bench.call(GetState, "octomap_node/get_state").current_state.id

    def run(*names: str) -> int:
        assert all(change(name) for name in names)
        return state()

    assert run("CONFIGURE", "ACTIVATE") == ACTIVE
    assert run("DEACTIVATE") == INACTIVE
    assert not change("CONFIGURE")
    assert run("ACTIVATE") == ACTIVE
    assert run("DEACTIVATE", "CLEANUP") == UNCONFIGURED
    assert run("CONFIGURE", "ACTIVATE", "DEACTIVATE", "CLEANUP", "UNCONFIGURED_SHUTDOWN") == FINALIZED
    assert not change("CONFIGURE")


def test_message_or_request_that_meets_a_bug_does_not_end_the_node(bench):
    class Buggy(Probe):
        def setup(self) -> None:
            self.serve(Empty, "~/probe", lambda request, response: 1 / 0)

        def start(self) -> None:
            self.listen(String, "words", lambda message: {"bad": self._refuse, "bug": lambda: 1 / 0}[message.data]())

        def _refuse(self) -> None:
            raise InputError("not this one")

    node = bench.add(Buggy)
    bench.activate(node)
    words = bench.publisher(String, "words")
    for word in ("bad", "bug"):
        words.publish(String(data=word))
    drops = {"malformed": 1, "internal": 1}
    bench.spin_until(lambda: node.statistics.snapshot().drops == drops)
    assert bench.call(Empty, "probe/probe") is not None


def test_deactivation_in_the_middle_of_a_long_frame_comes_back_and_its_results_are_dropped(nodes):
    gate, began = threading.Event(), threading.Event()

    class Slow(Probe):
        def process(self, frame: Any, needs: Any) -> None:
            began.set()
            gate.wait(30)
            raise InputError("too late to count")

    node = Slow(context=nodes.context)
    try:
        node.trigger_configure()
        node.trigger_activate()
        node.worker.submit("frame")
        assert began.wait(10)
        start = time.monotonic()
        node.trigger_deactivate()
        assert time.monotonic() - start < 5.0
        gate.set()
        deadline = time.monotonic() + 5
        while workers() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert workers() == 0
        assert node.statistics.snapshot().drops == {}
        assert node.trigger_activate().name == "SUCCESS"
    finally:
        gate.set()
        node.destroy_node()


def test_active_node_sends_heartbeats_and_says_when_it_stops(bench):
    status = pytest.importorskip("bond.msg", reason="needs the messages of bond: pip install ./src/ros_msgs").Status
    node = bench.add(Probe, bond_heartbeat_period=0.05)
    beats = []
    bench.node.create_subscription(status, "bond", beats.append, 10)
    node.trigger_configure()
    bench.spin_until(lambda: not any(publisher.topic_name == "/bond" for publisher in node.publishers))
    assert beats == []
    node.trigger_activate()
    bench.spin_until(lambda: len(beats) >= 3)
    assert {(beat.id, beat.active, beat.instance_id) for beat in beats} == {("probe", True, beats[0].instance_id)}
    assert beats[0].heartbeat_period == pytest.approx(0.05)
    node.trigger_deactivate()
    bench.spin_until(lambda: not beats[-1].active)
    first = beats[0].instance_id
    node.trigger_activate()
    bench.spin_until(lambda: beats[-1].active)
    assert beats[-1].instance_id != first


@pytest.mark.parametrize("why", ["no messages", "period 0"])
def test_node_without_bond_becomes_active_all_the_same(nodes, monkeypatch, why):
    if why == "no messages":
        monkeypatch.setattr(bond, "find_spec", lambda name: None)
        assert not bond.is_available()
    period = 0.1 if why == "no messages" else 0.0
    node = Probe(context=nodes.context, parameter_overrides=overrides(bond_heartbeat_period=period))
    node.trigger_configure()
    assert node.trigger_activate().name == "SUCCESS"
    assert not any(publisher.topic_name == "/bond" for publisher in node.publishers)
    node.destroy_node()


@pytest.mark.parametrize("beats", [True, False])
def test_manager_with_a_bond_timeout_tells_a_node_that_falls_silent(bench, beats):
    pytest.importorskip("bond.msg", reason="needs the messages of bond: pip install ./src/ros_msgs")
    bench.add(LifecycleManager, node_names=["probe"], bond_timeout=0.5)
    bench.add(Probe, bond_heartbeat_period=0.1 if beats else 0.0)
    answer = lambda: bench.call(Trigger, "lifecycle_manager_perception/is_active")  # noqa: E731
    if beats:
        bench.spin_until(lambda: answer().success)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert answer().success
    else:
        bench.spin_until(lambda: state_of(bench._tested[1]) == ACTIVE)
        bench.spin_until(lambda: not answer().success and bench._tested[0]._managed[0].hangs)
