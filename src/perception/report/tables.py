# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them, and tables of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from perception.report.page import text

Cell = str
"""HTML of one ``<td>``."""


NONE = "n/a"
"""Where there is no number; why not stands beside it."""
LONG_WORD = 20
"""Letters that stay on one line."""


def number(value: Any, unit: str = "") -> str:
    """A number with as many digits as say something, and its unit; "n/a" for none."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return NONE if value is None else text(value)
    if isinstance(value, int):
        shown = f"{value:,.0f}"
    elif (size := _rounded(value)) >= 100:
        shown = f"{value:,.1f}"
    else:
        # Trailing zeros stay, so that numbers below each other are as exact as they look.
        shown = f"{value:#.3g}" if size >= 1 or 0 < size < 0.001 else f"{value:.3f}"
    return f"{shown} {text(unit)}" if unit else shown


def _rounded(value: float) -> float:
    """Size to three digits, which says how a number is written: 99.96 as 100.0 is."""
    return float(f"{abs(value):.3g}")


def signed_number(value: float) -> str:
    """A difference with its sign and three digits; none for zero."""
    sign = "" if value == 0 else "+" if value > 0 else "−"
    if _rounded(value) >= 100:
        return f"{sign}{abs(value):,.1f}"
    return f"{sign}{abs(value):#.3g}" if value else "0"


def cell(value: Any, unit: str = "", kind: str = "", why: str = "") -> Cell:
    """A number; sorted by its value, not by its text.

    Args:
        value: as shown; None for none.
        unit: of the value.
        kind: class of the style sheet.
        why: there is none, shown to who points at it.
    """
    if value is None:
        return none_cell(why)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    attributes = f' class="{kind}"' if kind else ""
    return f'<td{attributes} data-value="{value if known else ""}">{number(value, unit)}</td>'


def none_cell(why: str = "") -> Cell:
    """A cell without a number, and the reason for who points at it."""
    title = f' title="{text(why)}"' if why else ""
    return f'<td class="none"{title} data-value="">{NONE}</td>'


def heat_cell(value: float | None, share: float | None = None, kind: str = "heat", why: str = "") -> Cell:
    """A number from 0 to 1 on the page's one scale from nothing to full color.

    Args:
        value: as shown; None for none.
        share: what the color stands for, where it is not the value.
        kind: "heat" for what should be high, "miss" for what should be low.
        why: there is none, shown to who points at it.
    """
    if value is None:
        return none_cell(why)
    strength = min(max(value if share is None else share, 0.0), 1.0)
    return f'<td class="{kind}" style="--share:{strength:.3f}" data-value="{value}">{value:.3f}</td>'


def words(value: Any) -> Cell:
    """Plain text."""
    return f'<td class="text">{text(value)}</td>'


def swatch(color: Sequence[int]) -> str:
    """A small square of a color."""
    red, green, blue = (int(channel) for channel in color)
    return f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>'


def class_cell(name: str, color: Sequence[int] | None) -> Cell:
    """A class with its color."""
    return f'<td data-value="{text(name)}">{swatch(color) if color is not None else ""}{text(name)}</td>'


def name_cell(name: str, color: str = "") -> Cell:
    """What a row is about, with a color of the style sheet."""
    mark = f'<span class="swatch" style="background:var({color})"></span>' if color else ""
    return f'<td class="name" style="--length:{len(name) + 6}ch" data-value="{text(name)}">{mark}{breakable(name)}</td>'


def breakable(name: str) -> str:
    """A name as HTML that may break before values, and in long words after the signs that join their parts."""
    words = (re.split(r"(?<==)(?=.)", word) for word in name.split(" "))
    return " ".join("<wbr>".join(text(piece) for part in word for piece in _pieces(part)) for word in words)


def _pieces(word: str) -> list[str]:
    return [word] if len(word) <= LONG_WORD else re.findall(r"[^_./]*[_./]+|[^_./]+", word)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    caption: str = "",
    sortable: bool = False,
    left: Sequence[int] = (0,),
    titles: Sequence[str] = (),
) -> str:
    """A table; empty text without rows.

    Args:
        head: plain text of the columns' heads.
        rows: cells as the functions above make them.
        caption: plain text above it.
        sortable: a click on a head sorts by its column.
        left: columns of words, whose heads stand on the left like them.
        titles: what the heads are short for, shown to who points at them.
    """
    if not rows:
        return ""
    hints = [f' title="{text(title)}"' if title else "" for title in titles] or [""] * len(head)
    mark = ' aria-sort="none"' if sortable else ""
    sides = [' class="text"' if i in left else "" for i in range(len(head))]
    heads = "".join(
        f'<th scope="col"{side}{mark}{hint}>{breakable(name)}</th>'
        for name, side, hint in zip(head, sides, hints, strict=True)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    # Not in the table: there it would be as wide as that, and cut at the edge of a small window.
    title = f'<p class="caption">{text(caption)}</p>' if caption else ""
    return f'{title}<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def color_legend(entries: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Names beside their colors."""
    items = "".join(f"<li>{swatch(color)}{text(name)}</li>" for name, color in entries)
    return f'<ul class="legend">{items}</ul>' if items else ""


def sentences(lines: Sequence[str]) -> str:
    """A list of plain sentences."""
    return f'<ul class="notes">{"".join(f"<li>{text(line)}</li>" for line in lines)}</ul>' if lines else ""


def card(title: str, content: str, identifier: str = "") -> str:
    """A titled part of the page; empty text without content."""
    if not content:
        return ""
    mark = f' id="{text(identifier)}"' if identifier else ""
    return f'<section class="card"{mark}><h2>{text(title)}</h2>{content}</section>'
