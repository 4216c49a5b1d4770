# SPDX-License-Identifier: Apache-2.0
"""Settings of whole processes, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    """What a new process prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_a_tuned_process_that_settled_leaves_what_is_loaded_to_itself():
    code = "import gc; from perception.process import settle, tune; tune(); settle(); print(gc.get_freeze_count())"
    assert int(run(code)) > 1000


def test_a_process_that_is_not_tuned_keeps_its_garbage_collector_as_it_was():
    # Python 3.12 begins with some frozen.
    code = """
import gc
from perception.process import settle
before = gc.get_freeze_count()
settle()
print(gc.get_freeze_count() - before)
"""
    assert run(code) == "0"


def test_settling_again_frees_what_has_become_garbage_since():
    code = """
import gc, weakref
from perception.process import settle, tune
class Map: pass
tune()
old = Map()
old.itself = old
seen = weakref.ref(old)
settle()
del old
settle()
print(seen())
"""
    assert run(code) == "None"
