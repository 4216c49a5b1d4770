# SPDX-License-Identifier: Apache-2.0
"""What all nodes have in common: parameters, lifecycle, worker thread, diagnostics, a clean end."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

# The wheels from PyPI have no set-up script that would name the place of installed packages.
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions

from perception.errors import InputError, PerceptionError
from perception.ros import bond
from perception.ros.clock import guard_clock, watch_jumps
from perception.ros.diagnostics import Activity, Diagnostics
from perception.ros.parameters import NodeParameters, ParameterSpec, parameter_specs
from perception.ros.qos import latched_qos as latched_qos
from perception.ros.qos import on_new, policy_name, sensor_qos
from perception.ros.running import RCLError
from perception.ros.running import run_node as run_node
from perception.ros.statistics import Statistics
from perception.ros.transforms import TransformListener, WatchedTransforms
from perception.ros.worker import FrameWorker

EXIT_TIMEOUT_S = 0.4
"""How long the end of the program waits for the frame that the worker is at."""
STOP_TIMEOUT_S = 3.0
"""How long deactivation waits for it."""


class PerceptionNode(LifecycleNode):
    """A lifecycle node whose slow preparations are over before its lifecycle services appear.

    Nav2's lifecycle manager gives up on nodes that take seconds to configure, so networks are loaded and kernels
    compiled in the constructor, and again in ``on_configure`` only where parameters changed meanwhile.

    Subclasses say which parameters they have and override the hooks: ``load``, ``setup``, ``start``, ``process``,
    ``stop``, ``teardown``.

    Args:
        name: of the node, unless remapped.
        node_arguments: as rclpy.node.Node.

    Raises:
        InputError: an unknown or wrong parameter.
    """

    parameter_groups: ClassVar[tuple[str, ...]] = ()
    single_parameters: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, **node_arguments: Any) -> None:
        Node.__init__(self, name, **node_arguments)
        self.statistics = Statistics()
        guard_clock(self, lambda sentence: self.statistics.dropped("malformed", sentence))
        self.worker: FrameWorker | None = None
        self._further_workers: list[FrameWorker] = []
        self.transforms = WatchedTransforms(self._wake_worker)
        self._listener: TransformListener | None = None
        self._lasting: list[Callable[[], Any]] = []
        self._running: list[Callable[[], Any]] = []
        self._loaded: dict[str, Any] | None = None
        self._configured = False
        try:
            self.parameters = NodeParameters(self, self.parameter_specs())
        except PerceptionError:
            Node.destroy_node(self)
            raise
        try:
            self._load_once()
        except PerceptionError as error:
            self.get_logger().error(f"not ready yet: {error}")
        LifecycleNodeMixin.__init__(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.add_post_set_parameters_callback(self._on_parameters_set)
        self._diagnostics = Diagnostics(self, self.statistics, self._activity, self._all_details)
        self._jump_handle = watch_jumps(
            self, lambda back_s: self.clear_buffers(f"the clock jumped back by {back_s:.3f} s")
        )

    @property
    def end_timeout_s(self) -> float:
        """How long the end of the program may take after a signal, seconds."""
        return 1.7

    @classmethod
    def parameter_specs(cls) -> dict[str, ParameterSpec]:
        """All parameters of this kind of node, by name."""
        return parameter_specs((*cls.parameter_groups, "health"), cls.single_parameters)

    # Hooks of subclasses.

    def load(self) -> None:
        """Do what is slow: load networks, compile kernels. Raises PerceptionError."""

    def setup(self) -> None:
        """Create what exists while the node is configured: publishers, services."""

    def start(self) -> None:
        """Create what exists while the node is active: subscriptions, timers."""

    def stop(self) -> None:
        """React to deactivation; subscriptions and timers are gone by then."""

    def teardown(self) -> None:
        """Free what ``setup`` made, besides publishers and services."""

    def resolve(self, frame: Any) -> Any:
        """The transforms that a frame needs; raises TransformError while they are missing."""
        return None

    def process(self, frame: Any, needs: Any) -> None:
        """Do the work with a frame, in the worker thread; raises InputError to drop it."""

    def forget(self) -> None:
        """Clear buffers of messages: the clock has jumped back."""

    def check_parameters(self, changes: Mapping[str, Any]) -> None:
        """Refuse changes that the bounds of parameters do not show, with an InputError."""

    def parameters_changed(self, names: set[str]) -> None:
        """Apply parameters that may change while the node runs."""

    def details(self) -> Mapping[str, Any]:
        """Further values for the diagnostics."""
        return {}

    # What subclasses use.

    def advertise(
        self, message_type: Any, topic: str, qos: Any, matched: Callable[[], None] | None = None
    ) -> Publisher:
        """A publisher that lives until the node is cleaned up; ``matched`` hears of each new subscriber."""
        events = PublisherEventCallbacks(matched=on_new(matched)) if matched is not None else None
        options = QoSOverridingOptions.with_default_policies()
        publisher = self.create_publisher(
            message_type, topic, qos, event_callbacks=events, qos_overriding_options=options
        )
        self._lasting.append(lambda: self.destroy_publisher(publisher))
        return publisher

    def serve(self, service_type: Any, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """A service that lives until the node is cleaned up; when its callback fails, the answer stays empty."""

        def guarded(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception as error:
                self._log(f"service {name}", error)
                return service_type.Response()

        service = self.create_service(service_type, name, guarded)
        self._lasting.append(lambda: self.destroy_service(service))

    def listen(
        self,
        message_type: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos: Any = None,
        optional: bool = False,
    ) -> None:
        """A subscription that lives while the node is active.

        Args:
            message_type: of the topic.
            topic: name, before remapping.
            callback: takes the messages, which are counted.
            qos: sensor QoS unless given; with that, a topic that brings nothing is an error in the diagnostics.
            optional: the node does its work without this topic, too.
        """

        def counted(message: Any) -> None:
            self.statistics.received(topic)
            try:
                callback(message)
            except Exception as error:
                # One bad message must not end the node.
                reason = "malformed" if isinstance(error, InputError) else "internal"
                self.statistics.dropped(getattr(error, "reason", reason), f"{topic}: {error}")
                self._log(f"message on {name}", error)

        def mismatched(event: Any) -> None:
            text = f"a publisher of {name} offers less {policy_name(event)} than is asked for"
            self.get_logger().warning(f"{text}; set qos_overrides.{name}.subscription")
            self.statistics.mismatch(topic, text)

        name = self.resolve_topic_name(topic)
        subscription = self.create_subscription(
            message_type,
            topic,
            counted,
            qos or sensor_qos(),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=mismatched),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._running.append(lambda: self.destroy_subscription(subscription))
        if qos is None and not optional:
            self.statistics.expect(topic, name, once=message_type.__name__ == "CameraInfo")

    def start_worker(
        self,
        resolve: Callable[[Any], Any],
        process: Callable[[Any, Any], None],
        dropped: Callable[[str, str, str], None],
    ) -> FrameWorker:
        """A worker besides the node's own, with a thread of its own, that lives while the node is active."""
        timeout_s = self.parameters.values().get("transform_timeout", 0.0)
        worker = FrameWorker(resolve, process, dropped, timeout_s, lambda: not self.context.ok())
        self._further_workers.append(worker)
        self._running.append(lambda: (self._further_workers.remove(worker), worker.stop(EXIT_TIMEOUT_S)))
        return worker

    def every(self, period_s: float, callback: Callable[[], None]) -> None:
        """A timer in real time that lives while the node is active: what came last is published even if /clock ends."""
        timer = self.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._running.append(lambda: self.destroy_timer(timer))

    def done(self, stamp_ns: int, source: str = "") -> None:
        """Count a frame whose results are published; ``source`` is its camera or topic where there are several."""
        self.statistics.processed(self.get_clock().now().nanoseconds - stamp_ns, source)

    def now_ns(self) -> int:
        """Time of the node's clock, nanoseconds."""
        return self.get_clock().now().nanoseconds

    # Lifecycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Prepare everything; fails with a sentence in the log."""
        return self._transition(self._set_up, self._clean_up)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to listen."""
        return self._transition(self._start, self._stop)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; the map stays."""
        return self._transition(self._stop)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, the map too."""
        return self._transition(self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End from any state."""
        return self._transition(lambda: (self._stop(), self._clean_up()))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured after an error."""
        return self._transition(lambda: (self._stop(), self._clean_up()))

    def destroy_node(self) -> None:
        """End the worker, then the node."""
        self._stop(EXIT_TIMEOUT_S)
        super().destroy_node()
        # It holds the node, which would stay in the graph until Python collects garbage.
        self._state_machine.destroy_when_not_in_use()

    def _set_up(self) -> None:
        self._load_once()
        self.setup()
        self._configured = True

    def _start(self) -> None:
        timeout = self.parameters.values().get("transform_timeout", 0.0)
        self.worker = FrameWorker(
            self.resolve, self.process, self.statistics.dropped, timeout, lambda: not self.context.ok()
        )
        self._listener = TransformListener(self, self.transforms)
        self.start()
        period_s = self.parameters.values()["bond_heartbeat_period"]
        if period_s > 0 and bond.is_available():
            self._running.append(bond.ManagerBond(self, period_s).end)

    def _stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        _call_all(self._running)
        self.statistics.expect_nothing()
        if self._listener is not None:
            self._listener.destroy()
            self._listener = None
        if self.worker is not None:
            worker, self.worker = self.worker, None
            if not worker.stop(timeout_s):
                self.get_logger().warning("the worker is still at a frame; its results will be lost")
            self.stop()
        self.transforms.clear()

    def _clean_up(self) -> None:
        self._configured = False
        self.teardown()
        _call_all(self._lasting)
        self._loaded = None

    def _load_once(self) -> None:
        values = self.parameters.values()
        if self._loaded != values:
            self._loaded = None
            self.load()
            self._loaded = values

    def _transition(self, action: Callable[[], Any], undo: Callable[[], Any] | None = None) -> TransitionCallbackReturn:
        try:
            action()
        except PerceptionError as error:
            self.get_logger().error(str(error))
            if undo is not None:
                undo()
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self._log("transition", error)
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:
        # rclpy's own lets the exception of an impossible transition end the executor, and with it the node.
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except RCLError as error:
            self.get_logger().warning(f"no such transition now: {error}")
            response.success = False
            return response

    def _log(self, where: str, error: Exception) -> None:
        """An error that is a bug comes with its traceback, once a second at most."""
        text = str(error) if isinstance(error, PerceptionError) else "".join(traceback.format_exception(error))
        self.get_logger().error(f"{where}: {text}", throttle_duration_sec=1.0)

    def _activity(self) -> Activity | None:
        worker = self.worker
        if worker is None:
            return None
        return Activity(self.parameters.values()["input_timeout"], worker.busy_s)

    def _all_details(self) -> Mapping[str, Any]:
        listener = self._listener
        if listener is None or not listener.rejected:
            return self.details()
        return {**self.details(), "transforms rejected": listener.rejected, "last transform": listener.last_error}

    def _wake_worker(self) -> None:
        for worker in self._workers():
            worker.wake()

    def _workers(self) -> list[FrameWorker]:
        worker = self.worker
        return self._further_workers + ([] if worker is None else [worker])

    # Parameters and clock.
    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        changes = {parameter.name: parameter.value for parameter in parameters}
        try:
            self.parameters.check_changes(changes, fixed=self._configured)  # pyright: ignore[reportArgumentType]
            self.check_parameters(changes)  # pyright: ignore[reportArgumentType]
        except PerceptionError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_parameters_set(self, parameters: list[Parameter]) -> None:
        names = {parameter.name for parameter in parameters}
        if "transform_timeout" in names:
            for worker in self._workers():
                worker.timeout_s = self.get_parameter("transform_timeout").value  # pyright: ignore[reportAttributeAccessIssue]
        if self._configured:
            self.parameters_changed(names)  # pyright: ignore[reportArgumentType]

    def clear_buffers(self, why: str) -> None:
        """Forget waiting frames and moving transforms; the map stays."""
        self.transforms.clear()
        for worker in self._workers():
            worker.clear()
        self.forget()
        self.get_logger().warning(f"{why}: waiting frames and transforms are forgotten, the map is kept")


def _call_all(actions: list[Callable[[], Any]]) -> None:
    while actions:
        actions.pop()()
