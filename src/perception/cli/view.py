# SPDX-License-Identifier: Apache-2.0
"""``perception view``: look at a saved map, a run or a replay, in the Rerun viewer or as a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perception.errors import InputError, PerceptionError

MAP_SUFFIXES = (".ot", ".bt")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "view",
        help="show a map, a run or a replay",
        description="Show a map file (.ot, .bt), the output folder of evaluate or replay, or an .rrd file in the Rerun "
        "viewer (extra 'viewer'). With --html the octree becomes a page that any browser shows, without Rerun.",
    )
    parser.add_argument("file", type=Path, help="map (.ot, .bt), output folder of evaluate or replay, or .rrd file")
    parser.add_argument("--html", type=Path, metavar="PAGE.html", help="write a page with the octree instead")
    parser.add_argument("--save", type=Path, metavar="FILE.rrd", help="write a file for Rerun instead of opening it")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    path: Path = arguments.file
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix == ".rrd" and (arguments.html or arguments.save):
        raise InputError(f"{path}: expected a map or an output folder for --html and --save, got an .rrd file")
    if arguments.html:
        _write_page(path, arguments.html)
    elif path.suffix == ".rrd":
        _open_viewer(path)
    else:
        _log(path, arguments.save)
    return 0


def _map_of(path: Path) -> Path:
    """The map file that a path means."""
    from perception.evaluation.run_folder import EVALUATION, SWEEP, find_runs

    if path.is_file() and path.suffix in MAP_SUFFIXES:
        return path
    for suffix in MAP_SUFFIXES:
        if (path / f"map{suffix}").is_file():
            return path / f"map{suffix}"
    if any((path / name).is_file() for name in (EVALUATION, SWEEP)):
        raise InputError(f"{path}: holds several runs; give the folder of one, such as {find_runs(path)[0]}")
    raise InputError(
        f"{path}: expected a map (.ot, .bt) or the output folder of evaluate or replay; a recording is shown with "
        "perception replay SOURCE --output FOLDER --rerun"
    )


def _run_of(path: Path) -> Any:
    from perception.evaluation.run_folder import SUMMARY
    from perception.report.runs import load_runs

    return load_runs([path])[0] if (path / SUMMARY).is_file() else None


def _write_page(path: Path, page: Path) -> None:
    from perception.report.page import write_octree_page
    from perception.report.write import map_entries

    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html: expected a file that ends in .html, got {page.name!r}")
    file, known = _map_of(path), _run_of(path)
    name = known.name if known else file.name
    write_octree_page(page, f"perception: {name}", map_entries(file, name, known))
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")


def _log(path: Path, output: Path | None) -> None:
    from perception.costmap.files import read_costmap
    from perception.labels import LabelSet
    from perception.mapping import SemanticOcTree
    from perception.report.rerun_log import RerunLog, import_rerun

    import_rerun()
    file, known = _map_of(path), _run_of(path)
    tree = SemanticOcTree.read(file)
    content = tree.metadata.get("label_set")
    label_set = LabelSet.from_dict(content, f"{file}: label set") if content else None
    with RerunLog(known.name if known else file.name, output, label_set) as log:
        if known is not None:
            log.run(known)
        elif (path / "costmap.yaml").is_file():
            log.costmap(read_costmap(path / "costmap.yaml"))
        size = log.octree(tree)
    if size > 1.5 * tree.resolution:
        print(f"the map is shown in boxes of {100 * size:g} cm; its own voxels have {100 * tree.resolution:g} cm")
    if output is not None:
        print(f"{output} ({output.stat().st_size / 1e6:.1f} MB)")


def _open_viewer(path: Path) -> None:
    import subprocess
    import sys

    from perception.report.rerun_log import import_rerun

    import_rerun()
    # Listens for programs that log to it, which no other machine needs to be.
    code = subprocess.run([sys.executable, "-m", "rerun", "--bind", "127.0.0.1", str(path)], check=False).returncode
    if code:
        raise PerceptionError(
            f"Rerun's viewer ended with code {code}; where there is no screen, {sys.executable} -m rerun --web-viewer "
            f"{path} shows it in a browser"
        )
