# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag are color, depth, intrinsics and labels: told by type and content, or by the user."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from perception.errors import InputError
from perception.image_codec import COLOR_ENCODINGS, DEPTH_ENCODINGS
from perception.sources.bag_reader import BagReader

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
LABEL_INFO = "vision_msgs/msg/LabelInfo"
TF = "tf2_msgs/msg/TFMessage"
ODOMETRY = "nav_msgs/msg/Odometry"
TRUTH_NAME = "ground_truth/labels"
"""A topic of this name holds true labels without being named; other label images may be a network's."""
TYPES: Mapping[str, tuple[str, ...]] = {
    "color": (IMAGE, COMPRESSED_IMAGE),
    "depth": (IMAGE, COMPRESSED_IMAGE),
    "camera_info": (CAMERA_INFO,),
    "depth_camera_info": (CAMERA_INFO,),
    "labels": (IMAGE, COMPRESSED_IMAGE),
    "label_info": (LABEL_INFO,),
}


@dataclass(frozen=True, slots=True)
class BagTopics:
    """Names of the topics that frames are made of; empty where there is none."""

    color: str
    depth: str
    camera_info: str
    depth_camera_info: str = ""
    labels: str = ""
    label_info: str = ""


def choose_topics(reader: BagReader, chosen: Mapping[str, str]) -> BagTopics:
    """Find the topics of an RGB-D camera.

    Args:
        reader: the bag; the first image of each topic is looked at.
        chosen: topics by role that the user named.

    Raises:
        InputError: a topic is missing, of another type, or there are several candidates and none was named.
    """
    for role, topic in chosen.items():
        _check_chosen(reader, role, topic)
    labels = chosen.get("labels") or _truth(reader)
    kinds = _image_kinds(reader, set(chosen.values()) | {labels})
    color = chosen.get("color") or _only(reader, "color", kinds["color"] or kinds["gray"])
    depth = chosen.get("depth") or _only(reader, "depth", kinds["depth"])
    return BagTopics(
        color,
        depth,
        chosen.get("camera_info") or _camera_info(reader, color, required=True),
        chosen.get("depth_camera_info") or _camera_info(reader, depth, required=False),
        labels,
        chosen.get("label_info") or _label_info(reader, labels),
    )


def base_name(topic: str) -> str:
    """The image topic that a compressed one belongs to."""
    for ending in ("/compressedDepth", "/compressed"):
        topic = topic.removesuffix(ending)
    return topic


def is_rectified(topic: str) -> bool:
    """Whether an image topic is named as image_proc and camera drivers name rectified images."""
    return base_name(topic).rpartition("/")[2].startswith("image_rect")


def listing(reader: BagReader) -> str:
    """The topics of a bag for an error message."""
    shown = [f"{topic.name} ({topic.type.rpartition('/')[2]})" for topic in reader.topics.values()]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")


def _check_chosen(reader: BagReader, role: str, topic: str) -> None:
    known = reader.topics.get(topic)
    if known is None:
        raise InputError(f"--topic {role}={topic}: the bag has no such topic; it has {listing(reader)}")
    if known.type not in TYPES[role]:
        raise InputError(
            f"--topic {role}={topic}: expected a topic of type {' or '.join(TYPES[role])}, got {known.type}"
        )


def _image_kinds(reader: BagReader, named: Collection[str]) -> dict[str, list[str]]:
    """Image topics by what their first image is: "color", "gray", "depth"; of raw and compressed twins the raw one."""
    kinds: dict[str, dict[str, str]] = {"color": {}, "gray": {}, "depth": {}}
    names = [t.name for t in reader.topics.values() if t.type in (IMAGE, COMPRESSED_IMAGE) and t.name not in named]
    for topic, raw in reader.first(names).items():
        try:
            message = reader.decode(topic, raw)
        except InputError:
            continue
        compressed = reader.topics[topic].type == COMPRESSED_IMAGE
        kind = _compressed_kind(message.format) if compressed else _kind(message.encoding)
        # Our own outputs, and other label images, look like gray pictures or depth.
        if kind and topic.rpartition("/")[2] not in ("labels", "label_confidence", "overlay"):
            twins = kinds[kind]
            if not compressed or base_name(topic) not in twins:
                twins[base_name(topic)] = topic
    return {kind: sorted(twins.values()) for kind, twins in kinds.items()}


def _kind(encoding: str) -> str:
    if encoding in DEPTH_ENCODINGS:
        return "depth"
    if encoding in ("mono8", "8UC1"):
        return "gray"
    return "color" if encoding in COLOR_ENCODINGS else ""


def _compressed_kind(format: str) -> str:
    encoding = format.partition(";")[0].strip()
    if "compressedDepth" in format or encoding in DEPTH_ENCODINGS:
        return "depth"
    return "gray" if encoding in ("mono8", "8UC1") else "color"


def _only(reader: BagReader, role: str, candidates: list[str]) -> str:
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise InputError(f"several topics could be {role}: {', '.join(candidates)}; choose with --topic {role}=/topic")
    raise InputError(f"expected a topic with {role} images, found none; the bag has {listing(reader)}")


def _camera_info(reader: BagReader, image: str, required: bool) -> str:
    """The camera_info beside an image topic, as image_transport names it; else the only one there is."""
    beside = f"{base_name(image).rpartition('/')[0]}/camera_info"
    infos = [topic.name for topic in reader.topics.values() if topic.type == CAMERA_INFO]
    if beside in infos:
        return beside
    if not required:
        return ""
    if len(infos) == 1:
        return infos[0]
    found = ", ".join(infos) or "none"
    raise InputError(
        f"expected {beside} with the intrinsics of {image}, found {found}; choose with --topic camera_info="
    )


def _truth(reader: BagReader) -> str:
    found = [t.name for t in reader.topics.values() if t.name.endswith(TRUTH_NAME) and t.type in TYPES["labels"]]
    return found[0] if len(found) == 1 else ""


def _label_info(reader: BagReader, labels: str) -> str:
    if not labels:
        return ""
    beside = f"{base_name(labels).rpartition('/')[0]}/label_info"
    if beside in reader.topics and reader.topics[beside].type == LABEL_INFO:
        return beside
    infos = [topic.name for topic in reader.topics.values() if topic.type == LABEL_INFO]
    if len(infos) == 1:
        return infos[0]
    raise InputError(
        f"expected {beside} with the names of the classes of {labels}, found {', '.join(infos) or 'none'}; choose "
        "with --topic label_info=/topic"
    )
