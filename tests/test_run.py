import dataclasses
import io

import numpy as np
import pytest
from carvana.predict import Run
from carvana.train import build_network
from carvana.weights import load_weights, save_weights

from carvana.errors import CarvanaError, UsageError
from carvana.recipe import load_recipe
from conftest import TINY_PYRAMID

ENCODED = "model.pretrained=2"


@pytest.fixture(scope="module")
def run():
    recipe = load_recipe("sharp", TINY_PYRAMID)
    return Run(recipe, (build_network(recipe),), ())


def test_weights_written_and_read_predict_the_same(run, tmp_path):
    path = tmp_path / "w.npz"
    save_weights(run, path)
    again = load_weights(str(path))
    assert again.recipe == run.recipe
    picture = np.random.default_rng(1).random((1, 32, 48, 3), np.float32)
    np.testing.assert_allclose(again.models[0](picture), run.models[0](picture), atol=2e-3)
    assert again.key() == load_weights(str(path)).key()
    assert path.stat().st_size < 2.5 * sum(weight.size for weight in run.models[0].get_weights())


def test_a_pretrained_encoders_weights_stay_in_their_package(tmp_path):
    pretrained = load_recipe("sharp", [*TINY_PYRAMID, ENCODED])
    run = Run(pretrained, (build_network(pretrained),), ())
    path = tmp_path / "w.npz"
    save_weights(run, path)
    assert path.stat().st_size < 1e6  # the encoders' alone are 10 MB
    picture = np.random.default_rng(1).random((1, 32, 48, 3), np.float32)
    again = load_weights(str(path))
    np.testing.assert_allclose(again.models[0](picture), run.models[0](picture), atol=2e-2)


def test_weights_that_are_not(run, tmp_path):
    with pytest.raises(UsageError, match="weights 'nope': .* there are"):
        load_weights("nope")
    with pytest.raises(UsageError, match=r"gone\.npz"):
        load_weights(str(tmp_path / "gone.npz"))
    path = tmp_path / "w.npz"
    save_weights(run, path)
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(CarvanaError, match=r"w\.npz: is not a file of weights"):
            load_weights(str(path))
    with np.load(io.BytesIO(whole)) as arrays:
        np.savez(path, **{**arrays, "000": arrays["000"] * np.nan})
    with pytest.raises(CarvanaError, match=r"w\.npz: is not a file of weights"):
        load_weights(str(path))
    np.savez(path, recipe=np.array("[data]"))
    with pytest.raises(CarvanaError):
        load_weights(str(path))
    np.savez(path, a=np.zeros(3))
    with pytest.raises(CarvanaError, match="is not a file of weights"):
        load_weights(str(path))


def test_a_model_that_weights_cannot_hold_is_told_of_before_they_are_written(run, tmp_path):
    path = tmp_path / "w.npz"
    other = dataclasses.replace(run, recipe=load_recipe("sharp", [*TINY_PYRAMID, ENCODED]))
    with pytest.raises(CarvanaError, match="is not the network its recipe tells of"):
        save_weights(other, path)
    recipe = run.recipe
    large = build_network(recipe)
    large.set_weights([np.full_like(weight, 1e5) for weight in large.get_weights()])
    with pytest.raises(CarvanaError, match="holds more than float16 can"):
        save_weights(Run(recipe, (large,), ()), path)
    assert not path.exists()
