"""Compare runs on the photographs that all of them were validated on."""

from pathlib import Path

import numpy as np

from carvana.competition.facts import Paths
from carvana.competition.score import Score
from carvana.data.split import names_in
from carvana.errors import CarvanaError, UsageError
from carvana.files import real_path, write_text
from carvana.prediction.evaluate import summarise
from carvana.recipe import Recipe, load_recipe
from carvana.report import charts
from carvana.report.examine import Examined, examine_run
from carvana.report.pictures import view, view_names
from carvana.report.report import duration, render, settings_table
from carvana.report.sections import FEWEST
from carvana.runs.folder import RECIPE, SPLIT, require_metrics

PHOTOGRAPHS = 5  # shown of those where one run is better, at most


def compare_runs(folders: list[Path], paths: Paths) -> Path:
    """Write `compare-<others>.html` into the first run, and return its path.

    Raises:
        UsageError: the runs have other classes, or no validation photograph in common.
        CarvanaError: a run is absent or unfinished, the data folder is absent, a photograph or
            mask cannot be used, or the report cannot be written.
    """
    if not paths.root.is_dir():
        raise CarvanaError(f"{paths.root}: no such data folder; name it with --data")
    metrics = [require_metrics(folder) for folder in folders]
    recipes = [load_recipe(folder / RECIPE) for folder in folders]
    for folder, recipe in zip(folders, recipes, strict=True):
        if recipe.data.other_classes(recipes[0].data):
            raise UsageError(f"{folder}: has other classes than {folders[0]}; compare runs of one")
    names = set.intersection(*(names_in(folder / SPLIT, "validation") for folder in folders))
    if not names:
        raise UsageError(
            f"{', '.join(map(str, folders))}: no photograph is in the validation split of all; "
            "compare runs with the same data.split, data.validation and data.seed"
        )
    runs = [examine_run(folder, paths, names) for folder in folders]
    scores = [summarise([(one.overlap, one.name) for one in run], recipes[0].data) for run in runs]
    titles = _titles(folders)
    columns = map(_figures, recipes, metrics, runs, scores)
    dices = {title: [one.dice for one in run] for title, run in zip(titles, runs, strict=True)}
    page = render(
        "compare.html",
        titles=titles,
        ranked=sorted(zip([score.mean for score in scores], titles, strict=True), reverse=True),
        count=len(names),
        figures=[(rows[0][0], [text for _, text in rows]) for rows in zip(*columns, strict=True)],
        changes_from_first=[settings_table(recipes[0], recipe) for recipe in recipes[1:]],
        distribution=charts.histogram(dices) if len(names) >= FEWEST else None,
        pairs=[_pair(titles, runs, number, recipes[0]) for number in range(1, len(runs))],
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
    recipe: Recipe, metrics: dict, run: list[Examined], score: Score
) -> list[tuple[str, str]]:
    """Return a run's column of the table: what a figure is, and its text."""
    dices = [one.dice for one in run]
    wrong = sum(one.errors.sum() for one in run) / sum(one.pixels.sum() for one in run)
    classes = [
        (f"Dice of {name}", f"{score.classes[name]:.4f}" if name in score.classes else "absent")
        for name in recipe.data.classes
    ]
    if classes:
        iou = "absent" if score.mean_iou is None else f"{score.mean_iou:.4f}"
        classes.insert(0, ("mean IoU", iou))
    return [
        ("mean Dice", f"{score.mean:.4f}"),
        ("median", f"{np.median(dices):.4f}"),
        ("worst photograph", f"{min(dices):.4f}"),
        ("wrong pixels", f"{wrong:.2%}"),
        *classes,
        ("network", recipe.model.network),
        ("parameters", f"{metrics.get('parameters', 0):,}"),
        ("input", f"{recipe.input.width} by {recipe.input.height}"),
        ("epochs", str(metrics["epochs"])),
        ("training", duration(metrics.get("seconds") or 0)),
        ("photographs a second", f"{metrics.get('images_per_second') or 0:.3g}"),
        ("device", metrics.get("device", "not recorded")),
        ("precision", metrics.get("precision", "not recorded")),
    ]


def _pair(titles: list[str], runs: list[list[Examined]], number: int, recipe: Recipe) -> dict:
    """Compare the first run with another on the same photographs, in the same order."""
    both = titles[0], titles[number]
    x, y = (np.array([one.dice for one in runs[place]]) for place in (0, number))
    gain = y - x
    order = np.argsort(gain, kind="stable")
    wins = [place for place in order[::-1] if gain[place] > 0][:PHOTOGRAPHS]
    losses = [place for place in order if gain[place] < 0][:PHOTOGRAPHS]
    shown = [*wins, *losses] or list(order[:PHOTOGRAPHS])
    groups = [(f"{both[1]} is better", wins), (f"{both[0]} is better", losses)]
    groups = [group for group in groups if group[1]] or [("Both have the same Dice", shown)]
    return {
        "titles": both,
        "better": int((gain > 0).sum()),
        "worse": int((gain < 0).sum()),
        "mean": float(gain.mean()),
        "charts": charts.differences(*both, x, y, number + 1),
        "views": view_names(both),
        "pictures": [view([runs[0][place], runs[number][place]], recipe) for place in shown],
        "groups": [
            (heading, "The largest difference first.", [shown.index(place) for place in places])
            for heading, places in groups
        ],
    }
