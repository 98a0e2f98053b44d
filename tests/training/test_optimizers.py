import keras
import numpy as np

from carvana.training.optimizers import ConvolutionMuon

rng = np.random.default_rng(1)


def step(shape, gradient, start=0.0, name="conv2d", **settings):
    """Take one step; return the change."""
    with keras.name_scope(name):
        variable = keras.Variable(np.full(shape, start, np.float32))
    optimizer = ConvolutionMuon(0.1, **settings)
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return variable.numpy() - np.float32(start)


def test_a_kernels_update_is_near_orthogonal_and_of_adams_size():
    gradient = rng.normal(size=(3, 3, 8, 32)).astype(np.float32)
    change = step(gradient.shape, gradient).reshape(72, 32)
    values = np.linalg.svd(change / (0.1 * 0.2 * np.sqrt(72)), compute_uv=False)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert (change * gradient.reshape(72, 32)).sum() < 0  # downhill


def test_only_the_kernels_of_muon_decay():
    change = step((3, 3, 8, 32), np.zeros((3, 3, 8, 32), np.float32), start=1, weight_decay=0.01)
    np.testing.assert_allclose(change, -0.1 * 0.01, rtol=1e-4)
    for shape, name in (((5,), "conv2d"), ((1, 1, 8, 32), "head")):
        still = np.zeros(shape, np.float32)
        assert not step(shape, still, start=1, name=name, weight_decay=0.01).any()


def test_all_else_is_adams():
    for shape, name in (((5,), "conv2d"), ((1, 1, 8, 48), "head"), ((3, 4), "dense")):
        gradient = rng.normal(size=shape).astype(np.float32)
        variable = keras.Variable(np.zeros(shape, np.float32))
        adam = keras.optimizers.Adam(0.03)
        adam.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        np.testing.assert_allclose(step(shape, gradient, name=name), variable.numpy(), rtol=1e-4)
