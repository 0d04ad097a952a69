"""Line charts as inline SVG that follows the page's colours."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT = 760, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 30, 38
_COLOURS = ("var(--accent)", "#d9822b", "#2f9e6e", "#b4488f")

Points = Sequence[tuple[float, float]]


def line_chart(series: Mapping[str, Points], *, x_label: str, y_label: str, title: str) -> str:
    """A chart of one or more lines.

    Args:
        series: Name → `(x, y)` points, x ascending.
        x_label: Under the axis.
        y_label: Above the axis.
        title: For screen readers.

    Returns:
        An `<svg>`; a line of text where there are no points.
    """
    points = [point for line in series.values() for point in line if math.isfinite(point[1])]
    if not points:
        return "<p>No points yet.</p>"
    xs, ys = (
        ticks(min(x for x, _ in points), max(x for x, _ in points)),
        ticks(min(y for _, y in points), max(y for _, y in points)),
    )

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / (xs[-1] - xs[0])
        up = (y - ys[0]) / (ys[-1] - ys[0])
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">']
    for y in ys:
        _, at = place(xs[0], y)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="var(--line)"/>')
        parts.append(_text(_LEFT - 6, at + 4, f"{y:g}", anchor="end"))
    for x in xs:
        at, _ = place(x, ys[0])
        parts.append(_text(at, _HEIGHT - _BOTTOM + 16, f"{x:g}", anchor="middle"))
    for number, line in enumerate(series.values()):
        colour = _COLOURS[number % len(_COLOURS)]
        shape = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(*point) for point in line if math.isfinite(point[1])))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{shape}"/>')
    if len(series) > 1:
        parts.append(_legend(list(series)))
    parts.append(_text(_WIDTH / 2, _HEIGHT - 4, x_label, anchor="middle"))
    parts.append(_text(4, 12, y_label, anchor="start"))
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers that span a range: at least two, about `most`."""
    if high <= low:
        low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
    raw = (high - low) / (most - 1)
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def smooth(points: Points, *, share: float = 0.05) -> list[tuple[float, float]]:
    """The running mean over a window of `share` of the points."""
    half = max(int(len(points) * share / 2), 0)
    out = []
    for number, (x, _) in enumerate(points):
        near = [y for _, y in points[max(0, number - half) : number + half + 1]]
        out.append((x, sum(near) / len(near)))
    return out


def _text(x: float, y: float, text: str, *, anchor: str, colour: str = "var(--soft)") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="11.5" fill="{colour}">{html.escape(text)}</text>'


def _legend(names: Sequence[str]) -> str:
    """The lines' names in their colours, in one row above the plot, where no line runs."""
    spans = [
        f'<tspan dx="{14 if number else 0}" fill="{_COLOURS[number % len(_COLOURS)]}">{html.escape(name)}</tspan>'
        for number, name in enumerate(names)
    ]
    return f'<text x="{_WIDTH - _RIGHT}" y="12" text-anchor="end" font-size="11.5">{"".join(spans)}</text>'
