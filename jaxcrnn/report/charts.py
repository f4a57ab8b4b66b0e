"""Small scalable SVG charts, which take their colors from the style of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 360, 230  # the width of a phone, so that text is not shrunk there
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 10, 36
# Series differ in dashes as well as in color, for color-blind readers.
DASHES = ("", "6 3", "2 3", "9 3 2 3", "1 2", "12 4")


def series_style(number: int) -> str:
    """Return the SVG attributes of a series in a chart and in its legend."""
    dash = DASHES[number % len(DASHES)]
    return f'class="s{number % 8}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    percent: bool = False,
    zero: bool = False,
    order: Sequence[str] = (),
) -> Markup:
    """Draw a line chart with a legend.

    Args:
      series: points ``(x, y)`` by name; non-finite points are skipped.
      title: title for screen readers.
      x_label: label of the x axis.
      y_label: label of the y axis.
      percent: format values as percentages.
      zero: start the y axis at 0.
      order: all names of a page, so that each has the same style in every chart.
    """
    drawn = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)] for name, points in series.items()
    }
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return Markup("<p>{}: nothing to draw.</p>").format(title)
    xs, ys = ([p[i] for points in drawn.values() for p in points] for i in (0, 1))
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(0.0 if zero else min(ys), max(ys))
    x_low, x_high = min(*xs, x_ticks[0]), max(*xs, x_ticks[-1])
    y_low, y_high = min(*ys, y_ticks[0]), max(*ys, y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low or 1) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low or 1) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in y_ticks:
        at = place(x_low, y)[1]
        shown = f"{100 * y:g}%" if percent else f"{y:g}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{shown}</text>')
    for x in x_ticks:
        across = place(x, y_low)[0]
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{x:g}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(
        f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">{escape(y_label)}</text>'
    )
    numbers = {name: n for n, name in enumerate(order or drawn)}
    for name, points in drawn.items():
        number = numbers[name]
        spelled = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        parts.append(f'<polyline {series_style(number)} points="{spelled}"/>')
    ends = "; ".join(f"{name} ends at {_number(points[-1][1], percent)}" for name, points in drawn.items())
    return _figure(parts, f"{title}. {ends}.") + key({name: numbers[name] for name in drawn})


def key(names: Mapping[str, int]) -> Markup:
    """Draw the legend of a chart from names and series numbers."""
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 26 8" aria-hidden="true"><line {series_style(n)} x1="0" x2="26" y1="4" '
        f'y2="4"/></svg>{escape(name)}</li>'
        for name, n in names.items()
    )
    return Markup(f'<ul class="keys">{items}</ul>')


def intervals(bars: Mapping[str, tuple[float, float, float]], *, title: str, x_label: str) -> Markup:
    """Draw estimates with their intervals, in percentage points.

    Args:
      bars: ``(value, low, high)`` by name, as fractions.
      title: title for screen readers.
      x_label: label of the x axis.
    """
    if not bars:
        return Markup("<p>{}: nothing to draw.</p>").format(title)
    scaled = {name: [100 * part for part in bar] for name, bar in bars.items()}
    marks = ticks(min(0.0, *(bar[1] for bar in scaled.values())), max(0.0, *(bar[2] for bar in scaled.values())))
    left, row = min(max(100, 14 + 6 * max(map(len, bars))), WIDTH // 2), 22
    height = TOP + row * len(bars) + 40

    def across(value: float) -> float:
        return left + (value - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - left - 14)

    parts = []
    for mark in marks:
        kind = "axis" if mark == 0 else "grid"
        at = across(mark)
        parts.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{height - 36}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 22}" text-anchor="middle">{mark:g}</text>')
    middle = (left + WIDTH - 14) / 2
    parts.append(f'<text x="{middle}" y="{height - 5}" text-anchor="middle">{escape(x_label)}</text>')
    for number, (name, (value, low, high)) in enumerate(scaled.items()):
        y = TOP + row * (number + 0.5)
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<line class="bar" x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{across(value):.1f}" cy="{y}" r="4"/>')
    spoken = "; ".join(f"{name} {v:+.2f}, from {low:+.2f} to {high:+.2f}" for name, (v, low, high) in scaled.items())
    return _figure(parts, f"{title}. {spoken}.", height=height)


def scatter(points: Sequence[tuple[float, float, str, int]], *, title: str) -> Markup:
    """Draw characters at points of a plane.

    Args:
      points: ``(x, y, character, series)``.
      title: title for screen readers.
    """
    if not points:
        return Markup("<p>{}: nothing to draw.</p>").format(title)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, span = (min(xs), min(ys)), max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)
    size, edge = WIDTH - 24, 12
    parts = []
    for x, y, character, number in points:
        across, down = edge + (x - low[0]) / span * size, edge + (y - low[1]) / span * size
        at = f'x="{across:.1f}" y="{down:.1f}" text-anchor="middle"'
        parts.append(f'<text class="f{number % 8}" {at}>{escape(character)}</text>')
    return _figure(parts, title, height=WIDTH)


def _figure(parts: Sequence[str], title: str, height: int = HEIGHT) -> Markup:
    label = escape(title, quote=True)
    return Markup(
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {height}" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}%" if percent else f"{value:.4g}"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Choose round tick values from one at or below ``low`` to one at or above ``high``.

    >>> ticks(0.0, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(130, 610)
    [100, 200, 300, 400, 500, 600, 700]
    """
    span = high - low or abs(high) or 1.0
    raw = span / (most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
    return [int(v) for v in values] if all(float(v).is_integer() and step >= 1 for v in values) else values
