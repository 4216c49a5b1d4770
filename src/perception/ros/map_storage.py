# SPDX-License-Identifier: Apache-2.0
"""Map files of a node: what they say of themselves, what is refused, and saving by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import Any

from perception.errors import InputError, PerceptionError
from perception.labels import LabelSet
from perception.mapping import SemanticOcTree
from perception.pipeline import PerceptionPipeline
from perception.ros.voxel_colors import ColorPalette

SUFFIXES = (".ot", ".bt")
FORMAT_VERSION = 1
"""Of the metadata in our .ot files."""


def configured_path(text: str) -> Path:
    """The file that a parameter names; raises InputError when it names none."""
    if not text:
        raise InputError("map file: expected parameter octomap_path, or save_path to save, to name it, got none")
    return Path(text).expanduser()


def write_map(pipeline: PerceptionPipeline, path: Path, frame_id: str, stamp_ns: int | None) -> str:
    """Save a map as .ot, with labels and its frame, or .bt; returns a sentence.

    Raises:
        PerceptionError: another suffix, or the file cannot be written; an older file stays as it was.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"map file: expected a name that ends in {' or '.join(SUFFIXES)}, got {path}")
    if path.suffix == ".bt":
        pipeline.tree.write_binary(path)
        return f"{pipeline.tree.known_voxels()} voxels saved to {path}, without labels and frame: .ot keeps them"
    about = {"version": FORMAT_VERSION, "frame_id": frame_id, "stamp_ns": stamp_ns}
    pipeline.tree.write(path, pipeline.label_set, about)
    return f"{pipeline.tree.known_voxels()} voxels saved to {path}"


def read_map(
    path: Path, pipeline: PerceptionPipeline, frame_id: str, palette: ColorPalette | None = None
) -> tuple[SemanticOcTree, LabelSet | None]:
    """A map file for a node's configuration, and the classes it counts in.

    Args:
        path: the file.
        pipeline: gives sensor model, bounds and, where it has them, the classes.
        frame_id: of the node's map.
        palette: colors that the map takes as its classes, or None.

    Returns:
        The map, and the pipeline's label set or, where that has none, the file's.

    Raises:
        PerceptionError: the file cannot be read, is of another frame, or its classes are not the node's.
    """
    tree = SemanticOcTree.read(path, **_tree_options(pipeline, pipeline.label_set or palette))
    of_file = str(tree.metadata.get("frame_id") or frame_id)
    if of_file != frame_id:
        raise InputError(f"{path}: its map is in frame {of_file!r}, this node maps in {frame_id!r}")
    return tree, _label_set_of(path, tree.metadata, pipeline.label_set)


def _label_set_of(path: Path, metadata: Mapping[str, Any], known: LabelSet | None) -> LabelSet | None:
    if "label_set" not in metadata:
        return known
    saved = LabelSet.from_dict(metadata["label_set"], f"label set in {path}")
    if known is None:
        return saved
    names = {label.id: label.name for label in known.classes}
    strange = [f"{label.id} {label.name!r}" for label in saved.classes if names.get(label.id) != label.name]
    if strange:
        listed = ", ".join(strange[:4]) + (", …" if len(strange) > 4 else "")
        raise InputError(
            f"{path}: its classes are those of label set {saved.name!r}, this node's are {known.name!r}, "
            f"which has not {listed}"
        )
    return known


def _tree_options(pipeline: PerceptionPipeline, label_set: LabelSet | ColorPalette | None) -> dict[str, Any]:
    """What a map that is read takes from the configuration, in place of its file's."""
    config = pipeline.config.octomap
    options: dict[str, Any] = {
        "sensor_model": config.sensor_model,
        "labels_per_voxel": config.labels_per_voxel,
        "max_label_score": config.max_label_score,
        "max_memory": round(config.max_memory_mb * 1e6) or None,
    }
    if label_set is not None:
        options.update(num_classes=label_set.num_classes, decay_s=label_set.decay_s)
    return options


class Autosave:
    """Saves a map that changed: in intervals, on a thread of its own, and at the end.

    Args:
        path: the file.
        save: writes it; may raise PerceptionError.
        version: a number that changes with the map.
        failed: called with a sentence when a save failed.
    """

    def __init__(
        self, path: Path, save: Callable[[Path], str], version: Callable[[], int], failed: Callable[[str], None]
    ) -> None:
        if path.suffix != ".ot":
            raise InputError(f"autosave_path: expected a name that ends in .ot, which keeps everything, got {path}")
        self._path, self._save, self._version, self._failed = path, save, version, failed
        self._saved_version = version()
        self._saved_at = monotonic()
        self._busy = Lock()

    def tick(self, period_s: float) -> None:
        """Begin to save when it is time and the map changed."""
        due = monotonic() >= self._saved_at + period_s
        if due and self._version() != self._saved_version and self._busy.acquire(blocking=False):
            Thread(target=self._run, name="autosave", daemon=True).start()

    def finish(self) -> None:
        """Save now what is not saved yet; waits for a save under way."""
        self._busy.acquire()
        if self._version() != self._saved_version:
            self._run()
        else:
            self._busy.release()

    def _run(self) -> None:
        try:
            version = self._version()
            self._save(self._path)
            self._saved_version = version
        except PerceptionError as error:
            self._failed(str(error))
        finally:
            self._saved_at = monotonic()
            self._busy.release()
