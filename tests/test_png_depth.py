# SPDX-License-Identifier: Apache-2.0
"""Depth images out of PNG files: every filter, nothing but plain files, the same as OpenCV reads."""

from __future__ import annotations

import importlib.util
import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception import image_codec, image_kernels, inflate, png_depth
from perception.image_codec import to_meters
from perception.png_depth import decode_plain_depth

SIGNATURE = b"\x89PNG\r\n\x1a\n"
VALUES = np.random.default_rng(0).integers(0, 65536, (5, 7)).astype(np.uint16)


INFLATERS = ["zlib", "isal.isal_zlib"] if importlib.util.find_spec("isal") else ["zlib"]
"""Both, where both are there: the package works without isal."""


@pytest.fixture(params=INFLATERS, autouse=True)
def inflater(request, monkeypatch):
    module = importlib.import_module(request.param)
    for name in ("crc32", "decompressobj"):
        monkeypatch.setattr(png_depth, name, getattr(module, name))
    monkeypatch.setattr(png_depth, "InflateError", module.error)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def filtered(image: np.ndarray, filters: list[int]) -> bytes:
    """The rows of a PNG file, as the standard defines its filters byte by byte."""
    width = image.shape[1] * 2
    data = np.ascontiguousarray(image, ">u2").view(np.uint8).astype(int).reshape(len(image), width)
    rows = []
    for v, kind in enumerate(filters):
        row = [kind]
        for i in range(width):
            left = data[v, i - 2] if i >= 2 else 0
            above = data[v - 1, i] if v else 0
            corner = data[v - 1, i - 2] if v and i >= 2 else 0
            guess = left + above - corner
            nearest = min((left, above, corner), key=lambda value, guess=guess: abs(guess - value))
            row.append((data[v, i] - (0, left, above, (left + above) // 2, nearest)[kind % 5]) % 256)
        rows.append(bytes(row))
    return b"".join(rows)


def png(image: np.ndarray, filters: list[int], layout=(16, 0, 0, 0, 0), rows=None, parts=1, extra=b"") -> bytes:
    packed = zlib.compress(filtered(image, filters) if rows is None else rows)
    cuts = np.linspace(0, len(packed), parts + 1).astype(int)
    pixels = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in itertools.pairwise(cuts))
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], *layout)
    return SIGNATURE + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def decoded_by_opencv(data: bytes) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@settings(deadline=None)
@given(data=st.data(), height=st.integers(1, 6), width=st.integers(1, 6), parts=st.integers(1, 4))
def test_every_mixture_of_filters_gives_the_image(data, height, width, parts):
    # Neighbors that are alike, and far apart, so that every case of the filters is met.
    values = st.one_of(st.integers(0, 65535), st.sampled_from([0, 255, 256, 65535]))
    pixels = data.draw(st.lists(values, min_size=height * width, max_size=height * width))
    filters = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    image = np.array(pixels, np.uint16).reshape(height, width)
    file = png(image, filters, parts=parts)
    assert np.array_equal(decoded_by_opencv(file), image)
    decoded = decode_plain_depth(memoryview(file))
    assert decoded is not None and np.array_equal(decoded, image)
    assert decoded.dtype == np.uint16 and decoded.flags.c_contiguous and decoded.flags.writeable


@pytest.mark.parametrize(
    "file",
    [
        cv2.imencode(".png", (VALUES >> 8).astype(np.uint8))[1].tobytes(),
        cv2.imencode(".png", np.dstack([VALUES] * 3))[1].tobytes(),
        png(VALUES, [0] * 5, layout=(16, 0, 0, 0, 1)),
        png(VALUES, [0] * 5, extra=chunk(b"tRNS", b"\0\1")),
        png(VALUES, [0, 1, 2, 3, 5]),
        png(VALUES, [0] * 5, rows=filtered(VALUES, [0] * 5)[:-1]),
        png(VALUES, [0] * 5, rows=filtered(VALUES, [0] * 5) + b"\0"),
        png(VALUES, [0] * 5, rows=b""),
        png(VALUES, [0] * 5)[:-12],
        png(VALUES, [0] * 5)[:40],
        b"\xff\xd8" + png(VALUES, [0] * 5)[2:],
        png(VALUES[:0], []),
        SIGNATURE + chunk(b"IHDR", b"\xff" * 8 + b"\x10\0\0\0\0") + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
        SIGNATURE,
        b"",
    ],
    ids=[
        *("8 bits", "color", "interlaced", "transparent", "unknown filter", "too few pixels", "too many pixels"),
        *("no pixels", "no end", "cut off", "other signature", "no rows", "all too large", "signature", "empty"),
    ],
)
def test_what_is_not_plain_is_left_to_a_general_decoder(file):
    assert decode_plain_depth(memoryview(file)) is None


@pytest.mark.parametrize("place", [29, 45, -17, -20])
def test_checksums_must_fit(place):
    file = bytearray(png(VALUES, [1] * 5))
    assert decode_plain_depth(memoryview(file)) is not None
    file[place] ^= 1
    assert decode_plain_depth(memoryview(file)) is None


def test_the_checksum_of_the_pixels_themselves_must_fit():
    packed = bytearray(zlib.compress(filtered(VALUES, [1] * 5)))
    packed[-1] ^= 1
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 0, 0, 0, 0))
    file = SIGNATURE + header + chunk(b"IDAT", bytes(packed)) + chunk(b"IEND", b"")
    assert decode_plain_depth(memoryview(file)) is None


@settings(deadline=None)
@given(place=st.integers(8, 150), change=st.binary(min_size=1, max_size=4), cut=st.integers(0, 10))
def test_a_damaged_file_is_refused_or_read_as_opencv_reads_it(place, change, cut):
    file = bytearray(png(VALUES, [0, 1, 2, 3, 4], parts=2))
    file[place : place + len(change)] = change
    del file[len(file) - cut :]
    decoded = decode_plain_depth(memoryview(file))
    assert decoded is None or np.array_equal(decoded, decoded_by_opencv(bytes(file)))


def test_a_claimed_size_costs_no_memory():
    import tracemalloc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8192, 8192, 16, 0, 0, 0, 0))
    file = SIGNATURE + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    tracemalloc.start()
    assert decode_plain_depth(memoryview(file)) is None
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_checksums_are_those_of_zlib():
    data = np.random.default_rng(0).bytes(100_001)
    assert inflate.crc32(data) == zlib.crc32(data)


def test_every_number_of_millimeters_is_divided_alike_however_it_lies_in_memory():
    millimeters = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    meters = millimeters.astype(np.float32) / np.float32(1000)
    odd = np.frombuffer(b"\0" + millimeters.tobytes(), np.uint16, offset=1).reshape(256, 256)
    padded = np.zeros((256, 300), np.uint16)
    padded[:, :256] = millimeters
    for image in (millimeters, odd, padded[:, :256], millimeters.astype(">u2")):
        found = to_meters(image)
        assert found.dtype == np.float32 and found.flags.c_contiguous and np.array_equal(found, meters)


def test_images_meet_only_kernels_that_were_compiled_before():
    image_codec.warm_up()
    kernels = (image_kernels.to_meters, image_kernels.unfilter_16)
    compiled = [len(kernel.signatures) for kernel in kernels]
    to_meters(VALUES)
    to_meters(np.frombuffer(VALUES.tobytes(), np.uint16).reshape(5, 7))
    assert decode_plain_depth(memoryview(png(VALUES, [4] * 5))) is not None
    assert [len(kernel.signatures) for kernel in kernels] == compiled
