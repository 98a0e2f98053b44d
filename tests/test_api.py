"""The Python API: what `import carvana` offers, and that it leaves the process as it was."""

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import carvana
from carvana.errors import CarvanaError, UsageError
from carvana.networks.build import build_network
from carvana.recipe import load_recipe
from conftest import TINY, TINY_PYRAMID, write_competition


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run trained through the API."""
    root = tmp_path_factory.mktemp("api")
    write_competition(root / "data")
    before = process_settings(), random_states()
    settings = [*TINY_PYRAMID, "training.epochs=2", "training.precision=mixed_bfloat16"]
    metrics = carvana.train("sharp", root / "data", root / "run", settings)
    assert (process_settings(), random_states()) == before
    assert (metrics["epochs"], metrics["precision"]) == (2, "mixed_bfloat16")
    return root / "run"


@pytest.fixture
def photograph(tmp_path):
    picture = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    path = tmp_path / "car.png"
    Image.fromarray(picture).save(path)
    return path


def process_settings():
    """What an import, a load, a prediction or a training must not change."""
    return (
        keras.mixed_precision.global_policy().name,
        keras.config.floatx(),
        keras.config.image_data_format(),
        keras.config.epsilon(),
        cv2.getNumThreads(),
        tf.config.experimental.tensor_float_32_execution_enabled(),
    )


def random_states():
    return random.getstate(), np.random.get_state()[1].tolist()


def test_importing_takes_neither_keras_nor_tensorflow():
    code = (
        "import sys, carvana, carvana.cli; from carvana.recipe import load_recipe; "
        "load_recipe('sharper'); assert set(carvana.__all__) <= set(dir(carvana)); "
        "assert not {'keras', 'tensorflow', 'pandas'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_everything_it_names_is_there():
    np.testing.assert_array_equal(carvana.decode(carvana.encode(np.eye(3)), 3, 3), np.eye(3) == 1)
    assert carvana.unet((32, 32, 3), filters=2).output_shape == (None, 32, 32, 1)
    with pytest.raises(ValueError, match="compare probabilities with a threshold first"):
        carvana.encode(np.full((2, 2), 0.3))
    assert callable(carvana.load)
    assert callable(carvana.train)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = carvana.nope


def test_training_through_the_api_leaves_all_files_of_the_command(run):
    assert {f.name for f in run.iterdir()} == {
        *("model.keras", "best.keras", "recipe.toml", "split.csv", "history.csv", "history.png"),
        *("metrics.json", "run.json", "logs"),
    }


def test_a_model_takes_paths_pictures_and_arrays_and_changes_nothing(run, photograph):
    before = process_settings()
    model = carvana.load(run)
    mask = model.mask(photograph)
    assert (mask.shape, mask.dtype) == ((40, 60), bool)
    probability = model.probability(str(photograph))
    assert (probability.shape, probability.dtype) == ((40, 60), np.float32)
    np.testing.assert_array_equal(mask, probability > model.recipe.prediction.threshold)
    picture = Image.open(photograph)
    for other in (picture, np.asarray(picture)):
        np.testing.assert_array_equal(model.mask(other), mask)
    assert [path for path, _ in model.predict([photograph] * 3)] == [photograph] * 3
    assert process_settings() == before


def test_it_predicts_the_same_under_other_settings_of_keras(run, photograph):
    want = carvana.load(run).probability(photograph)
    before = process_settings()
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")
    keras.mixed_precision.set_global_policy("float64")
    try:
        outside = process_settings()
        np.testing.assert_array_equal(carvana.load(run).probability(photograph), want)
        assert carvana.unet((32, 32, 3), filters=2).output_shape == (None, 32, 32, 1)
        assert process_settings() == outside
    finally:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
        keras.mixed_precision.set_global_policy("float32")
    assert process_settings() == before


def test_threads_may_load_and_predict_at_once(run, photograph):
    before = process_settings()
    want = carvana.load(run).probability(photograph)
    shared = carvana.load(run)

    def use(number):
        model = carvana.load(run) if number % 2 else shared
        return model.probability(photograph)

    with ThreadPoolExecutor(4) as pool:
        for probability in pool.map(use, range(8)):
            np.testing.assert_array_equal(probability, want)
    assert process_settings() == before


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((4, 5, 3), np.float32), r"\(4, 5, 3\) of float32 is not a photograph; give"),
        (np.zeros((4, 5), np.uint8), r"\(4, 5\) of uint8 is not a photograph"),
        (np.zeros((4, 5, 4), np.uint8), r"\(4, 5, 4\) of uint8 is not a photograph"),
        (np.zeros((0, 5, 3), np.uint8), "is not a photograph"),
        (None, "a NoneType is not a photograph"),
        ("gone.jpg", r"gone\.jpg: no such photograph"),
    ],
)
def test_what_is_not_a_photograph_is_refused_in_one_line(run, picture, says):
    with pytest.raises(CarvanaError, match=says) as error:
        carvana.load(run).mask(picture)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nope", "nope: no such run or weights; give .*sharp, sharper"),
        ("gone.npz", "gone.npz: no such file of weights"),
        (None, "cannot load an object of type NoneType"),
        (3, "cannot load an object of type int"),
        ([], "an empty list cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(source, says):
    with pytest.raises(UsageError, match=says):
        carvana.load(source)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(CarvanaError, match=r"model\.keras: no such model; run `carvana train`"):
        carvana.load(tmp_path)


def test_a_list_is_the_mean_of_its_members(run, photograph, tmp_path):
    from carvana.runs.trained import Run

    recipe = load_recipe(run / "recipe.toml")
    other = Run(recipe=recipe, networks=(build_network(recipe, "float32"),))
    other.save_weights(tmp_path / "other.npz")
    members = [run, tmp_path / "other.npz"]
    want = np.mean([carvana.load(member).probability(photograph) for member in members], axis=0)
    np.testing.assert_allclose(carvana.load(members).probability(photograph), want, atol=1e-5)


def test_a_recipe_that_names_an_unknown_network_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"model\.network: name one of unet, pyramid_unet"):
        carvana.train("blog", tmp_path, tmp_path / "run", [*TINY, "model.network=resnet"])
    assert not list(tmp_path.iterdir())
