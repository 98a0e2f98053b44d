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
from carvana.errors import CarvanaError
from conftest import TINY_PYRAMID


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
    with pytest.raises(ValueError, match="compare probabilities with a threshold first"):
        carvana.encode(np.full((2, 2), 0.3))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = carvana.nope


@pytest.mark.usefixtures("eagerly")
def test_training_changes_nothing_in_the_process(tiny, tmp_path):
    before = process_settings(), random_states()
    settings = [*TINY_PYRAMID, "training.epochs=2", "training.precision=mixed_bfloat16"]
    metrics = carvana.train("sharp", tiny.root, tmp_path / "run", settings)
    assert (process_settings(), random_states()) == before
    assert (metrics["epochs"], metrics["precision"]) == (2, "mixed_bfloat16")
    assert carvana.load(tmp_path / "run").run.precision == "float32"


def test_a_model_takes_paths_pictures_and_arrays_and_changes_nothing(photograph):
    before = process_settings()
    model = carvana.load("quick")
    mask = model.mask(photograph)
    assert (mask.shape, mask.dtype) == ((40, 60), bool)
    probability = model.probability(str(photograph))
    assert (probability.shape, probability.dtype) == ((40, 60), np.float32)
    np.testing.assert_array_equal(mask, probability > model.recipe.prediction.threshold)
    picture = Image.open(photograph)
    for other in (picture, np.asarray(picture)):
        np.testing.assert_array_equal(model.mask(other), mask)
    assert [path for path, _ in model.predict([photograph] * 3)] == [photograph] * 3
    array = np.asarray(picture)
    for wrong in (None, array / 255, array[..., 0], array[..., [0, 0, 0, 0]], array[:0]):
        with pytest.raises(CarvanaError, match=r"is not a photograph; give [^\n]*$"):
            model.mask(wrong)
    with pytest.raises(CarvanaError, match=r"gone\.jpg: no such photograph"):
        model.mask("gone.jpg")
    assert process_settings() == before


def test_it_predicts_the_same_under_other_settings_of_keras(trained, photograph):
    want = carvana.load("quick").probability(photograph)
    before = process_settings()
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")
    keras.mixed_precision.set_global_policy("float64")
    try:
        outside = process_settings()
        np.testing.assert_array_equal(carvana.load("quick").probability(photograph), want)
        assert carvana.load(trained[1]).run.precision == "float32"
        assert carvana.unet((32, 32, 3), filters=2).output_shape == (None, 32, 32, 1)
        assert process_settings() == outside
    finally:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
        keras.mixed_precision.set_global_policy("float32")
    assert process_settings() == before


def test_threads_may_load_and_predict_at_once(trained, model, photograph):
    before = process_settings()
    want = model.probability(photograph)

    def use(number):
        mine = carvana.load(trained[1]) if number % 2 else model
        return mine.probability(photograph)

    with ThreadPoolExecutor(4) as pool:
        for probability in pool.map(use, range(4)):
            np.testing.assert_array_equal(probability, want)
    assert process_settings() == before
