# SPDX-License-Identifier: Apache-2.0
"""Curves as SVG that stands in the page: axes with units, a legend, values under the pointer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.report.page import data, text

WIDTH, HEIGHT = 600, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 12, 36
MAX_POINTS = 400
DOT = "m-.9 0a.9.9 0 1 0 1.8 0a.9.9 0 1 0-1.8 0"
"""A value between two gaps; shorter than a dash."""


@dataclass(frozen=True, slots=True)
class Series:
    """One curve.

    Attributes:
        name: as in the legend.
        x: (N,) ascending.
        y: (N,) values, NaN where there is none.
        color: name of a custom property of the style sheet, such as ``--run-0``.
        dashed: drawn with gaps, so that two curves differ without colors, too.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    color: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class _Axis:
    """From values to pixels, straight or by the logarithm."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def pixels(self, values: Any) -> NDArray[np.float64]:
        low, high, values = self.low, self.high, np.asarray(values, np.float64)
        if self.logarithmic:
            low, high, values = math.log10(low), math.log10(high), np.log10(np.maximum(values, 1e-300))
        return self.begin + (values - low) / (high - low) * (self.end - self.begin)

    def ticks(self, count: int = 5) -> list[float]:
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1,) if len(decades) > 3 else (1, 2, 5)
            values = [factor * 10.0**decade for decade in decades for factor in factors]
        else:
            step = nice_step(self.high - self.low, count)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            values = [step * number for number in range(first, last + 1)]
        return [value for value in values if self.low * (1 - 1e-9) - 1e-12 <= value <= self.high * (1 + 1e-9)]


def nice_step(span: float, count: int) -> float:
    """1, 2 or 5 times a power of ten, so that a span has about so many steps."""
    raw = max(span, 1e-12) / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    unit: str,
    limits: tuple[float, float] | None = None,
    logarithmic: bool = False,
) -> str:
    """A chart of curves over one axis; empty text when no curve has a value.

    Args:
        title: with the quantity, plain text.
        series: the curves.
        x_label: quantity of the horizontal axis with its unit in the end, such as "time, s".
        unit: of the values; empty for shares.
        limits: of the vertical axis; None fits it to the values, from 0 on.
        logarithmic: vertical axis by the logarithm; values must be positive, others are left out.
    """
    series = [thinned(one, logarithmic) for one in series]
    series = [one for one in series if np.isfinite(one.y).any()]
    if not series:
        return ""
    horizontal = _axis_of(np.concatenate([one.x for one in series]), LEFT, WIDTH - RIGHT)
    vertical = _vertical(np.concatenate([one.y for one in series]), limits, logarithmic)
    lines = [f'<path class="line" {_stroke(one)} d="{_path(one, horizontal, vertical)}"/>' for one in series]
    svg = _frame(horizontal, vertical, x_label, title) + "".join(lines)
    return _figure(f"{title}, {unit}" if unit else title, svg, series, _readout(series, horizontal, x_label, unit))


def _stroke(series: Series) -> str:
    dashes = ' stroke-dasharray="6 4"' if series.dashed else ""
    return f'style="stroke:var({series.color})"{dashes}'


def thinned(series: Series, positive: bool = False) -> Series:
    """At most ``MAX_POINTS`` points: of each stretch the least and the greatest value, so that no peak is lost."""
    y = np.where(series.y > 0, series.y, np.nan) if positive else series.y
    if len(y) <= MAX_POINTS:
        return Series(series.name, series.x, y, series.color, series.dashed)
    kept = []
    for part in np.array_split(np.arange(len(y)), MAX_POINTS // 2):
        known = part[np.isfinite(y[part])]
        # A stretch without a value stays a gap.
        kept += sorted({known[np.argmin(y[known])], known[np.argmax(y[known])]}) if len(known) else [part[0]]
    return Series(series.name, series.x[kept], y[kept], series.color, series.dashed)


def without_gaps(series: Series) -> Series:
    """The points that have a value, to be joined: for what is known of every so many frames alone."""
    known = np.isfinite(series.y)
    return replace(series, x=series.x[known], y=series.y[known])


def _axis_of(values: NDArray[np.float64], begin: float, end: float) -> _Axis:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return _Axis(low, high if high > low else low + 1.0, begin, end)


def _vertical(values: NDArray[np.float64], limits: tuple[float, float] | None, logarithmic: bool) -> _Axis:
    begin, end = HEIGHT - BOTTOM, TOP
    if limits is not None:
        return _Axis(*limits, begin, end)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if logarithmic:
        return _Axis(low / 1.3, high * 1.3, begin, end, True)
    step = nice_step(max(high, 0.0) - min(low, 0.0), 5)
    return _Axis(step * math.floor(min(low, 0.0) / step), max(step * math.ceil(high / step), step), begin, end)


def _path(series: Series, horizontal: _Axis, vertical: _Axis) -> str:
    xs, ys = horizontal.pixels(series.x), vertical.pixels(series.y)
    known = np.pad(np.isfinite(ys), 1)
    parts = []
    for i, (x, y) in enumerate(zip(xs.tolist(), ys.tolist(), strict=True), 1):
        if known[i]:
            parts.append(f"{'L' if known[i - 1] else 'M'}{x:.1f} {y:.1f}")
            parts += [] if known[i - 1] or known[i + 1] else [DOT]
    return "".join(parts)


def _frame(horizontal: _Axis, vertical: _Axis, x_label: str, title: str) -> str:
    """Grid, ticks and the names of both axes."""
    bottom, parts = HEIGHT - BOTTOM, []
    for value in vertical.ticks():
        y = float(vertical.pixels(value))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick(value)}</text>')
    for value in horizontal.ticks(8):
        x = float(horizontal.pixels(value))
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_tick(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{text(x_label)}</text>')
    return f"<title>{text(title)}</title>" + "".join(parts)


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _signed_tick(value: float) -> str:
    return _tick(value) if value == 0 else f"{'+' if value > 0 else '−'}{_tick(abs(value))}"


def _readout(series: Sequence[Series], horizontal: _Axis, x_label: str, unit: str) -> dict[str, Any]:
    return {
        "left": LEFT,
        "width": WIDTH - LEFT - RIGHT,
        "unit": unit,
        "x_unit": x_label.rpartition(", ")[2],
        "series": [
            {
                "name": one.name,
                "color": f"var({one.color})",
                "x": [round(float(x), 1) for x in horizontal.pixels(one.x)],
                "t": [_significant(x) for x in one.x],
                "y": [_significant(y) for y in one.y],
            }
            for one in series
        ],
    }


def _significant(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _figure(title: str, svg: str, series: Sequence[Series], readout: dict[str, Any]) -> str:
    entries = "".join(f'<li><i style="background:{_mark(one)}"></i>{text(one.name)}</li>' for one in series)
    legend = f'<ul class="legend">{entries}</ul>' if len(series) > 1 else ""
    return (
        f'<figure><b>{text(title)}</b><div class="chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{svg}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg><div class="readout" hidden></div>'
        f'<script type="application/json">{data(readout)}</script></div>{legend}</figure>'
    )


def _mark(series: Series) -> str:
    """The curve's stroke, as a background of the legend."""
    color = f"var({series.color})"
    return f"repeating-linear-gradient(to right,{color} 0 5px,transparent 5px 8px)" if series.dashed else color


