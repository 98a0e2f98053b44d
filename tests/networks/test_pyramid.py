import keras
import numpy as np
import pytest
import tensorflow as tf

from carvana.networks import layers
from carvana.networks.encoder import ENCODER
from carvana.networks.layers import FusedBatchNormalization
from carvana.networks.pyramid import PyramidUnet

rng = np.random.default_rng(1)


def settings(*fine_filters, filters=(8, 12), encoder_levels=0):
    return PyramidUnet("pyramid_unet", [*filters], [*fine_filters], encoder_levels)


def test_parts_read_the_smaller_pictures():
    pyramid = settings(6, 5)
    assert pyramid.pictures == 3
    model = pyramid.build((64, 128, 3))
    assert pyramid.part(model, 3).input_shape == (None, 64, 128, 3)
    picture = rng.random((1, 64, 128, 3), np.float32)
    for pictures, sides in ((2, (32, 64)), (1, (16, 32))):
        part = pyramid.part(model, pictures)
        assert part.input_shape == (None, *sides, 3)
        assert {id(v) for v in part.variables} < {id(v) for v in model.variables}
        small = tf.image.resize(picture, sides, "area")
        logit = tf.math.log(part(small) / (1 - part(small)))
        for _ in range(3 - pictures):  # a level at a time: fine levels begin at no correction
            logit = tf.image.resize(logit, [2 * side for side in logit.shape[1:3]])
        np.testing.assert_allclose(model(picture), tf.sigmoid(logit), atol=1e-4)


def test_an_encoder_reads_as_many_pictures_as_asked_from_the_smallest_up():
    picture = rng.random((1, 64, 128, 3), np.float32)
    whole = settings(6, 5, encoder_levels=2).build((64, 128, 3))
    assert whole(picture).shape == (1, 64, 128, 1)
    half = whole.get_layer("coarse")
    for part in (half.get_layer("coarse"), half):
        assert not part.get_layer(ENCODER).trainable_variables
    assert ENCODER not in [layer.name for layer in whole.layers]
    one_level = settings(6, filters=(8,), encoder_levels=2).build((8, 16, 3))
    assert one_level(picture[:, :8, :16]).shape == (1, 8, 16, 1)


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


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 2, 7, 16), (3, 9, 4, 5)])
def test_a_kernels_gradient_by_matrix_products_is_tensorflows(shape, size):
    pictures = rng.normal(size=shape).astype(np.float32)
    of_outputs = rng.normal(size=(*shape[:3], 4)).astype(np.float32)
    want = tf.raw_ops.Conv2DBackpropFilter(
        input=pictures,
        filter_sizes=[size, size, shape[-1], 4],
        out_backprop=of_outputs,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )
    got = layers.kernel_gradient(tf.constant(pictures), tf.constant(of_outputs), size)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_training_by_matrix_products_takes_the_same_steps(monkeypatch):
    keras.utils.set_random_seed(1)
    model = settings(6).build((16, 32, 3))
    start = model.get_weights()
    pictures = rng.random((5, 16, 32, 3), np.float32)
    masks = (pictures[..., :1] > 0.5).astype(np.float32)
    results, computed = [], []
    own = layers.kernel_gradient
    monkeypatch.setattr(layers, "kernel_gradient", lambda *a: computed.append(a) or own(*a))
    for products, eagerly in ((False, False), (True, False), (True, True)):
        monkeypatch.setattr(layers, "_products_are_faster", lambda _, yes=products: yes)
        model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", run_eagerly=eagerly)
        model.set_weights(start)
        model.fit(pictures, masks, batch_size=2, shuffle=False, verbose=0)
        results.append(model.get_weights())
        assert bool(computed) == products
        computed.clear()
    # More steps would amplify rounding: a ReLU on the other side of 0 changes all that follow.
    for before, plain, *by_products in zip(start, *results, strict=True):
        for weights in by_products:
            np.testing.assert_allclose(weights, plain, atol=1e-6 + 0.01 * np.ptp(plain - before))


@pytest.mark.parametrize(
    ("flags", "onednn", "channels", "faster"),
    [
        ("avx avx2", "1", 48, True),
        ("avx avx2", "1", 24, False),  # too few
        ("avx avx2", "1", 40, False),  # not a multiple of 16
        ("avx avx2", "0", 48, False),
        ("avx avx2 avx512f", "1", 48, False),
        ("neon", "1", 48, False),
    ],
)
def test_matrix_products_are_for_onednn_without_avx512(
    flags, onednn, channels, faster, monkeypatch
):
    monkeypatch.setattr(layers, "cpuinfo", lambda: f"flags : {flags}")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    assert layers._products_are_faster(channels) == faster
