# SPDX-License-Identifier: Apache-2.0
"""Logging for Rerun, and what is said where it is missing."""

from __future__ import annotations

import sys

from made_runs import LABELS, room_map

from perception.cli.main import main


def test_without_rerun_the_error_names_the_extra_and_what_works_without(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    room_map().write(tmp_path / "map.ot", LABELS)
    assert main(["view", str(tmp_path / "map.ot"), "--save", str(tmp_path / "map.rrd")]) == 1
    said = capsys.readouterr().err
    assert "perception[viewer]" in said
    assert "--html" in said


def test_recordings_are_shown_by_replay(tmp_path, capsys):
    (tmp_path / "bag").mkdir()
    assert main(["view", str(tmp_path / "bag"), "--html", str(tmp_path / "a.html")]) == 1
    assert "perception replay" in capsys.readouterr().err


def test_missing_file_is_named(tmp_path, capsys):
    assert main(["view", str(tmp_path / "none.ot")]) == 1
    assert "none.ot: no such file" in capsys.readouterr().err
