# SPDX-License-Identifier: Apache-2.0
"""Raw messages of rosbags of all kinds, whole or broken, and their decoding without ROS.

Messages are decoded by the definitions of ROS 2 Jazzy and our own, never by those that a bag brings along: a decoder
is generated code, and bags are untrusted.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.errors import InputError
from perception.sources.bag_files import STORAGE_SUFFIXES, unrelated_bags
from perception.sources.mcap_file import McapFile

DEFINITIONS = {
    "octomap_msgs/msg/Octomap": ("std_msgs/Header header\nbool binary\nstring id\nfloat64 resolution\nint8[] data\n"),
    "tf2_msgs/msg/TFMessage": "geometry_msgs/TransformStamped[] transforms\n",
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    "vision_msgs/msg/LabelInfo": "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y\n",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox2D bbox\n"
        "string id\n"
    ),
    "vision_msgs/msg/Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
}

Raw = bytes | memoryview

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a bag."""

    name: str
    type: str
    count: int


class BagReader:
    """The messages of a bag: a folder with metadata.yaml or without, a single .mcap or .db3 file, a ROS 1 .bag.

    A storage file that is cut off or damaged is read up to the break.

    Attributes:
        topics: name to topic.
        start_ns: log time of the first message.
        end_ns: log time of the last message.
        storage: "mcap", "sqlite3" or "ros1".
        note: what is broken; empty when nothing is.

    Raises:
        InputError: nothing that can be read, or no message in it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: list[_Part] = []
        self.note = ""
        if path.is_dir():
            self._open_folder()
        else:
            self._open_file(path)
        for file in path.glob("*.db3-wal") if path.is_dir() else [path.with_name(f"{path.name}-wal")]:
            if file.is_file() and file.stat().st_size:
                self._add_note(f"{file.name} holds messages that were not yet written to the bag: not read")
        for part in [part for part in self._parts if not part.counts]:
            part.close()
            self._parts.remove(part)
        if not self._parts:
            raise InputError(f"{path}: the bag holds no messages{f' ({self.note})' if self.note else ''}")
        self.topics = _joined(self._parts)
        self.start_ns = min(part.start_ns for part in self._parts)
        self.end_ns = max(part.end_ns for part in self._parts)
        self.storage = self._parts[0].storage

    @property
    def disorder(self) -> str:
        """Why messages came out of order; empty while they did not."""
        return "; ".join(part.disorder for part in self._parts if part.disorder)

    def close(self) -> None:
        """Close all files."""
        for part in self._parts:
            part.close()
        self._parts = []

    def messages(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[tuple[str, int, Raw]]:
        """Topic, log time and raw data, in the order of log time (within a broken file, of the file).

        Data may be a view of a large piece of the file: keep what is decoded, or a copy.
        """
        for part in self._parts:
            if (start_ns is not None and part.end_ns < start_ns) or (stop_ns is not None and part.start_ns >= stop_ns):
                continue
            try:
                yield from part.messages(topics, start_ns, stop_ns)
            # Readers of damaged files raise whatever the damage made them trip over.
            except Exception as error:
                self._add_note(f"{part.name}: damaged, read up to the break ({_first_line(error)})")

    def first(self, topics: Collection[str]) -> dict[str, bytes]:
        """The first message of each topic that has one."""
        found = {}
        for topic in topics:
            message = next(self.messages([topic]), None)
            if message is not None:
                found[topic] = bytes(message[2])
        return found

    def first_message(self, topic: str) -> Any:
        """The first message of a topic, decoded; InputError when there is none that can be."""
        raw = self.first([topic]).get(topic)
        if raw is None:
            raise InputError(f"{topic}: expected a message, the topic has none")
        return self.decode(topic, raw)

    def decode(self, topic: str, raw: Raw) -> Any:
        """A message as an object with the fields of its type.

        Raises:
            InputError: the type is not known here, or the data is no such message.
        """
        kind = self.topics[topic].type
        store = typestore(self.storage == "ros1")
        try:
            if self.storage == "ros1":
                return store.deserialize_ros1(raw, kind)
            return store.deserialize_cdr(raw, kind)
        # Generated decoders raise whatever the untrusted bytes made them trip over.
        except Exception as error:
            raise InputError(f"{topic}: expected a {kind}, got {len(raw)} bytes that are none") from error

    def _open_folder(self) -> None:
        strangers = unrelated_bags(self._path)
        if strangers:
            names = ", ".join(path.name for path in strangers[:5])
            raise InputError(
                f"{self._path}: expected one bag, or its parts NAME_0, NAME_1 …, got {names}; give one of them"
            )
        files = sorted((f for f in self._path.iterdir() if f.suffix in STORAGE_SUFFIXES), key=_natural)
        packed = any(self._path.glob("*.zstd"))
        if (self._path / "metadata.yaml").is_file():
            try:
                part = _RosbagPart(self._path, _storage_of(files))
            except Exception as error:
                if packed or not files:
                    raise InputError(f"{self._path}: cannot be read as a bag ({_first_line(error)})") from error
                self._add_note(f"metadata.yaml does not fit its files ({_first_line(error)})")
            else:
                if not part.is_plain_mcap:
                    self._parts = [part]
                    return
                part.close()
        for path in files:
            self._open_file(path, alone=False)

    def _open_file(self, path: Path, alone: bool = True) -> None:
        try:
            part = _RosbagPart(path, _storage_of([path]))
        except Exception as error:
            trouble = f"{path.name}: {_first_line(error) if _has_bytes(path) else 'the file is empty'}"
        else:
            if not part.is_plain_mcap:
                self._parts.append(part)
                return
            part.close()
            trouble = ""
        if path.suffix == ".mcap":
            try:
                recovered = _McapPart(path)
            except InputError as error:
                if alone:
                    raise
                trouble = str(error)
            else:
                self._parts.append(recovered)
                if recovered.note:
                    self._add_note(f"{recovered.note}, read up to there")
                return
        if path.suffix == ".bag" and _has_bytes(path):
            trouble = f"{trouble}; rosbag reindex mends one that was cut off"
        if alone:
            raise InputError(f"{path}: cannot be read as a bag ({trouble})")
        self._add_note(trouble)

    def _add_note(self, text: str) -> None:
        if text not in self.note:
            log.warning("%s: %s", self._path, text)
            self.note = f"{self.note}; {text}" if self.note else text


class _RosbagPart:
    """A bag that rosbags reads."""

    disorder = ""

    def __init__(self, path: Path, storage: str) -> None:
        self.name, self.storage = path.name, storage
        if storage == "ros1":
            from rosbags.rosbag1 import Reader as Reader1

            self._reader: Any = Reader1(path)
        else:
            from rosbags.rosbag2 import Reader as Reader2

            self._reader = Reader2(path)
        self._reader.open()
        self._connections = list(self._reader.connections)
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        for connection in self._connections:
            self.counts[connection.topic, connection.msgtype] += connection.msgcount or 0
        if not self._reader.message_count:
            self.counts = {}
        self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time - 1

    @property
    def is_plain_mcap(self) -> bool:
        """True for MCAP files that are not packed as a whole or message by message."""
        return self.storage == "mcap" and self._reader.compression_mode not in ("file", "message")

    def messages(
        self, topics: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[tuple[str, int, Raw]]:
        chosen = [connection for connection in self._connections if connection.topic in topics]
        if chosen:
            for connection, log_ns, raw in self._reader.messages(chosen, start_ns, stop_ns):
                yield connection.topic, log_ns, raw

    def close(self) -> None:
        self._reader.close()


class _McapPart:
    """An MCAP file, whole or broken."""

    storage = "mcap"

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = McapFile(path)
        self.note = self._file.note
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        if self._file.counts:
            for channel, topic in self._file.topics.items():
                self.counts[topic] += self._file.counts[channel]
        self.start_ns, self.end_ns = self._file.start_ns, self._file.end_ns

    @property
    def disorder(self) -> str:
        return self._file.disorder

    def messages(
        self, topics: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[tuple[str, int, Raw]]:
        names = {channel: name for channel, (name, _) in self._file.topics.items() if name in topics}
        for channel, log_ns, raw in self._file.messages(names, start_ns or 0, stop_ns):
            yield names[channel], log_ns, raw

    def close(self) -> None:
        self._file.close()


_Part = _RosbagPart | _McapPart


@functools.cache
def typestore(ros1: bool = False) -> Any:
    """Decoders and encoders of the messages that are read and written here."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
    for name, definition in DEFINITIONS.items():
        if name not in store.fielddefs:
            store.register(get_types_from_msg(definition, name))
    return store


