"""Compare runs on the photographs that all of them were validated on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana.competition.facts import Paths
from carvana.data.pairs import names_in
from carvana.errors import CarvanaError, UsageError
from carvana.files import real_path, write_text
from carvana.prediction.evaluate import summarise
from carvana.recipe import Recipe, differences
from carvana.report.charts import Chart, histogram, limits
from carvana.report.examine import Examined, examine_run
from carvana.report.pictures import Picture, view_two
from carvana.report.report import read_run, render
from carvana.report.words import duration
from carvana.runs.folder import SPLIT, require_metrics

PHOTOGRAPHS = 10  # shown of each pair of runs: half where one is better, half where the other is


@dataclass(frozen=True)
class _Pair:
    """What is shown of two runs side by side."""

    left: str
    right: str
    better: int  # photographs on which the right one is better
    worse: int
    mean: float  # of the differences, right - left
    scatter: Chart
    differences: Chart
    pictures: list[Picture]
    gains: list[int]  # places of pictures
    losses: list[int]


def compare_runs(folders: list[Path], paths: Paths) -> Path:
    """Write `compare-<others>.html` into the first run: figures, Dice and differences.

    Args:
        folders: two runs or more, their trainings finished.
        paths: the data folder of all of them.

    Returns:
        The report's path.

    Raises:
        UsageError: the runs have other classes, or no validation photograph in common.
        CarvanaError: a run is absent or unfinished, the data folder is absent, a photograph or
            mask cannot be used, or the report cannot be written.
    """
    if not paths.root.is_dir():
        raise CarvanaError(f"{paths.root}: no such data folder; name it with --data")
    recipes = [read_run(folder)[0] for folder in folders]
    for folder, recipe in zip(folders, recipes, strict=True):
        if recipe.data.other_classes(recipes[0].data):
            raise UsageError(f"{folder}: has other classes than {folders[0]}; compare runs of one")
    names = set.intersection(*(names_in(folder / SPLIT, "validation") for folder in folders))
    if not names:
        raise UsageError(
            f"{', '.join(map(str, folders))}: no photograph is in the validation split of all; "
            "compare runs with the same data.split, data.validation and data.seed"
        )
    examined = [examine_run(folder, paths, names)[1] for folder in folders]
    titles = _titles(folders)
    pairs = [
        _pair(titles[0], title, examined[0], other, recipes[0])
        for title, other in zip(titles[1:], examined[1:], strict=True)
    ]
    dices = [[one.dice for one in run] for run in examined]
    page = render(
        "compare.html",
        titles=titles,
        count=len(names),
        figures=_figures(folders, recipes, examined),
        changes=[differences(recipe, recipes[0]) for recipe in recipes[1:]],
        histograms=histogram("Dice", dict(zip(titles, dices, strict=True))),
        pairs=pairs,
        classes=recipes[0].data.classes,
    )
    others = "-".join(real_path(folder).name for folder in folders[1:])
    out = folders[0] / f"compare-{others}.html"
    write_text(out, page)
    return out


def _titles(folders: list[Path]) -> list[str]:
    """Name the runs: by their folders' names, or paths where those are the same."""
    names = [real_path(folder).name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _figures(
    folders: list[Path], recipes: list[Recipe], examined: list[list[Examined]]
) -> list[tuple[str, list[str]]]:
    """Return the rows of the table: what a figure is, and its text for each run."""
    columns = []
    for folder, recipe, run in zip(folders, recipes, examined, strict=True):
        metrics, dices = require_metrics(folder), [one.dice for one in run]
        score = summarise([(one.overlap, one.name) for one in run], recipe.data)
        errors = sum(one.errors.sum() for one in run) / sum(one.pixels.sum() for one in run)
        column = {
            "mean Dice": f"{score.mean:.4f}",
            "median": f"{np.median(dices):.4f}",
            "worst photograph": f"{min(dices):.4f}",
            "wrong pixels": f"{errors:.2%}",
        }
        for name in recipe.data.classes:
            dice = score.classes.get(name)
            column[f"Dice of {name}"] = "absent" if dice is None else f"{dice:.4f}"
        column |= {
            "network": recipe.model.network,
            "parameters": f"{metrics.get('parameters', 0):,}",
            "input": f"{recipe.input.width} by {recipe.input.height}",
            "epochs": str(metrics.get("epochs", "")),
            "training": duration(metrics.get("seconds") or 0),
            "photographs a second": f"{metrics.get('images_per_second') or 0:.3g}",
            "device": metrics.get("device", "not recorded"),
            "precision": metrics.get("precision", "not recorded"),
        }
        columns.append(column)
    return [(key, [column[key] for column in columns]) for key in columns[0]]


def _pair(
    left: str, right: str, one: list[Examined], other: list[Examined], recipe: Recipe
) -> _Pair:
    """Compare two runs on the same photographs, in the same order."""
    x, y = (np.array([each.dice for each in run]) for run in (one, other))
    gain = y - x
    order = np.argsort(gain, kind="stable")
    half = min(PHOTOGRAPHS // 2, len(order) // 2 or 1)
    losses = [int(place) for place in order[:half] if gain[place] < 0]
    gains = [int(place) for place in order[::-1][:half] if gain[place] > 0]
    shown = list(dict.fromkeys([*gains, *losses])) or [int(order[-1])]
    return _Pair(
        left=left,
        right=right,
        better=int((gain > 0).sum()),
        worse=int((gain < 0).sum()),
        mean=float(gain.mean()),
        scatter=_scatter(left, right, x, y, [each.name for each in one]),
        differences=_differences(left, right, np.sort(gain)),
        pictures=[view_two(one[place], other[place], recipe) for place in shown],
        gains=[shown.index(place) for place in gains],
        losses=[shown.index(place) for place in losses],
    )


def _scatter(left: str, right: str, x: np.ndarray, y: np.ndarray, names: list[str]) -> Chart:
    both = limits([*x, *y], top=1.0)
    chart = Chart("Dice of each photograph", both, both, x_label=left, y_label=right)
    chart.line(both, both, "same")
    for across, down, name in zip(x, y, names, strict=True):
        chart.dot(across, down, "small", f"{name}: {across:.4f}, {down:.4f}")
    return chart


def _differences(left: str, right: str, gain: np.ndarray) -> Chart:
    chart = Chart(
        "Differences, photograph by photograph",
        (0.0, float(len(gain))),
        limits([0.0, *gain]),
        x_label="photographs, by difference",
        y_label=f"{right} less {left}",
        x_ticks=[],
    )
    for number, value in enumerate(gain):
        kind = "better" if value > 0 else "worse"
        chart.bar((number, number + 1), tuple(sorted((0.0, float(value)))), kind)
    chart.level(0.0, "")
    return chart
