import keras
import numpy as np
import pytest
import tensorflow as tf

from carvana.prediction.model import Prediction
from carvana.training.losses import (
    BinaryCrossentropyDice,
    CategoricalCrossentropyDice,
    ClassScores,
    CountedAccuracy,
    CountedCrossentropy,
    ExpectedDice,
    dice,
    dice_by_class,
)

TRUTH = np.array([1, 1, 0, 0], np.float32).reshape(1, 2, 2, 1)
PROBABILITY = np.array([0.9, 0.4, 0.2, 0.0], np.float32).reshape(1, 2, 2, 1)


def test_dice_by_hand():
    # (2 * (0.9 + 0.4) + 1) / (2 + 1.5 + 1): raw probabilities, not thresholded
    assert float(dice(TRUTH, PROBABILITY)) == pytest.approx(3.6 / 4.5)
    assert float(dice(TRUTH * 0, TRUTH * 0)) == 1
    # Soft masks count by their shares.
    assert float(dice(TRUTH * 0.5, TRUTH)) == pytest.approx((2 * 1 + 1) / (1 + 2 + 1))
    # It is over the whole batch, not by image.
    truth, probability = (
        np.concatenate([TRUTH, TRUTH * 0]),
        np.concatenate([PROBABILITY, TRUTH * 0]),
    )
    assert float(dice(truth, probability)) == pytest.approx(3.6 / 4.5)


def test_bce_dice_by_hand():
    crossentropy = -np.mean(np.log([0.9, 0.4, 0.8, 1.0]))
    expected = crossentropy + 1 - 3.6 / 4.5
    assert float(BinaryCrossentropyDice()(TRUTH, PROBABILITY)) == pytest.approx(expected, rel=1e-4)


# Four pixels of three classes: a whole one of each of two, a shared one, an ignored one.
SHARES = np.array([[1, 0, 0], [0, 0, 1], [0.25, 0.75, 0], [0, 0, 0]], np.float32)
SHARES = SHARES.reshape(1, 2, 2, 3)
CLASSES = np.array([[0.8, 0.1, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1], [0.9, 0.05, 0.05]])
CLASSES = CLASSES.astype(np.float32).reshape(1, 2, 2, 3)


def test_dice_by_class_by_hand_ignores_what_is_of_no_class():
    want = [
        (2 * (0.8 + 0.25 * 0.5) + 1) / (1.25 + 0.8 + 0.2 + 0.5 + 1),
        (2 * 0.75 * 0.4 + 1) / (0.75 + 0.1 + 0.2 + 0.4 + 1),
        (2 * 0.6 + 1) / (1 + 0.1 + 0.6 + 0.1 + 1),
    ]
    np.testing.assert_allclose(dice_by_class(SHARES, CLASSES), want, rtol=1e-5)


def measure(metric, *batches):
    for truth, probabilities in batches:
        metric.update_state(truth, probabilities)
    return metric.result()


def scores_of(*batches, classes=("road", "car", "tree")):
    found = measure(ClassScores(classes), *batches)
    return {name: float(value) for name, value in found.items()}


def test_class_scores_are_those_of_labels_summed_over_the_epoch():
    batch = SHARES, CLASSES  # predicted: the first, the third, the first, and one ignored
    dice, iou = [2 * 1.25 / (1.25 + 2), 0, 1], [1.25 / 2, 0, 1]
    found = scores_of(batch)
    for place, name in enumerate(("road", "car", "tree")):
        assert found[f"dice_{name}"] == pytest.approx(dice[place])
        assert found[f"iou_{name}"] == pytest.approx(iou[place])
    assert found["dice"] == pytest.approx(np.mean(dice))
    assert found["iou"] == pytest.approx(np.mean(iou))
    # The background counts in IoU alone.
    found = scores_of(batch, classes=("background", "car", "tree"))
    assert found["dice"] == pytest.approx(0.5)
    assert found["iou"] == pytest.approx(np.mean(iou))
    # A class missed in the one photograph that shows it is missed in the set.
    other = np.zeros_like(SHARES) + np.array([1, 0, 0], np.float32)
    found = scores_of((SHARES, other), *[(other, other)] * 9)
    assert found["dice_tree"] == found["iou_tree"] == 0
    # One that is in no mask is left out of the mean, and has none of its own.
    first = SHARES * np.array([1, 0, 0], np.float32)
    found = scores_of((first, other))
    assert found["dice"] == pytest.approx(2 * 1.25 / 2.5)
    assert np.isnan(found["dice_car"])
    assert scores_of((first, other), classes=("background", "car", "tree"))["dice"] == 1


def test_expected_dice_is_that_of_certainty():
    rng = np.random.default_rng(3)
    batch = rng.dirichlet([0.2] * 4, (3, 20, 30)).astype(np.float32)
    batch[..., 1] *= np.array([0, 1e-3, 1], np.float32)[:, None, None]  # hardly there in two
    batch /= batch.sum(axis=-1, keepdims=True)
    predictions = [Prediction([each], each.shape[:2], 0.5, background=0) for each in batch]
    want = np.mean([prediction.decide()[1] for prediction in predictions])
    found = float(measure(ExpectedDice([1, 2, 3]), (batch, batch)))
    assert found == pytest.approx(want, rel=1e-5)


def test_crossentropy_and_accuracy_of_classes_by_hand():
    assert float(measure(CountedAccuracy(), (SHARES, CLASSES))) == pytest.approx(2 / 3)
    pixels = [-np.log(0.8), -np.log(0.6), -0.25 * np.log(0.5) - 0.75 * np.log(0.4)]  # one ignored
    assert float(CountedCrossentropy()(SHARES, CLASSES)) == pytest.approx(np.mean(pixels), rel=1e-4)
    dices = np.mean(dice_by_class(SHARES, CLASSES))
    found = float(CategoricalCrossentropyDice()(SHARES, CLASSES))
    assert found == pytest.approx(np.mean(pixels) + 1 - dices, rel=1e-4)


def test_an_ignored_pixel_moves_no_logit():
    # Through softmax Keras takes TensorFlow's kernel, whose gradient is that of whole shares.
    layer = keras.layers.Activation("softmax")
    logits = tf.Variable(np.log(CLASSES))
    with tf.GradientTape() as tape:
        loss = CountedCrossentropy()(SHARES, layer(logits))
    gradient = tape.gradient(loss, logits).numpy().reshape(4, 3)
    np.testing.assert_allclose(gradient[3], 0, atol=1e-7)
    want = (CLASSES - SHARES).reshape(4, 3) / 3  # of the mean over those that count
    np.testing.assert_allclose(gradient[:3], want[:3], atol=1e-6)
