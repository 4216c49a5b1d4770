# SPDX-License-Identifier: Apache-2.0
"""Every command that reads a recording tells what it lost of it, why, and which option helps."""

from dataclasses import replace

import pytest

from perception.cli.losses import loss_lines
from perception.cli.main import main
from perception.geometry import Transform
from perception.simulation.boxes import synthetic_room_frames
from perception.sources.bag_writer import BagWriter, write_bag


def test_each_reason_has_its_count_and_its_first_explanation():
    lines = loss_lines({"no_tf": 2, "late": 1}, {"bag_broken": 1, "told": 3}, {"no_tf": "a to b", "told": "x"}, "x")
    assert list(lines) == ["dropped: 2 × no_tf (a to b)", "dropped: 1 × late", "warning: 1 × bag_broken"]


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Three frames, the second one of a camera that no transform mentions, and a transform without sense."""
    path = tmp_path_factory.mktemp("bags") / "loose"
    with BagWriter(path) as writer:
        first, second, third = (replace(frame, labels=None) for frame in synthetic_room_frames(3, 80, 60))
        writer.write_frame(first)
        writer.write_frame(replace(second, frame_id="loose_camera"), pose=False)
        writer.write_frame(third)
        writer.write_raw("/tf", "tf2_msgs/msg/TFMessage", third.stamp_ns, b"no transform")
    return path


def _run(command, bag, output):
    arguments = [command, str(bag), "--labels", "none", "--output", str(output)]
    return main([*arguments, "--no-report"] if command == "evaluate" else arguments)


@pytest.mark.parametrize("command", ["replay", "record", "evaluate"])
def test_frames_that_the_map_refuses_are_one_reason_however_many_they_are(command, tmp_path, capsys):
    def far(frame, meters):
        matrix = frame.map_T_camera.matrix.copy()
        matrix[0, 3] = meters
        return replace(frame, map_T_camera=Transform(matrix), labels=None)

    first, *others = synthetic_room_frames(4, 80, 60)
    write_bag(tmp_path / "some", [replace(first, labels=None), *(far(one, 1e6 + i) for i, one in enumerate(others))])
    assert _run(command, tmp_path / "some", tmp_path / "a") == 0
    assert "dropped: 3 × not_mapped (sensor_origin: expected a point within" in capsys.readouterr().out
    write_bag(tmp_path / "all", [far(one, 1e6 + i) for i, one in enumerate(others)])
    assert _run(command, tmp_path / "all", tmp_path / "b") == 1
    told = capsys.readouterr().err
    assert "no frame could be mapped (sensor_origin:" in told and told.count("sensor_origin") == 1


@pytest.mark.parametrize("command", ["replay", "record", "evaluate"])
def test_commands_name_the_frames_without_a_link_and_the_option_that_gives_it(command, bag, tmp_path, capsys):
    assert _run(command, bag, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "dropped: 1 × no_tf (no transform connects 'loose_camera' to 'map'" in printed
    assert "--extrinsics FILE" in printed
    assert "warning: 1 × bad_transform (/tf: expected a tf2_msgs/msg/TFMessage, got 12 bytes" in printed
