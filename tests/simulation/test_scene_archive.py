# SPDX-License-Identifier: Apache-2.0
"""Packed scenes: unpacked once, and nothing but plain files below their folder."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from perception.errors import InputError
from perception.simulation.scenarios import world_file
from perception.simulation.scene_archive import unpacked


def packed(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:xz") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "", size: int = 0, attributes: dict | None = None) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.pax_headers = kind, target, size, attributes or {}
    return info


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}


def header(kind: bytes, content: bytes) -> bytes:
    """A member as it lies in the file, with its data."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def attribute(length: int) -> bytes:
    """A record of a PAX header, as long as asked for."""
    start = f"{length} comment=".encode()
    return start + b"x" * (length - len(start) - 1) + b"\n"


@pytest.mark.parametrize(("name", "mode"), [("a.tar.xz", "w:xz"), ("a.tgz", "w:gz"), ("a.tar", "w")])
def test_the_world_of_an_archive_is_found_and_unpacked_once(name, mode, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    members = (("./worlds/room.sdf", b"<sdf/>"), ("./models/bed/bed.dae", b"mesh"))
    archive = packed(tmp_path / name, *members, mode=mode)
    world = world_file(str(archive))
    assert world.read_bytes() == b"<sdf/>"
    assert (world.parent.parent / "models" / "bed" / "bed.dae").read_bytes() == b"mesh"
    world.write_bytes(b"as it was left")
    assert world_file(str(archive)).read_bytes() == b"as it was left"
    assert len(list((tmp_path / "cache" / "perception" / "scenes").iterdir())) == 1


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../outside.txt", b"x"), "names below its folder"),
        (("a/../../outside.txt", b"x"), "names below its folder"),
        (("/outside.txt", b"x"), "names below its folder"),
        (special("link", tarfile.SYMTYPE, "/etc/passwd"), "'link' of another kind"),
        (special("hard", tarfile.LNKTYPE, "room.sdf"), "'hard' of another kind"),
        (special("pipe", tarfile.FIFOTYPE), "'pipe' of another kind"),
        (("large.bin", b"x" * 2000), "at most 1000 bytes"),
        (("room.sdf", b"twice"), "cannot be unpacked"),
        (("a/" * 70 + "deep.bin", b"x"), "at most 64 folders within each other"),
        (special("less than nothing", tarfile.DIRTYPE, size=-5000), "zero bytes or more, got .* of -5000"),
        (special("map", tarfile.REGTYPE, attributes={"GNU.sparse.map": "x,y"}), "cannot be unpacked"),
        (special("map", tarfile.REGTYPE, attributes=SPARSE), "cannot be unpacked"),
        (special("nul", tarfile.REGTYPE, attributes={"path": "a\0b"}), "cannot be unpacked"),
        (special("link" * 1000, tarfile.SYMTYPE, "/etc/passwd"), r"got '(link){25}' of another kind$"),
    ],
)
def test_anything_else_is_refused_and_nothing_stays(member, message, tmp_path):
    archive = packed(tmp_path / "a.tar.xz", ("room.sdf", b"<sdf/>"), member)
    with pytest.raises(InputError, match=message):
        unpacked(archive, tmp_path / "cache", max_bytes=1000)
    assert list((tmp_path / "cache").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.xz", "cache"]


@pytest.mark.parametrize("cut", [0, 10, 60])
def test_a_damaged_archive_is_one_sentence(cut, tmp_path):
    archive = packed(tmp_path / "a.tar.xz", ("room.sdf", bytes(range(256)) * 8))
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpacked(archive, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


SIZE = 512 + 1536
"""Of one of the packed files of the next test: its header, and its 1500 bytes in whole blocks."""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: 2 * SIZE] + bytes(512) + data[2 * SIZE + 512 :], f"damaged at byte {2 * SIZE}"),
        (lambda data: data[: 2 * SIZE] + bytes(1024) + data[2 * SIZE + 1024 :], f"damaged at byte {2 * SIZE}"),
        (lambda data: data[: 2 * SIZE] + b"x" + data[2 * SIZE + 1 :], f"damaged at byte {2 * SIZE}"),
        (lambda data: data[: 2 * SIZE + 150] + b"9" + data[2 * SIZE + 151 :], f"damaged at byte {2 * SIZE}"),
        (lambda data: data[: 5 * SIZE + 1024] + b"behind the end", f"damaged at byte {5 * SIZE}"),
        (lambda data: data[: 3 * SIZE], f"ends at byte {3 * SIZE}, without the mark"),
        (lambda data: data[: 3 * SIZE + 300], f"damaged at byte {3 * SIZE}"),
        (lambda data: data[: 3 * SIZE + 700], "unexpected end of data"),
        (lambda data: data[: 5 * SIZE + 511], "without the mark"),
        (lambda data: data + bytes(5 << 20), "at most 4194304 bytes of padding"),
        (lambda data: data[: 5 * SIZE + 512], ""),
        (lambda data: data + bytes(1 << 20), ""),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_a_part_of_a_scene_is_never_taken_for_the_whole(damage, message, pack, tmp_path):
    files = {f"{number}.bin": bytes([number + 1]) * 1500 for number in range(5)}
    archive = packed(tmp_path / "a.tar", *files.items(), mode="w")
    archive.write_bytes(pack(damage(archive.read_bytes())))
    if not message:
        folder = unpacked(archive, tmp_path / "cache")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
        return
    with pytest.raises(InputError, match=f"cannot be unpacked .*{message}"):
        unpacked(archive, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w:bz2", "w"])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_large_files_are_unpacked_however_they_are_packed(mode, form, tmp_path):
    files = {f"{'folder/' * 40}{number}{'x' * 90}.dae": bytes([number]) * 400_000 for number in range(12)}
    with tarfile.open(tmp_path / "a.tar", mode, format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    folder = unpacked(tmp_path / "a.tar", tmp_path / "cache")
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dae")} == files


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_header_that_claims_and_holds_much_is_not_read(kind, tmp_path):
    content = attribute(16 << 20) if kind in b"xg" else b"a/" * (8 << 20)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(header(kind, content) + header(b"0", b"x"), 1))
    tracemalloc.start()
    with pytest.raises(InputError, match="names and attributes of at most 1048576 bytes, got more") as caught:
        unpacked(archive, tmp_path / "cache", max_bytes=1000)
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()
    assert len(str(caught.value)) < len(str(archive)) + 100
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_long_name_is_not_quoted_whole(tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(header(b"L", b"a" * 500_000) + header(b"0", b"x"))
    with pytest.raises(InputError, match="cannot be unpacked") as caught:
        unpacked(archive, tmp_path / "cache")
    assert len(str(caught.value)) < len(str(archive)) + 250


def test_headers_are_bounded_in_all(tmp_path):
    archive = tmp_path / "a.tar"
    one = header(b"g", attribute(600_000)) + special("folder", tarfile.DIRTYPE).tobuf()
    archive.write_bytes(one + bytes(1024))
    assert (unpacked(archive, tmp_path / "cache") / "folder").is_dir()
    archive.write_bytes(one * 2 + bytes(1024))
    with pytest.raises(InputError, match="names and attributes"):
        unpacked(archive, tmp_path / "cache")


def test_names_of_names_without_end_are_refused(tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(header(b"L", b"a") * 900 + header(b"0", b"x"))
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpacked(archive, tmp_path / "cache")


def test_a_claimed_size_is_not_looked_for_behind_the_end(tmp_path):
    archive = tmp_path / "a.tar"
    # Ten bytes, all of them holes, by its attributes; by its own header an exabyte to skip.
    holes = special("holes", tarfile.REGTYPE, size=1 << 60).tobuf(tarfile.GNU_FORMAT)
    archive.write_bytes(header(b"x", b"22 GNU.sparse.size=10\n") + holes + bytes(1024))
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpacked(archive, tmp_path / "cache")


def test_a_cache_that_cannot_be_made_is_one_sentence(tmp_path):
    archive = packed(tmp_path / "a.tar", ("room.sdf", b"<sdf/>"), mode="w")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpacked(archive, archive / "cache")


def test_an_archive_that_is_gone_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpacked(tmp_path / "a.tar", tmp_path / "cache")


@pytest.mark.parametrize("was_faster", [True, False])
def test_another_process_may_be_faster(was_faster, tmp_path, monkeypatch):
    def rename(path: Path, target: Path) -> None:
        if was_faster:
            target.mkdir()
            (target / "room.sdf").write_bytes(b"of the other")
        raise OSError("the folder is there, or something else")

    monkeypatch.setattr(Path, "rename", rename)
    archive = packed(tmp_path / "a.tar", ("room.sdf", b"<sdf/>"), mode="w")
    if was_faster:
        folder = unpacked(archive, tmp_path / "cache")
        assert (folder / "room.sdf").read_bytes() == b"of the other"
        assert list((tmp_path / "cache").iterdir()) == [folder]
        return
    with pytest.raises(InputError, match="something else"):
        unpacked(archive, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
