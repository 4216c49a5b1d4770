# SPDX-License-Identifier: Apache-2.0
"""Weights files: where they are found, and what is refused."""

from __future__ import annotations

import hashlib
import io
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_networks import random_arrays

from perception.errors import InputError, PerceptionError
from perception.models import create_segmenter, deeplab_layers
from perception.models.cards import shipped_card
from perception.models.weights import (
    WeightsSource,
    cache_dir,
    check_arrays,
    check_sha256,
    find_weights,
    load_arrays,
    package_dir,
    save_arrays,
    search_dirs,
)

NAME = "deeplabv3plus_mobilenetv2_ade20k32.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the user, and no network."""

    def refuse(*arguments, **options):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PERCEPTION_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "cache" / "perception" / "weights"


def test_search_goes_from_package_to_cache_to_the_folder_of_the_environment(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEPTION_WEIGHTS_DIR", str(tmp_path / "more"))
    assert search_dirs() == [package_dir(), cache, tmp_path / "more"]
    source = WeightsSource("x.safetensors")
    save_arrays(tmp_path / "more" / "x.safetensors", {"a": np.ones(2)})
    assert find_weights(source) == tmp_path / "more" / "x.safetensors"
    save_arrays(cache / "x.safetensors", {"a": np.ones(2)})
    assert find_weights(source) == cache / "x.safetensors"
    save_arrays(tmp_path / "own.safetensors", {"a": np.ones(2)})
    assert find_weights(source, tmp_path / "own.safetensors") == tmp_path / "own.safetensors"


def test_cache_defaults_to_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "perception" / "weights"


@pytest.mark.parametrize("name", ["deeplabv3plus_mobilenetv2", "deeplabv3plus_mobilenetv2_rooms"])
def test_shipped_file_is_the_one_of_its_card(name: str):
    card = shipped_card(name)
    assert card.weights is not None
    path = find_weights(card.weights)
    assert path == package_dir() / card.weights.file
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card.weights.sha256
    assert path.stat().st_size < 5_000_000
    assert card.license == "Apache-2.0"


def test_missing_explicit_file_is_named():
    with pytest.raises(InputError, match=r"weights: expected a file at /nowhere/x\.safetensors, found none"):
        create_segmenter("default", "cpu", weights="/nowhere/x.safetensors")


def test_weights_found_nowhere_say_where_to_put_them(cache):
    source = WeightsSource("x.safetensors", url="https://example.org/x-12.pth", url_bytes=10)
    with pytest.raises(PerceptionError, match="downloading is switched off") as caught:
        find_weights(source, download=False)
    assert f"get https://example.org/x-12.pth by other means and put it into {cache}" in str(caught.value)
    with pytest.raises(PerceptionError, match=r"downloading it failed .*no network in tests"):
        find_weights(source)
    with pytest.raises(PerceptionError, match=f"put the file into {cache}"):
        find_weights(WeightsSource("y.safetensors"))


class Response(io.BytesIO):
    """What urlopen gives."""


def pth_bytes(**tensors):
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    torch.save({name: torch.tensor(value) for name, value in tensors.items()}, buffer)
    return buffer.getvalue()


def serve(monkeypatch, data):
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Response(data))


def source_of(data, limit=None):
    digest = hashlib.sha256(data).hexdigest()[:8]
    return WeightsSource(
        "x.safetensors", url=f"https://example.org/x-{digest}.pth", url_sha256=digest, url_bytes=limit or len(data)
    )


def test_downloaded_pickle_becomes_safetensors_in_the_cache(cache, monkeypatch):
    data = pth_bytes(**{"a": [1.0, 2.0], "aux_classifier.b": [3.0]})
    serve(monkeypatch, data)
    path = find_weights(source_of(data))
    assert path == cache / "x.safetensors"
    assert {name: value.tolist() for name, value in load_arrays(path).items()} == {"a": [1.0, 2.0]}


def test_file_put_into_the_cache_by_hand_is_taken_without_a_download(cache):
    data = pth_bytes(a=[1.0])
    source = source_of(data)
    cache.mkdir(parents=True)
    (cache / source.url_file).write_bytes(data)
    assert load_arrays(find_weights(source))["a"].tolist() == [1.0]


