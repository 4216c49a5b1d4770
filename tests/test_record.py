# SPDX-License-Identifier: Apache-2.0
"""``perception record``: what is in the bag is what the pipeline made."""

import numpy as np
import pytest

from perception.cli.main import main
from perception.cloud_codec import decode_point_cloud
from perception.config import PerceptionConfig
from perception.errors import InputError
from perception.pipeline import PerceptionPipeline
from perception.record import RecordOptions
from perception.simulation.boxes import synthetic_room_frames
from perception.sources import open_source
from perception.sources.bag_messages import labels_from, transforms_from
from perception.sources.bag_reader import BagReader
from perception.sources.bag_writer import write_bag


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "room"
    write_bag(path, synthetic_room_frames(4, 80, 60))
    return path


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def recorded(bag, tmp_path_factory, request):
    path = tmp_path_factory.mktemp("recorded") / "out"
    command = ["record", str(bag), "--labels", "truth", "--storage", request.param, "--output", str(path), "--images"]
    assert main(command) == 0
    return path


def messages(path, topic):
    reader = BagReader(path)
    try:
        return [reader.decode(name, raw) for name, _, raw in reader.messages([topic])]
    finally:
        reader.close()


def test_bag_holds_what_the_pipeline_made(bag, recorded):
    with open_source(bag) as source:
        pipeline = PerceptionPipeline(PerceptionConfig(), None, source.label_set)
        results = [pipeline.process(frame) for frame in source]
    labels, clouds = messages(recorded, "/labels"), messages(recorded, "/labeled_points")
    assert len(labels) == len(clouds) == len(results) == 4
    for result, image, cloud in zip(results, labels, clouds, strict=True):
        assert np.array_equal(labels_from(image), result.labels.labels)
        fields = cloud.height, cloud.width, cloud.fields, cloud.is_bigendian, cloud.point_step, cloud.row_step
        points = decode_point_cloud(*fields, cloud.data)
        assert np.array_equal(points.points, result.cloud.points)
        assert np.array_equal(points.labels, result.cloud.labels)
        assert np.array_equal(points.colors, result.cloud.colors)
        assert cloud.header.frame_id == result.cloud.frame_id
    octomap, grid = messages(recorded, "/octomap_full")[-1], messages(recorded, "/semantic_costmap")[-1]
    assert (octomap.id, octomap.data.tobytes()) == pipeline.tree.octomap_data(False, pipeline.label_set)
    costmap = pipeline.costmap()
    assert np.array_equal(grid.data.reshape(grid.info.height, grid.info.width), costmap.data)
    assert (grid.info.origin.position.x, grid.info.origin.position.y) == pytest.approx(costmap.origin)
    assert octomap.header.frame_id == grid.header.frame_id == "map"


def test_pose_of_the_camera_and_names_of_classes_are_there(bag, recorded):
    with open_source(bag) as source:
        first = next(iter(source))
        names = [label.name for label in source.label_set.classes]
    (parent, child, stamp, transform), *_ = transforms_from(messages(recorded, "/tf")[0])
    assert (parent, child, stamp) == ("map", first.frame_id, first.stamp_ns)
    assert transform.translation.x == pytest.approx(first.map_T_camera.translation[0])
    assert [entry.class_name for entry in messages(recorded, "/label_info")[0].class_map] == names


def test_bag_with_images_can_be_replayed(recorded):
    with open_source(recorded) as source:
        assert len(list(source)) == 4


def test_octomaps_own_library_reads_the_map(recorded, tmp_path):
    octomap = pytest.importorskip("octomap")
    message = messages(recorded, "/octomap_full")[-1]
    path = tmp_path / "map.ot"
    # A node of a ColorOcTree takes 8 bytes: log-odds, color, which children there are.
    count = len(message.data) // 8
    header = f"# Octomap OcTree file\nid {message.id}\nsize {count}\nres {message.resolution}\ndata\n".encode()
    path.write_bytes(header + message.data.tobytes())
    tree = octomap.ColorOcTree.read(str(path).encode())
    assert tree.getNumLeafNodes() > 100 and tree.getResolution() == 0.05


def test_existing_output_is_refused_and_nothing_is_overwritten(bag, recorded, capsys):
    before = sorted((path.name, path.stat().st_size) for path in recorded.iterdir())
    assert main(["record", str(bag), "--labels", "none", "--output", str(recorded)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert sorted((path.name, path.stat().st_size) for path in recorded.iterdir()) == before


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="expected network, truth or none, got 'me'"):
        RecordOptions(labels="me")
    with pytest.raises(InputError, match="expected seconds above 0, got 0"):
        RecordOptions(map_period=0)


def test_an_interrupted_recording_keeps_its_frames_and_says_so(bag, tmp_path, capsys, monkeypatch):
    process, count = PerceptionPipeline.process, []

    def interrupted(pipeline, frame):
        count.append(frame)
        if len(count) == 3:
            raise KeyboardInterrupt
        return process(pipeline, frame)

    monkeypatch.setattr(PerceptionPipeline, "process", interrupted)
    command = ["record", str(bag), "--labels", "none", "--storage", "sqlite3", "--output", str(tmp_path / "out")]
    assert main(command) == 130
    assert "out/ holds what was recorded until then" in capsys.readouterr().err
    assert len(messages(tmp_path / "out", "/labeled_points")) == 2


def test_a_recording_of_nothing_leaves_no_bag_behind(bag, tmp_path, capsys):
    command = ["record", str(bag), "--labels", "none", "--fixed-frame", "nowhere", "--output", str(tmp_path / "out")]
    assert main(command) == 1
    assert "no frame could be used" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
