# SPDX-License-Identifier: Apache-2.0
"""Decode images as ROS messages and bags carry them, without ROS: color, labels and depth, plain and compressed.

Every size is checked before memory is viewed or allocated: messages and files are untrusted.
Sources: sensor_msgs/Image and image_encodings; REP 117 and 118 for depth; compressed_image_transport and
compressed_depth_image_transport for the two compressed layouts.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.image_headers import PNG_SIGNATURE, claimed_size, starts_with
from perception.png_depth import decode_plain_depth

MAX_PIXELS = 1 << 26
"""Largest image that is decompressed (64 megapixels): a few bytes can claim to be a huge image."""

_COMPRESSED_DEPTH_HEADER = np.dtype([("format", "<i4"), ("quantization", "<f4", 2)])

LAYOUTS: dict[str, tuple[str, int]] = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "mono8": ("u1", 1),
    "mono16": ("u2", 1),
    "8UC1": ("u1", 1),
    "16UC1": ("u2", 1),
    "16SC1": ("i2", 1),
    "32SC1": ("i4", 1),
    "32FC1": ("f4", 1),
    "yuv422": ("u1", 2),
    "yuv422_yuy2": ("u1", 2),
    "uyvy": ("u1", 2),
    "yuyv": ("u1", 2),
    "bayer_rggb8": ("u1", 1),
    "bayer_bggr8": ("u1", 1),
    "bayer_gbrg8": ("u1", 1),
    "bayer_grbg8": ("u1", 1),
}
"""Encodings of sensor_msgs/Image that are understood here: type of a channel, channels per pixel."""
# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two.
_TO_RGB: dict[str, str] = {
    "bgr8": "COLOR_BGR2RGB",
    "rgba8": "COLOR_RGBA2RGB",
    "bgra8": "COLOR_BGRA2RGB",
    "yuv422": "COLOR_YUV2RGB_UYVY",
    "uyvy": "COLOR_YUV2RGB_UYVY",
    "yuv422_yuy2": "COLOR_YUV2RGB_YUY2",
    "yuyv": "COLOR_YUV2RGB_YUY2",
    "bayer_rggb8": "COLOR_BayerBG2RGB",
    "bayer_bggr8": "COLOR_BayerRG2RGB",
    "bayer_gbrg8": "COLOR_BayerGR2RGB",
    "bayer_grbg8": "COLOR_BayerGB2RGB",
}
DEPTH_ENCODINGS = frozenset({"16UC1", "mono16", "32FC1"})
COLOR_ENCODINGS = frozenset({"rgb8", "mono8", "8UC1", "mono16", *_TO_RGB})


def as_bytes(data: Any) -> NDArray[np.uint8]:
    """The bytes of a message's ``data``: bytes, array.array, memoryview, or an array. No copy where possible.

    Raises:
        InputError: not a buffer.
    """
    try:
        view = memoryview(data)
        if view.nbytes == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(view if view.c_contiguous else view.tobytes(), np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise InputError(f"data: expected a buffer of bytes, got {type(data).__name__}") from error


def decode_image(
    height: int, width: int, encoding: str, step: int, is_bigendian: bool | int, data: Any
) -> NDArray[Any]:
    """Decode the fields of a sensor_msgs/Image.

    Args:
        height: rows.
        width: columns.
        encoding: a key of :data:`LAYOUTS`.
        step: bytes from one row to the next.
        is_bigendian: byte order of channels wider than a byte.
        data: ``step * height`` bytes.

    Returns:
        Color, YUV 4:2:2 and Bayer encodings: (H, W, 3) uint8 RGB. One channel: (H, W) of that channel's type.
        C-ordered, writable and in native byte order; may share memory with ``data``.

    Raises:
        InputError: the encoding is not known, or the sizes contradict each other.
    """
    image = view_image(height, width, encoding, step, is_bigendian, data)
    return np.require(image, image.dtype.newbyteorder("="), ["C", "W"])


def view_image(height: int, width: int, encoding: str, step: int, is_bigendian: bool | int, data: Any) -> NDArray[Any]:
    """Like :func:`decode_image`, but of ``data`` itself where no conversion is needed, in its byte order."""
    image = _view_pixels(height, width, encoding, step, is_bigendian, data)
    if encoding in _TO_RGB:
        return _convert_color(np.ascontiguousarray(image), encoding)
    return image[..., 0] if image.shape[2] == 1 else image


def _view_pixels(
    height: int, width: int, encoding: str, step: int, is_bigendian: bool | int, data: Any
) -> NDArray[Any]:
    """(H, W, channels) of ``data`` itself, as the encoding has them."""
    if encoding not in LAYOUTS:
        raise InputError(f"image encoding: expected one of {', '.join(LAYOUTS)}, got {str(encoding)[:40]!r}")
    kind, channels = LAYOUTS[encoding]
    height, width, step = int(height), int(width), int(step)
    buffer = as_bytes(data)
    dtype = np.dtype(kind).newbyteorder(">" if is_bigendian else "<")
    _check_layout(height, width, encoding, step, len(buffer), channels * dtype.itemsize)
    strides = (step, channels * dtype.itemsize, dtype.itemsize)
    return np.ndarray((height, width, channels), dtype, buffer, 0, strides)


def decode_color(
    height: int, width: int, encoding: str, step: int, is_bigendian: bool | int, data: Any
) -> NDArray[np.uint8]:
    """Like :func:`decode_image`, but always (H, W, 3) uint8 RGB; refuses encodings that are no picture.

    Raises:
        InputError: as :func:`decode_image`, or the encoding holds depth or numbers.
    """
    _check_color_encoding(encoding)
    return to_rgb(decode_image(height, width, encoding, step, is_bigendian, data))


def color_size(
    height: int, width: int, encoding: str, step: int, is_bigendian: bool | int, data: Any
) -> tuple[int, int]:
    """(height, width) of what :func:`decode_color` makes, without decoding; raises what it raises."""
    _check_color_encoding(encoding)
    return _view_pixels(height, width, encoding, step, is_bigendian, data).shape[:2]


def decode_depth(
    height: int, width: int, encoding: str, step: int, is_bigendian: bool | int, data: Any
) -> NDArray[np.float32]:
    """Like :func:`decode_image` for depth images.

    Returns:
        (H, W) float32, meters; see :func:`to_meters`.

    Raises:
        InputError: as :func:`decode_image`, or the encoding is not a depth encoding.
    """
    if encoding not in DEPTH_ENCODINGS:
        raise InputError(f"depth image: expected encoding 16UC1 (millimeters) or 32FC1 (meters), got {encoding!r}")
    # The change to meters makes an array of its own.
    return to_meters(view_image(height, width, encoding, step, is_bigendian, data))


def decode_compressed(format: str, data: Any) -> NDArray[Any]:
    """Decode a sensor_msgs/CompressedImage that holds a JPEG or PNG file.

    Args:
        format: such as "jpeg", "png" or "rgb8; jpeg compressed bgr8".
        data: the file.

    Returns:
        (H, W, 3) uint8 RGB, or (H, W) uint8 or uint16 where the file has one channel. Any rotation noted in the
        file is ignored: intrinsics belong to the pixels as they are stored.

    Raises:
        InputError: neither JPEG nor PNG, cut short, damaged, or more than :data:`MAX_PIXELS`.
    """
    _check_picture_format(format)
    image = _decode_file(as_bytes(data), format)
    if image.ndim == 2:
        return image
    if image.dtype == np.uint16:
        image = _to_8_bit(image)
    # The transport once stored RGB as if it were BGR and says so in the format.
    if "compressed rgb" in format and image.shape[2] == 3:
        return image
    return _convert_color(image, "bgr8" if image.shape[2] == 3 else "bgra8")


def compressed_size(format: str, data: Any) -> tuple[int, int]:
    """(height, width) that a JPEG or PNG file claims, without decoding it.

    Raises:
        InputError: neither JPEG nor PNG, without its end, or more than :data:`MAX_PIXELS`. Damage inside of the file is
            found by :func:`decode_compressed` only.
    """
    _check_picture_format(format)
    return _file_size(as_bytes(data), format)


def decode_compressed_color(format: str, data: Any) -> NDArray[np.uint8]:
    """Like :func:`decode_compressed`, but always (H, W, 3) uint8 RGB."""
    return to_rgb(decode_compressed(format, data))


def decode_compressed_depth(format: str, data: Any) -> NDArray[np.float32]:
    """Decode a depth image of the compressedDepth transport, or a 16-bit PNG of the compressed transport.

    Args:
        format: such as "16UC1; compressedDepth png", "32FC1; compressedDepth png" or "16UC1; png compressed ".
        data: a PNG file; for compressedDepth after 12 bytes (int32 format, float32 A and B) by which 32FC1 depth
            is A / (value − B).

    Returns:
        (H, W) float32, meters; see :func:`to_meters`. A value of 0 gives 0 in 16UC1 and NaN in 32FC1.

    Raises:
        InputError: the encoding or compression is not known, or the data is damaged.
    """
    encoding = format.partition(";")[0].strip()
    if "rvl" in format.lower() or encoding not in DEPTH_ENCODINGS:
        raise InputError(
            f"compressed depth: expected '16UC1; compressedDepth png' or '32FC1; compressedDepth png', "
            f"got {format[:60]!r}"
        )
    buffer = as_bytes(data)
    if encoding != "32FC1":
        # Millimeters need no parameters, so a sender that leaves out the header is understood too.
        header = 0 if "compressedDepth" not in format or starts_with(buffer, PNG_SIGNATURE) else 12
        return to_meters(_decode_depth_png(buffer[header:], format))
    if "compressedDepth" not in format or len(buffer) < _COMPRESSED_DEPTH_HEADER.itemsize:
        raise InputError(f"compressed depth: expected a header of 12 bytes for {format[:60]!r}, got {len(buffer)}")
    a, b = (float(value) for value in np.frombuffer(buffer, _COMPRESSED_DEPTH_HEADER, 1)["quantization"][0])
    if not (np.isfinite((a, b)).all() and a > 0):
        raise InputError(f"compressed depth: expected finite quantization with A > 0, got A = {a}, B = {b}")
    values = _decode_depth_png(buffer[12:], format)
    # One division per possible value instead of one per pixel.
    with np.errstate(divide="ignore", over="ignore"):
        table = (a / (np.arange(65536, dtype=np.float64) - b)).astype(np.float32)
    table[~(np.isfinite(table) & (table > 0))] = np.nan
    table[0] = np.nan
    return table[values]


def to_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) uint8 or uint16, or (H, W, 3) uint8, to (H, W, 3) uint8: gray is repeated, 16 bits become 8."""
    if image.dtype == np.uint16:
        image = _to_8_bit(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise InputError(f"color image: expected 8 or 16 bits per channel, got {image.shape} {image.dtype}")
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def to_meters(depth: NDArray[Any]) -> NDArray[np.float32]:
    """Depth as sent to depth in meters.

    Args:
        depth: (H, W) uint16 millimeters with 0 for no measurement, or float32 meters by REP 117 (+inf no return, −inf
            too close, NaN invalid).

    Returns:
        (H, W) float32, meters. Zero stays zero and infinities stay; finite negative depth becomes NaN.

    Source: REP 118.
    """
    if depth.dtype.newbyteorder("=") == np.uint16:
        return _millimeters_to_meters(depth)
    if depth.dtype.newbyteorder("=") != np.float32:
        raise InputError(f"depth image: expected 16-bit millimeters or float32 meters, got {depth.dtype}")
    meters = np.array(depth, np.float32, order="C")
    meters[(depth < 0) & (depth > -np.inf)] = np.nan
    return meters


def warm_up() -> None:
    """Compile the kernels, or load them from the cache, so that the first image is as quick as the others."""
    from perception.image_kernels import unfilter_16

    for depth in (np.zeros(1, np.uint16), np.frombuffer(bytes(2), np.uint16)):
        # Data of a message may be read-only, which is a type of its own.
        to_meters(depth.reshape(1, 1))
    unfilter_16(np.frombuffer(bytes(3), np.uint8).reshape(1, 3), np.zeros((2, 1), np.uint16))


def _millimeters_to_meters(depth: NDArray[np.uint16]) -> NDArray[np.float32]:
    meters = np.empty(depth.shape, np.float32)
    if depth.flags.c_contiguous and depth.flags.aligned and depth.dtype.isnative:
        from perception import image_kernels

        image_kernels.to_meters(depth.reshape(-1), meters.reshape(-1))
        return meters
    return np.divide(depth, np.float32(1000), out=meters, dtype=np.float32, casting="unsafe")


def _check_color_encoding(encoding: str) -> None:
    if encoding in LAYOUTS and encoding not in COLOR_ENCODINGS:
        raise InputError(f"color image: expected a color or mono encoding, got {encoding!r}")


def _check_picture_format(format: str) -> None:
    if "compressedDepth" in format:
        raise InputError(f"compressed image: expected a picture, got depth (format {format[:60]!r})")


def _check_layout(height: int, width: int, encoding: str, step: int, length: int, pixel_bytes: int) -> None:
    if height <= 0 or width <= 0:
        raise InputError(f"image: expected a positive size, got {width}x{height}")
    if step < width * pixel_bytes:
        raise InputError(
            f"image step: expected at least {width * pixel_bytes} bytes for {width} pixels of {encoding}, got {step}"
        )
    if length < step * height:
        raise InputError(f"image data: expected {step} x {height} = {step * height} bytes, got {length}")
    if LAYOUTS[encoding][1] == 2 and width % 2:
        raise InputError(f"image width: expected an even number of pixels for {encoding}, got {width}")


def _convert_color(image: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    import cv2

    try:
        converted = cv2.cvtColor(image, getattr(cv2, _TO_RGB[encoding]))
    except cv2.error as error:
        raise InputError(f"image: {image.shape[1]}x{image.shape[0]} {encoding} cannot be converted to RGB") from error
    return np.asarray(converted, np.uint8)


def _to_8_bit(image: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _decode_depth_png(buffer: NDArray[np.uint8], format: str) -> NDArray[np.uint16]:
    if not starts_with(buffer, PNG_SIGNATURE):
        raise InputError(f"compressed depth: expected a PNG file for {format[:60]!r}, got other data")
    image = _decode_file(buffer, format)
    if image.ndim != 2 or image.dtype != np.uint16:
        raise InputError(f"compressed depth: expected a PNG of one 16-bit channel, got {image.shape} {image.dtype}")
    return image


def _decode_file(buffer: NDArray[np.uint8], format: str) -> NDArray[Any]:
    """Decode a PNG or JPEG file to OpenCV's channel order, once its claimed size is accepted."""
    import cv2

    height, width = _file_size(buffer, format)
    image: NDArray[Any] | None = decode_plain_depth(buffer.data) if starts_with(buffer, PNG_SIGNATURE) else None
    if image is None:
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    if image is None or image.shape[:2] != (height, width) or image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"compressed image: the {width}x{height} file is damaged (format {format[:60]!r})")
    return image


def _file_size(buffer: NDArray[np.uint8], format: str) -> tuple[int, int]:
    """(height, width) of a PNG or JPEG file, if it is accepted."""
    width, height = claimed_size(buffer, format)
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(f"compressed image: expected 1 to {MAX_PIXELS} pixels, got {width}x{height}")
    return height, width