def test_wrong_or_endless_download_leaves_nothing_behind(cache, monkeypatch):
    data = pth_bytes(a=[1.0])
    serve(monkeypatch, data + b"!")
    with pytest.raises(PerceptionError, match="more than the expected"):
        find_weights(source_of(data))
    with pytest.raises(PerceptionError, match="SHA-256"):
        find_weights(source_of(data, limit=len(data) + 1))
    assert list(cache.iterdir()) == []


class Evil:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return (sys.exit, (7,))


def test_pickle_that_holds_more_than_tensors_is_refused(cache, monkeypatch):
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    torch.save({"a": Evil()}, buffer)
    serve(monkeypatch, buffer.getvalue())
    with pytest.raises(InputError, match="expected a PyTorch file of plain tensors"):
        find_weights(source_of(buffer.getvalue()))
    assert not (cache / "x.safetensors").exists()


def test_truncated_and_foreign_files_are_refused(tmp_path):
    whole = (package_dir() / NAME).read_bytes()
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "short": whole[:5],
        "empty": b"",
        "text": b"not weights" * 9,
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=r"expected a whole \.safetensors file"):
            create_segmenter("default", "cpu", weights=str(tmp_path / name))


def test_tampered_file_in_a_searched_folder_is_refused(cache, monkeypatch, tmp_path):
    data = bytearray((package_dir() / NAME).read_bytes())
    data[-1] ^= 1
    (tmp_path / "x.safetensors").write_bytes(data)
    card = shipped_card("deeplabv3plus_mobilenetv2")
    with pytest.raises(InputError, match=r"expected SHA-256 08b92c85645f…, got .*changed or cut"):
        check_sha256(tmp_path / "x.safetensors", card.weights.sha256)
    monkeypatch.setenv("PERCEPTION_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(InputError, match="SHA-256"):
        find_weights(WeightsSource("x.safetensors", sha256=card.weights.sha256))


def changed(tmp_path, **changes):
    arrays = random_arrays(32)
    for name, array in changes.items():
        name = name.replace("__", ".")
        if array is None:
            del arrays[name]
        else:
            arrays[name] = array
    save_arrays(tmp_path / "x.safetensors", arrays)
    return str(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stem__weight": np.zeros((32, 3, 5, 5), np.float32)},
            r"tensor stem.weight: expected shape \(32, 3, 3, 3\), got \(32, 3, 5, 5\)",
        ),
        ({"stem__bias": None}, r"expected the 120 tensors .* without \['stem.bias'\]"),
        ({"head": np.zeros(1)}, r"with unknown \['head'\]"),
        ({"stem__bias": np.full(32, np.nan, np.float32)}, "tensor stem.bias: expected finite numbers"),
        ({"classifier__bias": np.zeros(21, np.float32)}, r"classifier.bias: expected shape \(32,\), got \(21,\)"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        create_segmenter("default", "cpu", weights=changed(tmp_path, **changes))


def test_weights_with_other_classes_load_with_their_label_set(tmp_path):
    save_arrays(tmp_path / "x.safetensors", random_arrays(21))
    segmenter = create_segmenter(
        "default", "cpu", weights=str(tmp_path / "x.safetensors"), labels="voc21", input_size=(32, 32)
    )
    assert segmenter(np.zeros((20, 30, 3), np.uint8)).label_set.name == "voc21"


def test_half_precision_is_read_as_float32(tmp_path):
    save_arrays(tmp_path / "x.safetensors", {"a": np.array([0.5], np.float16)})
    assert load_arrays(tmp_path / "x.safetensors")["a"].dtype == np.float32


def test_unwritable_target_is_an_error_and_keeps_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(PerceptionError, match="cannot be written"):
        save_arrays(tmp_path / "file" / "x.safetensors", {"a": np.ones(1)})
    assert (tmp_path / "file").read_text() == "old"


def test_check_accepts_exactly_the_tensors_of_the_network():
    check_arrays(random_arrays(4), deeplab_layers.tensor_shapes(4), "test")
