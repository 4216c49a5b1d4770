# SPDX-License-Identifier: Apache-2.0
"""The pages in a real browser: nothing fails, no network is asked, and what is clicked changes the picture."""

from __future__ import annotations

import numpy as np
import pytest
from made_runs import HOSTILE, LABELS, room_map

from perception.report.charts import Series, line_chart
from perception.report.page import write_page

CANVAS = '[data-part="canvas"]'
READY = "document.querySelector('.octree').dataset.ready !== undefined"


def close_to(picture, color, tolerance=60) -> int:
    """How many pixels have a color, darkened by any shade of the view's."""
    wanted = np.asarray(color, float) / np.linalg.norm(color)
    length = np.linalg.norm(picture.astype(float), axis=2)
    along = picture.astype(float) @ wanted
    return int(((length > tolerance) & (along > 0.985 * length)).sum())


def alike(first, second) -> bool:
    """Whether two pictures agree but for the edges: the page may have scrolled by a part of a pixel."""
    return bool((np.abs(first.astype(int) - second).max(axis=2) > 40).mean() < 0.01)


@pytest.fixture
def page(browser, report):
    """The report, open at the size of a desktop, in light colors."""
    browser.size(1280, 800)
    browser.theme("light")
    browser.open(report)
    browser.wait_for(READY)
    browser.settle()
    return browser


def pick_class(page, name: str) -> None:
    """Click the box of a class."""
    script = f"""(() => {{ for (const item of document.querySelectorAll('[data-part="legend"] li'))
        item.id = item.textContent.startsWith({name!r}) ? 'wanted' : ''; }})()"""
    page.evaluate(script)
    page.click("#wanted input")


def test_page_opens_without_errors_and_without_requests(page, report):
    assert page.requests == [report.as_uri()]
    assert page.errors == []
    assert page.evaluate("window.broken") is None
    assert page.evaluate("document.querySelectorAll('h2').length") >= 8


@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True)])
def test_page_is_as_wide_as_the_window(page, width, mobile):
    page.size(width, 800, mobile)
    page.settle()
    assert page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]") == [width, width]


def test_all_pictures_have_been_decoded(page):
    counts = page.evaluate(
        "[...document.images].reduce((n, i) => [n[0] + 1, n[1] + (i.complete && i.naturalWidth > 0)], [0, 0])"
    )
    assert counts[0] == counts[1] >= 10


@pytest.mark.parametrize("button", ["reset", "top"])
def test_the_map_fills_the_canvas_and_is_not_cut(page, button):
    page.click(f'[data-part="{button}"]')
    picture = page.picture(CANVAS)[3:-3, 3:-3].astype(int)
    rows, columns = np.nonzero((np.abs(picture - picture[0, 0]) > 12).any(axis=2))
    height, width = picture.shape[:2]
    margins = [rows.min(), height - 1 - rows.max(), columns.min(), width - 1 - columns.max()]
    assert min(margins) > 2
    assert max(np.ptp(rows) / height, np.ptp(columns) / width) > 0.85
    assert abs(margins[0] - margins[1]) < 0.1 * height
    assert abs(margins[2] - margins[3]) < 0.1 * width


def test_switching_a_class_off_removes_its_pixels_and_no_others(page):
    wall, floor = LABELS.colors[1], LABELS.colors[0]
    before = page.picture(CANVAS)
    pick_class(page, "wall")
    after = page.picture(CANVAS)
    assert close_to(before, wall) > 2000
    assert close_to(after, wall) < 20
    assert close_to(after, floor) >= close_to(before, floor) > 5000
    pick_class(page, "wall")
    assert alike(page.picture(CANVAS), before)


def test_none_and_all_switch_every_class(page):
    before = page.picture(CANVAS)
    page.click('[data-part="none"]')
    background = page.picture(CANVAS)
    assert close_to(background, LABELS.colors[0]) == 0
    page.click('[data-part="all"]')
    assert alike(page.picture(CANVAS), before)


def middle_of(page, color) -> tuple[float, float]:
    """Where in the window the middle of all pixels of a color is, from straight above."""
    page.click('[data-part="top"]')
    left, top, _, _ = page.box(CANVAS)
    picture = page.picture(CANVAS)
    wanted = np.asarray(color, float) / np.linalg.norm(color)
    rows, columns = np.nonzero(picture @ wanted > 0.985 * np.maximum(np.linalg.norm(picture, axis=2), 60))
    return left + float(columns.mean()), top + float(rows.mean())


