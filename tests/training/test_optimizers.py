import keras
import numpy as np

from carvana.training.optimizers import ConvolutionMuon

rng = np.random.default_rng(1)


def step(shape, gradient, **settings):
    """Take one step from zero; return the change."""
    variable = keras.Variable(np.zeros(shape, np.float32))
    optimizer = ConvolutionMuon(0.1, **settings)
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return variable.numpy()


def test_a_kernels_update_is_near_orthogonal_and_of_adams_size():
    gradient = rng.normal(size=(3, 3, 8, 32)).astype(np.float32)
    change = step(gradient.shape, gradient).reshape(72, 32)
    values = np.linalg.svd(change / (0.1 * 0.2 * np.sqrt(72)), compute_uv=False)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert (change * gradient.reshape(72, 32)).sum() < 0  # downhill


def test_the_gram_matrix_gives_keras_own_iteration():
    for shape in ((90, 20), (20, 90), (20, 20)):
        x = keras.ops.convert_to_tensor(rng.normal(size=shape).astype(np.float32))
        want = keras.optimizers.Muon.zeropower_via_newtonschulz5(ConvolutionMuon(), x, 5)
        got = ConvolutionMuon().zeropower_via_newtonschulz5(x, 5)
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_all_else_is_adams():
    for shape in ((5,), (1, 1, 8, 16), (3, 4)):
        gradient = rng.normal(size=shape).astype(np.float32)
        variable = keras.Variable(np.zeros(shape, np.float32))
        adam = keras.optimizers.Adam(0.03)
        adam.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        np.testing.assert_allclose(step(shape, gradient), variable.numpy(), rtol=1e-4)


def test_it_is_saved_and_loaded_with_the_model(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(24, 3)])
    model.compile(ConvolutionMuon(0.02, weight_decay=0.01), "mse")
    x, y = rng.random((4, 8, 8, 3)), rng.random((4, 6, 6, 24))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for one in (model, again):
        one.fit(x, y, verbose=0, shuffle=False)
    for got, want in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
