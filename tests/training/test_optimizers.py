import keras
import numpy as np
import pytest

from carvana.networks.build import build_network
from carvana.recipe import load_recipe
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


def test_the_gram_matrix_gives_the_plain_iteration():
    a, b, c = 3.4445, -4.7750, 2.0315  # Jordan et al.'s
    for shape in ((90, 20), (20, 90), (20, 20)):
        x = rng.normal(size=shape).astype(np.float32)
        got = ConvolutionMuon().orthogonalize(keras.ops.convert_to_tensor(x))
        x = x / np.linalg.norm(x)
        for _ in range(5):
            square = x @ x.T
            x = a * x + (b * square + c * square @ square) @ x
        np.testing.assert_allclose(got, x, atol=1e-4)


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


@pytest.mark.parametrize(("recipe", "heads"), [("sharper", 3), ("quick", 1), ("blog", 1)])
def test_the_head_alone_of_all_kernels_is_adams_whatever_its_size(recipe, heads):
    small = {
        "blog": ["model.filters=4"],
        "quick": ["model.filters=[8, 16]", "model.encoder_levels=0"],
        "sharper": ["model.fine_filters=[16, 12]", "model.encoder_levels=0"],
    }
    classes = "data.classes={background=0, a=1, b=2, c=3}"
    network = build_network(load_recipe(recipe, [classes, *small[recipe]]), "float32")
    optimizer = ConvolutionMuon()
    optimizer.build(network.trainable_variables)
    kernels = [v for v in network.trainable_variables if len(v.shape) == 4]
    adams = [v for v in kernels if optimizer._is_adams(v)]
    assert len(adams) == heads < len(kernels)
    assert {v.shape[-1] % 4 for v in adams} == {0}  # a multiple of the classes
    assert all(v.path.split("/")[-2] == "head" for v in adams)


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
