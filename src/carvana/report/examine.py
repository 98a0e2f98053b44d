"""Measure each validation photograph once: Dice, thresholds, and where its errors lie."""

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from carvana.competition.facts import Paths
from carvana.data.masks import IGNORED
from carvana.data.pairs import Pair
from carvana.prediction.evaluate import (
    count_overlap,
    mean_dice,
    predict_pairs,
    record_score,
    summarise,
    validation_pairs,
)
from carvana.prediction.model import Prediction, load
from carvana.recipe import Data

THRESHOLDS = np.arange(1, 50) / 50  # of the probability
BANDS = (1, 2, 4, 8, 16, 32)  # how far a pixel is from the true edge, at most; pixels
RIGHT, MISSED, EXTRA, CONFUSED = range(4)  # what a pixel's prediction is


@dataclass(frozen=True)
class Examined:
    """What is kept of a predicted photograph."""

    pair: Pair
    dice: float  # the mean over classes, but for the background
    overlap: np.ndarray  # as `count_overlap` returns
    expected: float  # Dice, as its probabilities tell
    at_thresholds: np.ndarray | None  # (thresholds,) Dice; None of several classes
    errors: np.ndarray  # (missed, extra, confused; bands) pixels
    pixels: np.ndarray  # (bands,) all pixels
    labels: bytes  # the predicted labels, a PNG

    @property
    def name(self) -> str:
        """The photograph's name."""
        return self.pair.name


def examine_run(folder: Path, paths: Paths, names: set[str] | None = None) -> list[Examined]:
    """Predict a run's validation photographs once, and measure each. In order of names.

    Those with these names; when None all, and their mean Dice goes into the run's `metrics.json`.

    Raises:
        CarvanaError: the run or its data are absent or broken.
    """
    model = load(folder)
    settings = model.recipe.data
    pairs = validation_pairs(folder, paths, settings)
    if names is not None:
        pairs = [pair for pair in pairs if pair.name in names]

    measure = functools.partial(examine, settings)
    examined = list(predict_pairs(model, pairs, measure, f"predicting, {folder.name}"))
    if names is None:
        scored = ((one.overlap, one.name) for one in examined)
        record_score(folder, summarise(scored, settings))
    return examined


def examine(settings: Data, pair: Pair, found: Prediction, truth: np.ndarray) -> Examined:
    """Measure one photograph; arguments as `predict_pairs` gives them."""
    labels, expected = found.decide()
    overlap = count_overlap(labels, truth, settings)
    kinds = error_kinds(labels, truth, settings)
    errors, pixels = _by_distance(kinds, truth)
    return Examined(
        pair=pair,
        dice=mean_dice(overlap, settings),
        overlap=overlap,
        expected=expected,
        at_thresholds=None if settings.classes else _by_threshold(found.probability(), truth == 1),
        errors=errors,
        pixels=pixels,
        labels=cv2.imencode(".png", labels)[1].tobytes(),
    )


def error_kinds(labels: np.ndarray, truth: np.ndarray, settings: Data) -> np.ndarray:
    """Tell for each pixel whether its label is right, and if not, in which way.

    Args:
        labels: predicted, (height, width) uint8.
        truth: true labels; ignored pixels count as right.
        settings: the recipe's classes.

    Returns:
        (height, width) uint8: RIGHT; MISSED, predicted as background; EXTRA, which is background;
        CONFUSED, of another class, where neither is background.
    """
    background = -1 if settings.background is None else settings.background
    kinds = np.where(labels == background, MISSED, CONFUSED).astype(np.uint8)
    kinds[truth == background] = EXTRA
    kinds[(labels == truth) | (truth == IGNORED)] = RIGHT
    return kinds


def _by_threshold(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the Dice at each of THRESHOLDS, (thresholds,), from one count of all pixels."""
    steps = len(THRESHOLDS) + 1
    above = np.ceil(probability * steps).astype(np.intp)  # of how many thresholds, and 1
    counts = np.bincount((above + truth * (steps + 1)).ravel(), minlength=2 * (steps + 1))
    false, true = counts.reshape(2, steps + 1)[:, ::-1].cumsum(axis=1)[:, ::-1]
    predicted, hits = (false + true)[2:], true[2:]  # above threshold 1, 2, ...
    total = predicted + true[0]
    return np.where(total, 2 * hits / np.maximum(total, 1), 1.0)


def _by_distance(kinds: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count wrong pixels of each kind, and all pixels, by their distance from the true edge.

    Returns:
        (3, bands) and (bands,): within each of BANDS, and beyond the last.
    """
    inside = np.ones(truth.shape, np.uint8)  # 0 along the edge, on both of its sides
    down, across = truth[1:] != truth[:-1], truth[:, 1:] != truth[:, :-1]
    inside[1:][down] = inside[:-1][down] = 0
    inside[:, 1:][across] = inside[:, :-1][across] = 0
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) + 1
    within = [np.count_nonzero(distance <= band) for band in BANDS]
    wrong = kinds != RIGHT
    bands = np.searchsorted(BANDS, distance[wrong])
    count = len(BANDS) + 1
    errors = np.bincount((kinds[wrong] - 1) * count + bands, minlength=3 * count)
    return errors.reshape(3, count), np.diff([0, *within, truth.size])
