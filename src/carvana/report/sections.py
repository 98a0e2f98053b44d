"""The parts of a report on one run: figures, charts and pictures for the template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from carvana.competition.facts import VIEWS, view_of
from carvana.data.pairs import evenly, group_pairs
from carvana.prediction.evaluate import summarise
from carvana.recipe import Data, Recipe
from carvana.report.charts import Chart, histogram, limits, spread
from carvana.report.examine import BANDS, THRESHOLDS, Examined
from carvana.report.pictures import Picture, side_by_side, view
from carvana.report.words import REPORTED

FAIR = 10  # photographs of the fair sample
FIGURES = 3  # rows of the article's figure
FEWEST = 20  # photographs in a chart of their certainty


def curves(history: pd.DataFrame, recipe: Recipe, reported: bool) -> list[Chart]:
    """Draw Dice, accuracy and loss by epoch; with `reported`, the article's values too."""
    charts = []
    epochs = history["epoch"]
    for name in ("dice", "accuracy", "loss"):
        values = [*history[name], *history[f"val_{name}"]]
        level = REPORTED.get(name) if reported else None
        top = None if name == "loss" else 1.0
        chart = Chart(
            {"dice": "Dice"}.get(name, name.capitalize()),
            (0.5, max(len(epochs), 2) + 0.5) if len(epochs) < 12 else (1, len(epochs)),
            limits([*values, *([level] if level else []), *([0.0] if name == "loss" else [])], top),
            x_label="epoch",
        )
        if level:
            chart.level(level, f"reported {level:g}")
        for end in recipe.training.stage_ends[:-1]:
            if 0 < end < len(epochs):
                chart.mark(end + 0.5, kind="stage")
        chart.line(epochs, history[name], "training")
        chart.line(epochs, history[f"val_{name}"], "validation")
        charts.append(chart)
    return charts


@dataclass(frozen=True)
class Validation:
    """What is shown of the validation photographs."""

    count: int
    mean: float
    median: float
    worst: float
    distribution: Chart
    by_view: Chart | None
    by_subject: Chart | None
    subjects: int
    classes: list[tuple[str, float]]
    absent: list[str]  # classes in no mask, true or predicted
    figure: list[list[str]]
    pictures: list[Picture]
    worst_places: list[int]  # of `pictures`
    fair_places: list[int]
    thresholds: Chart | None
    best_threshold: tuple[float, float]  # it, and its mean Dice
    certainty: Chart | None
    ranking: tuple[float, float]  # as `ranking` returns
    distances: Chart
    near: float  # share of the wrong pixels that are within two pixels of the true edge
    wrong: float  # share of all pixels


def validation(examined: list[Examined], recipe: Recipe, worst: int) -> Validation:
    """Gather what is shown of examined photographs, `worst` of them the worst."""
    settings = recipe.data
    ranked = sorted(examined, key=lambda one: (one.dice, one.name))
    dices = [one.dice for one in ranked]
    shown = {one.name: one for one in [*ranked[:worst], *evenly(ranked, FAIR)]}
    place = {name: number for number, name in enumerate(shown)}
    views, subjects = _by_view(ranked), _by_subject(ranked, settings)
    subject = subject_of(settings)
    score = summarise([(one.overlap, one.name) for one in ranked], settings)
    thresholds, best = _thresholds(ranked, recipe)
    certainty, ranks = _certainty(ranked, settings)
    errors = np.sum([one.errors for one in ranked], axis=0)  # (kinds, bands)
    pixels = np.sum([one.pixels for one in ranked], axis=0)
    total = max(errors.sum(), 1)
    return Validation(
        count=len(ranked),
        mean=score.mean,
        median=float(np.median(dices)),
        worst=dices[0],
        distribution=histogram("Dice of the validation photographs", {"": dices})[0],
        by_view=spread("Dice by view", views, "view", True) if views else None,
        by_subject=spread(f"Dice by {subject}", subjects, f"{subject}s, the worst first", False)
        if subjects
        else None,
        subjects=len(subjects),
        classes=list(score.classes.items()),
        absent=score.absent,
        figure=[side_by_side(one, recipe) for one in _typical(ranked)],
        pictures=[view(one, recipe) for one in shown.values()],
        worst_places=[place[one.name] for one in ranked[:worst]],
        fair_places=[place[one.name] for one in evenly(ranked, FAIR)],
        thresholds=thresholds,
        best_threshold=best,
        certainty=certainty,
        ranking=ranks,
        distances=_distances(errors / total),
        near=float(errors[:, :2].sum() / total),
        wrong=float(errors.sum() / pixels.sum()),
    )


def subject_of(settings: Data) -> str:
    """Name what several photographs may show."""
    return "subject" if settings.group or settings.classes else "car"


