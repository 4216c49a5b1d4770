# SPDX-License-Identifier: Apache-2.0
"""Packed scenes: unpacked once, and nothing but plain files below their folder."""

from __future__ import annotations

import io
import tarfile
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


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


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
