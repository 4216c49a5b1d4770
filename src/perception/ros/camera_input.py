# SPDX-License-Identifier: Apache-2.0
"""The topics of an RGB-D camera, joined by stamp and turned into frames."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from perception import image_codec
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelSet
from perception.ros.conversions import (
    camera_info_to_camera,
    image_to_color,
    image_to_confidence,
    image_to_depth,
    image_to_labels,
    stamp_to_ns,
)
from perception.ros.drops import FrameDroppedError as FrameDroppedError
from perception.ros.drops import dropping as dropping
from perception.ros.node_config import InputConfig
from perception.ros.synchronizer import Synchronizer
from perception.tf_buffer import TransformBuffer
from perception.types import Frame, LabelImage

if TYPE_CHECKING:
    from perception.ros.node import PerceptionNode

KEPT_INFOS = 30
REGISTERED_SHARE = 0.02
"""Calibrations that differ by less than this share of the focal length count as the same."""
STAMP_JUMP_NS = 1_000_000_000
"""Stamps that go back by more than this come from a recording that began again, not from disorder."""
EXTERNAL_CONFIDENCE = 0.99
"""Confidence of labels that come without."""

LABEL_ENCODINGS = ("mono8", "8UC1", "mono16", "16UC1", "32SC1")
CONFIDENCE_ENCODINGS = ("mono8", "8UC1", "32FC1")


@dataclass(frozen=True)
class CameraMessages:
    """The messages of one moment, not decoded yet.

    Attributes:
        stamp_ns: of the image.
        frame_id: of the image: the color camera's optical frame.
        image: color image, or None where labels come instead.
        depth: depth image, or None where only the image is used.
        info: camera_info of the image.
        depth_info: camera_info of depth; where depth is registered, None when nobody publishes it.
        labels: label image, or None.
        confidence: its confidence, or None.
        source: name of the camera; empty where there is only one.
    """

    stamp_ns: int
    frame_id: str
    image: Any = None
    depth: Any = None
    info: Any = None
    depth_info: Any = None
    labels: Any = None
    confidence: Any = None
    source: str = ""


def topic_of(camera: str, topic: str) -> str:
    """Name of a camera's topic before remapping: behind the camera's name, where it has one."""
    return f"{camera}/{topic}" if camera else topic


class CameraInput:
    """Subscribes to a camera on behalf of an active node and hands complete sets to its worker.

    Args:
        node: the node.
        config: transports and such.
        tolerance_ns: largest difference of stamps within a set, nanoseconds.
        streams: topics that make up a set: "image", "depth", "labels", "label_confidence". The first leads: it should
            be the one with the lowest rate.
        hand_over: takes the sets.
        name: of the camera, where there are several.
        on_depth: takes every depth image as soon as it is there, with the newest calibration: nothing of other topics.
    """

    def __init__(
        self,
        node: PerceptionNode,
        config: InputConfig,
        tolerance_ns: int,
        streams: tuple[str, ...],
        hand_over: Callable[[CameraMessages], None],
        name: str = "",
        on_depth: Callable[[CameraMessages], None] | None = None,
    ) -> None:
        self._node, self._hand_over, self._name, self._on_depth = node, hand_over, name, on_depth
        self._registered = config.depth_registered
        self._info_per_image = False
        self._waiting: dict[str, Any] | None = None
        self._early_depth: Any = None
        # Registered depth has the image's calibration; its own is compared with that where somebody publishes it.
        names = ("camera_info", "depth_camera_info") if "depth" in streams else ()
        self._infos: dict[str, dict[int, Any]] = {info: {} for info in names}
        self._needed = names[:1] if config.depth_registered else names
        self._newest_ns: dict[str, int] = {}
        self._sync = Synchronizer(streams, tolerance_ns, config.sync_queue_size, self._drop)
        self._no_partner = (
            f"{streams[0]} found no {', '.join(streams[1:])} within {tolerance_ns / 1e9:g} s (sync_tolerance) among "
            f"the last {config.sync_queue_size} of each (sync_queue_size)"
        )
        transports = {"image": config.image_transport, "depth": config.depth_transport}
        for stream in streams:
            self._subscribe(stream, transports.get(stream, "raw"))
        for info in self._infos:
            callback = partial(self._add_info, info)
            node.listen(CameraInfo, topic_of(name, info), callback, optional=info not in self._needed)

    def clear(self) -> None:
        """Forget messages; calibrations stay."""
        self._sync.clear()
        if self._waiting is not None:
            self._drop("clock_jump")
        self._waiting = self._early_depth = None
        self._newest_ns.clear()

    def _subscribe(self, stream: str, transport: str) -> None:
        topic, callback = topic_of(self._name, stream), partial(self._add, stream)
        if transport == "raw":
            self._node.listen(Image, topic, callback)
            return
        # As image_transport: the plain topic is remapped, the transport's name comes behind it.
        self._node.listen(CompressedImage, f"{self._node.resolve_topic_name(topic)}/{transport}", callback)

    def _add(self, stream: str, message: Any) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        # Each stream by itself: labels of a slow network come seconds after later images.
        newest_ns = self._newest_ns.get(stream, stamp_ns)
        if stamp_ns < newest_ns - STAMP_JUMP_NS:
            behind = (newest_ns - stamp_ns) / 1e9
            self._node.clear_buffers(f"the stamps of {topic_of(self._name, stream)} jumped back by {behind:.3f} s")
        self._newest_ns[stream] = max(self._newest_ns.get(stream, stamp_ns), stamp_ns)
        if stream == "depth" and self._on_depth is not None:
            self._tell_depth(stamp_ns, message)
        match = self._sync.add(stream, stamp_ns, message)
        if match is None:
            return
        if self._waiting is not None:
            self._hand_over_waiting(newest_info=True)
        if self._waiting is not None:
            self._drop("no_camera_info", "no camera_info has come yet")
        self._waiting = match
        self._hand_over_waiting(newest_info=not self._info_per_image)

    def _tell_depth(self, stamp_ns: int, message: Any) -> None:
        """Hand depth over at once: with the calibration of its stamp where that came before, else the newest one."""
        infos = self._infos["camera_info" if self._registered else "depth_camera_info"]
        info = infos.get(stamp_ns) or _newest(infos, wanted=True)
        # Before the first calibration came, the newest depth image waits for it.
        self._early_depth = message if info is None else None
        if info is not None and self._on_depth is not None:
            self._on_depth(
                CameraMessages(stamp_ns, message.header.frame_id, depth=message, info=info, source=self._name)
            )

    def _add_info(self, name: str, message: Any) -> None:
        infos = self._infos[name]
        infos[stamp_to_ns(message.header.stamp)] = message
        if len(infos) > KEPT_INFOS:
            del infos[next(iter(infos))]
        if self._early_depth is not None:
            self._tell_depth(stamp_to_ns(self._early_depth.header.stamp), self._early_depth)
        self._hand_over_waiting(newest_info=not self._info_per_image)

    def _hand_over_waiting(self, newest_info: bool) -> None:
        """Hand over the set that waits for camera_info, if that is there.

        Drivers send one with each image, in any order; then the one of the same stamp is waited for. Where that never
        comes, the newest one holds.
        """
        match = self._waiting
        if match is None:
            return
        # A frame is of the time and place of its image; labels have their image's.
        main = match.get("image") or match.get("labels") or match["depth"]
        stamp_ns = stamp_to_ns(main.header.stamp)
        exact = {
            name: infos.get(stamp_ns if name == "camera_info" else stamp_to_ns(match["depth"].header.stamp))
            for name, infos in self._infos.items()
        }
        needed = [exact[name] for name in self._needed]
        self._info_per_image = all(needed) or (self._info_per_image and not newest_info)
        found = {
            name: info or _newest(self._infos[name], newest_info or name not in self._needed)
            for name, info in exact.items()
        }
        if not all(found[name] for name in self._needed):
            return
        self._waiting = None
        self._hand_over(
            CameraMessages(
                stamp_ns,
                main.header.frame_id,
                match.get("image"),
                match.get("depth"),
                found.get("camera_info"),
                found.get("depth_camera_info"),
                match.get("labels"),
                match.get("label_confidence"),
                self._name,
            )
        )

    def _drop(self, reason: str, detail: str = "") -> None:
        self._node.statistics.dropped(reason, detail or (self._no_partner if reason == "sync" else ""), self._name)


def _newest(infos: dict[int, Any], wanted: bool) -> Any:
    return infos[next(reversed(infos))] if wanted and infos else None


def decode_color(message: Any) -> Any:
    """An image message to (H, W, 3) uint8 RGB; raises FrameDroppedError."""
    with dropping(_decoding_reason(message, image_codec.COLOR_ENCODINGS)):
        return image_to_color(message)


def decode_depth(message: Any) -> Any:
    """A depth message to (H, W) float32 meters; raises FrameDroppedError."""
    with dropping(_decoding_reason(message, image_codec.DEPTH_ENCODINGS)):
        return image_to_depth(message)


def decode_labels(labels: Any, confidence: Any, label_set: LabelSet) -> LabelImage:
    """Label and confidence images to labels; raises FrameDroppedError."""
    with dropping(_decoding_reason(labels, LABEL_ENCODINGS)):
        ids = image_to_labels(labels)
    if confidence is None:
        with dropping("invalid"):
            return LabelImage.certain(ids, label_set, EXTERNAL_CONFIDENCE)
    with dropping(_decoding_reason(confidence, CONFIDENCE_ENCODINGS)):
        sure = image_to_confidence(confidence)
    with dropping("invalid"):
        return LabelImage(ids, sure, label_set)


def camera_poses(
    messages: CameraMessages, transforms: TransformBuffer, frame_id: str, registered: bool
) -> tuple[Transform, Transform | None]:
    """``map_T_camera`` and, for depth that is not registered, ``camera_T_depth``.

    Raises:
        TransformError: not known yet, or never.
    """
    map_T_camera = transforms.lookup(frame_id, messages.frame_id, messages.stamp_ns)
    if registered:
        return map_T_camera, None
    depth_ns = stamp_to_ns(messages.depth.header.stamp)
    return map_T_camera, transforms.lookup(messages.frame_id, messages.depth.header.frame_id, depth_ns)


def decode_frame(
    messages: CameraMessages,
    map_T_camera: Transform,
    camera_T_depth: Transform | None,
    config: InputConfig,
    label_set: LabelSet | None,
) -> Frame:
    """Decode the messages of one moment.

    Raises:
        FrameDroppedError: with the reason.
    """
    import numpy as np

    if config.depth_registered and messages.depth.header.frame_id != messages.frame_id:
        raise FrameDroppedError(
            "wrong_frame",
            f"depth: expected frame {messages.frame_id!r} as the image, got {messages.depth.header.frame_id!r}; "
            "set depth_registered to false",
        )
    if config.depth_registered and messages.depth_info is not None:
        check_registered(messages.info, messages.depth_info)
    camera = decode_camera(messages.info, config.rectified)
    depth = decode_depth(messages.depth)
    labels = None
    if messages.labels is not None and label_set is not None:
        labels = decode_labels(messages.labels, messages.confidence, label_set)
    # Not the size that camera_info claims: nothing has confirmed that yet, and it may be any.
    size = depth.shape if labels is None else labels.labels.shape
    color = np.zeros((*size, 3), np.uint8) if messages.image is None else decode_color(messages.image)
    depth_camera = decode_camera(messages.depth_info, config.rectified) if camera_T_depth is not None else None
    with dropping("wrong_size"):
        return Frame(
            messages.stamp_ns,
            color,
            depth,
            camera,
            map_T_camera,
            depth_camera,
            camera_T_depth,
            labels,
            messages.frame_id,
        )


def check_registered(info: Any, depth_info: Any) -> None:
    """Whether registered depth has the calibration of the image, as far as drivers tell.

    Raises:
        FrameDroppedError: it has another one: drivers have published raw depth under the name of the registered.
    """
    size, depth_size = (info.width, info.height), (depth_info.width, depth_info.height)
    k, depth_k = list(info.k), list(depth_info.k)
    if not any(depth_k):
        return
    if size != depth_size or max(abs(a - b) for a, b in zip(k, depth_k, strict=True)) > REGISTERED_SHARE * abs(k[0]):
        raise FrameDroppedError(
            "not_registered",
            f"depth: expected the calibration of image, {size[0]}x{size[1]} with focal length {k[0]:.1f}, as it is "
            f"registered, got {depth_size[0]}x{depth_size[1]} with {depth_k[0]:.1f}; set depth_registered to false",
        )


def decode_camera(info: Any, rectified: bool) -> PinholeCamera:
    """A camera_info message to intrinsics; raises FrameDroppedError."""
    with dropping("camera_info"):
        return camera_info_to_camera(info, rectified)


def _decoding_reason(message: Any, encodings: Collection[str]) -> str:
    """What is to blame when a message cannot be decoded: its encoding, or its content."""
    if hasattr(message, "encoding"):
        return "malformed" if message.encoding in encodings else "encoding"
    return "malformed" if any(name in message.format.lower() for name in ("jpeg", "jpg", "png")) else "encoding"
