# SPDX-License-Identifier: Apache-2.0
"""The message packages that we build for ROS 2 from PyPI: definitions, compiled code and the build's own errors."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "src" / "ros_msgs"

# RIHS01 hashes of the upstream definitions in Jazzy: equal hashes, equal wire format.
TYPE_HASHES = {
    "map_msgs/msg/OccupancyGridUpdate": "c4095b0be2e4363f8978a1570e0293ee093436f1e1c61d99b48502ac317025e8",
    "nav2_msgs/msg/CostmapFilterInfo": "61ce391bf7690f76a331c01c9d5ce8ca71e6c99273b9fb75e48380f05c6dfdc8",
    "octomap_msgs/msg/Octomap": "9891a19a05b70ec20aa8f45db3f8300b9ab80afff32c61c549d25087da9625b0",
    "tf2_msgs/msg/TFMessage": "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
    "vision_msgs/msg/BoundingBox2D": "008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f",
    "vision_msgs/msg/BoundingBox3D": "bbb73a65c163d7f9bb29009c7bde9f7faa576bd2d23299c4511d19230dab4698",
    "vision_msgs/msg/Detection2D": "0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea",
    "vision_msgs/msg/Detection2DArray": "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
    "vision_msgs/msg/Detection3D": "ddd703be132ab0b69d33121f1bb034132bfbb3b0ac5f9fb1516005ba1c8a265b",
    "vision_msgs/msg/Detection3DArray": "793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    "vision_msgs/msg/LabelInfo": "3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    "vision_msgs/msg/ObjectHypothesis": "51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    "vision_msgs/msg/ObjectHypothesisWithPose": "41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc",
    "vision_msgs/msg/Point2D": "eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247",
    "vision_msgs/msg/Pose2D": "b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648",
    "vision_msgs/msg/VisionClass": "1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a",
}


def load_class(type_name: str) -> type:
    package, folder, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.{folder}"), name)


@pytest.fixture(scope="module")
def ros(nodes):
    for package in sorted({name.partition("/")[0] for name in TYPE_HASHES}):
        pytest.importorskip(package, reason=f"needs {package}: pip install ./src/ros_msgs")
    return nodes


def send(ros, message, topic: str):
    """Publish a message from one node; return what the other receives."""
    offering, asking = ros.offering, ros.asking
    received = []
    subscription = asking.create_subscription(type(message), topic, received.append, 1)
    publisher = offering.create_publisher(type(message), topic, 1)
    assert ros.spin_until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(message)
    assert ros.spin_until(lambda: bool(received)), f"nothing received on {topic}"
    asking.destroy_subscription(subscription)
    offering.destroy_publisher(publisher)
    return received[0]


def call(ros, service_type, name: str, handler, request):
    """Serve in one node and call from the other; return the response."""
    offering, asking = ros.offering, ros.asking
    service = offering.create_service(service_type, name, handler)
    client = asking.create_client(service_type, name)
    assert ros.spin_until(client.service_is_ready)
    future = client.call_async(request)
    assert ros.spin_until(future.done), f"no response from {name}"
    asking.destroy_client(client)
    offering.destroy_service(service)
    return future.result()


@pytest.mark.parametrize("type_name", sorted(TYPE_HASHES))
def test_type_hash_on_the_wire_equals_upstreams(ros, type_name):
    offering, asking = ros.offering, ros.asking
    topic = "/hash/" + type_name.replace("/", "_")
    publisher = offering.create_publisher(load_class(type_name), topic, 1)
    assert ros.spin_until(lambda: bool(asking.get_publishers_info_by_topic(topic)))
    type_hash = asking.get_publishers_info_by_topic(topic)[0].topic_type_hash
    offering.destroy_publisher(publisher)
    assert (type_hash.version, bytes(type_hash.value).hex()) == (1, TYPE_HASHES[type_name])


def test_nested_message_arrives_as_it_was_sent(ros):
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    message = Detection2DArray()
    message.header.frame_id = "camera_optical_frame"
    detection = Detection2D(id="track 7")
    detection.bbox.center.position.x, detection.bbox.size_y = 12.5, 3.0
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = "chair", 0.75
    result.pose.covariance = np.arange(36.0)
    detection.results = [result]
    message.detections = [detection, Detection2D()]
    assert send(ros, message, "/detections") == message


def test_octomap_with_a_megabyte_of_bytes_arrives_as_it_was_sent(ros):
    from octomap_msgs.msg import Octomap

    message = Octomap(binary=True, id="OcTree", resolution=0.05)
    message._data = np.random.default_rng(0).integers(-128, 128, 1 << 20, dtype=np.int8)
    received = send(ros, message, "/octomap_binary")
    assert (received.binary, received.id, received.resolution) == (True, "OcTree", 0.05)
    assert np.array_equal(np.asarray(received.data, np.int8), message._data)


def test_transforms_of_a_tf_message_arrive_in_order(ros):
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    transforms = [TransformStamped(child_frame_id=name) for name in ("odom", "base_link")]
    transforms[1].transform.translation.z = 0.25
    received = send(ros, TFMessage(transforms=transforms), "/tf")
    assert [(t.child_frame_id, t.transform.translation.z) for t in received.transforms] == [
        ("odom", 0.0),
        ("base_link", 0.25),
    ]


def test_service_with_empty_request_returns_the_map(ros):
    from octomap_msgs.srv import GetOctomap

    def answer(request, response):
        response.map.id, response.map.resolution, response.map.data = "ColorOcTree", 0.1, [1, -2, 127]
        return response

    response = call(ros, GetOctomap, "octomap_full", answer, GetOctomap.Request())
    assert (response.map.id, response.map.resolution, list(response.map.data)) == ("ColorOcTree", 0.1, [1, -2, 127])


def test_service_with_empty_response_receives_the_box(ros):
    from octomap_msgs.srv import BoundingBoxQuery

    boxes = []

    def clear(request, response):
        boxes.append((request.min.x, request.min.y, request.max.z))
        return response

    request = BoundingBoxQuery.Request()
    request.min.x, request.min.y, request.max.z = -1.0, 2.0, 3.5
    response = call(ros, BoundingBoxQuery, "clear_bbox", clear, request)
    assert isinstance(response, BoundingBoxQuery.Response)
    assert boxes == [(-1.0, 2.0, 3.5)]


def test_service_events_carry_request_and_response(ros):
    from octomap_msgs.srv import BoundingBoxQuery
    from rclpy.qos import qos_profile_system_default
    from rclpy.service_introspection import ServiceIntrospectionState

    offering, asking = ros.offering, ros.asking
    events = []
    asking.create_subscription(BoundingBoxQuery.Event, "observed/_service_event", events.append, 10)
    service = offering.create_service(BoundingBoxQuery, "observed", lambda request, response: response)
    service.configure_introspection(
        offering.get_clock(), qos_profile_system_default, ServiceIntrospectionState.CONTENTS
    )
    client = asking.create_client(BoundingBoxQuery, "observed")
    assert ros.spin_until(client.service_is_ready)
    assert ros.spin_until(lambda: asking.count_publishers("observed/_service_event") == 1)
    request = BoundingBoxQuery.Request()
    request.max.y = 4.0
    future = client.call_async(request)
    assert ros.spin_until(lambda: future.done() and len(events) >= 2)
    assert [box.max.y for event in events for box in event.request] == [4.0]
    assert sum(len(event.response) for event in events) == 1


@pytest.fixture
def builder(monkeypatch):
    pytest.importorskip("setuptools", reason="needs setuptools")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("rosidl_wheel")
    sys.modules.pop("rosidl_wheel", None)


def test_build_without_a_compiler_says_what_to_install(builder, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(Exception, match=r"needs gcc, g\+\+.*apt install g\+\+ python3-dev"):
        builder.find_tools()


def test_build_without_python_headers_says_what_to_install(builder, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "true")
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setattr(builder.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(Exception, match=r"needs Python.h: .*python3-dev"):
        builder.find_tools()


def test_build_without_ros_says_what_to_install(builder, monkeypatch):
    monkeypatch.setitem(sys.modules, "rosidl_generator_c", None)
    with pytest.raises(Exception, match=r"pip install ros-jazzy-rclpy"):
        builder.ros_prefix()


def test_failing_compiler_raises_with_its_messages(builder):
    with pytest.raises(Exception, match=r"failed on .*:\n.*No such file"):
        builder.run_compiler([sys.executable, "/no/such/file.py"])


def test_every_definition_belongs_to_a_package_that_is_built():
    source = (FOLDER / "setup.py").read_text(encoding="utf-8")
    packages = {path.parents[1].name for path in FOLDER.glob("*_msgs/*/*.[ms][sr][gv]")}
    assert packages == {"map_msgs", "nav2_msgs", "octomap_msgs", "tf2_msgs", "vision_msgs"}
    assert all(f'"{package}": [' in source for package in packages)


def test_colcon_is_kept_away():
    assert (FOLDER / "COLCON_IGNORE").is_file()
