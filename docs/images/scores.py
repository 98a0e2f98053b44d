"""Draw the README's plot: Dice against minutes of training, from the table of its recipes.

.venv/bin/python docs/images/scores.py
"""

import re
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

README = Path(__file__).parents[2] / "README.md"
OTHERS = {  # on the competition's own board, private part; their minutes are not known
    "first place, an ensemble: 0.9973": 0.997332,
    "milesial/Pytorch-UNet: 0.9884": 0.988423,
}


def read_table() -> dict[str, tuple[float, float]]:
    """Return the minutes and the Dice of each recipe."""
    points = {}
    for line in README.read_text(encoding="utf-8").splitlines():
        if row := re.match(r"\| `(\w+)` \|.*\| (0\.\d+) \| (\d+) min", line):
            points[row[1]] = (int(row[3]), float(row[2]))
    return points


def main() -> None:
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, (minutes, dice) in read_table().items():
        axes.plot(minutes, 1 - dice, "o", ms=9, color="#1f5fc4")
        left = minutes > 100
        axes.annotate(
            f"{name}: {dice:g}",
            (minutes, 1 - dice),
            (-10, 4) if left else (10, -12),
            textcoords="offset points",
            ha="right" if left else "left",
        )
    for name, dice in OTHERS.items():
        axes.axhline(1 - dice, color="#5c6168", lw=1, ls="--")
        axes.annotate(name, (1.6, 1 - dice), (0, -13), textcoords="offset points", color="#5c6168")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1.5, 600)
    axes.set_ylim(0.15, 0.0022)  # the better, the higher
    axes.set_xticks([2, 5, 10, 30, 60, 120, 300], ["2", "5", "10", "30", "1 h", "2 h", "5 h"])
    axes.set_yticks([0.1, 0.05, 0.02, 0.01, 0.005, 0.003])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{1 - error:g}"))
    axes.minorticks_off()
    axes.set_xlabel("minutes of training on two CPU cores")
    axes.set_ylabel("Dice")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_name("scores.png"), dpi=110)


if __name__ == "__main__":
    main()
