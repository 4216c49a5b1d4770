# SPDX-License-Identifier: Apache-2.0
"""Writes the report of one or more runs: the page, and the same data as JSON, CSV and Markdown beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import InputError
from perception.evaluation.run_folder import BINARY_MAP, MAP, TRUE_VOXELS, find_failures
from perception.report import class_section, comparison_sections, costmap_section, objects_section, run_sections
from perception.report.comparison import paired_differences
from perception.report.exports import write_exports
from perception.report.mesh import MAX_FACES, Voxels, limited_faces, map_faces
from perception.report.octree_view import octree_entry
from perception.report.page import THEME_BUTTON, octree_block, text, write_page
from perception.report.runs import ReportRun, load_runs, several_variants
from perception.report.tables import card, sentences

TOTAL_FACES = 700_000
"""Of all maps in a page: about 4 MB."""
MAX_MAPS = 12
TOTAL_FRAMES = 48
"""Frames with pictures in a page, each about 150 kB."""
MAX_DETAILED = 40
"""Runs with parts of their own; all are in the tables and in the files."""
MIN_FACES = 20_000
PARTS = ("classes", "objects", "frames", "curves", "costmap", "details")
"""Of a run, in order."""
MAX_TRUE_VOXELS = 20_000_000


def write_report(runs: Sequence[Path], output: Path) -> list[Path]:
    """Write a page about runs, and beside it ``.json``, ``.md`` and ``.csv`` files with the same numbers.

    Args:
        runs: folders of runs, of evaluations or of sweeps.
        output: the HTML file; the others take its name.

    Returns:
        the files, the page first.

    Raises:
        InputError: no run was given, one is damaged, or the output does not end in .html.
    """
    output = Path(output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"report: expected an output that ends in .html, got {output.name!r}")
    loaded = load_runs([Path(run) for run in runs])
    differences = paired_differences(loaded) if several_variants(loaded) else []
    failures = [one for run in runs for one in find_failures(run)]
    first = run_sections.overview(loaded[0]) if len(loaded) == 1 else _comparison(loaded, differences)
    body = first + run_sections.failed(failures) + _maps(loaded) + _runs(loaded)
    names = list(dict.fromkeys(run.source for run in loaded))
    title = f"perception: {names[0] if len(names) == 1 else f'{len(loaded)} runs of {len(names)} recordings'}"
    page = write_page(output, title, _header(loaded, body), body)
    return [page, *write_exports(loaded, differences, output, failures)]


def _header(runs: Sequence[ReportRun], body: str) -> str:
    created = sorted(str(run.summary.get("created") or "") for run in runs)[-1]
    when = created.replace("T", " ").replace("+00:00", " UTC")
    many = f"{len(runs)} runs" + (f", the latest of {when}" if when else "")
    about = many if len(runs) > 1 else f"evaluated {when}".strip()
    places = {"runs": "all runs", "differences": "differences", "failed": "not evaluated", "octree": "map"}
    places |= {"single": "single runs"} if len(runs) > 1 else {f"{name}-{runs[0].index}": name for name in PARTS}
    links = [f'<a href="#{place}">{name}</a>' for place, name in places.items() if f' id="{place}"' in body]
    return f'<p class="faint">{text(about)}</p><nav>{"".join(links)}{THEME_BUTTON}</nav>'


def _comparison(runs: Sequence[ReportRun], differences: Sequence[Any]) -> str:
    return (
        comparison_sections.summary_table(runs)
        + comparison_sections.means_table(runs)
        + comparison_sections.difference_section(differences)
        + comparison_sections.class_comparison(runs)
        + comparison_sections.curve_comparison(runs)
    )


def _runs(runs: Sequence[ReportRun]) -> str:
    shown = runs[:MAX_DETAILED]
    frames = max(1, TOTAL_FRAMES // len(shown))
    blocks = []
    for run in shown:
        parts = (
            class_section.classes(run),
            objects_section.objects(run),
            run_sections.frames(run, frames),
            run_sections.curves(run),
            costmap_section.costmaps(run),
            run_sections.details(run),
        )
        marked = [f'<div id="{name}-{run.index}">{part}</div>' for name, part in zip(PARTS, parts, strict=True) if part]
        about = run_sections.overview(run) if len(runs) > 1 else ""
        blocks.append(f'<div data-run="{run.index}">{about}{"".join(marked)}</div>')
    if len(runs) == 1:
        return "".join(blocks)
    options = "".join(f'<option value="{run.index}">{text(run.name)}</option>' for run in shown)
    more = (
        f"the first {len(shown)} of {len(runs)}; a report of the others alone shows them" if runs[MAX_DETAILED:] else ""
    )
    chooser = (
        f'<div class="chooser" id="single"><label>Run <select class="runs">{options}</select></label>'
        f'<span class="faint">{more}</span></div>'
    )
    return chooser + "".join(blocks)


def _maps(runs: Sequence[ReportRun]) -> str:
    """The octrees of the runs, then the true voxels of each recording, as far as the page's size allows."""
    mapped = [(run, path) for run in runs if (path := run.file(MAP) or run.file(BINARY_MAP))]
    truths = list({run.source: run for run in runs if run.file(TRUE_VOXELS)}.values())
    chosen = mapped[:MAX_MAPS]
    true_maps = truths[: max(0, MAX_MAPS - len(chosen))]
    if not chosen:
        return ""
    budget = max(MIN_FACES, min(MAX_FACES, TOTAL_FACES // (len(chosen) + len(true_maps))))
    entries, notes = [], []
    for run, path in chosen:
        entries.append(map_entry(path, run.name, run, budget))
    for run in true_maps:
        try:
            entries.append(_true_entry(run, budget))
        except InputError as error:
            notes.append(str(error))
    left = len(mapped) + len(truths) - len(chosen) - len(true_maps)
    if left:
        notes.append(f"{left} more maps are left out to keep this page small; perception view shows any of them.")
    return card("Octree", octree_block(entries) + sentences(notes), "octree")


def map_entry(path: Path, name: str, run: ReportRun | None = None, max_faces: int = MAX_FACES) -> dict[str, Any]:
    """One map file as the octree view takes it.

    Args:
        path: .ot or .bt.
        name: as shown.
        run: the run that it is of, for the camera's path; None for a file on its own.
        max_faces: bound of the rectangles.

    Raises:
        InputError: the file is missing or damaged.
    """
    from perception.labels import LabelSet
    from perception.mapping import SemanticOcTree

    tree = SemanticOcTree.read(path)
    known = tree.metadata.get("label_set")
    label_set = LabelSet.from_dict(known, f"{path}: label set") if known else (run.label_set if run else None)
    return octree_entry(name, map_faces(tree, max_faces), tree.resolution, label_set, run.path() if run else None)


def map_entries(path: Path, name: str, run: ReportRun | None = None) -> list[dict[str, Any]]:
    """A map file, and the true voxels of its run where there are any, for a page of its own."""
    entries = [map_entry(path, name, run)]
    if run is not None and run.file(TRUE_VOXELS):
        entries.append(_true_entry(run, MAX_FACES))
    return entries


def _true_entry(run: ReportRun, max_faces: int) -> dict[str, Any]:
    from perception.simulation.voxels import VoxelMap

    path = run.file(TRUE_VOXELS)
    assert path is not None
    truth = VoxelMap.load(path)
    if len(truth.labels) > MAX_TRUE_VOXELS:
        raise InputError(f"{path}: expected at most {MAX_TRUE_VOXELS} voxels to draw, got {len(truth.labels)}")
    voxels = Voxels(truth.keys.astype(np.int64), truth.labels, truth.resolution, np.zeros(3))
    faces = limited_faces(voxels, max_faces)
    return octree_entry(f"truth · {run.source}", faces, truth.resolution, truth.label_set, run.path())
