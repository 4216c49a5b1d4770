# SPDX-License-Identifier: Apache-2.0
"""A file's name stands for a whole file, the old or the new."""

from __future__ import annotations

import os

import pytest

from perception.atomic_file import atomic_write
from perception.errors import PerceptionError


def test_the_new_content_takes_the_name(tmp_path):
    path = tmp_path / "file"
    for content in (b"a longer first", b"second"):
        atomic_write(path, [content[:3], content[3:]])
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


def test_chunks_that_fail_leave_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def chunks():
        yield b"new"
        raise KeyError("no more")

    with pytest.raises(KeyError):
        atomic_write(path, chunks())
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(PerceptionError, match=r"cannot save .*file: Is a directory; what was there is unchanged"):
        atomic_write(tmp_path / "file", [b"content"])
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["地" * 84, "a" * 255, "é" * 127])
def test_the_longest_names_of_a_file_system_can_be_written(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    atomic_write(tmp_path / name, [b"new"])
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize(("umask", "plain"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file_or_those_asked_for(tmp_path, umask, plain):
    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "plain", [b"content"])
        atomic_write(tmp_path / "asked", [b"content"], 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "plain").stat().st_mode & 0o777 == plain
    assert (tmp_path / "asked").stat().st_mode & 0o777 == 0o644
