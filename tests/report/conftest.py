# SPDX-License-Identifier: Apache-2.0
"""A browser for the tests of pages; one for all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Helpers beside the tests are imported by name.
sys.path.insert(0, str(Path(__file__).parent))

from browser import Browser, find_chromium, running_browser
from made_runs import write_run


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; skips the test where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    with running_browser(program) as running:
        yield running


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about two runs of one recording, with its files beside it."""
    from perception.report.write import write_report

    folder = tmp_path_factory.mktemp("report")
    runs = [write_run(folder / "a", 0.8, "first"), write_run(folder / "b", 0.7, "second")]
    return write_report(runs, folder / "report.html")[0]