def reliability_chart(bins: Sequence[dict[str, Any]], error: float | None = None) -> str:
    """Accuracy over confidence with the diagonal of perfect calibration.

    Args:
        bins: as ``summary.json`` has them.
        error: expected calibration error, for the title.
    """
    used = [one for one in bins if one.get("count")]
    if not used:
        return ""
    confidence = np.array([one["confidence"] for one in used], np.float64)
    accuracy = np.array([one["accuracy"] for one in used], np.float64)
    ends = np.array([0.0, 1.0])
    return line_chart(
        "Accuracy over confidence" + ("" if error is None else f" (expected calibration error {error:.3f})"),
        [
            Series("perfectly calibrated", ends, ends, "--faint", True),
            Series("measured", confidence, accuracy, "--run-0"),
        ],
        "confidence of the network, share",
        "",
        (0.0, 1.0),
    )


def interval_chart(title: str, unit: str, rows: Sequence[tuple[str, float, float, float]], better: str) -> str:
    """Differences with their intervals, one line each.

    Args:
        title: plain text.
        unit: of the differences.
        rows: name, difference, and lower and upper end of its interval.
        better: "higher", "lower" or "none": which side is colored as better.
    """
    height = 36 * len(rows) + BOTTOM + 6
    reach = max(max(abs(low), abs(high)) for _, _, low, high in rows) or 1.0
    axis = _Axis(-1.08 * reach, 1.08 * reach, 12, WIDTH - 12)
    parts = []
    for value in axis.ticks():
        x = float(axis.pixels(value))
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - BOTTOM + 15}" text-anchor="middle">{_signed_tick(value)}</text>')
    zero = float(axis.pixels(0.0))
    parts.append(f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{height - BOTTOM}"/>')
    for number, (name, middle, low, high) in enumerate(rows):
        y, color = 36 * number + 26, _verdict_color(low, high, better)
        x, left, right = (float(axis.pixels(value)) for value in (middle, low, high))
        parts.append(f'<text class="name" x="4" y="{y - 11}">{text(name)}</text>')
        parts.append(
            f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}" stroke-width="3" style="stroke:{color}"/>'
        )
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="4.5" style="fill:{color}"/>')
    label = f"difference to the first run{', ' + unit if unit else ''}"
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{height - 4}" text-anchor="end">{text(label)}</text>')
    return (
        f'<figure><b>{text(title)}</b><div class="intervals"><svg viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{text(title)}</title>{''.join(parts)}</svg></div></figure>"
    )


def _verdict_color(low: float, high: float, better: str) -> str:
    if better == "none" or low <= 0 <= high:
        return "var(--faint)"
    return "var(--good)" if (low > 0) == (better == "higher") else "var(--bad)"
