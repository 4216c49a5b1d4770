# SPDX-License-Identifier: Apache-2.0
"""What all nodes have in common: parameters, lifecycle, worker thread, diagnostics, a clean end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

# The wheels from PyPI have no set-up script that would name the place of installed packages.
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockChange, ClockType, JumpThreshold, TimeJump  # pyright: ignore[reportPrivateImportUsage]
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions, install_signal_handlers

from perception.errors import PerceptionError
from perception.ros.diagnostics import Diagnostics
from perception.ros.parameters import NodeParameters, parameter_specs
from perception.ros.statistics import Statistics
from perception.ros.transforms import TransformListener
from perception.ros.worker import FrameWorker
from perception.tf_buffer import TransformBuffer

RCLError = rclpy_implementation.RCLError
EXIT_TIMEOUT_S = 1.0


def sensor_qos() -> QoSProfile:
    """The sensor data profile: best effort, keep the last five. Fresh, as overrides change it in place."""
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST)


def latched_qos(latched: bool = True, depth: int = 1) -> QoSProfile:
    """The profile of maps, REP 2003: reliable, transient local."""
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability)


class WatchedTransforms(TransformBuffer):
    """A transform buffer that tells when something came."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._tell = changed

    def insert(self, *args: Any, **kwargs: Any) -> None:
        """As TransformBuffer's."""
        super().insert(*args, **kwargs)
        self._tell()


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
        self.worker: FrameWorker | None = None
        self.transforms = WatchedTransforms(self._wake_worker)
        self._listener: TransformListener | None = None
        self._lasting: list[Callable[[], Any]] = []
        self._running: list[Callable[[], Any]] = []
        self._loaded: dict[str, Any] | None = None
        self._configured = False
        try:
            self.parameters = NodeParameters(self, parameter_specs(self.parameter_groups, self.single_parameters))
        except PerceptionError:
            Node.destroy_node(self)
            raise
        with self._logged_errors():
            self._load_once()
        LifecycleNodeMixin.__init__(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.add_post_set_parameters_callback(self._on_parameters_set)
        self._diagnostics = Diagnostics(self, self.statistics, lambda: self.worker is not None, self.details)
        self._watch_clock()

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
        events = PublisherEventCallbacks(matched=_on_new(matched)) if matched is not None else None
        options = QoSOverridingOptions.with_default_policies()
        publisher = self.create_publisher(
            message_type, topic, qos, event_callbacks=events, qos_overriding_options=options
        )
        self._lasting.append(lambda: self.destroy_publisher(publisher))
        return publisher

    def serve(self, service_type: Any, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """A service that lives until the node is cleaned up."""
        service = self.create_service(service_type, name, callback)
        self._lasting.append(lambda: self.destroy_service(service))

    def listen(self, message_type: Any, topic: str, callback: Callable[[Any], None], qos: Any = None) -> None:
        """A subscription that lives while the node is active; its messages are counted; sensor QoS unless given."""

        def counted(message: Any) -> None:
            self.statistics.received(topic)
            callback(message)

        subscription = self.create_subscription(
            message_type,
            topic,
            counted,
            qos or sensor_qos(),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._running.append(lambda: self.destroy_subscription(subscription))

    def every(self, period_s: float, callback: Callable[[], None]) -> None:
        """A timer in real time that lives while the node is active: what came last is published even if /clock ends."""
        timer = self.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._running.append(lambda: self.destroy_timer(timer))

    def done(self, stamp_ns: int) -> None:
        """Count a frame whose results are published."""
        self.statistics.processed(self.get_clock().now().nanoseconds - stamp_ns)

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
        self._stop()
        super().destroy_node()

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

    def _stop(self) -> None:
        _call_all(self._running)
        if self._listener is not None:
            self._listener.destroy()
            self._listener = None
        if self.worker is not None:
            worker, self.worker = self.worker, None
            if not worker.stop(EXIT_TIMEOUT_S):
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
            import traceback

            self.get_logger().error(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    @contextlib.contextmanager
    def _logged_errors(self) -> Any:
        try:
            yield
        except PerceptionError as error:
            self.get_logger().error(f"not ready yet: {error}")

    def _wake_worker(self) -> None:
        worker = self.worker
        if worker is not None:
            worker.wake()

    # Parameters and clock.

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        changes = {parameter.name: parameter.value for parameter in parameters}
        try:
            self.parameters.check_changes(changes, fixed=self._configured)  # pyright: ignore[reportArgumentType]
        except PerceptionError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_parameters_set(self, parameters: list[Parameter]) -> None:
        names = {parameter.name for parameter in parameters}
        if self.worker is not None and "transform_timeout" in names:
            self.worker.timeout_s = self.get_parameter("transform_timeout").value  # pyright: ignore[reportAttributeAccessIssue]
        if self._configured:
            self.parameters_changed(names)  # pyright: ignore[reportArgumentType]

    def _watch_clock(self) -> None:
        back = JumpThreshold(
            min_forward=None,
            min_backward=Duration(nanoseconds=-1),
            on_clock_change=True,  # type: ignore[arg-type]
        )
        self._jump_handle = self.get_clock().create_jump_callback(back, post_callback=self._on_jump)

    def _on_jump(self, jump: TimeJump) -> None:
        if jump.clock_change in (ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED):
            return
        self.clear_buffers(f"the clock jumped back by {-jump.delta.nanoseconds / 1e9:.3f} s")

    def clear_buffers(self, why: str) -> None:
        """Forget waiting frames and moving transforms; the map stays."""
        self.transforms.clear()
        if self.worker is not None:
            self.worker.clear()
        self.forget()
        self.get_logger().warning(f"{why}: waiting frames and transforms are forgotten, the map is kept")


def run_node(node_class: Callable[[], Node], arguments: list[str] | None = None) -> int:
    """Run a node until it is told to end; the ``main`` of every executable.

    Returns:
        Exit code: 0 after SIGINT, SIGTERM or a shutdown, 1 when the node could not be made.
    """
    # While the node loads there is nothing to save, and compilers do not like to be interrupted; afterwards rclpy's
    # handlers wake the executor.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    node = None
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = node_class()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        install_signal_handlers(SignalHandlerOptions.ALL)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException, SystemExit):
        pass
    except (PerceptionError, RCLError) as error:
        rclpy.logging.get_logger("perception").fatal(" ".join(str(error).split()))  # pyright: ignore[reportAttributeAccessIssue]
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()  # pyright: ignore[reportPrivateImportUsage]
    return 0


def _call_all(actions: list[Callable[[], Any]]) -> None:
    while actions:
        actions.pop()()


def _on_new(callback: Callable[[], None]) -> Callable[[Any], None]:
    def matched(info: Any) -> None:
        if info.current_count_change > 0:
            callback()

    return matched
