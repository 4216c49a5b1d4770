# SPDX-License-Identifier: Apache-2.0
"""perception doctor: what it finds on the machine and in a real, small graph, sound or broken."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("tf2_msgs", reason="needs the message packages of src/ros_msgs")

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_bench import camera_info, color_message, depth_message, overrides, room_frames, transform_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from perception.cli import environment
from perception.cli.main import main
from perception.geometry import Transform
from perception.ros import graph_view
from perception.ros.findings import Finding
from perception.ros.graph_judge import Expected, judge
from perception.ros.graph_view import GraphView, Stream, observe
from perception.ros.node import PerceptionNode

NAMES = {"image": "image", "depth": "depth", "camera_info": "camera_info"}
BASE = Expected(base_frame_id="base_link")
LISTEN_S = 1.2


def now_ns(offset_s: float = 0.0) -> int:
    return time.time_ns() + round(offset_s * 1e9)


class Idle(PerceptionNode):
    """One of our nodes, without its kernels."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("octomap_node", **node_arguments)

    def start(self) -> None:
        self.listen(PointCloud2, "cloud_in", lambda message: None)


class Robot:
    """A camera and a localization that publish in a thread; ``change`` may spoil messages before they leave."""

    def __init__(self, context: Any, change: Any = lambda messages: None, qos: Any = 10) -> None:
        self._node = Node("robot", context=context, start_parameter_services=False)
        kinds = {"image": Image, "depth": Image, "camera_info": CameraInfo, "/tf": TFMessage}
        self._publishers = {name: self._node.create_publisher(kind, name, qos) for name, kind in kinds.items()}
        self._frame, self._change = room_frames(1)[0], change
        self._running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        frame = self._frame
        messages = {"image": color_message(frame), "depth": depth_message(frame), "camera_info": camera_info(frame)}
        while self._running:
            stamp_ns = now_ns()
            for name in NAMES:
                stamp = messages[name].header.stamp
                stamp.sec, stamp.nanosec = divmod(stamp_ns, 10**9)
            chain = [("map", "odom"), ("odom", "base_link"), ("base_link", frame.frame_id)]
            messages["/tf"] = TFMessage()
            for parent, child in chain:
                messages["/tf"].transforms += transform_message(
                    Transform.identity(), child, stamp_ns, parent
                ).transforms
            self._change(messages)
            for name, message in messages.items():
                self._publishers[name].publish(message)
            time.sleep(0.05)

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self._node.destroy_node()


@pytest.fixture
def robot(nodes) -> Iterator[Any]:
    made: list[Robot] = []

    def make(*arguments: Any, **options: Any) -> Robot:
        made.append(Robot(nodes.context, *arguments, **options))
        return made[-1]

    yield make
    for robot in made:
        robot.close()


@contextlib.contextmanager
def spinning(executor: Any) -> Iterator[None]:
    """Let nodes answer in a thread."""
    ended = threading.Event()

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            while not ended.is_set():
                executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def look(nodes: Any, ours: tuple[str, ...] = ("octomap_node",), seconds: float = LISTEN_S) -> GraphView:
    # All nodes answer, so that the wait for answers may be long enough for a busy machine.
    with pytest.MonkeyPatch.context() as patch, spinning(nodes.executor):
        patch.setattr(graph_view, "ANSWER_S", 10.0)
        return observe(NAMES, "", ours, seconds, nodes.context)


def texts(findings: list[Finding], level: str = "error") -> str:
    return "\n".join(f"{item.check}: {item.text} → {item.advice}" for item in findings if item.level == level)


def test_sound_graph_has_no_errors_and_says_rates_encodings_and_the_transform_chain(nodes, robot):
    robot()
    findings = judge(look(nodes), BASE)
    assert texts(findings) == ""
    fine = texts(findings, "ok")
    assert "/image: " in fine and "160×120 rgb8" in fine and "160×120 32FC1" in fine
    assert "camera_optical_frame to map" in fine
    assert "base_link to map" in fine
    assert "stamps of image and depth are 0.0 ms apart" in fine
    assert "none of our nodes runs" in texts(findings, "warning")


def test_empty_graph_names_every_missing_topic(nodes):
    found = texts(judge(look(nodes, seconds=0.1), BASE))
    assert [f"nobody publishes /{role}" in found for role in NAMES] == [True] * 3


