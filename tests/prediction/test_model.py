import dataclasses
import itertools
import os
import re
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from carvana.data.images import read_photograph
from carvana.data.resize import resize
from carvana.errors import CarvanaError, UsageError
from carvana.machine import Turns
from carvana.prediction.certainty import expected_dice
from carvana.prediction.model import FINISHING, Model, Prediction, load
from carvana.recipe import load_recipe
from carvana.training.train import train
from conftest import HEIGHT, TINY, WIDTH


def probabilities(model, photographs):
    return np.array([probability for _, probability in model.predict(photographs)])


def test_a_probability_is_the_networks_brought_to_the_photographs_size(trained, model):
    path = sorted(trained[0].test.iterdir())[0]
    found = model.probability(path)
    assert (found.shape, found.dtype) == ((HEIGHT, WIDTH), np.float32)
    picture, _ = read_photograph(path)
    small = model.run.networks[0](resize(picture, model.recipe.input)[None], training=False)
    want = tf.image.resize(small, (HEIGHT, WIDTH), "bilinear")[0, :, :, 0]
    np.testing.assert_allclose(found, want, atol=1e-4)
    mask = model.mask(path)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, found > model.recipe.prediction.threshold)
    assert 0.1 < mask.mean() < 0.6


def test_a_photograph_is_a_path_a_pil_image_or_an_array(trained, model):
    path = sorted(trained[0].test.iterdir())[0]
    array, _ = read_photograph(path)
    want = model.probability(path)
    for photograph in (str(path), array, Image.fromarray(array)):
        np.testing.assert_allclose(model.probability(photograph), want, atol=1e-5)
    for wrong in (None, 5, array[..., 0], array[..., :2], array / 255, array[:0]):
        with pytest.raises(UsageError, match="is not a photograph; give"):
            model.mask(wrong)


def test_photographs_are_predicted_in_order_as_they_are_given(trained, model, tmp_path):
    paths = sorted(trained[0].test.iterdir())
    found = list(model.predict(iter(paths)))
    assert [path for path, _ in found] == paths
    alone = [model.probability(path) for path in paths]
    np.testing.assert_allclose([probability for _, probability in found], alone, atol=1e-5)
    names = model.map(paths, lambda path, found: (path.name, found.size))
    assert list(names) == [(path.name, (HEIGHT, WIDTH)) for path in paths]
    assert list(model.predict([])) == []


def test_photographs_without_end_are_read_a_few_batches_ahead(trained, model):
    paths = sorted(trained[0].test.iterdir())
    asked = []
    endless = (asked.append(path) or path for path in itertools.cycle(paths))
    results = model.predict(endless, workers=2)
    for _ in range(20):
        next(results)
    results.close()
    assert len(asked) < 20 + 6 * model.recipe.prediction.batch_size


def test_a_broken_photograph_is_named_after_the_results_before_it(trained, model, tmp_path):
    paths = sorted(trained[0].test.iterdir())[:3]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(paths[0].read_bytes()[:300])
    results = model.predict([*paths, broken, paths[0]])
    assert [path for path, _ in itertools.islice(results, 3)] == paths
    with pytest.raises(CarvanaError, match=r"broken\.jpg: is not a readable photograph"):
        next(results)


def test_flip_averages_with_the_mirror_images_mask(trained, model, tmp_path):
    photograph = Image.open(next(trained[0].test.iterdir())).resize((64, 48))
    names = [tmp_path / "a.png", tmp_path / "b.png"]
    photograph.save(names[0])
    ImageOps.mirror(photograph).save(names[1])
    plain, mirrored = probabilities(model, names)
    prediction = dataclasses.replace(model.recipe.prediction, flip=True)
    recipe = dataclasses.replace(model.recipe, prediction=prediction)
    found, _ = probabilities(Model(dataclasses.replace(model.run, recipe=recipe)), names)
    np.testing.assert_allclose(found, (plain + mirrored[:, ::-1]) / 2, atol=1e-5)
    assert not np.allclose(found, plain, atol=1e-4)


