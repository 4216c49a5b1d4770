# SPDX-License-Identifier: Apache-2.0
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception import cloud_codec as codec
from perception.errors import InputError


def field(name: str, offset: int, datatype: int, count: int = 1) -> SimpleNamespace:
    return SimpleNamespace(name=name, offset=offset, datatype=datatype, count=count)


XYZ = [field("x", 0, 7), field("y", 4, 7), field("z", 8, 7)]


def test_fields_are_found_by_offset_whatever_lies_between():
    # Driver-like: intensity before the coordinates, a ring number after them, padding at the end.
    fields = [field("intensity", 0, 2), *(field(n, 4 + 4 * i, 7) for i, n in enumerate("xyz")), field("ring", 16, 4)]
    data = b"".join(struct.pack("<B3x3fH6x", 9, i, i + 0.5, -i, 3) for i in range(4))
    cloud = codec.decode_point_cloud(1, 4, fields, False, 24, 96, data)
    assert cloud.points.tolist() == [[i, i + 0.5, -i] for i in range(4)]
    assert (cloud.colors, cloud.labels, cloud.confidence) == (None, None, None)


def test_rows_of_an_organized_cloud_may_be_padded():
    row = struct.pack("<6f", 1, 2, 3, 4, 5, 6) + b"\xee" * 5
    cloud = codec.decode_point_cloud(2, 2, XYZ, False, 12, 29, row * 2)
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]] * 2


@pytest.mark.parametrize(("big", "order"), [(False, "<"), (True, ">")])
def test_byte_order_and_every_datatype_are_honored(big, order):
    fields = [field("x", 0, 8), field("y", 8, 3), field("z", 10, 1), field("rgb", 11, 6), field("label", 15, 4)]
    fields.append(field("confidence", 17, 7))
    data = struct.pack(order + "dhbIHf", 1.5, -300, -7, 0x00102030, 12, 0.25)
    cloud = codec.decode_point_cloud(1, 1, fields, big, len(data), len(data), data)
    assert cloud.points.tolist() == [[1.5, -300, -7]]
    assert cloud.colors is not None and cloud.labels is not None and cloud.confidence is not None
    assert cloud.colors.tolist() == [[0x10, 0x20, 0x30]]
    assert cloud.labels.tolist() == [12]
    assert cloud.confidence.tolist() == [0.25]


def test_labels_that_are_no_ids_become_unlabeled():
    fields = [*XYZ, field("label", 12, 7)]
    values = [3.0, -1.0, np.nan, 65535.0, 1e30]
    data = b"".join(struct.pack("<4f", 0, 0, 0, value) for value in values)
    labels = codec.decode_point_cloud(1, 5, fields, 0, 16, 80, data).labels
    assert labels is not None and labels.tolist() == [3, -1, -1, -1, -1]


def test_points_that_are_not_finite_stay_in_place():
    data = struct.pack("<6f", np.nan, 0, np.inf, 1, 2, 3)
    points = codec.decode_point_cloud(1, 2, XYZ, 0, 12, 24, data).points
    assert np.isnan(points[0, 0]) and np.isposinf(points[0, 2]) and points[1].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("height", "width"), [(0, 0), (1, 0), (2**32 - 1, 0), (0, 2**32 - 1)])
def test_empty_cloud_has_no_points(height, width):
    cloud = codec.decode_point_cloud(height, width, [*XYZ, field("label", 12, 6)], 0, 16, 0, b"")
    assert cloud.points.shape == (0, 3)
    assert cloud.labels is not None and cloud.labels.shape == (0,)


@pytest.mark.parametrize(
    ("fields", "layout", "words"),
    [
        (XYZ[:2], (1, 1, 12, 12), "fields x, y and z, got none called z"),
        ([*XYZ[:2], field("z", 10, 7)], (1, 1, 12, 12), "'z' within 12 bytes, got bytes 10 to 14"),
        ([*XYZ[:2], field("z", 2**32 - 1, 7)], (1, 1, 12, 12), "'z' within 12 bytes"),
        ([*XYZ[:2], field("z", 8, 0)], (1, 1, 12, 12), "datatype 0"),
        ([*XYZ[:2], field("z", 8, 7, 2**32 - 1)], (1, 1, 12, 12), "count 4294967295"),
        ([*XYZ, XYZ[0]], (1, 1, 12, 12), "'x'.*twice"),
        ([*XYZ, field("rgb", 0, 8)], (1, 1, 12, 12), "'rgb' of 4 bytes"),
        (XYZ, (1, 1, 0, 0), "point_step of 1 to 65536 bytes, got 0"),
        (XYZ, (1, 2**32 - 1, 12, 2**32 - 1), "expected 51539607540 bytes"),
        (XYZ, (2, 2, 12, 12), "row_step of at least 24 bytes, got 12"),
        (XYZ, (1, 3, 12, 36), "expected 36 bytes for 3x1 points, got 24"),
        (XYZ, (-1, 1, 12, 12), "at least zero"),
    ],
)
def test_contradicting_cloud_fields_are_refused(fields, layout, words):
    height, width, point_step, row_step = layout
    with pytest.raises(InputError, match=words):
        codec.decode_point_cloud(height, width, fields, 0, point_step, row_step, bytes(24))


