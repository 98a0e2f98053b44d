"""Charts of a report: what the template draws as SVG, in the page's own colours."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 24, 38  # margins, for the axes' numbers and names


@dataclass
class Chart:
    """A chart: its axes, and its marks in the order they are drawn.

    Args:
        title: what it shows, also for who cannot see it.
        x, y: the lowest and highest value of the axis.
        x_label, y_label: what the axes say.
        x_ticks: values and their texts; round numbers when None.
    """

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str = ""
    x_ticks: Sequence[tuple[float, str]] | None = None
    marks: list[dict] = field(default_factory=list)

    def line(self, xs: Iterable[float], ys: Iterable[float], kind: str) -> None:
        """Add a line through points; those that are not numbers are left out."""
        points = [(x, y) for x, y in zip(xs, ys, strict=True) if np.isfinite(y)]
        text = " ".join(f"{self.across(x):.1f},{self.down(y):.1f}" for x, y in points)
        self.marks.append({"shape": "line", "kind": kind, "points": text})
        if len(points) == 1:
            self.dot(*points[0], kind)

    def dot(self, x: float, y: float, kind: str, says: str = "") -> None:
        """Add a dot; `says` is shown where the mouse rests on it."""
        place = {"x": self.across(x), "y": self.down(y)}
        self.marks.append({"shape": "dot", "kind": kind, "says": says, **place})

    def span(self, x: float, low: float, high: float, kind: str) -> None:
        """Add a thin upright line."""
        ends = {"x": self.across(x), "top": self.down(high), "bottom": self.down(low)}
        self.marks.append({"shape": "span", "kind": kind, **ends})

    def bar(
        self, x: tuple[float, float], y: tuple[float, float], kind: str, says: str = ""
    ) -> None:
        """Add a bar that covers `x`, from the lower to the higher `y`."""
        left, right = (self.across(each) for each in x)
        bottom, top = (self.down(each) for each in y)
        box = {"x": left + 0.5, "y": top, "width": max(right - left - 1, 0.5)}
        self.marks.append(
            {"shape": "bar", "kind": kind, "says": says, "height": bottom - top, **box}
        )

    def level(self, y: float, text: str) -> None:
        """Add a dashed line at a height, and what it stands for."""
        self.marks.append({"shape": "level", "y": self.down(y), "text": text})

    def mark(self, x: float, text: str = "", kind: str = "") -> None:
        """Add a dashed upright line, and what it stands for."""
        at = self.across(x)
        anchor = "end" if at > WIDTH * 0.6 else "start"
        self.marks.append({"shape": "mark", "kind": kind, "x": at, "text": text, "anchor": anchor})

    def across(self, x: float) -> float:
        """Return where a value lies from left to right."""
        low, high = self.x
        return LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def down(self, y: float) -> float:
        """Return where a value lies from top to bottom."""
        low, high = self.y
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    @property
    def ticks_across(self) -> list[tuple[float, str]]:
        """Where the numbers under the chart stand, and what they say."""
        if self.x_ticks is None:
            return [(self.across(v), _number(v)) for v in round_numbers(*self.x, 5)]
        return [(self.across(value), text) for value, text in self.x_ticks]

    @property
    def ticks_down(self) -> list[tuple[float, str]]:
        """Where the numbers beside the chart stand, and what they say."""
        return [(self.down(value), _number(value)) for value in round_numbers(*self.y, 5)]


def round_numbers(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers, evenly spread from `low` to `high`."""
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = (high - low) * 1e-6
    return [float(value) for value in values if low - slack <= value <= high + slack]


def limits(values: Iterable[float], top: float | None = None) -> tuple[float, float]:
    """Return round limits around values; `top` is the highest there can be."""
    from matplotlib.ticker import MaxNLocator

    known = [value for value in values if np.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-9:
        low, high = low - 0.01, high + 0.01
    ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    high = float(ticks[-1]) if top is None else min(float(ticks[-1]), top)
    return float(ticks[0]), high


def histogram(title: str, groups: Mapping[str, Sequence[float]], count: int = 24) -> list[Chart]:
    """Draw how Dice is distributed, a chart for each group, on the same axes.

    The axis begins at the first percentile or so; lower values are in the first bar.
    """
    everything = np.concatenate(list(groups.values()))
    low = limits([np.percentile(everything, 1), 1.0], top=1.0)[0]
    edges = np.array([*round_numbers(low, 1.0, count), 1.0])
    edges = edges[np.append(True, np.diff(edges) > 1e-9)]
    counts = [np.histogram(np.maximum(values, edges[0]), edges)[0] for values in groups.values()]
    highest = limits([0, max(np.max(each) for each in counts)])[1]
    charts = []
    for (name, values), number in zip(groups.items(), counts, strict=True):
        chart = Chart(
            f"{title}, {name}" if name else title,
            *((edges[0], 1.0), (0.0, highest)),
            x_label="Dice",
            y_label="photographs",
        )
        for left, right, each in zip(edges, edges[1:], number, strict=False):
            says = f"{left:.4g} to {right:.4g}: {each}"
            if each:
                chart.bar((left, right), (0.0, float(each)), "plain", says)
        mean = float(np.mean(values))
        chart.mark(mean, f"mean {mean:.4f}")
        charts.append(chart)
    return charts


def spread(title: str, groups: Mapping[str, Sequence[float]], x_label: str, ticks: bool) -> Chart:
    """Draw the mean Dice of groups as dots, and their lowest and highest as lines.

    Args:
        title: what the chart shows.
        groups: Dice by group, in order.
        x_label: what the groups are.
        ticks: whether to name the groups, every other one where there are many.
    """
    lowest = [min(values) for values in groups.values()]
    names = list(groups)
    step = 1 + (len(names) - 1) // 10
    chart = Chart(
        title,
        (-0.7, len(names) - 0.3),
        limits([*lowest, max(map(max, groups.values()))], top=1.0),
        x_label=x_label,
        y_label="Dice",
        x_ticks=[(n, names[n]) for n in range(0, len(names), step)] if ticks else [],
    )
    for number, (name, values) in enumerate(groups.items()):
        chart.span(number, min(values), max(values), "plain")
        mean = float(np.mean(values))
        says = f"{name}: mean {mean:.4f}, lowest {min(values):.4f}, {len(values)} photographs"
        chart.dot(number, mean, "plain" if len(groups) <= 40 else "small", says)
    return chart


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
