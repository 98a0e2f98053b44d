import itertools
import os
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
from carvana.errors import CarvanaError
from carvana.machine import Turns
from carvana.prediction.certainty import expected_dice
from carvana.prediction.model import FINISHING, Model, Prediction
from carvana.runs.trained import Run
from conftest import HEIGHT, WIDTH, probabilities


@pytest.mark.parametrize("size", [(300, 40), (33, 190), (1, 1)])
def test_a_probability_is_the_networks_brought_to_the_photographs_size(
    size, trained, model, tmp_path
):
    path = tmp_path / "a.png"
    Image.open(sorted(trained[0].test.iterdir())[0]).resize(size).save(path)
    found = model.probability(path)
    assert (found.shape, found.dtype) == (size[::-1], np.float32)
    picture, _ = read_photograph(path)
    small = model.run.networks[0](resize(picture, model.recipe.input)[None], training=False)
    want = tf.image.resize(small, size[::-1], "bilinear")[0, :, :, 0]
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_photographs_are_predicted_in_order_and_a_broken_one_is_named(trained, model, tmp_path):
    paths = sorted(trained[0].test.iterdir())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(paths[0].read_bytes()[:300])
    results = model.predict(iter([*paths, broken, paths[0]]))
    found = list(itertools.islice(results, len(paths)))
    with pytest.raises(CarvanaError, match=r"broken\.jpg: is not a readable photograph"):
        next(results)
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


def test_flip_averages_with_the_mirror_images_mask(trained, model, tmp_path):
    photograph = Image.open(next(trained[0].test.iterdir())).resize((64, 48))
    names = [tmp_path / "a.png", tmp_path / "b.png"]
    photograph.save(names[0])
    ImageOps.mirror(photograph).save(names[1])
    plain, mirrored = probabilities(model, names)
    flipped = Model(Run.load(trained[1], overrides=["prediction.flip=true"]))
    found, _ = probabilities(flipped, names)
    np.testing.assert_allclose(found, (plain + mirrored[:, ::-1]) / 2, atol=1e-5)
    assert not np.allclose(found, plain, atol=1e-4)


def test_scales_take_the_same_network_at_their_sizes_and_average(trained):
    names = sorted(trained[0].test.iterdir())[:2]
    found = {}
    for scales in ("2.0", "0.5", "2.0, 0.5"):
        model = Model(Run.load(trained[1], overrides=[f"prediction.scales=[{scales}]"]))
        found[scales] = probabilities(model, names)
        size = float(scales.partition(",")[0])
        assert model.run.networks[0].input_shape[1] == size * model.recipe.input.height
    assert not np.allclose(found["2.0"], found["0.5"], atol=1e-3)
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
    counted = [number for number in range(5) if number != background]
    dices = [expected_dice(probability[..., number]) for number in counted]
    assert expected == pytest.approx(np.mean(dices), rel=1e-6)
    whole = [cv2.resize(each, (101, 77), interpolation=cv2.INTER_LINEAR) for each in by_scale]
    np.testing.assert_allclose(probability, np.mean(whole, axis=0), atol=1e-6)
    if background is not None:
        np.testing.assert_array_equal(found.foreground(), 1 - probability[..., background])


def test_memory_does_not_grow_with_classes_or_threads(trained, model, monkeypatch):
    """As many photographs are finished at once as fit, at least one."""
    busy, most = [], []

    def work(photograph, found):
        busy.append(photograph)
        most.append(len(busy))
        time.sleep(0.02)
        busy.remove(photograph)
        return photograph

    paths = sorted(trained[0].test.iterdir()) * 3
    for limit, at_once in ((0, 1), (3 * FINISHING * HEIGHT * WIDTH, 3)):
        most.clear()
        monkeypatch.setattr("carvana.prediction.model.Turns", lambda limit=limit: Turns(limit))
        assert list(model.map(paths, work, workers=8)) == paths
        assert max(most) <= at_once


FORKED = """
import os, sys, signal
import carvana
model = carvana.load(sys.argv[1])
model.mask(sys.argv[2])
child = os.fork()
if child == 0:
    signal.alarm(60)
    for use in (lambda: model.mask(sys.argv[2]), lambda: carvana.load(sys.argv[1])):
        try:
            use()
        except carvana.errors.UsageError as error:
            print(error, flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_model_in_a_forked_worker_says_what_to_do(trained):
    """gunicorn --preload, PyTorch's loaders: TensorFlow would hang there for ever."""
    photograph = sorted(trained[0].test.iterdir())[0]
    command = [sys.executable, "-c", FORKED, trained[1], photograph]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("load the model in the worker, after the fork") == 2
