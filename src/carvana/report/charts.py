"""Draw a report's charts as SVG whose colours are the page's own, light or dark."""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from carvana.recipe import Recipe
from carvana.report.examine import BANDS, THRESHOLDS, Examined

REPORTED = {"dice": 0.87, "accuracy": 0.95}  # in the article, of validation, after 5 epochs
ROWS = 16  # of a chart with a row for each group
COLOURS = {  # drawn in these, shown in the variables of style.css
    "ink": "#1c1e21",
    "muted": "#5c6168",
    "line": "#dcdcd6",
    "accent": "#1f5fc4",
    "missed": "#2b7fff",
    "extra": "#e67700",
    "confused": "#d63384",
    "run-1": "#7a4fbf",
    "run-2": "#1f8a5b",
    "run-3": "#b8860b",
    "run-4": "#c2405a",
}
_STYLE = Path(__file__).parent / "assets" / "charts.mplstyle"


@dataclass(frozen=True)
class Chart:
    """A chart, and what is written above and below it."""

    title: str
    svg: str
    caption: str = ""


def curves(history: pd.DataFrame, recipe: Recipe, reported: bool) -> list[Chart]:
    """Draw Dice, accuracy and loss by epoch; with `reported`, the article's values too."""
    charts = []
    for name in ("dice", "accuracy", "loss"):
        with _axes("epoch") as axes:
            for end in filter(None, recipe.training.stage_ends[:-1]):
                axes.axvline(end + 0.5, color=COLOURS["line"])
            epochs, training, held_out = (history[key] for key in ("epoch", name, f"val_{name}"))
            axes.plot(epochs, training, ":", color=COLOURS["muted"], label="training")
            axes.plot(epochs, held_out, color=COLOURS["accent"], label="validation")
            if reported and name in REPORTED:
                label = f"the article: {REPORTED[name]:g}"
                axes.axhline(REPORTED[name], ls="--", color=COLOURS["ink"], lw=1, label=label)
            if name == "loss":
                _scale_by_powers(axes)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
            charts.append(_finish(axes, name.capitalize()))
    return charts


