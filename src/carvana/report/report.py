"""Report on a run, or compare several, in one HTML file that needs no network."""

import dataclasses
import time
from pathlib import Path

import jinja2
import pandas as pd

from carvana import __version__
from carvana.competition.facts import Paths
from carvana.data.pairs import count_split
from carvana.files import write_text
from carvana.recipe import Recipe, load_recipe
from carvana.report.examine import examine_run
from carvana.report.sections import curves, subject_of, validation
from carvana.report.words import describe, duration, is_the_articles
from carvana.runs.folder import RECIPE, REPORT, SPLIT, read_history, require_metrics

WORST = 10  # photographs shown


def write_report(folder: Path, paths: Paths, worst: int = WORST) -> Path:
    """Write `report.html` into a run: what was trained, how it went and what it predicts.

    The validation photographs are predicted once, at full resolution; their mean Dice goes into
    the run's `metrics.json`. Without the data folder, the report says so instead.

    Args:
        folder: the run, its training finished.
        paths: the competition's data.
        worst: how many of the worst photographs to show.

    Returns:
        The report's path.

    Raises:
        CarvanaError: the run is absent or unfinished, a photograph or mask cannot be used, or the
            report cannot be written.
    """
    recipe, history = read_run(folder)
    shown, seconds = None, 0.0
    if paths.root.is_dir():
        began = time.monotonic()
        _, examined = examine_run(folder, paths)
        seconds = time.monotonic() - began
        shown = validation(examined, recipe, worst)
    metrics = require_metrics(folder)
    train, held_out = count_split(folder / SPLIT)
    reported = is_the_articles(recipe)
    page = render(
        "report.html",
        name=folder.name,
        data=paths.root,
        metrics=metrics,
        recipe=describe(recipe, train, held_out, metrics.get("parameters", 0)),
        toml=(folder / RECIPE).read_text(encoding="utf-8"),
        reported=reported,
        curves=curves(history, recipe, reported),
        stages=len(recipe.training.stage_ends) > 1,
        history=history,
        validation=shown,
        seconds=seconds,
        classes=recipe.data.classes,
        subject=subject_of(recipe.data),
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def read_run(folder: Path) -> tuple[Recipe, pd.DataFrame]:
    """Read the recipe and the history of a finished run.

    Raises:
        CarvanaError: the run is absent or unfinished, or a file of it is broken.
    """
    require_metrics(folder)
    return load_recipe(folder / RECIPE), read_history(folder)


def render(template: str, **values) -> str:
    """Fill a page's template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("carvana.report", "assets"),
        autoescape=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(duration=duration, asdict=dataclasses.asdict)
    environment.globals["version"] = __version__
    return environment.get_template(template).render(values)
