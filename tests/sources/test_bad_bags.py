# SPDX-License-Identifier: Apache-2.0
"""Broken, hostile and incomplete bags: one sentence or a counted drop, and nothing good is lost."""

from __future__ import annotations

import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.errors import InputError
from perception.sources import SourceOptions, describe, mcap_file, open_source
from perception.sources.bag_writer import BagLayout, BagWriter, write_bag
from perception.sources.mcap_file import McapFile

sys.path.insert(0, str(Path(__file__).parent))
from bag_frames import CAMERA, SECOND, START, frame, frames

IMAGE = "sensor_msgs/msg/Image"
COLOR, DEPTH = "/camera/color/image_raw", "/camera/depth/image_raw"


def read(path, **options):
    """Stamps in tenths of a second, drops and warnings of a bag."""
    with open_source(path, SourceOptions(**options)) as source:
        found = [round((f.stamp_ns - START) / 1e8) for f in source]
        return found, dict(source.drops), dict(source.warnings)


def change(path: Path, written, edit) -> Path:
    """A bag of frames whose messages ``edit(bag, index, frame)`` may replace; it returns True when it wrote them."""
    with BagWriter(path) as bag:
        for i, one in enumerate(written):
            if not edit(bag, i, one):
                bag.write_frame(one)
    return path


def raw_image(bag: BagWriter, one, **fields):
    values = {
        "header": bag.header(one.stamp_ns, one.frame_id),
        "height": 12,
        "width": 16,
        "encoding": "rgb8",
        "is_bigendian": 0,
        "step": 48,
        "data": np.zeros(576, np.uint8),
    }
    return bag.make(IMAGE, **{**values, **fields})


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: (p / "x.mcap").write_bytes(b""), r"begins with b'\\x89MCAP0\\r\\n', got an empty file"),
        (lambda p: (p / "x.mcap").write_bytes(b"\x89MC"), r"got a file of 3 bytes, b'\\x89MC'"),
        (lambda p: (p / "x.mcap").write_bytes(b"not a bag at all"), "expected an MCAP file.* begins with b'not a ba'"),
        (lambda p: (p / "x.db3").write_bytes(b"not a bag at all"), "cannot be read as a bag|holds no messages"),
        (lambda p: (p / "x.bag").write_bytes(b"not a bag at all"), "cannot be read as a bag .* rosbag reindex"),
        (lambda p: (p / "x.db3").write_bytes(b""), "the file is empty"),
        (lambda p: (p / "x.mcap").write_bytes(b"\x89MCAP0\r\n"), "holds no messages"),
    ],
)
def test_files_that_are_no_bags_are_refused(tmp_path, make, expected):
    make(tmp_path)
    file = next(tmp_path.iterdir())
    with pytest.raises(InputError, match=expected) as caught:
        open_source(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_an_empty_bag_is_refused(tmp_path, storage):
    with BagWriter(tmp_path / "bag", BagLayout(storage=storage)):
        pass
    with pytest.raises(InputError, match="holds no messages"):
        open_source(tmp_path / "bag")
    with pytest.raises(InputError, match="holds no messages"):
        describe(tmp_path / "bag")


def test_a_bag_folder_whose_files_are_missing_is_refused(tmp_path):
    write_bag(tmp_path / "bag", frames(2))
    (tmp_path / "bag" / "bag.mcap").unlink()
    with pytest.raises(InputError, match="cannot be read as a bag"):
        open_source(tmp_path / "bag")


def test_a_bag_without_the_topics_names_those_it_has(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_camera_info("color/camera_info", START, "cam", CAMERA)
        bag.write_image(DEPTH, START, "cam", "16UC1", np.ones((12, 16), np.uint16))
    with pytest.raises(InputError, match=r"color images, found none; the bag has .*/camera/depth/image_raw \(Image\)"):
        open_source(tmp_path / "bag")


def test_a_bag_without_intrinsics_says_which_topic_it_expects(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_image(COLOR, START, "cam", "rgb8", frame(0).color)
        bag.write_image(DEPTH, START, "cam", "16UC1", np.ones((12, 16), np.uint16))
    with pytest.raises(InputError, match=r"expected /camera/color/camera_info"):
        open_source(tmp_path / "bag")


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        ({"encoding": "rgb_weird"}, "bad_color", "rgb_weird"),
        ({"encoding": "16UC1"}, "bad_color", "16UC1"),
        ({"data": np.zeros(100, np.uint8)}, "bad_color", "576"),
        ({"step": 3}, "bad_color", "step"),
        ({"height": 4_000_000_000, "step": 4_000_000_000}, "bad_color", "bytes"),
        ({"width": 0, "height": 0}, "bad_color", "size"),
        ({"width": 8, "height": 6, "step": 24}, "wrong_size", "16x12"),
    ],
)
def test_a_bad_color_image_costs_its_own_frame_only(tmp_path, fields, reason, detail):
    def edit(bag, i, one):
        if i != 1:
            return False
        bag.write_transforms(one.stamp_ns, [("map", "base_link", one.map_T_camera)])
        bag.write_image(DEPTH, one.stamp_ns, one.frame_id, "16UC1", np.full((12, 16), 1000, np.uint16))
        bag.write(COLOR, IMAGE, one.stamp_ns, raw_image(bag, one, **fields))
        return True

    with open_source(change(tmp_path / "bag", frames(3), edit)) as source:
        assert [round((f.stamp_ns - START) / 1e8) for f in source] == [0, 2]
        assert source.drops == {reason: 1}
        assert detail in source.details[reason]


def _bad_jpeg(end: bool) -> bytes:
    """A JPEG file with its middle cut out; with or without its end."""
    import cv2

    data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8))[1].tobytes()
    scan = data.index(b"\xff\xda")
    return data[:scan] + b"\xff\xda\x00\x0c" + bytes(10) + (b"\xff\xd9" if end else b"")