def test_pointing_at_a_voxel_shows_its_class_and_place(page):
    _, _, _, height = page.box(CANVAS)
    x, y = middle_of(page, LABELS.colors[2])
    # The box is in the middle of 2 m of floor, which take most of the height of the canvas.
    page.move(x, y - 0.25 * height)
    page.wait_for("!document.querySelector('[data-part=\"label\"]').hidden")
    text = page.evaluate("document.querySelector('[data-part=\"label\"]').textContent")
    assert text.startswith("floor(")
    x, y, z = (float(value) for value in text[text.index("(") + 1 : text.index(")")].split(","))
    assert abs(x - 0.95) < 0.15
    assert 1.3 < y < 1.8
    assert z == pytest.approx(-0.05)
    left, top, _, _ = page.box(CANVAS)
    page.move(left + 5, top + 5)
    page.wait_for("document.querySelector('[data-part=\"label\"]').hidden")


def test_every_label_is_that_of_the_voxel_whose_place_is_told(page):
    # From far away, where the half pixel by which faces grow is a good part of a voxel.
    script = """(() => { const { view, canvas } = document.querySelector('.octree').panel, found = [];
        view.zoom(8);
        for (let i = 0; i < 70; i++) {
            const x = 0.44 + 0.012 * (i % 10), y = 0.42 + 0.02 * Math.floor(i / 10);
            const one = view.pick(canvas.clientWidth * x, canvas.clientHeight * y);
            if (one) found.push([view.map.palette[one.palette].name, one.position]);
        }
        return found; })()"""
    found, tree = page.evaluate(script), room_map()
    assert len(found) > 20
    places = np.array([place for _, place in found])
    names = [LABELS.name_of(int(label)) for label in tree.label_of(places)]
    assert [name for name, _ in found] == names
    assert (tree.log_odds(places) >= 0).all()


def test_slice_from_the_floor_upward_leaves_the_floor_away(page):
    pick_class(page, "floor")
    without_floor = page.picture(CANVAS)
    page.click('[data-part="all"]')
    page.evaluate("document.querySelector('[data-part=\"low\"]').focus()")
    page.press("Home")
    page.press("ArrowRight")
    assert page.evaluate("document.querySelector('[data-part=\"from\"]').textContent") == "0.00 m"
    assert alike(page.picture(CANVAS), without_floor)


def test_on_paper_the_page_is_light_unfolded_and_as_it_was_afterwards(page):
    folded = "[document.documentElement.dataset.theme, document.querySelectorAll('details[open]').length]"
    octree = "[...document.querySelector('.octree .stage').children].map((part) => [part.tagName, part.hidden])"
    page.click("button.theme")
    before = page.evaluate(folded), page.evaluate(octree)
    assert before == (["dark", 0], [["CANVAS", False], ["DIV", True]])
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    theme, unfolded = page.evaluate(folded)
    assert theme == "light" and unfolded > 0
    assert page.evaluate(octree) == [["CANVAS", True], ["IMG", False], ["DIV", True]]
    page.wait_for("document.querySelector('.octree img').complete")
    picture = page.picture(".octree .stage img")
    assert picture[12, 12].min() > 200 and close_to(picture, LABELS.colors[0]) > 5000
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert (page.evaluate(folded), page.evaluate(octree)) == before


def test_a_page_that_is_told_twice_to_go_on_paper_is_as_it_was_afterwards(page):
    state = """[document.documentElement.dataset.theme, document.querySelectorAll('details[open]').length,
        document.querySelectorAll('.octree .stage img').length]"""
    page.click("button.theme")
    before = page.evaluate(state)
    for _ in range(2):  # Every time it is printed.
        for event in ("beforeprint", "beforeprint", "afterprint"):
            page.evaluate(f"dispatchEvent(new Event('{event}'))")
        assert page.evaluate(state) == before == ["dark", 0, 0]


def test_hostile_class_name_is_shown_as_text(page):
    page.move(*middle_of(page, LABELS.colors[2]))
    page.wait_for("!document.querySelector('[data-part=\"label\"]').hidden")
    assert page.evaluate("document.querySelector('[data-part=\"label\"] b').textContent") == HOSTILE
    assert page.evaluate("window.broken") is None


def test_slice_of_heights_cuts_the_wall(page):
    wall = LABELS.colors[1]
    before = close_to(page.picture(CANVAS), wall)
    page.evaluate("document.querySelector('[data-part=\"high\"]').focus()")
    page.press("Home")
    after = page.picture(CANVAS)
    assert page.evaluate("document.querySelector('[data-part=\"to\"]').textContent") == "-0.10 m"
    assert close_to(after, wall) == 0
    assert before > 2000
    page.press("End")
    assert close_to(page.picture(CANVAS), wall) == pytest.approx(before, rel=0.05)