def describe_bag(path: Path) -> dict[str, Any]:
    """What a bag holds: kind, storage, duration_s, start_ns, messages, complete, note, topics (name, type, count)."""
    reader = BagReader(path)
    try:
        return {
            "kind": "bag",
            "storage": reader.storage,
            "start_ns": reader.start_ns,
            "duration_s": (reader.end_ns - reader.start_ns) / 1e9,
            "messages": sum(topic.count for topic in reader.topics.values()),
            "complete": not reader.note,
            "note": reader.note,
            "topics": [{"name": t.name, "type": t.type, "count": t.count} for t in reader.topics.values()],
        }
    finally:
        reader.close()


def _joined(parts: list[_Part]) -> dict[str, Topic]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for part in parts:
        for key, count in part.counts.items():
            counts[key] += count
    return {name: Topic(name, kind, count) for (name, kind), count in sorted(counts.items())}


def _storage_of(files: list[Path]) -> str:
    suffix = files[0].suffix if files else ""
    return {".mcap": "mcap", ".bag": "ros1"}.get(suffix, "sqlite3")


def _natural(path: Path) -> list[Any]:
    """Sort key by which bag_10 comes after bag_9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _has_bytes(path: Path) -> bool:
    return not path.is_file() or path.stat().st_size > 0


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
