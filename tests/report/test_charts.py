# SPDX-License-Identifier: Apache-2.0
"""Curves as SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from perception.report.charts import MAX_POINTS, Series, interval_chart, line_chart, nice_step, thinned


def series(y, name="value") -> Series:
    return Series(name, np.arange(len(y), dtype=np.float64), np.asarray(y, np.float64), "--run-0")


@pytest.mark.parametrize(("span", "step"), [(1.0, 0.2), (26.0, 10.0), (0.07, 0.02), (3000.0, 1000.0)])
def test_steps_are_one_two_or_five_times_a_power_of_ten(span, step):
    assert nice_step(span, 5) == pytest.approx(step)


def test_thinning_keeps_every_peak_and_every_gap():
    values = np.zeros(100_000)
    values[12_345], values[54_321], values[80_000:90_000] = 9.0, -4.0, np.nan
    kept = thinned(series(values))
    assert len(kept.y) <= MAX_POINTS
    assert np.nanmax(kept.y) == 9
    assert np.nanmin(kept.y) == -4
    assert np.isnan(kept.y[(kept.x > 81_000) & (kept.x < 89_000)]).all()


def test_a_value_stands_where_the_axis_says():
    # Values from 0 to 10: the axis goes from 0 (y = 214) to 10 (y = 12).
    chart = line_chart("Title", [series([0, 5, 10])], "time, s", "ms")
    path = re.search(r'<path class="line"[^>]* d="([^"]*)"', chart)
    assert path
    assert path[1] == "M56.0 214.0L323.0 113.0L590.0 12.0"
    assert "<b>Title, ms</b>" in chart


def test_a_gap_lifts_the_pen():
    chart = line_chart("t", [series([1, np.nan, 1])], "time, s", "")
    assert chart.count("M56") == 1
    assert len(re.findall(r"M\d", chart)) == 2


def test_chart_without_values_is_left_out():
    assert line_chart("t", [series([np.nan, np.nan])], "time, s", "") == ""
    assert line_chart("t", [series([0.0, -1.0])], "time, s", "", logarithmic=True) == ""


def test_names_are_escaped():
    chart = line_chart("<b>", [series([1, 2], "<i>"), series([1, 3])], "x & y, s", "<u>")
    assert not {"<i>", "<u>"} & set(re.findall(r"<.>", chart.replace("<b>&lt;b&gt;, &lt;u&gt;</b>", "")))
    ElementTree.fromstring(re.sub(r"<script.*?</script>", "", chart).replace(" hidden", ""))


def test_interval_that_excludes_zero_is_colored_by_which_side_is_better():
    chart = interval_chart("t", "", [("a", 0.1, 0.05, 0.2), ("b", -0.1, -0.2, -0.05), ("c", 0.0, -0.1, 0.1)], "higher")
    assert re.findall(r"<circle[^>]*var\((--\w+)\)", chart) == ["--good", "--bad", "--faint"]
    lower = interval_chart("t", "ms", [("a", 1.0, 0.5, 2.0)], "lower")
    assert re.findall(r"<circle[^>]*var\((--\w+)\)", lower) == ["--bad"]


def test_ticks_of_differences_are_written_out():
    page = interval_chart("Time", "ms", [("run", 1200.0, 900.0, 2600.0)], "lower")
    assert ">+2,000</text>" in page and ">0</text>" in page and "e+0" not in page
