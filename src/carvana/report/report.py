"""Report on a run in one HTML file that needs no network."""

import dataclasses
import sys
import time
from importlib import resources
from pathlib import Path

import jinja2

from carvana import __version__
from carvana.competition.facts import Paths
from carvana.data.split import names_in
from carvana.errors import plural
from carvana.files import real_path, write_text
from carvana.recipe import Recipe, differences, load_recipe
from carvana.report import charts
from carvana.report.examine import examine_run
from carvana.report.sections import validation
from carvana.runs.folder import RECIPE, REPORT, SPLIT, read_history, require_metrics

_NOT_THE_ARTICLES = (  # keys in which a recipe may differ and still be the article's
    *("data.seed", "training.seed", "training.precision", "training.epochs"),
    *("training.steps_per_epoch", "prediction."),
)


def write_report(folder: Path, paths: Paths) -> Path:
    """Write `report.html` into a run: what it predicts, how training went, and its settings.

    The validation photographs are predicted once, at full resolution; their mean Dice goes into
    the run's `metrics.json`. Without the data folder, the report and the terminal say so.

    Returns its path.

    Raises:
        CarvanaError: the run is absent or unfinished, a photograph or mask cannot be used, or the
            report cannot be written.
    """
    metrics = require_metrics(folder)
    recipe, history = load_recipe(folder / RECIPE), read_history(folder)
    shown, seconds = None, 0.0
    if paths.root.is_dir():
        began = time.monotonic()
        examined = examine_run(folder, paths)
        seconds = time.monotonic() - began
        shown = validation(examined, recipe)
    else:
        what = f"{paths.root}: no such folder, so only the training figures are shown"
        print(f"{what}; name it with --data", file=sys.stderr)
    reported = is_the_articles(recipe)
    name, first = nearest(recipe), history.iloc[0]
    page = render(
        "report.html",
        name=real_path(folder).name,
        recipe=name,
        date=metrics.get("date", ""),
        data=paths.root,
        metrics=metrics,
        split=[len(names_in(folder / SPLIT, side)) for side in ("train", "validation")],
        settings=settings_table(load_recipe(name), recipe),
        toml=(folder / RECIPE).read_text(encoding="utf-8"),
        reported=reported,
        curves=charts.curves(history, recipe, reported) if len(history) > 2 else [],
        stages=len(recipe.training.stage_ends) > 1,
        # Batch normalisation validates with running averages, which lag in the first epochs.
        lags=recipe.model.network == "pyramid_unet" and first["val_loss"] > 2 * first["loss"],
        history=history,
        validation=shown,
        seconds=seconds,
        classes=recipe.data.classes,
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def is_the_articles(recipe: Recipe) -> bool:
    """Tell whether a recipe is the published one, but for seeds, length and precision."""
    changed = differences(load_recipe("blog"), recipe)
    return all(key.startswith(_NOT_THE_ARTICLES) for key in changed)


def nearest(recipe: Recipe) -> str:
    """Name the kit's recipe that a run's differs least from."""
    files = resources.files("carvana.recipes").iterdir()
    names = sorted(file.name[:-5] for file in files if file.name.endswith(".toml"))
    return min(names, key=lambda name: len(differences(load_recipe(name), recipe)))


def settings_table(a: Recipe, b: Recipe) -> list[tuple[str, str, str]]:
    """List the settings in which two recipes differ: a key, its value in `a` and in `b`."""
    rows = []
    for line in differences(a, b):
        key, _, values = line.removesuffix(")").partition(" (")
        rows.append((key, *values.split(", here ", 1)))
    return rows


def duration(seconds: float) -> str:
    """Write a time as people say it: `48 s`, `37 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def render(template: str, **values) -> str:
    """Fill a page's template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("carvana.report", "assets"),
        autoescape=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(duration=duration, plural=plural, asdict=dataclasses.asdict)
    environment.globals["version"] = __version__
    return environment.get_template(template).render(values)
