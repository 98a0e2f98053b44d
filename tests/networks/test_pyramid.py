import keras
import numpy as np
import pytest
import tensorflow as tf

from carvana.networks import pyramid
from carvana.networks.build import build_network
from carvana.networks.encoder import ENCODER
from carvana.networks.layers import FusedBatchNormalization
from carvana.networks.pyramid import PyramidUnet
from carvana.recipe import load_recipe

rng = np.random.default_rng(1)


def settings(*fine_filters, filters=(8, 12), encoder_levels=0):
    return PyramidUnet("pyramid_unet", [*filters], [*fine_filters], encoder_levels)


@pytest.mark.parametrize("fine_filters", [(), (6,), (6, 4)])
def test_network_maps_pictures_to_probabilities_of_their_size(fine_filters):
    pyramid = settings(*fine_filters)
    step = pyramid.step
    model = pyramid.build((step, 2 * step, 3))
    out = model(rng.random((2, step, 2 * step, 3), np.float32))
    assert out.shape == (2, step, 2 * step, 1)
    assert out.dtype == "float32"
    assert 0 < float(np.min(out)) < float(np.max(out)) < 1


def test_space_to_depth_is_tensorflows_and_logits_its_inverse():
    picture = rng.random((2, 8, 12, 3), np.float32)
    np.testing.assert_array_equal(
        pyramid._space_to_depth(picture), tf.nn.space_to_depth(picture, 4)
    )
    features = rng.random((2, 2, 3, 16), np.float32)
    same = keras.initializers.Constant(np.eye(16, dtype=np.float32)[None, None])
    logits = pyramid._logits(features, 1, kernel_initializer=same)
    np.testing.assert_allclose(logits, tf.nn.depth_to_space(features, 4), atol=1e-6)


def test_untrained_fine_levels_pass_on_what_the_coarse_part_says():
    model = settings(6).build((32, 64, 3))
    picture = rng.random((1, 32, 64, 3), np.float32)
    small = picture.reshape(1, 16, 2, 32, 2, 3).mean((2, 4))
    coarse = settings(6).part(model, 1)(small)
    want = tf.sigmoid(tf.image.resize(tf.math.log(coarse / (1 - coarse)), (32, 64)))
    np.testing.assert_allclose(model(picture), want, atol=1e-4)


def test_parts_read_the_smaller_pictures():
    pyramid = settings(6, 5)
    assert pyramid.pictures == 3
    model = pyramid.build((64, 128, 3))
    assert pyramid.part(model, 3).input_shape == (None, 64, 128, 3)
    picture = rng.random((1, 64, 128, 3), np.float32)
    for pictures, sides in ((2, (32, 64)), (1, (16, 32))):
        part = pyramid.part(model, pictures)
        assert part.input_shape == (None, *sides, 3)
        small = tf.image.resize(picture, sides, "area")
        logit = tf.math.log(part(small) / (1 - part(small)))
        for _ in range(3 - pictures):  # a level at a time: fine levels begin at no correction
            logit = tf.image.resize(logit, [2 * side for side in logit.shape[1:3]])
        np.testing.assert_allclose(model(picture), tf.sigmoid(logit), atol=1e-4)


def test_an_encoder_reads_as_many_pictures_as_asked_from_the_smallest_up():
    picture = rng.random((1, 64, 128, 3), np.float32)
    for levels in range(4):
        whole = settings(6, 5, encoder_levels=levels).build((64, 128, 3))
        assert whole(picture).shape == (1, 64, 128, 1)
        half = whole.get_layer("coarse")
        read = [
            ENCODER in [layer.name for layer in part.layers]
            for part in (half.get_layer("coarse"), half, whole)
        ]
        assert read == [levels > 0, levels > 1, levels > 2]
    one_level = settings(6, filters=(8,), encoder_levels=2).build((8, 16, 3))
    assert one_level(picture[:, :8, :16]).shape == (1, 8, 16, 1)


def test_training_the_coarse_part_trains_the_whole():
    model = settings(6).build((32, 64, 3))
    before = [w.copy() for w in model.get_weights()]
    part = settings(6).part(model, 1)
    part.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    part.fit(rng.random((4, 16, 32, 3)), rng.random((4, 16, 32, 1)) > 0.5, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert sum(changed) == len(part.get_weights())


@pytest.mark.parametrize("training", [True, False])
def test_fused_batch_normalisation_is_kerass_own(training):
    x = rng.normal(2, 3, (4, 8, 8, 5)).astype(np.float32)
    ours = FusedBatchNormalization(momentum=0.5)
    keras_own = keras.layers.BatchNormalization(momentum=0.5)
    for layer in (ours, keras_own):
        layer.build(x.shape)
        layer.set_weights([*np.linspace(0.5, 2, 20, dtype=np.float32).reshape(4, 5)])
    for _ in range(3):
        got, want = (layer(x, training=training) for layer in (ours, keras_own))
        np.testing.assert_allclose(got, want, atol=1e-4)
    for got, want in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=0.01)  # n / (n - 1) of the variance


def test_the_step_of_the_kits_recipe_fits_its_input():
    recipe = load_recipe("sharp")
    assert recipe.model.step == 4 * 2 ** (len(recipe.model.filters) - 1 + 1)
    size = recipe.input.height, recipe.input.width
    assert build_network(recipe, "float32").input_shape == (None, *size, 3)
