# SPDX-License-Identifier: Apache-2.0
"""One HTML page with everything in it: style, scripts, data. What comes from files is escaped here and nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from perception import __version__
from perception.atomic_file import atomic_write

SCRIPTS = ("shaders.js", "octree.js", "octree_controls.js", "page.js")
THEME_BUTTON = '<button type="button" class="theme" title="switch between light and dark">light / dark</button>'


def asset(name: str) -> str:
    """Text of a file that ships with the package."""
    return (resources.files("perception") / "report" / "assets" / name).read_text(encoding="utf-8")


def text(value: object) -> str:
    """Anything as text that is safe in HTML, between tags and in quoted attributes."""
    return escape(str(value), quote=True)


def data(value: Any) -> str:
    """Anything as JSON that is safe inside of a script element."""
    content = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def filled(template: str, **parts: str) -> str:
    """A template with its ``@name@`` marks replaced by HTML, all at once: nothing is looked for in what is put in."""
    return re.sub(r"@(\w+)@", lambda match: parts[match.group(1)], template)


def octree_block(maps: Sequence[dict[str, Any]]) -> str:
    """The view of octrees, see :func:`perception.report.octree_view.octree_entry`."""
    return filled(asset("octree.html"), maps=data(list(maps)))


def write_page(path: str | Path, title: str, header: str, body: str) -> Path:
    """Write a page.

    Args:
        path: of the file; it appears whole or not at all.
        title: plain text.
        header: HTML below the title.
        body: HTML.
    """
    page = filled(
        asset("page.html"),
        title=text(title),
        style=asset("page.css"),
        header=f"<h1>{text(title)}</h1>{header}",
        body=body,
        footer=f"Made by perception {text(__version__)}. This page is complete in itself and asks no server.",
        script="\n".join(asset(name) for name in SCRIPTS),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, [page.encode("utf-8")])
    return path


def write_octree_page(path: str | Path, title: str, maps: Sequence[dict[str, Any]]) -> Path:
    """Write a page with octrees alone."""
    body = f'<section class="card">{octree_block(maps)}</section>'
    return write_page(path, title, f"<nav>{THEME_BUTTON}</nav>", body)
