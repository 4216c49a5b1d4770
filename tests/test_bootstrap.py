# SPDX-License-Identifier: Apache-2.0
"""How environments are set up: with uv where it can be had, with pip where not, once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bootstrap(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "src" / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    return module


@pytest.fixture
def commands(bootstrap, monkeypatch):
    """Commands that set-up runs, as texts; ``failing`` are answered by an error."""
    ran = []

    class Commands(list):
        failing: tuple[str, ...] = ("config get",)

    ran = Commands()

    def run(*command, quiet=False):
        text = " ".join(map(str, command))
        ran.append(text)
        if any(part in text for part in ran.failing):
            if quiet:
                return False
            raise subprocess.CalledProcessError(1, command)
        if "venv" in text:
            (Path(command[-1]) / "lib" / "python3.11" / "site-packages").mkdir(parents=True, exist_ok=True)
        return True

    monkeypatch.setattr(bootstrap, "run", run)
    monkeypatch.setattr(bootstrap, "missing_on_machine", lambda with_ros: "")
    return ran


def set_up(bootstrap, monkeypatch, profile="lean"):
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", profile])
    return bootstrap.main()


def test_lean_environment_is_made_by_uv_alone_and_only_once(bootstrap, commands, monkeypatch, capsys, tmp_path):
    assert set_up(bootstrap, monkeypatch) == 0
    assert [text for text in commands if bootstrap.UV in text]
    installs = [text for text in commands if "requirements.txt" in text]
    assert len(installs) == 1 and "/bin/uv pip install" in installs[0]
    python = Path(capsys.readouterr().out.splitlines()[-1])
    assert python.name == "python" and tmp_path in python.parents
    # Nothing of uv stays behind.
    assert not [path for path in (tmp_path / "perception").iterdir() if not path.name.startswith("env-")]
    commands.clear()
    assert set_up(bootstrap, monkeypatch) == 0
    assert commands == []


def test_pip_sets_up_what_uv_cannot(bootstrap, commands, monkeypatch, capsys):
    commands.failing = ("config get", "bin/uv")
    assert set_up(bootstrap, monkeypatch) == 0
    assert "-m pip" in commands[-1] and commands[-1].endswith("requirements.txt")
    assert "pip will" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["environment", "configuration"])
def test_an_index_of_ones_own_is_left_to_pip(bootstrap, commands, monkeypatch, where):
    if where == "environment":
        monkeypatch.setenv("PIP_INDEX_URL", "file:///somewhere")
    else:
        commands.failing = ()
    assert set_up(bootstrap, monkeypatch) == 0
    assert not [text for text in commands if bootstrap.UV in text]
    assert commands[-1].endswith("requirements.txt")


def test_a_failure_is_told_in_a_line_and_leaves_nothing_that_looks_whole(bootstrap, commands, monkeypatch, capsys):
    commands.failing = ("config get", "bin/uv", "install -r")
    assert set_up(bootstrap, monkeypatch) == 1
    assert "setting up the environment failed in" in capsys.readouterr().err
    commands.failing = ("config get",)
    assert set_up(bootstrap, monkeypatch) == 0


def test_run_hides_a_sourced_ros_from_pip(bootstrap, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/opt/ros/somewhere")
    code = "import os, sys; sys.exit('PYTHONPATH' in os.environ)"
    assert bootstrap.run(sys.executable, "-c", code)
    assert not bootstrap.run(sys.executable, "-c", "raise SystemExit(3)", quiet=True)
    with pytest.raises(subprocess.CalledProcessError):
        bootstrap.run(sys.executable, "-c", "raise SystemExit(3)")
