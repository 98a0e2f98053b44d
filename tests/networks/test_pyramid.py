import keras
import numpy as np
import pytest
import tensorflow as tf

from carvana.networks import pyramid
from carvana.networks.build import build_network
from carvana.networks.encoder import ENCODER
from carvana.networks.layers import FusedBatchNormalization
from carvana.networks.pyramid import coarse_part, pyramid_step, pyramid_unet
from carvana.recipe import load_recipe

rng = np.random.default_rng(1)


@pytest.mark.parametrize("fine_filters", [(), (6,), (6, 4)])
def test_network_maps_pictures_to_probabilities_of_their_size(fine_filters):
    step = pyramid_step(2, len(fine_filters))
    model = pyramid_unet((step, 2 * step, 3), (8, 12), fine_filters)
    out = model(rng.random((2, step, 2 * step, 3), np.float32))
    assert out.shape == (2, step, 2 * step, 1)
    assert out.dtype == "float32"
    assert 0 < float(np.min(out)) < float(np.max(out)) < 1
    with pytest.raises(ValueError, match="not divisible"):
        pyramid_unet((step, step + 1, 3), (8, 12), fine_filters)


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
    model = pyramid_unet((32, 64, 3), (8, 12), (6,))
    picture = rng.random((1, 32, 64, 3), np.float32)
    small = picture.reshape(1, 16, 2, 32, 2, 3).mean((2, 4))
    coarse = coarse_part(model)(small)
    want = tf.sigmoid(tf.image.resize(tf.math.log(coarse / (1 - coarse)), (32, 64)))
    np.testing.assert_allclose(model(picture), want, atol=1e-4)


def test_parts_without_one_and_two_fine_levels_take_smaller_pictures():
    model = pyramid_unet((64, 128, 3), (8, 12), (6, 5))
    picture = rng.random((1, 64, 128, 3), np.float32)
    for without, sides in ((1, (32, 64)), (2, (16, 32))):
        part = coarse_part(model, without)
        assert part.input_shape == (None, *sides, 3)
        small = tf.image.resize(picture, sides, "area")
        logit = tf.math.log(part(small) / (1 - part(small)))
        for _ in range(without):  # a level at a time: fine levels begin at no correction
            logit = tf.image.resize(logit, [2 * side for side in logit.shape[1:3]])
        np.testing.assert_allclose(model(picture), tf.sigmoid(logit), atol=1e-4)


def test_the_settings_name_parts_by_the_pictures_they_read():
    settings = load_recipe("sharp", ["model.filters=[8, 12]", "model.fine_filters=[6, 5]"]).model
    assert settings.pictures == 3
    network = settings.build((64, 128, 3))
    sides = [settings.part(network, pictures).input_shape[1:3] for pictures in (1, 2, 3)]
    assert sides == [(16, 32), (32, 64), (64, 128)]


def test_an_encoder_reads_as_many_pictures_as_asked_from_the_smallest_up():
    picture = rng.random((1, 64, 128, 3), np.float32)
    for levels in range(4):
        whole = pyramid_unet((64, 128, 3), (8, 12), (6, 5), levels)
        assert whole(picture).shape == (1, 64, 128, 1)
        half = whole.get_layer("coarse")
        read = [
            ENCODER in [layer.name for layer in part.layers]
            for part in (half.get_layer("coarse"), half, whole)
        ]
        assert read == [levels > 0, levels > 1, levels > 2]
    one_level = pyramid_unet((8, 16, 3), (8,), (6,), 2)
    assert one_level(picture[:, :8, :16]).shape == (1, 8, 16, 1)


def test_training_the_coarse_part_trains_the_whole():
    model = pyramid_unet((32, 64, 3), (8, 12), (6,))
    before = [w.copy() for w in model.get_weights()]
    part = coarse_part(model)
    part.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    part.fit(rng.random((4, 16, 32, 3)), rng.random((4, 16, 32, 1)) > 0.5, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert sum(changed) == len(part.get_weights())


@pytest.mark.parametrize("training", [True, False])
def test_fused_batch_normalisation_is_kerass_own(training):
    x = rng.normal(2, 3, (4, 8, 8, 5)).astype(np.float32)
    ours, keras_own = (
        FusedBatchNormalization(momentum=0.5),
        keras.layers.BatchNormalization(momentum=0.5),
    )
    for layer in (ours, keras_own):
        layer.build(x.shape)
        layer.set_weights(
            [rng_.astype(np.float32) for rng_ in np.linspace(0.5, 2, 20).reshape(4, 5)]
        )
    for _ in range(3):
        np.testing.assert_allclose(
            ours(x, training=training), keras_own(x, training=training), atol=1e-4
        )
    for got, want in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=0.01)  # n / (n - 1) of the variance


def test_recipe_and_network_agree_on_what_sizes_must_be_divisible_by():
    recipe = load_recipe("sharp")
    settings = recipe.model
    assert settings.step == pyramid_step(len(settings.filters), len(settings.fine_filters))
    assert build_network(recipe, "float32").input_shape == (
        *(None, recipe.input.height, recipe.input.width, 3),
    )