def spoil_frames(messages: dict[str, Any]) -> None:
    messages["depth"].header.frame_id = "depth_frame"
    messages["camera_info"].width = 161
    messages["image"].encoding = "16UC1"


def spoil_stamps(messages: dict[str, Any]) -> None:
    for name in NAMES:
        messages[name].header.stamp.sec -= 3600
    messages["depth"].header.stamp.nanosec = 5 * 10**8
    messages["image"].header.stamp.nanosec = 0


def spoil_transforms(messages: dict[str, Any]) -> None:
    del messages["/tf"].transforms[1]


def spoil_calibration(messages: dict[str, Any]) -> None:
    messages["camera_info"].k = [0.0] * 9


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (spoil_frames, ["image has frame 'camera_optical_frame', depth 'depth_frame'",
                        "is 160×120, /camera_info 161×120", "has encoding '16UC1', which is not image"]),
        (spoil_stamps, ["stamps of /image are 360. s behind the clock → recordings need /clock", "500 ms apart",
                        "images are older than all transforms"]),
        (spoil_transforms, ["TF: ", "a link of the chain map → odom → base → camera is missing"]),
        (spoil_calibration, ["camera_info: /camera_info: camera_info: expected a calibrated camera"]),
    ],
)  # fmt: skip
def test_broken_graph_is_told_in_sentences_with_advice(nodes, robot, change, wanted):
    robot(change)
    found = texts(judge(look(nodes), BASE))
    for text in wanted:
        assert re.search(text, found)


def test_publisher_and_subscriber_that_cannot_talk_are_both_named(nodes, robot):
    robot(qos=QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
    subscription = nodes.asking.create_subscription(Image, "depth", lambda message: None, 10)
    try:
        view = look(nodes, ours=("asking",))
    finally:
        nodes.asking.destroy_subscription(subscription)
    found = texts(judge(view, BASE))
    assert "/asking cannot hear /robot on /depth: " in found
    assert "qos_overrides./depth.subscription" in found
    assert len(view.mismatches) == 1


def test_state_time_source_and_diagnostics_of_our_nodes_are_told(nodes, robot):
    robot()
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=nodes.context.get_domain_id())
    node = Idle(context=context, parameter_overrides=overrides(use_sim_time=True, input_timeout=0.5))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        with spinning(executor):
            # A busy machine takes longer to discover a process than the doctor waits for.
            assert nodes.spin_until(lambda: ("octomap_node", "/") in nodes.asking.get_node_names_and_namespaces())
            view = look(nodes)
            assert view.states == {"/octomap_node": "unconfigured"}
            assert "/octomap_node is unconfigured" in texts(judge(view, BASE))
            assert "use_sim_time is true in /octomap_node, but nobody publishes /clock" in texts(judge(view, BASE))
            node.trigger_configure()
            node.trigger_activate()
            view = look(nodes, seconds=2.2)
            assert "/octomap_node is active" in texts(judge(view, BASE), "ok")
            assert "diagnostics: /octomap_node: no message on /cloud_in" in texts(judge(view, BASE))
    finally:
        node.destroy_node()
        context.try_shutdown()


def view_of(**changes: Any) -> GraphView:
    """A sound graph as data."""
    header = SimpleNamespace(frame_id="camera")
    streams = {
        role: Stream(
            f"/{role}",
            ["sensor_msgs/msg/" + ("CameraInfo" if role == "camera_info" else "Image")],
            1,
            [10**18 + i * 10**8 for i in range(10)],
            [0.01] * 10,
            SimpleNamespace(header=header, width=4, height=3, **({} if role == "camera_info" else {"encoding": kind})),
        )
        for role, kind in (("image", "rgb8"), ("depth", "16UC1"), ("camera_info", ""))
    }
    view = GraphView(1.0, streams)
    for parent, child in (("map", "base_link"), ("base_link", "camera")):
        view.transforms.insert(parent, child, 0, Transform.identity(), static=True)
    for name, value in changes.items():
        setattr(view, name, value)
    return view


def test_sound_data_has_no_errors():
    assert texts(judge(view_of(), BASE)) == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"clocks": 2}, "2 publishers of /clock"),
        ({"clocks": 1, "states": {"/a": "active"}, "sim_time": {"/a": False}}, "/a takes the machine's time"),
        ({"nodes": ["/a", "/a"]}, "2 nodes are called /a"),
        ({"states": {"/a": ""}}, "/a does not answer"),
        ({"statuses": {"/a": (2, "all dropped")}}, "diagnostics: /a: all dropped"),
    ],
)
def test_error_in_the_data_is_found(changes, text):
    assert text in texts(judge(view_of(**changes), BASE))


