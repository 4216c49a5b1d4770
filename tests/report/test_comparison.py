# SPDX-License-Identifier: Apache-2.0
"""Differences between runs and their intervals."""

from __future__ import annotations

import re

import pytest
from made_runs import write_run

from perception.evaluation.run_folder import fill_frames
from perception.report.comparison import paired_differences, recording_means
from perception.report.comparison_sections import curve_comparison, difference_section, means_table, summary_table
from perception.report.run_sections import curves
from perception.report.runs import load_runs


def test_a_run_that_is_worse_on_every_frame_is_called_worse(tmp_path):
    runs = [write_run(tmp_path / "a", 0.8, "first"), write_run(tmp_path / "b", 0.7, "second")]
    found = {one.metric: one for one in paired_differences(load_runs(runs))}
    accuracy = found["segmentation.pixel_accuracy"]
    assert accuracy.difference == pytest.approx(-0.1, abs=1e-6)
    assert (accuracy.low, accuracy.high) == pytest.approx((-0.1, -0.1), abs=1e-6)
    assert accuracy.verdict == "worse"
    assert accuracy.frames == 40
    time = found["timing.stages.frame.p50_ms"]
    assert time.difference == 0
    assert time.verdict == "same"


def test_scores_of_the_fused_map_are_compared_frame_by_frame_where_frames_have_them(tmp_path):
    runs = [write_run(tmp_path / "a", 0.8, "first"), write_run(tmp_path / "b", 0.7, "second")]
    assert "fusion.fused.pixel_accuracy" not in {one.metric for one in paired_differences(load_runs(runs))}
    for path, value in zip(runs, (0.5, 0.75), strict=True):
        fill_frames(path / "frames.csv", {index: {"fused_accuracy": value} for index in range(0, 40, 2)})
    found = {one.metric: one for one in paired_differences(load_runs(runs))}
    fused = found["fusion.fused.pixel_accuracy"]
    assert (fused.title, fused.pairs, fused.frames) == ("Pixel accuracy of the fused map per frame", "frames", 20)
    assert (fused.difference, fused.low, fused.high, fused.verdict) == (0.25, 0.25, 0.25, "better")
    assert found["segmentation.pixel_accuracy"].frames == 40


def test_runs_of_different_recordings_are_not_compared(tmp_path):
    runs = [write_run(tmp_path / "a", 0.8, "first", "hall"), write_run(tmp_path / "b", 0.7, "second", "kitchen")]
    assert paired_differences(load_runs(runs)) == []


def test_the_best_run_of_each_recording_is_marked(tmp_path):
    runs = [
        write_run(tmp_path / f"{source}{network}", accuracy, network, source)
        for source, network, accuracy in (
            ("hall", "first", 0.8), ("hall", "second", 0.7), ("kitchen", "first", 0.3), ("kitchen", "second", 0.4)
        )
    ]  # fmt: skip
    page = summary_table(load_runs(runs))
    best = {float(value) for value in re.findall(r'<td class="best" data-value="([^"]+)"', page)}
    assert {0.8, 0.4} <= best
    assert not {0.7, 0.3} & best
    assert "best of each recording" in page


def test_what_looks_the_same_is_as_good(tmp_path):
    known = {"title": "Occupied voxels, F1", "better": "higher", "unit": ""}
    runs = [
        write_run(tmp_path / name, 0.5, name, scalars={"map.occupancy.f1": {**known, "value": value}})
        for name, value in (("a", 0.77901), ("b", 0.77902), ("c", 0.5))
    ]
    page = summary_table(load_runs(runs))
    assert re.findall(r'<td class="best" data-value="([^"]+)"', page) == ["0.77901", "0.77902"]
    assert "best" not in re.findall(r'<td class="(\w+)"', summary_table(load_runs(runs[:2])))


def test_a_number_that_a_run_lacks_is_not_there_for_a_reason(tmp_path):
    known = {"map.occupancy.f1": {"value": 0.5, "title": "F1", "better": "higher", "unit": ""}}
    runs = [
        write_run(tmp_path / "a", 0.5, "a", scalars=known),
        write_run(tmp_path / "b", 0.5, "b", scalars={}, not_scored=["map: no true voxels", "costmap: none either"]),
    ]
    assert '<td class="none" title="map: no true voxels" data-value="">n/a</td>' in summary_table(load_runs(runs))


def test_semantic_scores_of_the_map_name_what_the_classes_of_voxels_lack(tmp_path):
    lines = ["segmentation: given", "classes of voxels: none is in the map", "map: too small"]
    (run,) = load_runs([write_run(tmp_path / "a", not_scored=lines)])
    assert run.why_not("map.semantic.mean_iou") == "classes of voxels: none is in the map; map: too small"
    assert run.why_not("map.occupancy.f1") == "map: too small"
    assert run.why_not("costmap.false_free_rate") == "not scored in this run"


