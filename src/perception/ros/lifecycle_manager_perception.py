# SPDX-License-Identifier: Apache-2.0
"""Brings the perception nodes up and keeps them up: what Nav2's lifecycle manager does, without Nav2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from perception.ros import bond
from perception.ros.clock import guard_clock
from perception.ros.node import run_node

PERIOD_S = 0.25
WATCH_PERIOD_S = 1.0
"""How often nodes are looked at once all are active."""
ANSWER_TIMEOUT_S = 60.0
"""How long a transition may take."""
STATE_TIMEOUT_S, STATE_TRIES = 5.0, 6
"""A node that does not tell its state is asked again: DDS loses an answer to somebody whom the node has yet to find."""
MAX_RETRY_S = 30.0
TOWARDS_ACTIVE = {
    State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
    State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE,
}
"""The transition that leads from a state towards active."""
TOWARDS_UNCONFIGURED = {
    State.PRIMARY_STATE_ACTIVE: Transition.TRANSITION_DEACTIVATE,
    State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_CLEANUP,
}


@dataclass
class _Managed:
    """A node that is managed."""

    name: str
    get_state: Any
    change_state: Any
    state: int | None = None
    failures: int = 0
    retry_s: float = 0.0
    beat_s: float = 0.0
    hangs: bool = False


class LifecycleManager(Node):
    """Takes nodes to active, in order, and again whenever one was restarted.

    A node that fails to configure is named in the log and tried again, less and less often. Services: ``~/is_active``,
    ``~/startup``, ``~/shutdown`` (std_srvs/Trigger). Parameters as nav2_lifecycle_manager's: ``node_names``,
    ``autostart``, ``bond_timeout``; the last is 0 here, as the messages of bond may not be installed.
    """

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("lifecycle_manager_perception", **node_arguments)
        guard_clock(self, lambda sentence: self.get_logger().warning(sentence, throttle_duration_sec=1.0))
        names = self.declare_parameter(
            "node_names", ["pipeline_node"], ParameterDescriptor(description="Nodes to manage, in order of bring-up")
        ).value
        self._up = bool(
            self.declare_parameter(
                "autostart", True, ParameterDescriptor(description="Bring the nodes up at once")
            ).value
        )
        timeout = "An active node without a heartbeat for this long hangs, s; 0 goes by what the nodes answer"
        self._bond_timeout_s = float(
            self.declare_parameter("bond_timeout", 0.0, ParameterDescriptor(description=timeout)).value or 0.0
        )
        self._clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._managed = [
            _Managed(
                name,
                self.create_client(GetState, f"{name}/get_state"),
                self.create_client(ChangeState, f"{name}/change_state"),
            )
            for name in names or []
        ]
        self._listen_to_bonds()
        self._announced = False
        self._next_look_s = 0.0
        self._call: tuple[Future, Any, float] | None = None
        self.create_service(Trigger, "~/is_active", self._on_is_active)
        self.create_service(Trigger, "~/startup", self._on_wish(True))
        self.create_service(Trigger, "~/shutdown", self._on_wish(False))
        # A group of its own: the step waits for answers that the default group's clients receive.
        group = MutuallyExclusiveCallbackGroup()
        self.create_timer(PERIOD_S, self._step, callback_group=group, clock=self._clock)
        self.create_timer(PERIOD_S, self._give_up_calls, clock=self._clock)

    @property
    def is_active(self) -> bool:
        """Whether all nodes are active, as of the last look."""
        return not self._waiting()

    def _waiting(self) -> list[str]:
        return [node.name for node in self._managed if node.state != State.PRIMARY_STATE_ACTIVE or node.hangs]

    def _listen_to_bonds(self) -> None:
        if self._bond_timeout_s <= 0:
            return
        if not bond.is_available():
            self.get_logger().warning("bond_timeout is without effect: the messages of bond are not installed")
            self._bond_timeout_s = 0.0
            return
        from bond.msg import Status

        self.create_subscription(Status, bond.TOPIC, self._on_beat, bond.QUEUE_DEPTH)

    def _on_beat(self, status: Any) -> None:
        for node in self._managed:
            if node.name.rpartition("/")[2] == status.id and status.active:
                node.beat_s = self._now()

    async def _step(self) -> None:
        """Look at the nodes in order and move the first that is not where it should be."""
        if self._announced and self._now() < self._next_look_s:
            return
        self._next_look_s = self._now() + WATCH_PERIOD_S
        steps = TOWARDS_ACTIVE if self._up else TOWARDS_UNCONFIGURED
        # Down in reverse order: what depends on others goes first.
        for node in self._managed if self._up else reversed(self._managed):
            answer = await self._ask(node.get_state, GetState.Request(), STATE_TIMEOUT_S, STATE_TRIES)
            self._note_state(node, answer.current_state.id if answer is not None else None)
            if node.state is None and self._up:
                return
            transition = steps.get(node.state) if node.state is not None else None
            if transition is not None:
                await self._change(node, transition)
                return
        self._announce()

    async def _change(self, node: _Managed, transition: int) -> None:
        if self._now() < node.retry_s:
            return
        request = ChangeState.Request()
        request.transition.id = transition
        answer = await self._ask(node.change_state, request)
        if answer is not None and answer.success:
            node.failures = 0
            return
        node.retry_s = self._now() + min(2.0**node.failures, MAX_RETRY_S)
        node.failures += 1
        self.get_logger().error(f"{node.name} refused or did not answer; its own log says why")

    async def _ask(self, client: Any, request: Any, timeout_s: float = ANSWER_TIMEOUT_S, tries: int = 1) -> Any:
        """The answer of a service; None when there is none."""
        for _ in range(tries):
            if not client.service_is_ready():
                return None
            future = client.call_async(request)
            self._call = (future, client, self._now() + timeout_s)
            answer = await future
            self._call = None
            if answer is not None:
                return answer
        return None

    def _give_up_calls(self) -> None:
        if self._call is None:
            return
        future, client, deadline = self._call
        if not future.done() and (self._now() > deadline or not client.service_is_ready()):
            future.cancel()

    def _note_state(self, node: _Managed, state: int | None) -> None:
        if state != State.PRIMARY_STATE_ACTIVE:
            self._announced = False
        if state is None and node.state is not None:
            self.get_logger().warning(f"{node.name} is gone")
        if state == State.PRIMARY_STATE_ACTIVE != node.state:
            node.beat_s = self._now()
        node.state = state
        silent_s = self._now() - node.beat_s
        hangs = 0 < self._bond_timeout_s < silent_s and state == State.PRIMARY_STATE_ACTIVE
        if hangs and not node.hangs:
            self.get_logger().error(f"{node.name} hangs: no heartbeat for {silent_s:.1f} s")
            self._announced = False
        node.hangs = hangs

    def _announce(self) -> None:
        if not self._announced and self._up and self.is_active:
            self._announced = True
            self.get_logger().info("all nodes are active")

    def _on_is_active(self, request: Any, response: Any) -> Any:
        waiting = self._waiting()
        response.success = not waiting
        response.message = f"not active: {', '.join(waiting)}" if waiting else "all nodes are active"
        return response

    def _on_wish(self, up: bool) -> Callable[[Any, Any], Any]:
        def callback(request: Any, response: Any) -> Any:
            self._up, self._announced, response.success = up, False, True
            return response

        return callback

    def _now(self) -> float:
        return self._clock.now().nanoseconds / 1e9


def main(arguments: list[str] | None = None) -> int:
    """Run the manager."""
    return run_node(LifecycleManager, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
