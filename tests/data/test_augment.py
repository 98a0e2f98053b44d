import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from carvana.data.augment import apply, draw
from carvana.recipe import load_recipe

BLOG = load_recipe("blog").augment
STILL = dataclasses.replace(BLOG, brightness=0.0, contrast=[1.0, 1.0], saturation=[1.0, 1.0])
SPOT = np.zeros((60, 90, 1), np.float32)  # a mask
SPOT[20:40, 30:60] = 1


def augment(pair, seed, settings):
    """Draw the changes of a pair and apply them."""
    return apply(pair, draw(seed, settings, *pair.shape[:2]))


def augmented(image, seed, settings=BLOG, mask=None):
    mask = np.zeros_like(image[..., :1]) if mask is None else mask
    return augment(np.concatenate((image, mask), axis=-1), seed, settings)


def random_image(height=8, width=9):
    return np.random.default_rng(0).random((height, width, 3), np.float32)


@pytest.mark.parametrize("saturation", [0.0, 0.7, 1.5, 4.0])
def test_augmentation_is_brightness_contrast_saturation_then_clip(saturation):
    image = random_image()
    image[0] = [[0.0], [0.5], [1.0]] * 3  # greys, black and white among them
    settings = dataclasses.replace(BLOG, contrast=[0.6, 0.6], saturation=[saturation] * 2)
    plain = dataclasses.replace(settings, contrast=[1.0, 1.0], saturation=[1.0, 1.0])
    gray = np.full_like(image, 0.5)
    for number in range(5):
        out, _ = augmented(image, (1, number), settings)
        delta = (augmented(gray, (1, number), plain)[0] - gray).mean()
        # The article's own calls, in its order.
        want = tf.image.adjust_brightness(image, delta)
        want = tf.image.adjust_saturation(tf.image.adjust_contrast(want, 0.6), saturation)
        np.testing.assert_allclose(out, np.clip(want, 0, 1), atol=1e-5)


def test_augmentation_draws_over_the_published_ranges():
    gray = np.full((4, 4, 3), 0.5, np.float32)
    levels = [augmented(gray, (0, i))[0].mean() - 0.5 for i in range(300)]
    assert -0.3 <= min(levels) < -0.27
    assert 0.27 < max(levels) <= 0.3
    assert abs(np.mean(levels)) < 0.03
    stripes = np.tile(np.float32([0.4, 0.6, 0.4, 0.6])[:, None, None], (1, 4, 3))
    purple = np.full((4, 4, 3), (0.6, 0.4, 0.6), np.float32)
    for image in (stripes, purple):  # contrast, saturation
        spread = [np.ptp(augmented(image, (0, i))[0]) / 0.2 for i in range(300)]
        assert 0.49 < min(spread) < 0.52
        assert 0.68 < max(spread) < 0.71


@pytest.mark.parametrize("name", ["sharp", "sharper", "demo"])
def test_eight_bits_give_what_exact_pairs_give_to_a_few_grey_levels(name):
    pair = np.random.default_rng(2).integers(0, 256, (40, 60, 4), np.uint8)
    settings = load_recipe(name).augment
    for number in range(10):
        image, mask = augment(pair, (2, number), settings)
        assert image.dtype == mask.dtype == np.uint8
        assert (image.shape, mask.shape) == ((40, 60, 3), (40, 60, 1))
        exact, exact_mask = augment(pair.astype(np.float32) / 255, (2, number), settings)
        # Positions are rounded to 1/32 of a pixel: on noise, that alone is some grey levels.
        assert np.abs(image / 255 - exact).mean() < 0.01
        assert np.abs(mask / 255 - exact_mask).mean() < 0.01


def test_flip_mirrors_half_of_the_pairs_image_and_mask_alike():
    image = np.linspace(0, 1, 4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    settings = dataclasses.replace(STILL, flip=True)
    mirrored = 0
    for number in range(60):
        out, mask = augmented(image, (0, number), settings, image[..., :1])
        np.testing.assert_array_equal(out[..., :1], mask)
        same = np.array_equal(out, image)
        assert same or np.array_equal(out, image[:, ::-1])
        mirrored += not same
    assert 18 < mirrored < 42


def test_moves_take_image_and_mask_along_and_stay_in_range():
    image = np.repeat(SPOT, 3, axis=2)
    moves = dataclasses.replace(STILL, zoom=0.2, rotate=10.0, shift=0.1)
    areas, centres = [], []
    for number in range(80):
        out, moved = augmented(image, (3, number), moves, SPOT)
        np.testing.assert_allclose(out, np.repeat(moved, 3, axis=2), atol=1e-5)
        areas.append(float(np.sum(moved)) / 600)
        weights = moved[..., 0] / moved.sum()
        centres.append((np.indices((60, 90)) * weights).sum((1, 2)))
    assert 1 / 1.2**2 - 0.03 < min(areas) < 0.8
    assert 1.25 < max(areas) < 1.2**2 + 0.03
    furthest = np.abs(np.array(centres) - (29.5, 44.5)).max(axis=0) / (6, 9)  # of the shift
    assert (furthest > 0.5).all() and (furthest < 1.7).all()


def test_warps_bend_image_and_mask_alike_by_no_more_than_their_share():
    rows, columns = np.indices((60, 90), np.float32)
    image = np.stack((columns / 90, rows / 60, columns * 0), axis=-1)  # says where it is from
    settings = dataclasses.replace(STILL, warp=0.05)
    bends = []
    for number in range(20):
        out, moved = augmented(image, (6, number), settings, image[..., :1])
        np.testing.assert_allclose(out[..., :1], moved, atol=1e-5)
        bend = (out - image)[6:-6, 9:-9, :2]
        assert np.ptp(bend, axis=(0, 1)).min() > 0.005  # here one way, there another
        bends.append(bend)
    assert 0.025 < np.abs(bends).max() < 0.05 * 1.5  # a cubic's overshoot between the points
    assert np.abs(np.mean(bends)) < 0.01


def test_gamma_changes_greys_and_leaves_black_and_white():
    image = np.tile(np.float32([0, 0.25, 1])[:, None, None], (1, 4, 3))
    settings = dataclasses.replace(STILL, gamma=0.5)
    powers = []
    for number in range(60):
        out, _ = augmented(image, (7, number), settings)
        np.testing.assert_allclose(out[[0, 2]], image[[0, 2]], atol=1e-6)
        powers.append(np.log(out[1].mean()) / np.log(0.25))
    assert np.exp(-0.5) <= min(powers) < 0.7
    assert 1.45 < max(powers) <= np.exp(0.5)


def test_stretch_changes_the_sides_ratio_and_not_the_area():
    settings = dataclasses.replace(STILL, stretch=0.21)
    ratios = []
    for number in range(60):
        _, moved = augmented(np.repeat(SPOT, 3, axis=2), (3, number), settings, SPOT)
        assert moved.sum() == pytest.approx(600, rel=0.02)
        ratios.append(moved[30].sum() / moved[:, 45].sum() / 1.5)
    assert 1 / 1.21 - 0.03 < min(ratios) < 0.88
    assert 1.13 < max(ratios) < 1.21 + 0.03


def test_repainting_changes_half_of_the_cars_and_nothing_else():
    image, changed = random_image(60, 90), 0
    for number in range(60):
        out, same = augmented(image, (5, number), dataclasses.replace(STILL, repaint=0.5), SPOT)
        np.testing.assert_array_equal(same, SPOT)
        np.testing.assert_allclose(out * (1 - SPOT), image * (1 - SPOT), atol=1e-6)
        changed += not np.allclose(out, image, atol=1e-3)
    assert 18 < changed < 42