@pytest.mark.parametrize(("values", "best"), [((0.0001, 0.0004), ["0.0001"]), ((99.96, 100.0), [])])
def test_one_of_two_is_the_best_only_where_they_look_different(tmp_path, values, best):
    known = {"title": "False free rate", "better": "lower", "unit": ""}
    runs = [
        write_run(tmp_path / name, 0.5, name, scalars={"costmap.false_free_rate": {**known, "value": value}})
        for name, value in zip("ab", values, strict=True)
    ]
    assert re.findall(r'<td class="best" data-value="([^"]+)"', summary_table(load_runs(runs))) == best


def test_curves_of_what_some_frames_alone_have_are_joined(tmp_path):
    runs = [write_run(tmp_path / "a", 0.8, "first"), write_run(tmp_path / "b", 0.7, "second")]
    for path in runs:
        every = {index: {"single_accuracy": 0.25, "fused_accuracy": 0.5} for index in range(0, 40, 4)}
        fill_frames(path / "frames.csv", every)
    loaded = load_runs(runs)
    for page, title in (
        (curves(loaded[0]), "Pixel accuracy before and after fusion"),
        (curve_comparison(loaded), "Pixel accuracy of the fused map"),
    ):
        figure = next(one for one in page.split("<figure>") if one.startswith(f"<b>{title}"))
        paths = re.findall(r'<path class="line"[^>]* d="([^"]*)"', figure)
        assert [(path.count("M"), path.count("L")) for path in paths] == [(1, 9), (1, 9)]


def scalars(**values):
    return {name.replace("__", "."): {"value": value} for name, value in values.items()}


def test_means_are_over_the_recordings_that_every_variant_has_the_number_for(tmp_path):
    numbers = {"hall": (0.5, 0.7), "kitchen": (0.1, 0.4), "yard": (0.9, None)}
    runs = []
    for source, values in numbers.items():
        for network, value in zip(("first", "second"), values, strict=True):
            known = scalars(memory__map_mb=2.0) | (scalars(map__semantic__mean_iou=value) if value else {})
            runs.append(write_run(tmp_path / f"{source}{network}", 0.5, network, source, scalars=known))
    loaded = load_runs(runs)
    found = {(one.metric, one.variant): (one.value, one.recordings) for one in recording_means(loaded)}
    assert found["map.semantic.mean_iou", "first"] == (pytest.approx(0.3), 2)
    assert found["map.semantic.mean_iou", "second"] == (pytest.approx(0.55), 2)
    assert found["memory.map_mb", "first"] == (2.0, 3)
    page = means_table(loaded)
    assert ">mIoU, voxels (2)<" in page and 'title="Mean IoU of voxels"' in page
    assert '<td class="best" data-value="0.55' in page
    assert means_table(load_runs(runs[:2])) == ""


def test_numbers_that_frames_do_not_have_are_compared_by_recording(tmp_path):
    runs = [
        write_run(
            tmp_path / f"{i}{network}", 0.5, network, f"bag{i}", scalars=scalars(map__occupancy__f1=value + i / 100)
        )
        for network, value in (("first", 0.5), ("second", 0.25))
        for i in range(8)
    ]
    found = {one.metric: one for one in paired_differences(load_runs(runs))}
    f1 = found["map.occupancy.f1"]
    assert (f1.pairs, f1.frames, f1.verdict) == ("recordings", 8, "worse")
    assert (f1.difference, f1.low, f1.high) == pytest.approx((-0.25, -0.25, -0.25))
    assert found["segmentation.pixel_accuracy"].pairs == "frames"
    few = paired_differences(load_runs(runs[:2] + runs[8:10]))
    f1 = next(one for one in few if one.metric == "map.occupancy.f1")
    assert (f1.frames, f1.low, f1.verdict) == (2, None, "open")
    assert "too few recordings" in difference_section(few)


def test_recordings_are_compared_where_frames_of_one_have_nothing_in_common(tmp_path):
    runs = []
    for network, values in (("first", (0.5, 0.5, 0.5)), ("second", (0.6, 0.1, None))):
        for source, value in zip(("x", "y", "z"), values, strict=True):
            known = scalars(segmentation__pixel_accuracy=value) if value else {}
            runs.append(write_run(tmp_path / f"{source}{network}", value or 0.5, network, source, scalars=known))
    for folder in (tmp_path / "ysecond", tmp_path / "zsecond"):
        (folder / "frames.csv").write_text("index\n0\n")
    found = {one.metric: one for one in paired_differences(load_runs(runs))}["segmentation.pixel_accuracy"]
    assert (found.pairs, found.frames, found.sources, found.low) == ("recordings", 2, ("x", "y"), None)
    assert found.difference == pytest.approx(-0.15)
