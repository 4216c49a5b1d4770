# SPDX-License-Identifier: Apache-2.0
import array
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception import image_codec as codec
from perception.errors import InputError

GRAY = np.array([[0, 50, 100, 150], [200, 250, 30, 60]], np.uint8)
# Smooth: chroma subsampling and quantization of a JPEG change it little.
PICTURE = np.full((40, 80, 3), 90, np.uint8)
PICTURE[..., 0], PICTURE[..., 1] = np.meshgrid(np.arange(0, 160, 2), np.arange(60, 140, 2))


def padded(image: np.ndarray, extra: int) -> tuple[int, bytes]:
    """Rows with padding bytes of 0xEE after them: (step, data)."""
    rows = image.reshape(len(image), -1)
    rows = rows.view(np.uint8)
    return rows.shape[1] + extra, np.pad(rows, ((0, 0), (0, extra)), constant_values=0xEE).tobytes()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int) -> bytes:
    """A well-formed PNG file whose header claims a size; its pixel data is empty."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def compressed_depth(values: np.ndarray, a: float = 0.0, b: float = 0.0) -> bytes:
    return struct.pack("<iff", 0, a, b) + png(values)


@pytest.mark.parametrize(
    ("encoding", "pixel"),
    [("rgb8", (1, 2, 3)), ("bgr8", (3, 2, 1)), ("rgba8", (1, 2, 3, 9)), ("bgra8", (3, 2, 1, 9))],
)
def test_color_encodings_give_rgb_without_row_padding(encoding, pixel):
    image = np.tile(np.array(pixel, np.uint8), (2, 3, 1))
    step, data = padded(image, 5)
    decoded = codec.decode_image(2, 3, encoding, step, False, data)
    assert np.array_equal(decoded, np.tile(np.array((1, 2, 3), np.uint8), (2, 3, 1)))


@pytest.mark.parametrize(("big", "data"), [(True, b"\x01\x02\xff\xfe"), (False, b"\x02\x01\xfe\xff")])
def test_byte_order_of_16_bit_images_is_honored(big, data):
    decoded = codec.decode_image(1, 2, "mono16", 4, big, data)
    assert decoded.tolist() == [[0x0102, 0xFFFE]]
    assert decoded.dtype.isnative


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: array.array("B", b), np.frombuffer])
def test_every_kind_of_buffer_is_read(make):
    data = make(GRAY.tobytes()) if make is not np.frombuffer else np.frombuffer(GRAY.tobytes(), np.uint8)
    assert np.array_equal(codec.decode_image(2, 4, "mono8", 4, 0, data), GRAY)


def test_result_is_writable_and_c_ordered_also_from_read_only_padded_data():
    step, data = padded(GRAY, 3)
    decoded = codec.decode_image(2, 4, "mono8", step, 0, data)
    assert decoded.flags.c_contiguous and decoded.flags.writeable


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuyv", "yuyv"), ("yuv422_yuy2", "yuyv"), ("uyvy", "uyvy"), ("yuv422", "uyvy")]
)
def test_yuv_422_red_of_bt_601_is_red(encoding, order):
    pair = bytes({"y": 81, "u": 90, "v": 240}[sample] for sample in order)
    decoded = codec.decode_image(2, 4, encoding, 8, 0, pair * 4)
    assert np.abs(decoded.astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_mosaic_of_one_color_gives_that_color(pattern):
    levels = {"r": 200, "g": 100, "b": 50}
    tile = np.array([levels[c] for c in pattern], np.uint8).reshape(2, 2)
    decoded = codec.decode_image(8, 8, f"bayer_{pattern}8", 8, 0, np.tile(tile, (4, 4)).tobytes())
    assert np.array_equal(decoded, np.tile(np.array((200, 100, 50), np.uint8), (8, 8, 1)))


def test_mono_becomes_gray_rgb_and_16_bits_become_8():
    assert np.array_equal(codec.decode_color(2, 4, "mono8", 4, 0, GRAY.tobytes()), np.repeat(GRAY[..., None], 3, 2))
    wide = (GRAY.astype("<u2") * 257).tobytes()
    assert np.array_equal(codec.decode_color(2, 4, "mono16", 8, 0, wide)[..., 0], GRAY)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2, 4, "rgb9", 12, 0, bytes(24)), "encoding: expected one of rgb8.*got 'rgb9'"),
        ((2, 4, "8UC3", 12, 0, bytes(24)), "encoding"),
        ((2, 4, "rgb8", 11, 0, bytes(24)), "step: expected at least 12 .* got 11"),
        ((2, 4, "rgb8", 12, 0, bytes(23)), "data: expected 12 x 2 = 24 bytes, got 23"),
        ((0, 4, "rgb8", 12, 0, b""), "positive size, got 4x0"),
        ((2, -4, "rgb8", 12, 0, bytes(24)), "positive size"),
        ((2**32 - 1, 2**32 - 1, "32FC1", 2**34, 0, bytes(24)), "got 24"),
        ((2, 3, "yuyv", 6, 0, bytes(12)), "even"),
        ((2, 4, "mono8", 4, 0, "text"), "buffer of bytes, got str"),
        ((2, 4, "mono8", 4, 0, None), "buffer of bytes, got NoneType"),
    ],
)
def test_contradicting_image_fields_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        codec.decode_image(*arguments)


def test_depth_is_no_color_and_color_is_no_depth():
    with pytest.raises(InputError, match=r"color image: .*'16UC1'"):
        codec.decode_color(1, 1, "16UC1", 2, 0, bytes(2))
    with pytest.raises(InputError, match=r"depth image: .*'rgb8'"):
        codec.decode_depth(1, 1, "rgb8", 3, 0, bytes(3))


def test_millimeters_become_meters_and_zero_stays_zero():
    data = np.array([[0, 1, 1500, 65535]], "<u2").tobytes()
    depth = codec.decode_depth(1, 4, "16UC1", 8, 0, data)
    assert depth.dtype == np.float32
    assert depth.tolist() == [[0.0, np.float32(0.001), 1.5, np.float32(65.535)]]


def test_float_depth_keeps_infinities_and_drops_negative_numbers():
    values = [1.25, np.inf, -np.inf, np.nan, -2.0, 0.0]
    depth = codec.decode_depth(1, 6, "32FC1", 24, True, np.array(values, ">f4").tobytes())
    assert np.array_equal(depth[0], [1.25, np.inf, -np.inf, np.nan, np.nan, 0.0], equal_nan=True)


@pytest.mark.parametrize("format", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8"])
def test_png_gives_rgb(format):
    assert np.array_equal(codec.decode_compressed(format, png(PICTURE[..., ::-1])), PICTURE)


def test_jpeg_gives_rgb_within_its_loss():
    decoded = codec.decode_compressed("rgb8; jpeg compressed bgr8", jpeg(PICTURE[..., ::-1]))
    assert np.abs(decoded.astype(int) - PICTURE).max() <= 6


def test_jpeg_that_was_stored_as_rgb_by_mistake_is_told_by_its_format():
    decoded = codec.decode_compressed("rgb8; jpeg compressed rgb8", jpeg(PICTURE))
    assert np.abs(decoded.astype(int) - PICTURE).max() <= 6


def test_png_with_transparency_and_png_of_16_bits_give_rgb():
    alpha = np.dstack([PICTURE[..., ::-1], np.full((40, 80), 7, np.uint8)])
    assert np.array_equal(codec.decode_compressed("png", png(alpha)), PICTURE)
    assert np.array_equal(codec.decode_compressed("png", png(PICTURE[..., ::-1].astype(np.uint16) * 257)), PICTURE)


def test_one_channel_files_stay_one_channel_unless_color_is_asked_for():
    assert np.array_equal(codec.decode_compressed("png", png(GRAY)), GRAY)
    assert np.array_equal(
        codec.decode_compressed("png", png(GRAY.astype(np.uint16) * 300)), GRAY.astype(np.uint16) * 300
    )
    assert codec.decode_compressed_color("png", png(GRAY)).shape == (2, 4, 3)


def test_rotation_noted_in_a_jpeg_is_ignored():
    plain = jpeg(PICTURE[..., ::-1])
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x0112, 3, 1, 6) + bytes(4)
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(tiff)) + b"Exif\0\0" + tiff
    rotated = plain[:2] + exif + plain[2:]
    assert cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR).shape == (80, 40, 3)  # The note works.
    assert codec.decode_compressed("jpeg", rotated).shape == (40, 80, 3)


@pytest.mark.parametrize("encode", [png, jpeg])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.99])
def test_files_cut_short_are_refused(encode, keep):
    data = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="compressed image"):
        codec.decode_compressed("", data[: int(len(data) * keep)])


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 1), (2**32 - 1, 2**32 - 1), (0, 10), (8193, 8192)])
def test_claimed_size_is_checked_before_decoding(size):
    with pytest.raises(InputError, match=f"expected 1 to {codec.MAX_PIXELS} pixels, got {size[0]}x{size[1]}"):
        codec.decode_compressed("png", png_claiming(*size))


def test_claimed_size_without_pixels_is_damage():
    with pytest.raises(InputError, match="10x10 file is damaged"):
        codec.decode_compressed("png", png_claiming(10, 10))


@pytest.mark.parametrize("size", [(4, 3), (1, 1), (1, 1 << 24), (2**32 - 1, 2**32 - 1)])
def test_chunks_of_a_png_file_within_a_jpeg_file_are_no_image(size):
    width, height = size
    rows = zlib.compress(bytes(height * (1 + 2 * width)) if height <= 1 << 24 else b"")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))
    chunks = header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    # A segment that is skipped, with the chunks where a PNG file has them: behind eight bytes.
    hidden = b"\xff\xe0" + struct.pack(">H", 4 + len(chunks)) + b"\0\0" + chunks
    plain = jpeg(np.full((1, 1), 90, np.uint8))
    data = plain[:2] + hidden + plain[2:]
    assert codec.compressed_size("jpeg", data) == (1, 1)
    assert np.array_equal(codec.decode_compressed("jpeg", data), [[90]])


@pytest.mark.parametrize("marker", [0x00, 0x01, 0xD0, 0xD7])
def test_a_jpeg_marker_without_a_segment_hides_no_other_size(marker):
    large, small = jpeg(PICTURE), jpeg(PICTURE[:1, :1])
    # What follows the marker is a segment of its own to a decoder; taken for a length it is a way past it.
    data = b"\xff\xd8\xff" + bytes([marker]) + large[2:]
    data += bytes(4 + 0xFFE0 - len(data)) + small[2:]
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).shape == PICTURE.shape
    for told in (codec.compressed_size, codec.decode_compressed):
        with pytest.raises(InputError, match="whole JPEG file"):
            told("jpeg", data)


def test_a_png_file_begins_with_its_header():
    whole = png(PICTURE)
    with pytest.raises(InputError, match="begins with its header"):
        codec.compressed_size("png", whole[:8] + chunk(b"teSt", bytes(13)) + whole[8:])


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(50), bytes(100), b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0" * 50])
def test_other_files_are_refused(data):
    with pytest.raises(InputError, match="compressed image"):
        codec.decode_compressed("jpeg", data)


@pytest.mark.parametrize("format", ["16UC1; compressedDepth png", "16UC1; compressedDepth"])
def test_compressed_depth_of_millimeters(format):
    values = np.array([[0, 1500], [2000, 65535]], np.uint16)
    depth = codec.decode_compressed_depth(format, compressed_depth(values))
    assert np.array_equal(depth, values.astype(np.float32) / np.float32(1000))


def test_millimeters_without_the_header_are_understood():
    values = np.array([[0, 1500]], np.uint16)
    for format in ("16UC1; compressedDepth png", "16UC1; png compressed "):
        assert codec.decode_compressed_depth(format, png(values)).tolist() == [[0.0, 1.5]]


def test_compressed_depth_of_meters_inverts_the_quantization():
    # The sender's formula with its defaults: depth_quantization 100, depth_max 10.
    a, b = 100.0 * 101.0, 1 - 100.0 * 101.0 / 10.0
    meters = np.array([[0.5, 1.0, 2.5, 9.5]])
    values = (a / meters + b).astype(np.uint16)
    values = np.hstack([values, [[0]]]).astype(np.uint16)
    depth = codec.decode_compressed_depth("32FC1; compressedDepth png", compressed_depth(values, a, b))
    assert np.isnan(depth[0, 4])
    # A step of one in the value is depth² / A in meters.
    assert (np.abs(depth[:, :4] - meters) <= meters**2 / a * 1.01).all()


@pytest.mark.parametrize(
    ("format", "data", "words"),
    [
        ("16UC1; compressedDepth rvl", bytes(100), "'16UC1; compressedDepth rvl'"),
        ("jpeg", jpeg(PICTURE), "got 'jpeg'"),
        ("16UC1; compressedDepth png", b"", "PNG"),
        ("16UC1; compressedDepth png", struct.pack("<iff", 0, 0, 0) + jpeg(PICTURE), "PNG"),
        ("16UC1; compressedDepth png", compressed_depth(GRAY), "one 16-bit channel"),
        ("16UC1; compressedDepth png", compressed_depth(np.ones((9, 9), np.uint16))[:-5], "PNG"),
        ("32FC1; compressedDepth png", compressed_depth(np.ones((2, 2), np.uint16), np.nan, 1), "A > 0"),
        ("32FC1; compressedDepth png", compressed_depth(np.ones((2, 2), np.uint16), -1, 1), "A > 0"),
        ("32FC1; compressedDepth png", bytes(5), "header of 12 bytes"),
        ("32FC1; png compressed", png(GRAY), "header of 12 bytes"),
    ],
)
def test_damaged_compressed_depth_is_refused(format, data, words):
    with pytest.raises(InputError, match=words):
        codec.decode_compressed_depth(format, data)


def test_depth_is_not_decoded_as_a_picture():
    with pytest.raises(InputError, match="got depth"):
        codec.decode_compressed("16UC1; compressedDepth png", compressed_depth(np.ones((2, 2), np.uint16)))


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    encoding=st.sampled_from(["mono8", "rgb8", "mono16", "32FC1", "32SC1"]),
    extra=st.integers(0, 7),
    big=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_decoding_inverts_any_layout(height, width, encoding, extra, big, seed):
    kind, channels = codec.LAYOUTS[encoding]
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(kind)
    step, data = padded(values.astype(values.dtype.newbyteorder(">" if big else "<")), extra)
    decoded = codec.decode_image(height, width, encoding, step, big, data)
    assert np.array_equal(decoded, values if channels > 1 else values[..., 0])


@pytest.mark.parametrize("encode", [png, jpeg])
def test_size_of_a_file_is_told_without_decoding_and_only_of_a_whole_one(encode):
    assert codec.compressed_size("any", encode(PICTURE)) == (40, 80)
    for data in (encode(PICTURE)[:-200], b"", b"GIF89a", png_claiming(1 << 16, 1 << 16)):
        with pytest.raises(InputError):
            codec.compressed_size("any", data)
    with pytest.raises(InputError, match="got depth"):
        codec.compressed_size("16UC1; compressedDepth png", encode(PICTURE))


def test_size_of_a_color_image_is_told_under_the_same_conditions_as_it_is_decoded():
    assert codec.color_size(2, 2, "rgb8", 6, False, bytes(12)) == (2, 2)
    for arguments in (
        (2, 2, "16UC1", 4, False, bytes(8)),
        (2, 2, "rgb8", 6, False, bytes(11)),
        (0, 2, "rgb8", 6, 0, b""),
    ):
        for told in (codec.color_size, codec.decode_color):
            with pytest.raises(InputError):
                told(*arguments)


SIZES = st.one_of(st.integers(0, 20), st.integers(-(2**31), 2**32 - 1), st.sampled_from([2**31, 2**32 - 1]))


@given(
    height=SIZES,
    width=SIZES,
    encoding=st.one_of(st.sampled_from(sorted(codec.LAYOUTS)), st.text(max_size=8)),
    step=SIZES,
    big=st.integers(0, 255),
    data=st.binary(max_size=400),
)
def test_any_image_fields_give_an_image_or_an_input_error(height, width, encoding, step, big, data):
    for decode in (codec.decode_image, codec.decode_color, codec.decode_depth):
        try:
            image = decode(height, width, encoding, step, big, data)
        except InputError:
            continue
        assert image.shape[:2] == (height, width)
        if decode is codec.decode_color:
            assert codec.color_size(height, width, encoding, step, big, data) == (height, width)


@given(
    format=st.sampled_from(["jpeg", "png", "16UC1; compressedDepth png", "32FC1; compressedDepth png", "?"]),
    head=st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", png(GRAY), jpeg(PICTURE), bytes(12) + png(GRAY)]),
    cut=st.integers(0, 2000),
    tail=st.binary(max_size=64),
)
def test_any_compressed_bytes_give_an_image_or_an_input_error(format, head, cut, tail):
    for decode in (codec.decode_compressed, codec.decode_compressed_color, codec.decode_compressed_depth):
        try:
            image = decode(format, head[: cut % (len(head) + 1)] + tail)
        except InputError:
            continue
        assert image.size > 0
        if decode is codec.decode_compressed:
            assert codec.compressed_size(format, head[: cut % (len(head) + 1)] + tail) == image.shape[:2]