def _typical(ranked: list[Examined]) -> list[Examined]:
    """Return the photographs in the middle of each third of the ranks."""
    count = min(FIGURES, len(ranked))
    return [ranked[(2 * number + 1) * len(ranked) // (2 * count)] for number in range(count)]


def _by_view(ranked: list[Examined]) -> dict[str, list[float]]:
    """Return Dice by view, where the names tell the views of a turntable."""
    views: dict[str, list[float]] = {}
    for one in ranked:
        views.setdefault(view_of(one.name), []).append(one.dice)
    known = all(view.isdecimal() for view in views)
    if not known or not 1 < len(views) <= min(VIEWS, len(ranked) - 1):
        return {}
    return dict(sorted(views.items()))


def _by_subject(ranked: list[Examined], settings: Data) -> dict[str, list[float]]:
    """Return Dice by car or subject, where the names tell them; the worst first."""
    subjects: dict[str, list[float]] = {}
    names = group_pairs([one.pair for one in ranked], settings.group)
    for one in ranked:
        subjects.setdefault(names[one.name], []).append(one.dice)
    if not 1 < len(subjects) < len(ranked):
        return {}
    return dict(sorted(subjects.items(), key=lambda item: np.mean(item[1])))


def _thresholds(ranked: list[Examined], recipe: Recipe) -> tuple[Chart | None, tuple[float, float]]:
    if recipe.data.classes:
        return None, (0.0, 0.0)
    means = np.mean([one.at_thresholds for one in ranked], axis=0)
    middle = means[(THRESHOLDS >= 0.1) & (THRESHOLDS <= 0.9)]
    chart = Chart(
        "Mean Dice by threshold",
        (0.0, 1.0),
        limits([*middle], top=1.0),
        x_label="threshold of the probability",
        y_label="mean Dice",
    )
    chart.mark(recipe.prediction.threshold, f"used: {recipe.prediction.threshold:g}")
    inside = means >= chart.y[0]
    chart.line(THRESHOLDS[inside], means[inside], "validation")
    best = int(means.argmax())
    threshold, dice = float(THRESHOLDS[best]), float(means[best])
    chart.dot(threshold, dice, "validation", f"best: {dice:.4f} at {threshold:g}")
    return chart, (threshold, dice)


def ranking(expected: Sequence[float], dices: Sequence[float]) -> tuple[float, float]:
    """Tell how well the expected Dice ranks photographs by their true Dice.

    Returns:
        Spearman's rank correlation, in [-1, 1]; and the share, in [0, 1], of the worst twentieth
        that is among the tenth of the least certain.
    """
    expected, dices = pd.Series(expected), pd.Series(dices)
    worst = dices.nsmallest(math.ceil(len(dices) / 20)).index
    unsure = expected.nsmallest(math.ceil(len(expected) / 10)).index
    correlation = expected.rank().corr(dices.rank())
    return float(correlation), len(worst.intersection(unsure)) / len(worst)


def _certainty(ranked: list[Examined], settings: Data) -> tuple[Chart | None, tuple[float, float]]:
    """Draw Dice by the Dice that the probabilities let expect; None of few photographs.

    Of several classes it is not drawn: the background counts in what is expected, not in Dice.
    """
    expected, dices = [one.expected for one in ranked], [one.dice for one in ranked]
    alike = min(expected) == max(expected) or min(dices) == max(dices)
    if settings.classes or len(ranked) < FEWEST or alike:
        return None, (0.0, 0.0)
    # The lowest fiftieth is drawn at the edge.
    across, up = (limits(sorted(x)[len(x) // 50 :], top=1.0) for x in (expected, dices))
    chart = Chart("Dice by certainty", across, up, x_label="expected Dice", y_label="Dice")
    for one in ranked:
        place = max(one.expected, across[0]), max(one.dice, up[0])
        kind = "small" if len(ranked) > 40 else "plain"
        chart.dot(*place, kind, f"{one.name}: {one.dice:.4f}")
    return chart, ranking(expected, dices)


def _distances(shares: np.ndarray) -> Chart:
    """Draw the share of wrong pixels, (kinds, bands), by distance from the true edge."""
    names = ["1", "2"]
    names += [f"{low + 1}-{high}" for low, high in pairwise(BANDS[1:])]
    names += [f">{BANDS[-1]}"]
    percent = shares * 100
    chart = Chart(
        "Wrong pixels by distance from the true edge",
        (0.0, float(len(names))),
        (0.0, limits([0.0, percent.sum(axis=0).max()])[1]),
        x_label="pixels from the true edge",
        y_label="% of wrong pixels",
        x_ticks=[(number + 0.5, name) for number, name in enumerate(names)],
    )
    base = np.zeros(len(names))
    for kind, values in zip(("missed", "extra", "confused"), percent, strict=True):
        for number, value in enumerate(values):
            if value:
                span = (number + 0.1, number + 0.9)
                says = f"{kind}, {names[number]}: {value:.1f} %"
                chart.bar(span, (base[number], base[number] + value), kind, says)
        base += values
    return chart
