# SPDX-License-Identifier: Apache-2.0
"""Kernels are compiled by two processes, once, and before the first frame."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from perception import compilation

REPLAY = """
import gc
from pathlib import Path
from typing import ClassVar
from numba.core.dispatcher import Dispatcher
from perception.config import PerceptionConfig
from perception.pipeline import PerceptionPipeline
from perception.simulation.boxes import synthetic_room_frames

def compiled():
    found = [item for item in gc.get_objects() if isinstance(item, Dispatcher)]
    ours = [item for item in found if item.py_func.__module__.startswith("perception")]
    return {(item.py_func.__qualname__, str(kinds)) for item in ours for kinds in item.overloads}

frames = list(synthetic_room_frames(3, 160, 120))
pipeline = PerceptionPipeline(PerceptionConfig(), None, frames[0].labels.label_set)
pipeline.warm_up(live=False)
before = compiled()
for frame in frames:
    pipeline.process(frame)
pipeline.costmap()
pipeline.tree.leaves()
pipeline.tree.label_of(frame.map_T_camera.apply(pipeline.process(frame).cloud.points))
pipeline.tree.octomap_data(binary=False)
pipeline.tree.octomap_data(binary=True)
print(len(before) > 10, sorted(compiled() - before))
"""


class Helper:
    """Stands in for the second process."""

    started: ClassVar[list[dict[str, str]]] = []
    code = 0

    def __init__(self, command, env, **_):
        assert command[1:] == ["-m", "perception.compilation"]
        Helper.started.append(env)

    def wait(self):
        return self.code

    def kill(self):
        pass


@pytest.fixture
def helper(monkeypatch, tmp_path):
    monkeypatch.setattr(Helper, "started", [])
    monkeypatch.setattr(Helper, "code", 0)
    monkeypatch.setattr(subprocess, "Popen", Helper)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(compilation, "_marker", lambda: tmp_path / "replay-0")
    return Helper


def test_a_second_process_helps_once_and_writes_to_the_same_cache(helper, tmp_path):
    with compilation.shared():
        pass
    assert [env["NUMBA_CACHE_DIR"] for env in helper.started] == [str(tmp_path)]
    with compilation.shared():
        pass
    assert len(helper.started) == 1


def test_a_helper_that_failed_is_tried_again_and_does_not_end_the_run(helper):
    helper.code = 1
    for _ in range(2):
        with compilation.shared():
            pass
    assert len(helper.started) == 2


def test_one_core_needs_no_second_process(helper, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with compilation.shared():
        pass
    assert helper.started == []


def test_an_error_of_the_caller_comes_through_and_leaves_no_marker(helper, tmp_path):
    with pytest.raises(ValueError), compilation.shared():
        raise ValueError
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(900)
def test_a_replay_compiles_nothing_after_its_warm_up():
    environment = {**os.environ, "PYTHONPATH": str(Path(compilation.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", REPLAY], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "True []"