def test_transform_that_comes_later_than_frames_wait_is_an_error():
    view = view_of()
    view.transforms.clear()
    view.transforms.insert("map", "camera", 10**18, Transform.identity())
    view.transforms.insert("map", "camera", 10**18 + 4 * 10**8, Transform.identity())
    view.transforms.insert("camera", "base_link", 0, Transform.identity(), static=True)
    # The newest image is 0.5 s younger than the newest transform.
    assert "camera to map is known 500 ms after a stamp → raise transform_timeout" in texts(judge(view, BASE))
    assert texts(judge(view, Expected(base_frame_id="base_link", transform_timeout_s=0.6))) == ""


def test_wrong_type_frame_of_no_name_and_future_stamps_are_errors():
    view = view_of()
    view.streams["image"].types = ["std_msgs/msg/String"]
    view.streams["depth"].ages_s = [-0.5] * 10
    view.streams["camera_info"].last.header = SimpleNamespace(frame_id="")
    found = texts(judge(view, BASE))
    assert "/image is std_msgs/msg/String, not Image" in found
    assert "stamps of /depth are 0.50 s in the future" in found
    assert "/camera_info has no frame_id" in found


def test_machine_is_described_as_json_and_the_exit_code_tells_errors(capsys):
    code = main(["doctor", "--no-graph", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == (1 if report["counts"]["error"] else 0)
    checks = {finding["check"] for finding in report["findings"]}
    assert {"Python", "library", "kernels", "weights", "ROS", "EGL", "disk"} <= checks
    assert sum(report["counts"].values()) == len(report["findings"])


def test_command_listens_to_the_graph_with_the_cameras_topics(ros_environment, capsys, monkeypatch):
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, ros_environment[name])
    command = ["doctor", "--only-graph", "--seconds", "0.1", "--camera", "realsense", "--remap", "image:=/mine"]
    assert main(command) == 1
    shown = capsys.readouterr().out
    assert "nobody publishes /mine" in shown
    assert "nobody publishes /camera/camera/aligned_depth_to_color/image_raw" in shown
    assert "→ remap it with image:=TOPIC" in shown


@pytest.mark.parametrize("words", [["--seconds", "0"], ["--remap", "image"]])
def test_wrong_option_is_one_line(words, capsys):
    assert main(["doctor", *words]) == 1
    assert "expected" in capsys.readouterr().err


def test_old_python_library_without_disk_and_broken_library_are_errors(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda place: usage(10, 9, 5e8))
    assert "only 0.5 GB free" in texts(list(environment._disk()))
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    assert "Python 3.9.0 is too old" in texts(list(environment._python()))
    modules = {"numpy": SimpleNamespace(__version__="1.24.1"), "numba": None}

    def load(name: str) -> Any:
        module = modules.get(name, SimpleNamespace(__version__="99.0"))
        if module is None:
            raise ImportError("Numba needs NumPy 2.2 or less")
        return module

    monkeypatch.setattr(environment.importlib, "import_module", load)
    found = texts(list(environment._libraries()))
    assert "numpy 1.24.1 is too old → pip install 'numpy>=1.26'" in found
    assert "numba cannot be imported (Numba needs NumPy 2.2 or less)" in found


def test_machine_without_ros_or_networks_is_told(monkeypatch):
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    assert "offline commands only" in texts(list(environment._ros()), "warning")
    assert "neither ONNX Runtime nor PyTorch" in texts(list(environment._networks()))


def test_damaged_weights_are_an_error(monkeypatch, tmp_path):
    import perception.models.weights as weights

    for path in weights.package_dir().glob("*.safetensors"):
        (tmp_path / path.name).write_bytes(b"damaged")
    monkeypatch.setattr(weights, "package_dir", lambda: tmp_path)
    findings = list(environment._weights())
    assert {(finding.level, "expected SHA-256" in finding.text) for finding in findings} == {("error", True)}


@pytest.mark.parametrize(
    ("version", "wanted"), [("1.26.4", (1, 26, 4)), ("2.1rc3", (2, 1)), ("5.0.0-dev", (5, 0, 0)), ("dev", ())]
)
def test_versions_are_compared_by_their_numbers(version, wanted):
    assert environment.numbers(version) == wanted