def _scale_by_powers(axes: Axes) -> None:
    """Give the upright axis a logarithmic scale with plain numbers."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    by_powers = LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,))
    axes.yaxis.set_major_locator(by_powers if high > 5 * low else MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.minorticks_off()


def histogram(groups: Mapping[str, Sequence[float]]) -> Chart:
    """Draw how many photographs have which Dice, of one group or of several runs.

    The axis begins at the first percentile or so; lower values are in the first bar.
    """
    low = np.percentile(np.concatenate(list(groups.values())), 1)
    edges = np.unique(np.minimum(MaxNLocator(24).tick_values(low, 1.0), 1.0).round(6))
    with _axes("Dice", "photographs") as axes:
        for number, (name, values) in enumerate(groups.items(), 1):
            counts = np.histogram(np.maximum(values, edges[0]), edges)[0]
            mean = float(np.mean(values))
            if len(groups) == 1:
                axes.stairs(counts, edges, fill=True, color=COLOURS["accent"])
                axes.axvline(mean, ls="--", lw=1, color=COLOURS["ink"], label=f"mean {mean:.4f}")
            else:
                label = f"mean {mean:.4f}, {name}"
                axes.stairs(counts, edges, color=run_colour(number), lw=1.8, label=label)
        axes.legend()
        axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        caption = f"Photographs below {edges[0]:g} are in the first bar."
        lowest = min(map(min, groups.values()))
        return _finish(axes, "Distribution of Dice", caption if lowest < edges[0] else "")


def spread(title: str, groups: Mapping[str, Sequence[float]], caption: str) -> Chart:
    """Draw a row for each group: its mean Dice as a dot, its lowest to its highest as a line."""
    names = list(groups)[:ROWS]
    with _axes("Dice", height=0.7 + 0.19 * len(names)) as axes:
        for row, name in enumerate(names):
            values = groups[name]
            axes.plot([min(values), max(values)], [row, row], color=COLOURS["muted"], lw=1)
            axes.plot(np.mean(values), row, "o", ms=4.5, color=COLOURS["accent"])
        axes.grid(visible=False, axis="y")
        axes.grid(axis="x")
        labels = [f"{name}   {np.mean(groups[name]):.4f}" for name in names]
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if len(groups) > len(names):
            caption += f" The {ROWS} worst of {len(groups)}."
        return _finish(axes, title, caption)


def thresholds(examined: Sequence[Examined], used: float) -> Chart:
    """Draw the mean Dice that each threshold of the probability would give."""
    means = np.mean([one.at_thresholds for one in examined], axis=0)
    middle = (THRESHOLDS >= 0.1) & (THRESHOLDS <= 0.9)
    inside = means >= means[middle].min()
    best = int(means.argmax())
    with _axes("threshold of the probability", "mean Dice") as axes:
        axes.plot(THRESHOLDS[inside], means[inside], color=COLOURS["accent"])
        axes.plot(THRESHOLDS[best], means[best], "o", color=COLOURS["accent"])
        axes.axvline(used, ls="--", lw=1, color=COLOURS["ink"])
        axes.set_xlim(0, 1)
        caption = (
            f"The highest mean Dice is {means[best]:.4f}, at {THRESHOLDS[best]:g}; the dashed line "
            f"is the threshold used, {used:g}."
        )
        return _finish(axes, "Mean Dice by threshold", caption)


def certainty(examined: Sequence[Examined]) -> Chart:
    """Plot each photograph's true against its expected Dice."""
    expected = pd.Series([one.expected for one in examined])
    dices = pd.Series([one.dice for one in examined])
    correlation = expected.rank().corr(dices.rank())  # Spearman's
    unsure = expected.nsmallest(-(-len(dices) // 10)).index  # a tenth
    worst = dices.nsmallest(-(-len(dices) // 20)).index  # a twentieth
    found = len(worst.intersection(unsure))
    caption = (
        "Each dot is a photograph. Expected Dice is computed from the probabilities alone; on the "
        f"dashed line it equals the true Dice. The rank correlation is {correlation:.2f}: the "
        f"{len(unsure)} photographs with the lowest expected Dice include {found} of the "
        f"{len(worst)} worst."
    )
    with _axes("expected Dice", "Dice") as axes:
        _scatter(axes, expected, dices, COLOURS["accent"])
        return _finish(axes, "Dice by certainty", caption)


def distances(shares: np.ndarray) -> Chart:
    """Draw the share of wrong pixels, (kinds, bands), by distance from the true edge."""
    names = ["1", "2", *(f"{low + 1}-{high}" for low, high in pairwise(BANDS[1:]))]
    names.append(f">{BANDS[-1]}")
    with _axes("pixels from the true edge", "% of wrong pixels") as axes:
        base = np.zeros(len(names))
        for kind, values in zip(("missed", "extra", "confused"), shares * 100, strict=True):
            axes.bar(range(len(names)), values, bottom=base, color=COLOURS[kind])
            base += values
        axes.set_xticks(range(len(names)), names)
        return _finish(axes, "Wrong pixels by distance from the true edge")


def differences(
    left: str, right: str, x: np.ndarray, y: np.ndarray, number: int
) -> tuple[Chart, Chart]:
    """Draw each photograph's Dice in the first run and in that of a number, and the difference."""
    worse, better = run_colour(1), run_colour(number)
    with _axes(f"Dice of {left}", f"Dice of {right}") as axes:
        _scatter(axes, x, y, np.where(y > x, better, worse))
        caption = f"Each dot is a photograph; above the line, {right} is better."
        against = _finish(axes, "Dice of each photograph", caption)
    with _axes("photographs, ordered by difference", "difference in Dice") as axes:
        gain = np.sort(y - x)
        axes.bar(range(len(gain)), gain, width=1, color=np.where(gain > 0, better, worse))
        axes.set_xticks([])
        caption = f"Above zero, {right} is better; below, {left}."
        return against, _finish(axes, "Difference in Dice", caption)


def run_colour(number: int) -> str:
    """Return the colour of a compared run; numbers count from 1."""
    return COLOURS[f"run-{(number - 1) % 4 + 1}"]


def _scatter(axes: Axes, x: Sequence[float], y: Sequence[float], colours) -> None:
    """Draw dots and the diagonal, both axes from the least value of either."""
    axes.scatter(x, y, s=10, c=colours, alpha=0.8, linewidths=0)
    low, high = min(*x, *y), max(*x, *y)
    slack = (high - low) * 0.04 or 0.001
    ends = low - slack, high + slack
    axes.plot(ends, ends, "--", lw=1, color=COLOURS["muted"])
    axes.set(xlim=ends, ylim=ends)


@contextlib.contextmanager
def _axes(x_label: str, y_label: str = "", height: float = 2.7) -> Iterator[Axes]:
    """Open an empty chart, `height` inches high; finish it before the block ends."""
    with rc_context(fname=_STYLE):
        axes = Figure(figsize=(4.4, height), layout="constrained").subplots()
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(axis="y")
        yield axes


def _finish(axes: Axes, title: str, caption: str = "") -> Chart:
    """Write a chart as an `<svg>` element for the page."""
    file = io.StringIO()
    axes.figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    unwanted = r"<metadata>.*?</metadata>|<style.*?</style>| id=\"[\w.]+_\d+\"|font-family: .*?; "
    svg = re.sub(unwanted, "", svg, flags=re.DOTALL)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return Chart(title, svg, caption)
