from pathlib import Path

import numpy as np
import pytest

from carvana.data.pairs import Pair
from carvana.prediction.evaluate import count_overlap, dice_by_class, mean_dice
from carvana.prediction.model import Prediction
from carvana.recipe import load_recipe
from carvana.report.examine import (
    BANDS,
    CONFUSED,
    EXTRA,
    MISSED,
    RIGHT,
    THRESHOLDS,
    error_kinds,
    examine,
)
from conftest import DATA

CLASSES = load_recipe("own", ["data.classes={background=0, cat=1, dog=2}", "data.ignore=255"]).data


PAIR = Pair("a.jpg", Path("a.jpg"), None)


def found(probability):
    """A prediction of this probability."""
    return Prediction([probability.astype(np.float32)[..., None]], probability.shape, 0.5, 0)


def square(low, high, side=100):
    """A mask with a square from `low` to `high`."""
    mask = np.zeros((side, side), np.uint8)
    mask[low:high, low:high] = 1
    return mask


def test_dice_at_each_threshold_is_that_of_the_mask_there():
    truth = square(20, 70)
    noise = np.random.default_rng(1).uniform(0, 0.6, truth.shape)
    probability = (truth * 0.4 + noise).astype(np.float32)
    probability[:3] = [[0.0], [0.5], [1.0]]
    result = examine(DATA, PAIR, found(probability), truth)
    for threshold, dice in zip(THRESHOLDS, result.at_thresholds, strict=True):
        overlap = count_overlap(probability > np.float32(threshold), truth, DATA)
        assert dice == pytest.approx(dice_by_class(overlap)[0])
    assert result.dice == mean_dice(result.overlap, DATA)
    empty = examine(DATA, PAIR, found(np.zeros_like(probability)), truth * 0)
    assert (empty.at_thresholds == 1).all()


def test_errors_are_counted_by_their_distance_from_the_true_edge():
    truth = square(30, 70)
    predicted = square(31, 70)  # misses a row and a column along the edge
    predicted[50, 50] = 0  # 20 pixels inside
    predicted[2, 50] = 1  # 28 pixels outside
    result = examine(DATA, PAIR, found(predicted), truth)
    band = {distance: number for number, distance in enumerate(BANDS)}
    wanted = np.zeros((3, len(BANDS) + 1), int)
    wanted[MISSED - 1, band[1]] = 79
    wanted[MISSED - 1, band[32]] = 1
    wanted[EXTRA - 1, band[32]] = 1
    np.testing.assert_array_equal(result.errors, wanted)
    assert result.pixels.sum() == truth.size
    assert result.pixels[0] == 4 * 39 + 4 * 40  # both sides of the edge
    without_edge = examine(DATA, PAIR, found(truth), truth * 0)
    assert without_edge.errors[EXTRA - 1].tolist() == [0] * len(BANDS) + [1600]


def test_errors_of_several_classes_are_told_apart():
    truth = np.array([[0, 0, 1, 1, 2, 255]], np.uint8)
    labels = np.array([[0, 2, 0, 1, 1, 0]], np.uint8)
    wanted = [[RIGHT, EXTRA, MISSED, RIGHT, CONFUSED, RIGHT]]
    assert error_kinds(labels, truth, CLASSES).tolist() == wanted
    nameless = load_recipe("own", ["data.classes={sky=0, cat=1, dog=2}"]).data
    wanted = [[RIGHT, CONFUSED, CONFUSED, RIGHT, CONFUSED, RIGHT]]
    assert error_kinds(labels, truth, nameless).tolist() == wanted
