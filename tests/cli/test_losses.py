# SPDX-License-Identifier: Apache-2.0
"""Every command that reads a recording tells what it lost of it, why, and which option helps."""

from dataclasses import replace

import pytest

from perception.cli.losses import loss_lines
from perception.cli.main import main
from perception.simulation.boxes import synthetic_room_frames
from perception.sources.bag_writer import BagWriter


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


@pytest.mark.parametrize("command", ["replay", "record", "evaluate"])
def test_commands_name_the_frames_without_a_link_and_the_option_that_gives_it(command, bag, tmp_path, capsys):
    arguments = [command, str(bag), "--labels", "none", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--no-report"] if command == "evaluate" else arguments) == 0
    printed = capsys.readouterr().out
    assert "dropped: 1 × no_tf (no transform connects 'loose_camera' to 'map'" in printed
    assert "--extrinsics FILE" in printed
    assert "warning: 1 × bad_transform (/tf: expected a tf2_msgs/msg/TFMessage, got 12 bytes" in printed
