# SPDX-License-Identifier: Apache-2.0
"""Logging for Rerun, and what is said where it is missing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from made_runs import LABELS, room_map, write_run

from perception.cli.main import main
from perception.config import PerceptionConfig
from perception.errors import PerceptionError
from perception.geometry import PinholeCamera, Transform
from perception.pipeline import PerceptionPipeline
from perception.types import Frame, LabelImage


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


def test_of_several_runs_one_is_asked_for(tmp_path, capsys):
    write_run(tmp_path / "out" / "00_a")
    (tmp_path / "out" / "evaluation.json").write_text('{"format": 1, "runs": ["00_a"]}')
    assert main(["view", str(tmp_path / "out"), "--html", str(tmp_path / "a.html")]) == 1
    assert f"such as {tmp_path / 'out' / '00_a'}" in capsys.readouterr().err


def test_missing_file_is_named(tmp_path, capsys):
    assert main(["view", str(tmp_path / "none.ot")]) == 1
    assert "none.ot: no such file" in capsys.readouterr().err


def entities(path: Path, home: Path) -> set[str]:
    """Names of what an .rrd file holds, as Rerun's own program prints them."""
    command = [sys.executable, "-m", "rerun", "rrd", "print", str(path)]
    environment = {**os.environ, "HOME": str(home), "NO_COLOR": "1"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return set(re.findall(r"(?<=[\s'\"(])/[\w/\\ ]+\w", told.stdout))


def frame(stamp_ns: int) -> Frame:
    """A wall at 1 m, its left half of the class "wall", its right half without a class."""
    camera = PinholeCamera(32, 24, 30.0, 30.0, 15.5, 11.5)
    labels = np.full((24, 32), 1, np.int32)
    labels[:, 16:] = -1
    pose = Transform(np.array([[0, 0, 1, stamp_ns / 1e10], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1.0]]))
    color, depth = np.full((24, 32, 3), 90, np.uint8), np.ones((24, 32), np.float32)
    depth[0] = np.inf
    return Frame(stamp_ns, color, depth, camera, pose, labels=LabelImage.certain(labels, LABELS))


def test_frames_map_costmap_path_and_latency_of_a_pipeline_are_logged(tmp_path):
    pytest.importorskip("rerun", reason="needs rerun-sdk (extra viewer)")
    from perception.report.rerun_log import RerunLog

    pipeline = PerceptionPipeline(PerceptionConfig(), None, LABELS)
    with RerunLog("test", tmp_path / "run.rrd", LABELS) as log:
        observe = log.following(pipeline)
        for number in range(3):
            observe(pipeline.process(frame(number * 1_000_000_000)))
    found = entities(tmp_path / "run.rrd", tmp_path)
    assert {f"/world/camera/{name}" for name in ("image", "depth", "labels")} <= found
    assert {"/world/cloud", "/world/path", "/world/costmap", "/world/octree/wall", "/world/octree/unlabeled"} <= found
    assert {"/latency/insert", "/latency/segment", "/memory/map_mb"} <= found


def test_run_folder_is_written_for_rerun(tmp_path):
    pytest.importorskip("rerun", reason="needs rerun-sdk (extra viewer)")
    run = write_run(tmp_path / "run")
    assert main(["view", str(run), "--save", str(tmp_path / "out" / "run.rrd")]) == 0
    found = entities(tmp_path / "out" / "run.rrd", tmp_path)
    assert {"/scores/pixel_accuracy", "/frames/overlay", "/world/costmap", "/world/octree/floor"} <= found


def test_runs_of_known_cells_are_found_by_row():
    from perception.report.rerun_log import known_runs

    data = np.array([[-1, 0, 5, -1, 100], [-1, -1, -1, -1, -1], [0, 0, 0, 0, 0]], np.int8)
    assert [values.tolist() for values in known_runs(data)] == [[0, 0, 2], [1, 4, 0], [3, 5, 5]]


def test_path_of_a_long_run_stays_short_from_its_first_point_to_its_last(tmp_path, monkeypatch):
    pytest.importorskip("rerun", reason="needs rerun-sdk (extra viewer)")
    from perception.report.rerun_log import MAX_PATH, RerunLog

    logged = []
    monkeypatch.setattr(RerunLog, "_log_path", lambda self, path: logged.append(path))
    with RerunLog("test", tmp_path / "run.rrd", None) as log:
        for number in range(5 * MAX_PATH):
            log.path_point(np.array([number, 0.0, 0.0]))
    assert max(map(len, logged)) <= MAX_PATH + 1
    assert logged[-1][0, 0] == 0 and logged[-1][-1, 0] == 5 * MAX_PATH - 1
    assert set(np.diff(logged[-1][:-1, 0]).tolist()) == {8.0}


def test_a_viewer_that_does_not_start_is_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", types.ModuleType("rerun"))
    asked = []

    def run(command, check):
        asked.append(command)
        return types.SimpleNamespace(returncode=1)

    monkeypatch.setattr(subprocess, "run", run)
    (tmp_path / "a.rrd").touch()
    assert main(["view", str(tmp_path / "a.rrd")]) == 1
    assert "--web-viewer" in capsys.readouterr().err
    assert asked[0][-3:] == ["--bind", "127.0.0.1", str(tmp_path / "a.rrd")]


def test_the_viewer_is_found_without_an_activated_environment(tmp_path, monkeypatch):
    pytest.importorskip("rerun", reason="needs rerun-sdk (extra viewer)")
    from perception.report.rerun_log import _find_viewer

    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("rerun") is None
    _find_viewer()
    assert shutil.which("rerun")
    found = os.environ["PATH"]
    _find_viewer()
    assert os.environ["PATH"] == found


def test_without_a_screen_logging_fails_at_once_and_does_not_wait_for_a_viewer(tmp_path, monkeypatch, capsys):
    rerun = pytest.importorskip("rerun", reason="needs rerun-sdk (extra viewer)")
    from perception.report import rerun_log

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(rerun_log, "VIEWER_PORT", unused.getsockname()[1])
    monkeypatch.setattr(rerun_log, "VIEWER_S", 0.3)
    monkeypatch.setattr(rerun.RecordingStream, "spawn", lambda *_, **options: None)
    room_map().write(tmp_path / "map.ot", LABELS)
    assert main(["view", str(tmp_path / "map.ot")]) == 1
    assert "its viewer does not answer" in capsys.readouterr().err


def test_a_log_that_cannot_be_finished_is_one_sentence_unless_another_error_came_first(tmp_path, monkeypatch):
    rerun = pytest.importorskip("rerun", reason="needs rerun-sdk (extra viewer)")
    from perception.report.rerun_log import RerunLog

    def full(*_, **options):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(rerun.RecordingStream, "flush", full)
    with pytest.raises(PerceptionError, match=r"Rerun cannot finish .*a\.rrd: No space"):
        RerunLog("test", tmp_path / "a.rrd", None).close()
    with pytest.raises(KeyError, match="first"), RerunLog("test", tmp_path / "b.rrd", None):
        raise KeyError("first")
