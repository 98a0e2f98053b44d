import keras
import numpy as np
import pytest

from carvana.training.losses import BinaryCrossentropyDice, dice

TRUTH = np.array([1, 1, 0, 0], np.float32).reshape(1, 2, 2, 1)
PROBABILITY = np.array([0.9, 0.4, 0.2, 0.0], np.float32).reshape(1, 2, 2, 1)


def test_dice_by_hand():
    # (2 * (0.9 + 0.4) + 1) / (2 + 1.5 + 1): raw probabilities, not thresholded
    assert float(dice(TRUTH, PROBABILITY)) == pytest.approx(3.6 / 4.5)
    assert float(dice(TRUTH * 0, TRUTH * 0)) == 1


def test_dice_is_over_the_whole_batch_not_by_image():
    truth = np.concatenate([TRUTH, TRUTH * 0])
    probability = np.concatenate([PROBABILITY, TRUTH * 0])
    assert float(dice(truth, probability)) == pytest.approx(3.6 / 4.5)


def test_dice_counts_soft_masks():
    assert float(dice(TRUTH * 0.5, TRUTH)) == pytest.approx((2 * 1 + 1) / (1 + 2 + 1))


def test_bce_dice_by_hand():
    crossentropy = -np.mean(np.log([0.9, 0.4, 0.8, 1.0]))
    expected = crossentropy + 1 - 3.6 / 4.5
    assert float(BinaryCrossentropyDice()(TRUTH, PROBABILITY)) == pytest.approx(expected, rel=1e-4)


def test_saved_model_loads_with_no_extra_arguments(tmp_path):
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Conv2D(1, 1)])
    model.compile(loss=BinaryCrossentropyDice(), metrics=[dice])
    model.fit(TRUTH, TRUTH, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.evaluate(TRUTH, TRUTH, verbose=0) == model.evaluate(TRUTH, TRUTH, verbose=0)