def test_scales_take_the_same_network_at_their_sizes_and_average(trained, tmp_path):
    paths, folder = trained
    other = shutil.copytree(folder, tmp_path / "other")
    text = (other / "recipe.toml").read_text()
    names = sorted(paths.test.iterdir())[:2]
    found = {}
    for scales in ("1.0", "2.0", "0.5", "2.0, 0.5"):
        changed = re.sub(r"scales = \[[^]]*\]", f"scales = [{scales}]", text)
        (other / "recipe.toml").write_text(changed)
        model = load(other)
        found[scales] = probabilities(model, names)
        size = float(scales.partition(",")[0])
        assert model.run.networks[0].input_shape[1] == size * model.recipe.input.height
    assert not np.allclose(found["2.0"], found["1.0"], atol=1e-3)
    mean = (found["2.0"] + found["0.5"]) / 2
    np.testing.assert_allclose(found["2.0, 0.5"], mean, atol=1e-5)


@pytest.mark.parametrize("background", [0, 2, None])
def test_classes_are_decided_one_at_a_time_as_all_at_once(background):
    rng = np.random.default_rng(1)
    by_scale = [rng.dirichlet([0.3] * 5, shape).astype(np.float32) for shape in ((20, 30), (9, 14))]
    found = Prediction(by_scale, (77, 101), 0.5, background)
    probability = found.probability()
    assert probability.shape == (77, 101, 5)
    labels, expected = found.decide()
    np.testing.assert_array_equal(labels, probability.argmax(axis=-1))
    assert expected == pytest.approx(expected_dice(probability, background), rel=1e-6)
    whole = [cv2.resize(each, (101, 77), interpolation=cv2.INTER_LINEAR) for each in by_scale]
    np.testing.assert_allclose(probability, np.mean(whole, axis=0), atol=1e-6)
    if background is not None:
        np.testing.assert_array_equal(found.foreground(), 1 - probability[..., background])


def test_memory_does_not_grow_with_classes_or_threads(trained, monkeypatch):
    """As many photographs are finished at once as fit, at least one."""
    busy, most = [], []

    def work(photograph, found):
        busy.append(photograph)
        most.append(len(busy))
        time.sleep(0.02)
        busy.remove(photograph)
        return photograph

    paths = sorted(trained[0].test.iterdir()) * 3
    model = load(trained[1])
    for limit, at_once in ((0, 1), (3 * FINISHING * HEIGHT * WIDTH, 3)):
        most.clear()
        monkeypatch.setattr("carvana.prediction.model.Turns", lambda limit=limit: Turns(limit))
        assert list(model.map(paths, work, workers=8)) == paths
        assert max(most) <= at_once


def test_run_and_weights_compute_alike_whatever_they_were_trained_in(tiny, tmp_path):
    recipe = load_recipe("blog", [*TINY, "training.precision=mixed_bfloat16", "training.epochs=1"])
    train(recipe, tiny.root, tmp_path / "run")
    run = load(tmp_path / "run")
    run.run.save_weights(tmp_path / "run.npz")
    weights = load(tmp_path / "run.npz")
    assert run.run.precision == weights.run.precision == "float32"
    path = sorted(tiny.test.iterdir())[0]
    np.testing.assert_allclose(run.probability(path), weights.probability(path), atol=1e-3)


FORKED = """
import os, sys, signal
import carvana
model = carvana.load(sys.argv[1])
if sys.argv[3] == "used":
    model.mask(sys.argv[2])
child = os.fork()
if child == 0:
    signal.alarm(60)
    try:
        carvana.load(sys.argv[1]) if sys.argv[3] == "loaded again" else model.mask(sys.argv[2])
    except carvana.errors.UsageError as error:
        print(error, flush=True)
        os._exit(3)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("what", ["used", "loaded again"])
def test_a_model_in_a_forked_worker_says_what_to_do(what, trained):
    """gunicorn --preload, PyTorch's loaders: TensorFlow would hang there for ever."""
    photograph = sorted(trained[0].test.iterdir())[0]
    command = [sys.executable, "-c", FORKED, trained[1], photograph, what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "load the model in the worker, after the fork" in done.stdout
