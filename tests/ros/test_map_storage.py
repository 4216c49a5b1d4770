# SPDX-License-Identifier: Apache-2.0
"""Map files over services: what they refuse, saving by itself, and going on after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from cloud_bench import EAGER, LABELS, Robot, box, floor, scene, tell_labels
from geometry_msgs.msg import Point
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from octomap_msgs.srv import BoundingBoxQuery, GetOctomap
from ros_bench import Bench
from std_srvs.srv import Empty, Trigger

from perception.errors import PerceptionError
from perception.labels import LabelClass, LabelSet
from perception.mapping import SemanticOcTree
from perception.ros.map_storage import Autosave
from perception.ros.octomap_node import OctomapNode

pytestmark = pytest.mark.timeout(900)
FLOOR = np.array([(-0.55, -0.55, -0.05)], np.float32)
CHAIR = np.array([(1.15, 0.45, 0.35)], np.float32)


def start(bench: Bench, **parameters) -> OctomapNode:
    node = bench.add(OctomapNode, **{**EAGER, "label_set": "ade20k32", **parameters})
    bench.activate(node)
    return node


def room():
    return scene(floor(), box("chair", 1.0, 0.3))


def test_saved_map_goes_on_in_another_node_with_its_labels(bench, tmp_path):
    path = tmp_path / "map.ot"
    first = start(bench, save_path=str(path))
    Robot(bench, first).send(*room())
    answer = bench.call(Trigger, "octomap_node/save_map")
    assert answer.success and str(path) in answer.message
    before = first.pipeline.tree.log_odds(CHAIR)[0]
    first.trigger_deactivate()
    first.trigger_cleanup()
    # Without label_set: the classes come from the file, costs and all.
    second = bench.add(OctomapNode, **EAGER, octomap_path=str(path))
    bench.activate(second)
    assert second.pipeline.label_set == LABELS
    assert second.pipeline.tree.label_of(CHAIR).tolist() == [LABELS["chair"].id]
    Robot(bench, second, first=5).send(*room())
    assert second.pipeline.tree.log_odds(CHAIR)[0] == pytest.approx(2 * before, rel=1e-5)
    tell_labels(bench, second)


def test_map_of_another_frame_or_other_classes_is_refused_with_a_sentence_and_the_map_stays(bench, tmp_path):
    node = start(bench, octomap_path="", save_path=str(tmp_path / "mine.ot"))
    Robot(bench, node).send(*room())
    known = node.pipeline.tree.known_voxels()
    tree = SemanticOcTree(0.1, num_classes=2)
    tree.insert_cloud(CHAIR, (0, 0, 0), np.zeros(1, np.int32))
    tree.write(tmp_path / "odom.ot", None, {"frame_id": "odom"})
    animals = LabelSet("animals", (LabelClass(0, "wall", (1, 2, 3)), LabelClass(1, "cow", (9, 9, 9))))
    tree.write(tmp_path / "cows.ot", animals, {"frame_id": "map"})
    (tmp_path / "text.ot").write_text("no map")
    for name, words in (
        ("odom.ot", "its map is in frame 'odom', this node maps in 'map'"),
        ("cows.ot", "this node's are 'ade20k32', which has not .*1 'cow'"),
        ("text.ot", "map"),
        ("absent.ot", "absent.ot"),
    ):
        with pytest.raises(PerceptionError, match=words):
            node.load_map(tmp_path / name)
        assert node.pipeline.tree.known_voxels() == known
    with pytest.raises(PerceptionError, match=r"ends in \.ot or \.bt"):
        node.save_map(tmp_path / "map.pcd")
    answer = bench.call(Trigger, "octomap_node/load_map")
    assert not answer.success and "octomap_path" in answer.message


def test_autosave_writes_what_changed_in_intervals_and_at_the_end(bench, tmp_path):
    path = tmp_path / "auto.ot"
    node = start(bench, autosave_path=str(path), autosave_period=0.1)
    robot = Robot(bench, node)
    robot.send(*room())
    bench.spin_until(path.exists, what="the first autosave")
    bench.spin_until(lambda: node._autosave._saved_version == node._outputs.version)
    stamp = path.stat().st_mtime_ns
    for _ in range(30):
        bench.executor.spin_once(timeout_sec=0.05)
    assert path.stat().st_mtime_ns == stamp, "nothing changed: nothing is written"
    node.set_parameters([])
    node._autosave._saved_at = time.monotonic() + 1000
    robot.send(*room())
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert SemanticOcTree.read(path).log_odds(CHAIR)[0] == pytest.approx(2 * np.log(0.7 / 0.3), rel=1e-5)
    third = start(bench, autosave_path=str(path), resume=True)
    assert third.pipeline.tree.label_of(CHAIR).tolist() == [LABELS["chair"].id]
    assert [entry.name for entry in tmp_path.iterdir()] == ["auto.ot"], "no temporary file is left"


def test_failing_autosave_is_told_and_tried_again():
    sentences, fails = [], [True]

    def save(path):
        if fails[0]:
            raise PerceptionError("the disk is full")
        return ""

    version = [0]
    autosave = Autosave(Path("map.ot"), save, lambda: version[0], sentences.append)
    version[0] = 1
    autosave.finish()
    assert sentences == ["the disk is full"]
    fails[0] = False
    autosave.finish()
    autosave.finish()
    assert autosave._saved_version == 1
    with pytest.raises(PerceptionError, match=r"autosave_path: expected a name that ends in \.ot"):
        Autosave(Path("map.bt"), save, lambda: 0, sentences.append)


class Life:
    """octomap_node as a process, in a namespace of its own: the services of a killed one stay known for a while.

    Args:
        bench: asks and sends.
        environment: of the process.
        folder: for its log.
        number: of this life.
        parameters: of the node.
    """

    def __init__(self, bench: Bench, environment: dict[str, str], folder: Path, number: int, **parameters: str) -> None:
        self.bench, self.namespace = bench, f"life{number}"
        names = ["-r", f"__ns:=/{self.namespace}", "-r", "cloud_in:=/cloud_in"]
        values = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        with open(folder / f"log{number}", "wb") as output:
            command = [sys.executable, "-m", "perception.ros.octomap_node", "--ros-args", *names, *values]
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def __enter__(self) -> Life:
        try:
            client = self.bench.node.create_client(ChangeState, f"{self.namespace}/octomap_node/change_state")
            self.bench.spin_until(client.service_is_ready, timeout_s=600.0, what="the node's lifecycle service")
            self.bench.node.destroy_client(client)
            for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                request = ChangeState.Request(transition=Transition(id=number))
                assert self.call(ChangeState, "octomap_node/change_state", request).success
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def call(self, service_type, name: str, request=None):
        return self.bench.call(service_type, f"{self.namespace}/{name}", request)

    def save(self) -> None:
        answer = self.call(Trigger, "octomap_node/save_map")
        assert answer.success, answer.message

    def data(self) -> bytes:
        return bytes(self.call(GetOctomap, "octomap_full").map.data)

    def map_until(self, robot: Robot, part, done) -> None:
        """Send a scene until a condition holds, then wait until nothing is on its way any more."""

        def step() -> bool:
            robot.send(*part, wait=False)
            return done()

        self.bench.spin_until(step, timeout_s=60.0)
        self.bench.spin_until(lambda: self._is_settled())

    def _is_settled(self) -> bool:
        before, deadline = self.data(), time.monotonic() + 0.5
        while time.monotonic() < deadline:
            self.bench.executor.spin_once(timeout_sec=0.05)
        return self.data() == before


def test_reset_map_clear_save_kill_load_and_map_on_with_real_processes(bench, ros_environment, tmp_path):
    path, auto = tmp_path / "map.ot", tmp_path / "auto.ot"
    options = {
        "resolution": "0.1", "label_set": "ade20k32", "save_path": str(path), "autosave_path": str(auto),
        "autosave_period": "0.2",
    }  # fmt: skip
    with Life(bench, ros_environment, tmp_path, 1, **options) as first:
        robot = Robot(bench, None)
        first.map_until(robot, room(), lambda: len(first.data()) > 20)
        first.call(Empty, "octomap_node/reset")
        assert len(first.data()) <= 20
        first.map_until(robot, room(), lambda: len(first.data()) > 20)
        full = first.data()
        corners = BoundingBoxQuery.Request(min=Point(x=0.9, y=0.2, z=0.05), max=Point(x=1.4, y=0.7, z=1.0))
        first.call(BoundingBoxQuery, "octomap_node/clear_bbox", corners)
        assert first.data() != full
        first.save()
        # Killed while it maps and saves by itself.
        first.map_until(
            robot, floor("rug"), lambda: auto.exists() and auto.stat().st_mtime_ns > path.stat().st_mtime_ns
        )
    saved, rug = SemanticOcTree.read(path), SemanticOcTree.read(auto)
    assert saved.log_odds(CHAIR)[0] < 0 < saved.log_odds(FLOOR)[0]
    assert saved.metadata["frame_id"] == rug.metadata["frame_id"] == "map"
    with Life(bench, ros_environment, tmp_path, 2, **options, octomap_path=str(path)) as second:
        answer = second.call(Trigger, "octomap_node/load_map")
        assert answer.success and str(path) in answer.message
        before = second.data()
        second.map_until(robot, room(), lambda: second.data() != before)
        second.save()
        again = SemanticOcTree.read(path)
        assert again.log_odds(CHAIR)[0] > saved.log_odds(CHAIR)[0], "mapped on from the file"
        assert again.label_of(FLOOR).tolist() == [LABELS["floor"].id]
        bench.spin_until(lambda: SemanticOcTree.read(auto).log_odds(CHAIR)[0] == again.log_odds(CHAIR)[0])
    with Life(bench, ros_environment, tmp_path, 3, **options, resume="true") as third:
        third.save()
        mine, automatic = SemanticOcTree.read(path).leaves(), SemanticOcTree.read(auto).leaves()
        np.testing.assert_array_equal(mine.log_odds, automatic.log_odds)
        np.testing.assert_array_equal(mine.labels, automatic.labels)
        known = len(mine.log_odds)
        third.map_until(robot, box("chair", 2.0, 0.3), lambda: third.data() != b"")
        third.process.send_signal(signal.SIGINT)
        assert third.process.wait(10) == 0
    assert len(SemanticOcTree.read(auto).leaves().log_odds) != known, "what came last is saved at the end"
