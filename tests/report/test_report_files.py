# SPDX-License-Identifier: Apache-2.0
"""The files of a report: complete, escaped, and with the numbers of the runs."""

from __future__ import annotations

import base64
import csv
import itertools
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from made_runs import HOSTILE, LABELS, room_map, write_run

from perception.cli.main import main
from perception.errors import InputError
from perception.mapping import SemanticOcTree
from perception.report.class_section import classes
from perception.report.mesh import map_faces
from perception.report.octree_view import octree_entry
from perception.report.page import data, filled
from perception.report.runs import load_runs
from perception.report.write import write_report


class Collector(HTMLParser):
    """Tags, the values of attributes that load something, and handlers in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href") and value]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_page_loads_nothing_and_takes_no_tag_from_files(report):
    found = Collector()
    found.feed(report.read_text(encoding="utf-8"))
    assert [address for address in found.loaded if not address.startswith(("data:", "#"))] == []
    assert found.handlers == []
    assert HOSTILE not in report.read_text(encoding="utf-8")


def test_page_stays_small(report):
    assert report.stat().st_size < 300_000


def test_json_holds_the_summaries_and_the_differences(report):
    content = json.loads(report.with_suffix(".json").read_text())
    assert [run["variant"] for run in content["runs"]] == ["first", "second"]
    assert content["runs"][1]["summary"]["scalars"]["segmentation.pixel_accuracy"]["value"] == 0.7
    difference = next(one for one in content["differences"] if one["metric"] == "segmentation.pixel_accuracy")
    assert difference["difference"] == pytest.approx(-0.1, abs=1e-6)


def test_tables_hold_one_row_per_number_class_and_frame(report):
    def rows(name):
        with report.with_name(f"report_{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    assert [row["value"] for row in rows("scalars") if row["name"] == "segmentation.pixel_accuracy"] == ["0.8", "0.7"]
    assert [row["name"] for row in rows("classes")] == 2 * [label.name for label in LABELS.classes]
    assert len(rows("frames")) == 80
    assert {row["verdict"] for row in rows("differences")} == {"worse", "same"}


def test_markdown_escapes_what_comes_from_files(report):
    text = report.with_suffix(".md").read_text(encoding="utf-8")
    assert "| Accuracy | 0.8 | 0.7 |" in text
    assert "<script" not in text.replace("\\<", "")


def test_command_writes_the_page_and_says_where(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    assert main(["report", str(run), "--output", str(tmp_path / "out" / "page.html")]) == 0
    assert "page.html" in capsys.readouterr().out
    assert not (tmp_path / "out" / "page_differences.csv").exists()


def test_run_without_any_truth_gives_a_page_all_the_same(tmp_path):
    nothing = {"segmentation": None, "not_scored": ["no labels"], "timing": {}, "worst": [], "label_set": None}
    run = write_run(tmp_path / "run", scalars={}, **nothing)
    for name in ("confusion.csv", "frames.csv", "costmap.yaml", "map.ot", "path.csv"):
        (run / name).unlink()
    page = write_report([run], tmp_path / "page.html")[0]
    assert "Not scored: no labels" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("voxels", "shown"), [({"per_class": {}}, ">0</td>"), (None, 'title="no map"')])
def test_a_map_without_occupied_voxels_is_a_map(tmp_path, voxels, shown):
    (run,) = load_runs([write_run(tmp_path / "run", voxels=voxels)])
    rows = re.findall(r"<tr><td.*?</tr>", classes(run))
    assert len(rows) == 3
    assert all(shown in row.rpartition("<td")[2] for row in rows)


def test_what_could_not_be_evaluated_is_named(tmp_path):
    for name in "ab":
        write_run(tmp_path / "out" / name, 0.8, "first", name)
    failed = {"drives/broken": f"no frame could be mapped {HOSTILE}"}
    (tmp_path / "out" / "evaluation.json").write_text(json.dumps({"format": 1, "runs": ["a", "b"], "failed": failed}))
    page = write_report([tmp_path / "out"], tmp_path / "r.html")[0]
    content = page.read_text(encoding="utf-8")
    assert "Not evaluated" in content and "drives/broken: no frame could be mapped" in content
    assert HOSTILE not in content
    assert json.loads((tmp_path / "r.json").read_text())["failed"][0]["what"] == "drives/broken"
    assert "- drives/broken: no frame could be mapped" in (tmp_path / "r.md").read_text()
    assert "Means over recordings" in (tmp_path / "r.md").read_text()
    with (tmp_path / "r_means.csv").open() as file:
        means = {row["metric"]: row for row in csv.DictReader(file)}
    assert means["segmentation.pixel_accuracy"] == {
        "metric": "segmentation.pixel_accuracy", "variant": "", "value": "0.8", "recordings": "2"
    }  # fmt: skip


def test_objects_are_shown_with_how_many_they_are(tmp_path):
    coco = dict.fromkeys(("AP", "AP50", "AP75", "APm", "APl", "AR1", "AR10", "AR100", "ARm", "ARl"), 0.25)
    detection = {
        "detector": "finder", "images": 12, "objects": 2, "coco": {**coco, "APs": None, "ARs": None}, "masks": None,
        "voc": {"mAP50": 0.5, "classes": []}, "unmapped_truth": [HOSTILE],
    }  # fmt: skip
    write_run(tmp_path / "a", detection=detection)
    content = write_report([tmp_path / "a"], tmp_path / "r.html")[0].read_text(encoding="utf-8")
    assert "finder · 2 true objects in 12 images · Pascal VOC mAP (IoU 0.5) 0.500" in content
    objects = content[content.index("<h2>Objects</h2>") :]
    objects = objects[: objects.index("</section>")]
    assert objects.count(">0.250</td>") == 10
    assert objects.count(' title="no true object of that size" data-value="">n/a</td>') == 2
    assert HOSTILE not in objects


def test_head_of_the_page_leads_to_the_parts_that_it_has(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "costmap.yaml").unlink()
    page = write_report([run], tmp_path / "r.html")[0].read_text(encoding="utf-8")
    links = re.findall(r'<a href="#([^"]+)">', page)
    assert links == ["octree", "classes-0", "frames-0", "curves-0", "details-0"]
    assert all(page.count(f' id="{link}"') == 1 for link in links)


def test_worst_frames_say_when_they_were(tmp_path):
    page = write_report([write_run(tmp_path / "a")], tmp_path / "r.html")[0].read_text(encoding="utf-8")
    assert "<b>Frame 7</b> pixel accuracy 0.400 · mean IoU 0.300 · 7.00 s after the first" in page


def test_markdown_says_where_there_is_no_interval(tmp_path):
    known = {"map.occupancy.f1": {"value": 0.5, "title": "F1", "better": "higher", "unit": ""}}
    runs = []
    for name, source in itertools.product("ab", "xyz"):
        scalars = known if name == "a" or source == "y" else {}
        runs.append(write_run(tmp_path / f"{name}{source}", 0.5, name, source, scalars=scalars))
    write_report(runs, tmp_path / "r.html")
    lines = (tmp_path / "r.md").read_text(encoding="utf-8").splitlines()
    assert "| F1 | 0.5 | 0.5 | 0.5 | n/a | 0.5 | n/a |" in lines
    assert "| Occupied voxels, F1 | b | 1 recordings | 0 | too few recordings | open |" in lines


def test_damaged_run_is_refused_with_a_sentence(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "confusion.csv").write_text("a,b\nfloor,many\n")
    with pytest.raises(InputError, match="expected a table of pixel counts"):
        write_report([run], tmp_path / "page.html")


def test_output_that_is_no_page_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.html"):
        write_report([write_run(tmp_path / "run")], tmp_path / "page.pdf")


def test_json_in_a_script_cannot_end_it():
    text = data({"a": "</script><!--&"})
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--&"}


def test_what_is_put_into_a_template_is_not_searched_for_marks():
    assert filled("@a@ @b@", a="@b@", b="x") == "@b@ x"


def test_octree_of_a_page_is_the_map():
    tree = room_map()
    entry = octree_entry("room", map_faces(tree), tree.resolution, LABELS, np.array([[0.5, 1.0, 0.6]]))
    columns = np.frombuffer(zlib.decompress(base64.b64decode(entry["faces"])), np.uint8)
    count = sum(entry["counts"])
    halves = columns.reshape(6, 2, count).astype(int)
    values = halves[:, 0] + 256 * halves[:, 1]
    assert {one["name"]: one["voxels"] for one in entry["palette"]} == {"floor": 400, "wall": 200, HOSTILE: 9}
    # The box of 3 x 3 voxels: six rectangles, at 80 cm, on the third level above the floor.
    box = values[5] == 2
    assert box.sum() == 6
    corner = values[:3, box].min(axis=1) * entry["size"] + entry["origin"]
    assert corner.tolist() == pytest.approx([0.8, 0.8, 0.2])
    assert entry["heights"] == pytest.approx([-0.1, 1.0])


def test_outline_of_an_octree_has_its_corners_and_ends_of_the_path_but_no_stray_voxel():
    tree = room_map()
    tree.insert_cloud(np.array([[9.05, 9.05, 0.05]]), (9.0, 9.0, 0.5), np.array([0]), np.array([0.9]))
    path = np.array([[0.5, 1.0, 0.6], [0.5, 1.0, 2.0]])
    outline = np.array(octree_entry("room", map_faces(tree), tree.resolution, LABELS, path)["outline"])
    # Floor from 0 to 2 m, the wall behind it up to 1 m, the eye at 2 m.
    assert outline.min(axis=0).tolist() == pytest.approx([0.0, 0.0, -0.1])
    assert outline.max(axis=0).tolist() == pytest.approx([2.1, 2.0, 2.0])


def test_coarser_drawing_is_told():
    tree = room_map()
    entry = octree_entry("room", map_faces(tree, 15), tree.resolution, LABELS)
    assert entry["size"] > tree.resolution
    assert "The map itself has 10 cm" in entry["note"]


def test_view_writes_the_octree_of_a_map_as_a_page(tmp_path, capsys):
    room_map().write(tmp_path / "map.ot", LABELS)
    assert main(["view", str(tmp_path / "map.ot"), "--html", str(tmp_path / "map.html")]) == 0
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert re.search(r'"labeled":true', page)


def test_view_shows_a_map_without_labels_by_height(tmp_path):
    room_map().write_binary(tmp_path / "map.bt")
    assert main(["view", str(tmp_path / "map.bt"), "--html", str(tmp_path / "map.html")]) == 0
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert '"labeled":false' in page
    assert SemanticOcTree.read(tmp_path / "map.bt").num_classes == 0


def test_a_recording_that_breaks_off_is_told_of_once(tmp_path):
    note = "bag.mcap: cut off after 7 bytes, read up to there"
    run = write_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    details = {"bag_broken": note, "bad_color": "no JPEG"}
    summary["source"] |= {"complete": False, "note": note, "details": details, "warnings": dict.fromkeys(details, 2)}
    (run / "summary.json").write_text(json.dumps(summary))
    page = write_report([run], tmp_path / "page.html")[0].read_text(encoding="utf-8")
    notes = page[page.index("<h3>Notes</h3>") : page.index("</ul>", page.index("<h3>Notes</h3>"))]
    assert notes.count(note) == 1 and "The recording is not complete" in notes
    assert "Warning: 2 × bad_color (no JPEG)" in notes