@pytest.mark.parametrize("end", [False, True])
def test_a_broken_picture_costs_its_frame_at_once_or_raises_when_looked_at(tmp_path, end):
    path = tmp_path / "bag"
    with BagWriter(path, BagLayout(color="jpeg")) as bag:
        encode, current = bag.write, [0]

        def write(topic, kind, log_ns, message):
            if kind == "sensor_msgs/msg/CompressedImage" and current[0] == 1:
                message = replace(message, data=np.frombuffer(_bad_jpeg(end), np.uint8))
            encode(topic, kind, log_ns, message)

        bag.write = write
        for current[0], one in enumerate(frames(3)):
            bag.write_frame(one)
    with open_source(path) as source:
        assert len(list(source)) == 2 and source.drops == {"bad_color": 1}
        source.color_when_asked = True
        found = list(source)
        # What is cut short is seen without decoding, what is broken inside is not.
        assert source.drops == ({} if end else {"bad_color": 1}) and len(found) == (3 if end else 2)
        assert found[0].color.shape == found[-1].color.shape == (12, 16, 3)
        if end:
            with pytest.raises(InputError, match="damaged"):
                _ = found[1].color


@pytest.mark.parametrize(
    ("fill", "warned"), [(0.0, True), (np.nan, True), (np.inf, False), (-np.inf, True), (-1.0, True), (1.0, False)]
)
def test_depth_without_measurements_is_passed_on_and_reported(tmp_path, fill, warned):
    written = [replace(frame(0), depth=np.full((12, 16), fill, np.float32))]
    write_bag(tmp_path / "bag", written, BagLayout(depth="32FC1"))
    found, drops, warnings = read(tmp_path / "bag")
    assert found == [0] and not drops
    assert warnings == ({"empty_depth": 1} if warned else {})


def test_all_frames_of_an_unknown_encoding_end_in_an_error_that_names_it(tmp_path):
    def edit(bag, i, one):
        if i == 0:
            return False
        bag.write_transforms(one.stamp_ns, [("map", "base_link", one.map_T_camera)])
        bag.write(COLOR, IMAGE, one.stamp_ns, raw_image(bag, one))
        bag.write(DEPTH, IMAGE, one.stamp_ns, raw_image(bag, one, encoding="depth24", step=48))
        return True

    path = change(tmp_path / "bag", frames(3), edit)
    with pytest.raises(InputError, match=r"no frame could be used.*bad_depth: 2.*'depth24'"):
        read(path, start_s=0.05)


def test_an_image_without_a_frame_id_is_dropped(tmp_path):
    def edit(bag, i, one):
        bag.write_frame(one) if i != 1 else bag.write(
            COLOR, IMAGE, one.stamp_ns, raw_image(bag, one, header=bag.header(one.stamp_ns, ""))
        )
        if i == 1:
            bag.write_image(DEPTH, one.stamp_ns, "cam", "16UC1", np.ones((12, 16), np.uint16))
        return True

    found, drops, _ = read(change(tmp_path / "bag", frames(3), edit))
    assert found == [0, 2] and drops == {"bad_header": 1}


