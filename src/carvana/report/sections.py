"""The parts of a report on a run's validation photographs, for the template."""

import numpy as np

from carvana.competition.facts import VIEWS, view_of
from carvana.data.pairs import evenly
from carvana.data.split import group_pairs
from carvana.prediction.evaluate import summarise
from carvana.recipe import Data, Recipe
from carvana.report import charts
from carvana.report.charts import Chart
from carvana.report.examine import BANDS, Examined
from carvana.report.pictures import mask_and_errors, side_by_side, view, view_names

WORST = 10  # photographs shown
FAIR = 10  # photographs of the fair sample
FIGURES = 3  # rows of the article's figure
FEWEST = 20  # photographs in a chart of how they are distributed


def validation(examined: list[Examined], recipe: Recipe) -> dict:
    """Gather what the template shows of the validation photographs."""
    ranked = sorted(examined, key=lambda one: (one.dice, one.name))
    dices = [one.dice for one in ranked]
    errors = np.sum([one.errors for one in ranked], axis=0)  # (kinds, bands)
    pixels = np.sum([one.pixels for one in ranked], axis=0)
    groups = _groups(ranked)
    shown = {one.name: one for _, _, some in groups for one in some}
    place = {name: number for number, name in enumerate(shown)}
    drawn, left_out = _charts(ranked, recipe)
    typical = ranked[len(ranked) // 2]
    return {
        "score": summarise([(one.overlap, one.name) for one in ranked], recipe.data),
        "median": float(np.median(dices)),
        "worst": dices[0],
        "wrong": errors.sum() / pixels.sum(),
        "first": [
            (title, mask_and_errors(one, recipe))
            for title, one in (("A typical mask", typical), ("The worst", ranked[0]))
        ],
        "views": view_names(["prediction"]),
        "pictures": [view([one], recipe) for one in shown.values()],
        "groups": [
            (heading, explanation, [place[one.name] for one in some])
            for heading, explanation, some in groups
        ],
        "figure": [side_by_side(one, recipe) for one in _one_a_third(ranked)],
        "charts": drawn,
        "left_out": left_out,
        "distances": charts.distances(errors / max(errors.sum(), 1)) if errors.any() else None,
        "bands": _shares(errors.sum(axis=0)),
    }


def _groups(ranked: list[Examined]) -> list[tuple[str, str, list[Examined]]]:
    """Choose photographs to show: headings, explanations, photographs."""
    if len(ranked) <= WORST + FAIR:
        return [("All photographs", "The lowest Dice first.", ranked)]
    explanation = "Spread evenly over all photographs, from the lowest to the highest Dice."
    return [
        ("The worst", "The photographs with the lowest Dice, the worst first.", ranked[:WORST]),
        ("A fair sample", explanation, evenly(ranked, FAIR)),
    ]


def _charts(ranked: list[Examined], recipe: Recipe) -> tuple[list[Chart], list[str]]:
    """Draw what the photographs are enough for; return the names of the other charts, too."""
    settings, drawn, left_out = recipe.data, [], []
    views, subjects = by_view(ranked), by_subject(ranked, settings)
    dices = [one.dice for one in ranked]
    explanation = "The mean (dot, and number) and the range (line) of each {}'s photographs"
    if len(ranked) < FEWEST:
        left_out.append("the distribution of Dice")
    else:
        drawn.append(charts.histogram({"": dices}))
    if not settings.classes:
        drawn.append(charts.thresholds(ranked, recipe.prediction.threshold))
        # Of several classes the background would count in the expected Dice alone.
        if len(ranked) < FEWEST:
            left_out.append("Dice by certainty")
        elif min(dices) < max(dices) and len({one.expected for one in ranked}) > 1:
            drawn.append(charts.certainty(ranked))
    if len(ranked) < 2 * len(views):
        left_out.append("Dice by view")
    elif views:
        caption = explanation.format("view") + "; views are numbered around the car."
        drawn.append(charts.spread("Dice by view", views, caption))
    if subjects:
        what = "subject" if settings.group or settings.classes else "car"
        caption = explanation.format(what) + ", the worst first."
        drawn.append(charts.spread(f"Dice by {what}", subjects, caption))
    return drawn, left_out


def by_view(ranked: list[Examined]) -> dict[str, list[float]]:
    """Return Dice by view, where the names tell the views of a turntable."""
    views = _grouped(ranked, {one.name: view_of(one.name) for one in ranked})
    known = len(views) <= VIEWS and all(view.isdecimal() for view in views)
    return dict(sorted(views.items())) if known else {}


def by_subject(ranked: list[Examined], settings: Data) -> dict[str, list[float]]:
    """Return Dice by car or subject, where the names tell them; the worst first."""
    subjects = _grouped(ranked, group_pairs([one.pair for one in ranked], settings.group))
    return dict(sorted(subjects.items(), key=lambda item: np.mean(item[1])))


def _grouped(ranked: list[Examined], units: dict[str, str]) -> dict[str, list[float]]:
    """Group Dice by what each name belongs to; empty where all or none belong together."""
    groups: dict[str, list[float]] = {}
    for one in ranked:
        groups.setdefault(units[one.name], []).append(one.dice)
    return groups if 1 < len(groups) < len(ranked) else {}


def _one_a_third(ranked: list[Examined]) -> list[Examined]:
    """Return the photographs in the middle of each third of the ranks."""
    count = min(FIGURES, len(ranked))
    return [ranked[(2 * number + 1) * len(ranked) // (2 * count)] for number in range(count)]


def _shares(errors: np.ndarray) -> list[tuple[str, float]]:
    """Say how far from the true edge the wrong pixels, (bands,), are, and which share is there."""
    near, far = BANDS.index(2) + 1, BANDS.index(8) + 1
    parts = {
        "at most 2 pixels from the true edge": errors[:near],
        "3 to 8 pixels from it": errors[near:far],
        "further away": errors[far:],
    }
    return [(where, part.sum() / max(errors.sum(), 1)) for where, part in parts.items()]
