# SPDX-License-Identifier: Apache-2.0
"""Which browser the tests of pages take."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import find_chromium


def program(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)
    return path


def test_the_first_installed_browser_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_chromium() is None
    chrome = program(tmp_path / "google-chrome", "#!/bin/sh\n")
    assert find_chromium() == str(chrome)
    chromium = program(tmp_path / "chromium", "#!/bin/sh\n")
    assert find_chromium() == str(chromium)


@pytest.mark.parametrize("kind", ["link", "stub"])
def test_a_browser_that_is_a_snap_is_passed_over(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("PATH", str(tmp_path))
    if kind == "link":
        (tmp_path / "chromium").symlink_to(program(tmp_path / "usr" / "snap", "#!/bin/sh\n"))
    else:
        program(tmp_path / "chromium-browser", "#!/bin/sh\nexec /snap/bin/chromium\n")
    assert find_chromium() is None
    chrome = program(tmp_path / "google-chrome", "#!/bin/sh\n")
    assert find_chromium() == str(chrome)