def test_stamps_that_repeat_or_go_back_a_little_are_dropped_and_counted(tmp_path):
    order = [0, 1, 2, 2, 1, 3]
    with BagWriter(tmp_path / "bag") as bag:
        for log, i in enumerate(order):
            write_at(bag, START + log * SECOND // 10, frame(i))
    found, drops, warnings = read(tmp_path / "bag")
    assert found == [0, 1, 2, 3]
    assert drops == {"stamp_backwards": 2}
    assert warnings == {"depth_stamp_backwards": 2}


def test_a_clock_that_begins_again_is_followed_and_reported(tmp_path):
    order = [*range(100, 120), *range(0, 20)]
    with BagWriter(tmp_path / "bag") as bag:
        for log, i in enumerate(order):
            write_at(bag, START + log * SECOND // 10, frame(i))
    found, drops, warnings = read(tmp_path / "bag")
    assert warnings["clock_reset"] == 1
    # Nothing of the new time is lost; of the old one at most the image that was waiting for a newer one.
    assert found[-20:] == list(range(20)) and found[:19] == list(range(100, 119))
    assert sum(drops.values()) + len(found) == len(order)


def write_at(bag: BagWriter, log_ns: int, one) -> None:
    """Write a frame as recorded at another time than its stamp."""
    plain = BagWriter.write_raw
    bag.write_raw = lambda topic, kind, _, data: plain(bag, topic, kind, log_ns, data)
    bag.write_frame(one)
    del bag.write_raw


def test_without_any_transforms_the_bag_is_refused_with_the_ways_out(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_camera_info("color/camera_info", START, "cam", CAMERA)
        bag.write_image(COLOR, START, "cam", "rgb8", frame(0).color)
        bag.write_image(DEPTH, START, "cam", "16UC1", np.ones((12, 16), np.uint16))
    with pytest.raises(InputError, match=r"--poses FILE or --odometry"):
        open_source(tmp_path / "bag")


def test_intrinsics_that_are_none_are_told_with_what_is_wrong_with_them(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        make = bag.make
        bag.make = lambda kind, **fields: make(
            kind, **{**fields, "k": np.zeros(9), "p": np.zeros(12)} if kind.endswith("CameraInfo") else fields
        )
        bag.write_frame(frame(0))
    with pytest.raises(InputError, match=r"no_camera_info: 1 \(.*no intrinsics that can be used \(.*(focal|fx)"):
        read(tmp_path / "bag")


def test_frames_whose_camera_is_not_connected_are_dropped_as_no_tf(tmp_path):
    def edit(bag, i, one):
        if i != 1:
            return False
        bag.write_frame(replace(one, frame_id="loose"))
        return True

    found, drops, _ = read(change(tmp_path / "bag", frames(3), edit))
    # The depth of frame 1 is in the loose frame too.
    assert found == [0, 2] and drops == {"no_tf": 1}


def test_a_loop_of_transforms_is_counted_and_what_is_known_stays(tmp_path):
    def edit(bag, i, one):
        if i == 1:
            bag.write_transforms(one.stamp_ns, [("base_link", "map", one.map_T_camera)])
        return False

    found, drops, warnings = read(change(tmp_path / "bag", frames(3), edit))
    assert found == [0, 1, 2] and not drops
    assert warnings == {"tf_loop": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_transforms_that_are_no_numbers_are_counted_and_ignored(tmp_path, value):
    def edit(bag, i, one):
        make = bag.make
        if i == 1:
            transform = make(
                "geometry_msgs/msg/Transform",
                translation=make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0),
                rotation=make("geometry_msgs/msg/Quaternion", x=value, y=0.0, z=0.0, w=1.0),
            )
            stamped = make(
                "geometry_msgs/msg/TransformStamped",
                header=bag.header(one.stamp_ns, "map"),
                child_frame_id="base_link",
                transform=transform,
            )
            message = make("tf2_msgs/msg/TFMessage", transforms=[stamped])
            bag.write("/tf", "tf2_msgs/msg/TFMessage", one.stamp_ns, message)
        return False

    found, drops, warnings = read(change(tmp_path / "bag", frames(3), edit))
    assert found == [0, 1, 2] and not drops
    assert warnings == {"bad_transform": 1}


@pytest.mark.parametrize("topic", [COLOR, DEPTH, "/tf", "/camera/color/camera_info", "/camera/ground_truth/labels"])
@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"\x00\x01\x00\x00" + b"\xff" * 64, bytes(64)],
    ids=["empty", "one byte", "huge lengths", "zeros"],
)
def test_messages_that_cannot_be_decoded_are_counted_and_cost_nothing_else(tmp_path, topic, data):
    kinds = {"/tf": "tf2_msgs/msg/TFMessage", "/camera/color/camera_info": "sensor_msgs/msg/CameraInfo"}

    def edit(bag, i, one):
        if i == 1:
            bag.write_raw(topic, kinds.get(topic, IMAGE), one.stamp_ns - 1000, data)
        return False

    found, drops, warnings = read(change(tmp_path / "bag", frames(3, labels=True), edit))
    assert found == [0, 1, 2]
    counted = drops if topic == COLOR else warnings
    assert sum(counted.values()) == 1


def test_labels_outside_of_the_label_set_are_dropped_and_named(tmp_path):
    def edit(bag, i, one):
        if i == 1:
            bag.write_image(
                "/camera/ground_truth/labels", one.stamp_ns, one.frame_id, "mono8", np.full((12, 16), 77, np.uint8)
            )
            bag.write_frame(replace(one, labels=None))
            return True
        return False

    with open_source(change(tmp_path / "bag", frames(3, labels=True), edit)) as source:
        assert len(list(source)) == 2
        assert source.drops == {"bad_labels": 1}
        assert "77" in source.details["bad_labels"]


def test_an_image_without_its_label_image_is_passed_on_and_reported(tmp_path):
    def edit(bag, i, one):
        if i == 1:
            bag.write_frame(replace(one, labels=None))
        return i == 1

    with open_source(change(tmp_path / "bag", frames(3, labels=True), edit)) as source:
        assert [f.labels is None for f in source] == [False, True, False]
        assert source.warnings == {"no_labels": 1} and not source.drops


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("folder", [False, True])
def test_a_truncated_mcap_is_read_up_to_the_break(tmp_path, compressed, share, folder):
    big = [replace(f, color=_noise(i), depth=_flat(i), camera=_big_camera()) for i, f in enumerate(frames(12))]
    write_bag(tmp_path / "bag", big, BagLayout(compressed=compressed))
    file = tmp_path / "bag" / "bag.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    path = tmp_path / "bag" if folder else file
    found, _, warnings = read(path)
    # Chunks hold about a megabyte, a frame has 1.2: the loss is the chunk that was cut and what waited for it.
    assert int(12 * share) - 2 <= len(found) <= 12 * share + 1
    assert found == list(range(len(found)))
    assert warnings == {"bag_broken": 1}
    facts = describe(path)
    assert not facts["complete"] and f"cut off after {int(len(data) * share)} bytes" in facts["note"]


def _big_camera():
    return CAMERA.scaled(640, 480)


def _noise(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 255, (480, 640, 3)).astype(np.uint8)


def _flat(i: int) -> np.ndarray:
    return np.random.default_rng(i).uniform(1, 2, (480, 640)).astype(np.float32)


def test_a_damaged_chunk_in_the_middle_ends_the_reading_there_with_a_note(tmp_path):
    plain, depth = np.full((480, 640, 3), 7, np.uint8), np.ones((480, 640), np.float32)
    big = [replace(one, color=plain, depth=depth, camera=_big_camera()) for one in frames(8)]
    write_bag(tmp_path / "bag", big, BagLayout(compressed=True))
    file = tmp_path / "bag" / "bag.mcap"
    recovered = McapFile(file)
    damage = recovered._stretches[4].offset + 100
    recovered.close()
    data = bytearray(file.read_bytes())
    data[damage : damage + 20] = bytes(20)
    file.write_bytes(data)
    found, _, warnings = read(tmp_path / "bag")
    assert 2 <= len(found) <= 5 and found == list(range(len(found)))
    assert warnings == {"bag_broken": 1}


def test_chunks_that_overlap_too_widely_to_be_put_in_order_are_a_warning(tmp_path, monkeypatch):
    plain, depth = np.full((480, 640, 3), 7, np.uint8), np.ones((480, 640), np.float32)
    big = [replace(one, color=plain, depth=depth, camera=_big_camera()) for one in frames(8)]
    write_bag(tmp_path / "bag", big, BagLayout(compressed=True))
    scan = McapFile._scan

    def claim_everything(self):
        scan(self)
        for stretch in self._stretches:
            stretch.start_ns = self._stretches[0].start_ns

    monkeypatch.setattr(McapFile, "_scan", claim_everything)
    assert read(tmp_path / "bag")[2] == {}
    monkeypatch.setattr(mcap_file, "MAX_WAITING_BYTES", 0)
    found, drops, warnings = read(tmp_path / "bag")
    assert found == list(range(8)) and not drops and warnings == {"out_of_order": 1}


def test_one_unreadable_part_of_a_split_bag_costs_only_itself(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    for part in range(3):
        write_bag(tmp_path / f"p{part}", frames(6)[part * 2 : part * 2 + 2], BagLayout(storage="sqlite3"))
        shutil.copy(tmp_path / f"p{part}" / f"p{part}.db3", whole / f"whole_{part}.db3")
    (whole / "whole_1.db3").write_bytes(b"damaged")
    found, drops, warnings = read(whole)
    assert found == [0, 1, 4, 5] and not drops
    assert warnings == {"bag_broken": 1}


def test_a_write_ahead_log_that_is_not_read_is_mentioned(tmp_path):
    write_bag(tmp_path / "bag", frames(3), BagLayout(storage="sqlite3"))
    (tmp_path / "bag" / "bag.db3-wal").write_bytes(b"messages")
    for path in (tmp_path / "bag", tmp_path / "bag" / "bag.db3"):
        assert "bag.db3-wal" in describe(path)["note"]


def test_an_odometry_topic_without_messages_is_refused(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_frame(frame(0))
        bag._writer.add_connection("/odom", "nav_msgs/msg/Odometry", typestore=bag._types)
    with pytest.raises(InputError, match="/odom: expected a message"):
        open_source(tmp_path / "bag", SourceOptions(odometry="/odom"))


def test_mcap_without_chunks_and_out_of_order_is_read_whole(tmp_path):
    write_bag(tmp_path / "bag", frames(5))
    file = tmp_path / "bag" / "bag.mcap"
    source = McapFile(file)
    assert source.note == "" and sum(source.counts.values()) == 26
    records = [record for stretch in source._stretches for record in source._records_of(stretch)]
    source.close()
    others = [(kind, bytes(body)) for kind, body in records if kind != 0x05]
    messages = [bytes(body) for kind, body in records if kind == 0x05]
    messages[4], messages[6] = messages[6], messages[4]
    plain = file.read_bytes()[: 8 + 9 + struct.unpack_from("<Q", file.read_bytes(), 9)[0]]
    for kind, body in [*others, *((0x05, body) for body in messages)]:
        plain += bytes([kind]) + struct.pack("<Q", len(body)) + body
    plain += bytes([0x0F]) + struct.pack("<QI", 4, 0) + bytes([0x02]) + struct.pack("<QQQI", 20, 0, 0, 0)
    flat = tmp_path / "flat.mcap"
    flat.write_bytes(plain + b"\x89MCAP0\r\n")
    found, drops, warnings = read(flat)
    assert found == [0, 1, 2, 3, 4] and not drops and not warnings


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_to_an_mcap_ends_in_frames_or_in_an_input_error(tmp_path_factory, data):
    original = _small_bag(tmp_path_factory)
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged) - 1))
        damaged[start : start + 8] = data.draw(st.binary(min_size=1, max_size=8))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    path = tmp_path_factory.mktemp("damaged") / "x.mcap"
    path.write_bytes(damaged)
    try:
        with open_source(path) as source:
            for found in source:
                assert found.color.shape == (12, 16, 3)
    except InputError:
        pass


_SMALL: list[bytes] = []


def _small_bag(factory) -> bytes:
    if not _SMALL:
        folder = factory.mktemp("small")
        write_bag(folder / "bag", frames(2))
        _SMALL.append((folder / "bag" / "bag.mcap").read_bytes())
    return _SMALL[0]


def test_memory_does_not_grow_with_the_length_of_the_bag(tmp_path):
    import tracemalloc

    peaks = []
    for count in (20, 120):
        path = tmp_path / f"bag{count}"
        write_bag(
            path,
            (replace(frame(i), color=_noise(i % 3), depth=_flat(i % 3), camera=_big_camera()) for i in range(count)),
        )
        tracemalloc.start()
        with open_source(path) as source:
            assert sum(1 for _ in source) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 2_000_000