def test_labeled_points_read_back_as_they_were_written():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3)).astype(np.float32)
    colors = rng.integers(0, 256, (50, 3), dtype=np.uint8)
    labels = rng.integers(-1, 40, 50).astype(np.int32)
    confidence = rng.random(50, dtype=np.float32)
    records = codec.encode_labeled_points(points, colors, labels, confidence)
    fields = [field("x", 0, 7), field("y", 4, 7), field("z", 8, 7), field("rgb", 12, 7), field("label", 16, 6)]
    fields.append(field("confidence", 20, 7))
    cloud = codec.decode_point_cloud(1, 50, fields, 0, 24, 1200, records.tobytes())
    assert cloud.colors is not None and cloud.labels is not None and cloud.confidence is not None
    assert np.array_equal(cloud.points, points)
    assert np.array_equal(cloud.colors, colors)
    assert np.array_equal(cloud.labels, labels)
    assert np.array_equal(cloud.confidence, confidence)


@given(st.permutations(range(8)), st.integers(1, 40), st.sampled_from([5, 6, 7]), st.integers(0, 2**31))
def test_words_in_any_order_read_as_bytes_that_are_not_aligned_do(places, count, label_type, seed):
    names = {"x": 7, "y": 7, "z": 7, "rgb": 7, "label": label_type, "confidence": 7}
    data = np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)
    data[::2, 4 * places[4] : 4 * places[4] + 4] = (7, 0, 0, 0)
    odd = np.hstack([np.full((count, 1), 0xEE, np.uint8), data])
    read = [
        codec.decode_point_cloud(
            1, count, [field(n, 4 * places[i] + shift, kind) for i, (n, kind) in enumerate(names.items())], 0,
            32 + shift, (32 + shift) * count, array.tobytes(),
        )
        for shift, array in enumerate([data, odd])
    ]  # fmt: skip
    for name in ("points", "colors", "labels", "confidence"):
        aligned, other = (getattr(cloud, name) for cloud in read)
        assert aligned.dtype == other.dtype and aligned.tobytes() == other.tobytes()


def test_colors_are_left_out_where_nobody_wants_them():
    data = codec.encode_labeled_points(np.ones((2, 3)), np.ones((2, 3), np.uint8), np.zeros(2, int), np.ones(2))
    fields = [*XYZ, field("rgb", 12, 7), field("label", 16, 6)]
    cloud = codec.decode_point_cloud(1, 2, fields, 0, 24, 48, data.tobytes(), with_colors=False)
    assert cloud.colors is None and cloud.labels is not None and cloud.labels.tolist() == [0, 0]


def test_packed_color_has_the_bits_of_rviz_and_pcl():
    packed = codec.pack_colors(np.array([[0x12, 0x34, 0x56]], np.uint8))
    assert packed.tobytes() == struct.pack("<I", 0x00123456)


def test_encoding_refuses_arrays_of_other_lengths():
    with pytest.raises(InputError, match=r"labels: expected \(2,\), got \(3,\)"):
        codec.encode_labeled_points(np.zeros((2, 3)), np.zeros((2, 3), np.uint8), np.zeros(3, int), np.zeros(2))
    with pytest.raises(InputError, match=r"points: expected \(N, 3\)"):
        codec.encode_points(np.zeros((2, 4)))


NUMBERS = st.one_of(st.integers(0, 40), st.integers(-(2**31), 2**32 - 1))
FIELDS = st.lists(
    st.builds(field, st.sampled_from(["x", "y", "z", "rgb", "label", "confidence", "i"]), NUMBERS, NUMBERS, NUMBERS),
    max_size=4,
)


@given(height=NUMBERS, width=NUMBERS, fields=FIELDS, step=NUMBERS, row=NUMBERS, data=st.binary(max_size=400))
def test_any_cloud_fields_give_points_or_an_input_error(height, width, fields, step, row, data):
    for candidate in (fields, XYZ + fields):
        try:
            cloud = codec.decode_point_cloud(height, width, candidate, 0, step, row, data)
        except InputError:
            continue
        assert cloud.points.shape == (height * width, 3)
