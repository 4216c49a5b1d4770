# SPDX-License-Identifier: Apache-2.0
"""Weights files: where they are looked for, how they are checked, and the one function that downloads."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.atomic_file import atomic_write
from perception.errors import InputError, PerceptionError
from perception.models.base import require

WEIGHTS_DIR_VARIABLE = "PERCEPTION_WEIGHTS_DIR"
"""Environment variable naming one more folder in which weights are looked for."""
_TIMEOUT_S = 30.0
_CHUNK = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightsSource:
    """A weights file and where it comes from.

    Attributes:
        file: name of the .safetensors file.
        sha256: of that file; empty where it is converted on this machine.
        url: of the publisher's .pth file; empty where there is none.
        url_sha256: of that file, or its first digits.
        url_bytes: its size, at most.
    """

    file: str
    sha256: str = ""
    url: str = ""
    url_sha256: str = ""
    url_bytes: int = 0

    @property
    def url_file(self) -> str:
        """Name of the publisher's file."""
        return self.url.rsplit("/", 1)[-1]


def package_dir() -> Path:
    """The folder of the weights that ship with the package."""
    return Path(str(resources.files("perception") / "data" / "weights"))


def cache_dir() -> Path:
    """The user's folder for weights: ``$XDG_CACHE_HOME/perception/weights``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "perception" / "weights"


def search_dirs() -> list[Path]:
    """Folders in the order in which they are searched: package, user's cache, ``$PERCEPTION_WEIGHTS_DIR``."""
    extra = os.environ.get(WEIGHTS_DIR_VARIABLE, "")
    return [package_dir(), cache_dir(), *([Path(extra)] if extra else [])]


def find_weights(source: WeightsSource, explicit: str | Path = "", download: bool = True) -> Path:
    """Path of a .safetensors file.

    Args:
        source: what is looked for.
        explicit: the user's own file, taken as it is; empty searches.
        download: fetch the publisher's file if it is found nowhere.

    Raises:
        InputError: the explicit file does not exist, or a found one is not the one that was published.
        PerceptionError: found nowhere; the message says where to put it by hand.
    """
    if str(explicit):
        path = Path(explicit)
        if not path.is_file():
            raise InputError(f"weights: expected a file at {path}, found none")
        return path
    for folder in search_dirs():
        if (folder / source.file).is_file():
            check_sha256(folder / source.file, source.sha256)
            return folder / source.file
        if source.url and (folder / source.url_file).is_file():
            return _converted(folder / source.url_file, source)
    if source.url and download:
        return _converted(_download(source), source)
    raise PerceptionError(_not_found(source, "downloading is switched off" if source.url else ""))


def _not_found(source: WeightsSource, reason: str) -> str:
    places = ", ".join(str(folder) for folder in search_dirs())
    if not source.url:
        return f"weights {source.file}: not found in {places}; put the file into {cache_dir()}"
    return (
        f"weights {source.file}: not found in {places}, and {reason}; get {source.url} by other means and put it into "
        f"{cache_dir()}"
    )


def _download(source: WeightsSource) -> Path:
    """Fetch the publisher's file into the user's cache; nothing is left behind unless it is whole and right."""
    target = cache_dir() / source.url_file
    partial = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _log.info("downloading %s to %s", source.url, target)
        with (
            urllib.request.urlopen(source.url, timeout=_TIMEOUT_S) as response,
            tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file,
        ):
            partial, received = file.name, 0
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                if received > source.url_bytes:
                    raise InputError(f"more than the expected {source.url_bytes} bytes came")
                file.write(chunk)
        check_sha256(Path(partial), source.url_sha256)
        os.replace(partial, target)
    except (OSError, InputError) as error:
        if partial:
            Path(partial).unlink(missing_ok=True)
        raise PerceptionError(_not_found(source, f"downloading it failed ({error})")) from error
    return target


def _converted(path: Path, source: WeightsSource) -> Path:
    """The publisher's .pth as .safetensors in the user's cache; a pickle is read as plain tensors only."""
    check_sha256(path, source.url_sha256)
    torch = require("torch", "torch", f"converting {path.name}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # The auxiliary head serves training only.
        arrays = {name: value.numpy() for name, value in state.items() if not name.startswith("aux_classifier.")}
    except Exception as error:
        raise InputError(
            f"weights {path}: expected a PyTorch file of plain tensors, it cannot be read ({error})"
        ) from error
    target = cache_dir() / source.file
    save_arrays(target, arrays)
    return target


def check_sha256(path: Path, expected: str) -> None:
    """Raise InputError unless the file's SHA-256 starts with ``expected`` (hexadecimal; empty accepts all)."""
    if not expected:
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    found = digest.hexdigest()
    if not found.startswith(expected):
        raise InputError(
            f"weights {path}: expected SHA-256 {expected[:12]}…, got {found[:12]}…; the file was changed or cut"
        )


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write a .safetensors file, whole or not at all; creates its folder.

    Raises:
        PerceptionError: the file cannot be written.
    """
    from safetensors.numpy import save

    # Not ascontiguousarray, which gives scalars a dimension.
    data = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, dict(metadata or {}) or None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PerceptionError(f"weights {path}: cannot be written ({error})") from error
    atomic_write(path, [data])


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Tensors of a .safetensors file by name; half precision becomes float32.

    Raises:
        InputError: missing, cut, or not of that format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"weights {path}: expected a whole .safetensors file, it cannot be read ({error})") from error
    return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in arrays.items()}


def check_arrays(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise InputError unless the tensors have exactly these names and shapes, and finite numbers.

    Args:
        arrays: tensors by name.
        shapes: expected shapes by name.
        what: the file, for the message.
    """
    missing, unexpected = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
    if missing or unexpected:
        listed = [
            f"{label} {names[:4]}{' …' if len(names) > 4 else ''}"
            for label, names in (("without", missing), ("with unknown", unexpected))
            if names
        ]
        raise InputError(
            f"weights {what}: expected the {len(shapes)} tensors of this network, got a file {' and '.join(listed)}"
        )
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise InputError(f"weights {what}: tensor {name}: expected shape {shape}, got {arrays[name].shape}")
        if not np.isfinite(arrays[name]).all():
            raise InputError(f"weights {what}: tensor {name}: expected finite numbers, got NaN or infinity")
