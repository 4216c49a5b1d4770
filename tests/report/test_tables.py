# SPDX-License-Identifier: Apache-2.0
"""Numbers as they stand in tables."""

from __future__ import annotations

import re

import pytest

from perception.report.tables import breakable, cell, heat_cell, number, signed_number, table, words


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.5, "", "0.500"), (0.0, "", "0.000"), (1.4996, "", "1.50"), (12.0, "ms", "12.0 ms"), (6.104, "MB", "6.10 MB"),
        (0.0072, "ms", "0.007 ms"), (99.96, "ms", "100.0 ms"), (99.94, "ms", "99.9 ms"), (100.0, "ms", "100.0 ms"),
        (1.0, "", "1.00"), (0.99999, "", "1.00"), (0.9994, "", "0.999"), (0.0004, "ms", "0.000400 ms"),
        (-3.58e-05, "", "-3.58e-05"), (float("nan"), "", "nan"), (0.00099999, "", "0.001"),
        (683.0, "MB", "683.0 MB"), (711.24, "MB", "711.2 MB"),
        (12345.6, "", "12,345.6"), (42797, "", "42,797"), (0, "", "0"), (None, "ms", "n/a"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_and_their_unit(value, unit, shown):
    assert number(value, unit) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.2, "+0.200"), (-0.1567, "−0.157"), (53.6188, "+53.6"), (99.96, "+100.0"), (-1234.5, "−1,234.5"),
     (-0.0000358, "−3.58e-05")],
)  # fmt: skip
def test_differences_have_a_sign_and_are_zero_only_where_nothing_differs(value, shown):
    assert signed_number(value) == shown


def test_a_cell_without_a_number_says_why_and_is_sorted_as_unknown():
    for content in (cell(None, "ms", "best", 'no "truth"'), heat_cell(None, why='no "truth"')):
        assert content == '<td class="none" title="no &quot;truth&quot;" data-value="">n/a</td>'


def test_long_names_break_after_the_signs_that_join_their_words():
    assert (
        breakable("deeplabv3plus_mobilenetv2_rooms a_b=10") == "deeplabv3plus_<wbr>mobilenetv2_<wbr>rooms a_b=<wbr>10"
    )
    assert breakable("x" * 20 + "_<wbr>") == "x" * 20 + "_<wbr>&lt;wbr&gt;"


def test_heads_say_what_they_are_short_for():
    page = table(["run", "mIoU"], [[words("a"), words("b")]], titles=["", "Mean IoU"])
    assert re.findall(r"<th [^>]*>", page)[1] == '<th scope="col" title="Mean IoU">'