def test_dragging_turns_the_map_and_a_button_brings_it_back(page):
    before = page.picture(CANVAS)
    left, top, width, height = page.box(CANVAS)
    page.drag(left + width / 2, top + height / 2, 120, 30)
    assert not alike(page.picture(CANVAS), before)
    page.click('[data-part="reset"]')
    page.move(5, 5)
    assert alike(page.picture(CANVAS), before)


def test_coloring_by_height_replaces_the_colors_of_classes(page):
    before = close_to(page.picture(CANVAS), LABELS.colors[0])
    page.evaluate("""(() => { const choice = document.querySelector('[data-part="color"]'); choice.value = 'height';
        choice.dispatchEvent(new Event('change')); })()""")
    page.settle()
    assert close_to(page.picture(CANVAS), LABELS.colors[0]) < 0.1 * before
    legend = page.evaluate("document.querySelector('[data-part=\"heights\"]').innerText")
    assert legend.split() == ["z:", "-0.10", "m", "1.00", "m"]


def test_choosing_a_run_shows_its_part_alone(page):
    shown = "[...document.querySelectorAll('[data-run]')].map((part) => !part.hidden)"
    assert page.evaluate(shown) == [True, False]
    page.evaluate("""(() => { const choice = document.querySelector('select.runs'); choice.value = '1';
        choice.dispatchEvent(new Event('change')); })()""")
    assert page.evaluate(shown) == [False, True]


def test_click_on_a_head_sorts_its_column(page):
    column = "[...document.querySelectorAll('#runs tbody tr')].map((row) => row.cells[1].textContent)"
    assert page.evaluate(column) == ["0.800", "0.700"]
    page.click("#runs th:nth-child(2)")
    assert page.evaluate(column) == ["0.800", "0.700"]
    page.click("#runs th:nth-child(2)")
    assert page.evaluate(column) == ["0.700", "0.800"]


def test_chart_tells_the_values_under_the_pointer(page):
    left, top, width, height = page.box("[data-run='0'] .chart svg")
    page.move(left + width * 0.5, top + height / 2)
    text = page.evaluate("document.querySelector(\"[data-run='0'] .chart .readout\").innerText")
    # 0.8 + 0.05 sin 18; the axis has 39 s and begins right of its numbers.
    assert text.splitlines() == ["18 s", "pixel accuracy: 0.7625", "mean IoU: 0.6"]


def test_a_value_between_gaps_is_a_dot_that_is_seen(browser, tmp_path):
    values = np.array([np.nan, 0.5, np.nan])
    chart = line_chart("t", [Series("value", np.arange(3.0), values, "--run-0")], "time, s", "", (0.0, 1.0))
    browser.size(1280, 800)
    browser.theme("light")
    browser.open(write_page(tmp_path / "page.html", "t", "", chart))
    picture = browser.picture(".chart svg").astype(int)
    colored = picture.max(axis=2) - picture.min(axis=2) > 60
    assert 6 <= colored.sum() <= 40


def test_costmap_tells_the_cost_under_the_pointer(page):
    tip = "document.querySelector(\"[data-run='0'] .costmap .tip\").textContent"
    left, top, width, height = page.box("[data-run='0'] .costmap")
    about = page.evaluate("JSON.parse(document.querySelector(\"[data-run='0'] .costmap script\").textContent).origin")
    pixels = page.evaluate("document.querySelector(\"[data-run='0'] .costmap img\").naturalWidth")
    for (x, y), words in {(0.95, 0.95): "lethal (100)", (0.35, 0.35): "cost 50", (1.55, 0.35): "free (0)"}.items():
        page.move(
            left + (x - about[0]) / (0.1 * pixels) * width, top + height - (y - about[1]) / (0.1 * pixels) * width
        )
        assert page.evaluate(tip) == f"{words} at ({x:.2f}, {y:.2f}) m"


def test_dark_theme_makes_the_page_dark(page):
    light = page.picture().mean()
    page.click("button.theme")
    assert page.picture().mean() < 0.4 * light


def test_page_of_a_map_alone_works_too(browser, tmp_path):
    from perception.cli.main import main

    room_map().write_binary(tmp_path / "map.bt")
    assert main(["view", str(tmp_path / "map.bt"), "--html", str(tmp_path / "map.html")]) == 0
    browser.size(1000, 700)
    browser.theme("dark")
    browser.open(tmp_path / "map.html")
    browser.wait_for(READY)
    browser.settle()
    assert browser.errors == []
    assert np.unique(browser.picture(CANVAS).reshape(-1, 3), axis=0).shape[0] > 20
