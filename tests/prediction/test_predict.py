import csv
import dataclasses
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from carvana.score import score
from carvana.submission import validate
from PIL import Image, ImageOps

from carvana import full_resolution, pipeline, predict, rle, train
from carvana.errors import CarvanaError, UsageError
from carvana.recipe import load_recipe
from conftest import HEIGHT, TINY, WIDTH, write_competition


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny competition and a run that has learnt it a little."""
    root = tmp_path_factory.mktemp("trained")
    paths = write_competition(root / "data")
    recipe = load_recipe("blog", [*TINY, "training.epochs=40", "training.learning_rate=0.004"])
    train.train(recipe, paths, root / "run")
    return paths, root / "run"


@pytest.fixture
def run(trained):
    return predict.Run.load(trained[1])


def rows(path):
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.reader(file))


def test_from_photographs_to_a_scored_submission(trained, run, tmp_path):
    paths, _ = trained
    out = tmp_path / "submissions" / "tiny.csv.gz"
    predict.write_submission(run, paths.test, out)
    assert validate(out, paths.sample_submission, HEIGHT, WIDTH).valid
    assert score(out, paths.root / "solution.csv").mean > 0.6
    visible = [f.name for f in out.parent.iterdir() if not f.name.startswith(".")]
    assert visible == ["tiny.csv.gz"]
    assert not (out.parent / ".tiny.csv.gz.partial").exists()


def test_masks_are_the_thresholded_bilinear_upsampling_of_the_probabilities(trained, run, tmp_path):
    paths, _ = trained
    folder = tmp_path / "images"
    folder.mkdir()
    for name, size in (("wide.jpg", (300, 40)), ("tall.png", (33, 190)), ("one.jpeg", (1, 1))):
        Image.open(next(paths.test.iterdir())).resize(size).save(folder / name)
    predict.write_submission(run, folder, tmp_path / "s.csv.gz")
    found = dict(rows(tmp_path / "s.csv.gz")[1:])
    assert list(found) == ["one.jpeg", "tall.png", "wide.jpg"]
    for name, runs in found.items():
        picture = pipeline.decode_image((folder / name).read_bytes())
        small = pipeline.resize(picture, run.recipe.input)
        probability = run.models[0](small[None], training=False)
        full = tf.image.resize(probability, picture.shape[:2], "bilinear")[0, :, :, 0].numpy()
        mask = rle.decode(runs, *picture.shape[:2])
        unsure = np.abs(full - 0.5) < 1e-4  # batches of another size round differently
        np.testing.assert_array_equal(mask | unsure, (full > 0.5) | unsure)


def test_workers_change_no_row(trained, run, tmp_path):
    paths, _ = trained
    for workers in (1, 5):
        predict.write_submission(run, paths.test, tmp_path / f"{workers}.csv", workers=workers)
    assert (tmp_path / "1.csv").read_text() == (tmp_path / "5.csv").read_text()


def test_threshold(trained, run, tmp_path):
    paths, _ = trained
    areas = []
    for threshold in (0.1, 0.5, 0.9):
        predict.write_submission(run, paths.test, tmp_path / "s.csv.gz", threshold)
        areas.append(sum(rle.parse(r[1])[:, 1].sum() for r in rows(tmp_path / "s.csv.gz")[1:]))
    assert areas[0] > areas[1] > areas[2]


def test_broken_photograph_is_named_and_rows_made_so_far_are_used(
    trained, run, tmp_path, monkeypatch
):
    folder, out = _many(trained, tmp_path, 40), tmp_path / "s.csv.gz"
    predict.write_submission(run, folder, out)
    whole = rows(out)
    out.unlink()
    good = (folder / "p_30.jpg").read_bytes()
    (folder / "p_30.jpg").write_bytes(good[:300])
    with pytest.raises(CarvanaError, match=r"p_30\.jpg: is not a readable photograph"):
        predict.write_submission(run, folder, out)
    assert not out.exists()
    (folder / "p_30.jpg").write_bytes(good)
    predicted = count_loads(monkeypatch)
    predict.write_submission(run, folder, out)
    assert predicted == [f"p_{number}.jpg" for number in range(30, 40)]
    assert rows(out) == whole

    # A photograph that has been replaced since its row was made is predicted anew.
    with monkeypatch.context() as patch:
        patch.setattr(predict, "replacing", stop)
        with pytest.raises(KeyboardInterrupt):
            predict.write_submission(run, folder, out)
    (folder / "p_30.jpg").write_bytes(sorted(trained[0].test.iterdir())[1].read_bytes())
    predicted.clear()
    predict.write_submission(run, folder, out)
    assert predicted == ["p_30.jpg"]
    assert sorted(dict(rows(out))) == sorted(dict(whole))
    assert dict(rows(out))["p_30.jpg"] == dict(whole)["p_01.jpg"]


def stop(path):
    raise KeyboardInterrupt


def count_loads(monkeypatch):
    """Return a list that grows with the name of each photograph that is predicted."""
    names, load = [], predict._load

    def counted(path, *rest):
        names.append(path.name)
        return load(path, *rest)

    monkeypatch.setattr(predict, "_load", counted)
    return names


def test_names_that_a_csv_quotes(trained, run, tmp_path, monkeypatch):
    folder = tmp_path / "odd"
    folder.mkdir()
    photograph = next(trained[0].test.iterdir()).read_bytes()
    names = sorted(["a,b.jpg", 'say "c".jpg', "ü d.JPG", "e.f.g.jpg"])
    for name in names:
        (folder / name).write_bytes(photograph)
    with monkeypatch.context() as patch:
        patch.setattr(predict, "replacing", stop)
        with pytest.raises(KeyboardInterrupt):
            predict.write_submission(run, folder, tmp_path / "s.csv.gz")
    predict.write_submission(run, folder, tmp_path / "s.csv.gz")
    assert [row[0] for row in rows(tmp_path / "s.csv.gz")] == ["img", *names]
    assert score(tmp_path / "s.csv.gz", tmp_path / "s.csv.gz").mean == 1


def _many(trained, tmp_path, count):
    folder = tmp_path / "many"
    folder.mkdir()
    photographs = sorted(trained[0].test.iterdir())
    for number in range(count):
        (folder / f"p_{number:02}.jpg").symlink_to(photographs[number % len(photographs)])
        if number == 30:
            (folder / "p_30.jpg").unlink()
            (folder / "p_30.jpg").write_bytes(photographs[0].read_bytes())
    return folder


@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGINT])
def test_stopped_prediction_goes_on_and_ends_with_the_same_rows(
    trained, run, tmp_path, monkeypatch, stop_signal
):
    folder, out = _many(trained, tmp_path, 400), tmp_path / "s.csv.gz"
    predict.write_submission(run, folder, out)
    whole = rows(out)
    out.unlink()
    partial = tmp_path / ".s.csv.gz.partial"
    command = [sys.executable, "-m", "carvana.cli", "predict", "--run", trained[1]]
    process = subprocess.Popen([*command, "--images", folder, "--out", out])
    end = time.monotonic() + 120
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 20):
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(stop_signal)
    assert process.wait() == (130 if stop_signal == signal.SIGINT else -stop_signal)
    assert not out.exists()
    with partial.open("ab") as file:
        file.write(b"1:2,p_399.jpg,1 2 3")  # a row cut short
    done = partial.read_bytes().count(b"\n") - 1  # the key
    calls = count_loads(monkeypatch)
    predict.write_submission(run, folder, out)
    assert len(calls) == 400 - done  # rows that were made are not made again
    assert rows(out) == whole
    assert not partial.exists()


def test_another_models_rows_are_not_gone_on_with(trained, run, tmp_path):
    paths, _ = trained
    (tmp_path / ".s.csv.gz.partial").write_text("another key\n1:2,car5_01.jpg,1 1\n")
    predict.write_submission(run, paths.test, tmp_path / "s.csv.gz")
    assert len(rows(tmp_path / "s.csv.gz")) == 9
    assert rows(tmp_path / "s.csv.gz")[1] != ["car5_01.jpg", "1 1"]


def test_two_predictions_into_one_file(trained, run, tmp_path):
    import filelock

    with (
        filelock.FileLock(tmp_path / ".s.csv.gz.lock"),
        pytest.raises(CarvanaError, match=r"s\.csv\.gz: another prediction is at work on it"),
    ):
        predict.write_submission(run, trained[0].test, tmp_path / "s.csv.gz")


def test_disk_full_keeps_the_rows_and_the_old_submission(trained, run, tmp_path, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    paths, out = trained[0], tmp_path / "s.csv.gz"
    out.write_bytes(b"old")
    with monkeypatch.context() as patch:
        real_open = gzip.open
        patch.setattr(gzip, "open", lambda path, *a, **k: real_open("/dev/full", *a, **k))
        with pytest.raises(CarvanaError, match=r"s\.csv\.gz: cannot be written .No space left"):
            predict.write_submission(run, paths.test, out)
    assert out.read_bytes() == b"old"
    assert (tmp_path / ".s.csv.gz.partial").read_text().count("\n") == 9
    predict.write_submission(run, paths.test, out)
    assert len(rows(out)) == 9


def test_run_folders_at_fault_are_named(trained, tmp_path):
    with pytest.raises(CarvanaError, match=r"model\.keras: no such model; run `carvana train`"):
        predict.Run.load(tmp_path)
    paths, folder = trained
    (tmp_path / "model.keras").write_bytes((folder / "model.keras").read_bytes())
    other = (folder / "recipe.toml").read_text().replace("height = 32", "height = 64")
    (tmp_path / "recipe.toml").write_text(other)
    with pytest.raises(CarvanaError, match="the model is another recipe's"):
        predict.Run.load(tmp_path)
    (tmp_path / "model.keras").write_text("not a model")
    with pytest.raises(CarvanaError, match="is not a readable Keras model"):
        predict.Run.load(tmp_path)
    with pytest.raises(CarvanaError, match="name ends in"):
        predict.write_submission(predict.Run.load(folder), paths.test, tmp_path / "s.txt")
    (tmp_path / "none").mkdir()
    with pytest.raises(CarvanaError, match="none: holds no photograph"):
        predict.write_submission(predict.Run.load(folder), tmp_path / "none", tmp_path / "s.csv")


def test_validation_split_is_scored_at_full_resolution(trained, run):
    paths, folder = trained
    result = full_resolution.score_validation(folder, paths)
    assert result.count == 4
    assert 0.6 < result.mean <= 1
    assert len(result.worst) == 4
    metrics = (folder / "metrics.json").read_text()
    assert f'"full_resolution_dice": {result.mean}' in metrics
    assert '"val_dice"' in metrics


def test_flip_averages_with_the_mirror_images_mask(trained, run, tmp_path):
    photograph = Image.open(next(trained[0].test.iterdir())).resize((64, 48))
    names = [tmp_path / "a.png", tmp_path / "b.png"]
    photograph.save(names[0])
    ImageOps.mirror(photograph).save(names[1])
    plain, mirrored = predict.predict_each(run, names, lambda path, probability: probability)
    prediction = dataclasses.replace(run.recipe.prediction, flip=True)
    both = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, prediction=prediction))
    found = next(predict.predict_each(both, names, lambda path, probability: probability))
    np.testing.assert_allclose(found, (plain + mirrored[:, ::-1]) / 2, atol=1e-5)
    assert not np.allclose(found, plain, atol=1e-4)


def test_enlarged_pictures_take_the_same_network_at_their_sizes_and_average(trained, tmp_path):
    paths, folder = trained
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    text = (other / "recipe.toml").read_text()
    names = sorted(paths.test.iterdir())[:2]
    found = {}
    for enlarge in ("1.0", "2.0", "0.5", "2.0, 0.5"):
        changed = re.sub(r"enlarge = \[[^]]*\]", f"enlarge = [{enlarge}]", text)
        (other / "recipe.toml").write_text(changed)
        run = predict.Run.load(other)
        found[enlarge] = np.array(
            list(predict.predict_each(run, names, lambda path, probability: probability))
        )
        size = float(enlarge.partition(",")[0])
        assert run.models[0].input_shape[1] == size * run.recipe.input.height
    assert not np.allclose(found["2.0"], found["1.0"], atol=1e-3)
    mean = (found["2.0"] + found["0.5"]) / 2
    np.testing.assert_allclose(found["2.0, 0.5"], mean, atol=1e-5)
    (other / "recipe.toml").write_text(re.sub(r"\nfilters = .*", "\nfilters = 5", changed))
    with pytest.raises(CarvanaError, match=r"is not the network its recipe.toml tells of"):
        predict.Run.load(other)


def test_a_loaded_models_precision_is_its_own_not_the_last_ones(trained):
    _, folder = trained
    before = keras.mixed_precision.global_policy()
    try:
        for policy in ("mixed_bfloat16", "float32"):
            keras.mixed_precision.set_global_policy(policy)
            model = train.load_model(folder / "model.keras")
            assert train.precision_of(model) == "float32"
    finally:
        keras.mixed_precision.set_global_policy(before)


def test_a_model_of_no_numbers_predicts_nothing(trained, tmp_path):
    _, folder = trained
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    model = train.load_model(other / "model.keras")
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    model.save(other / "model.keras")
    with pytest.raises(CarvanaError, match=r"model\.keras: holds weights that are not numbers"):
        predict.Run.load(other)


def test_several_runs_predict_their_mean(trained, run, tmp_path):
    paths, folder = trained
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    changed = predict.Run.load(other)
    changed.models[0].set_weights([w * 0.9 for w in changed.models[0].get_weights()])
    changed.models[0].save(other / "model.keras")
    names = sorted(paths.test.iterdir())[:2]
    both = predict.Run.load_mean([folder, other])
    found, one, two = (
        list(predict.predict_each(r, names, lambda path, probability: probability))
        for r in (both, run, changed)
    )
    np.testing.assert_allclose(found, (np.array(one) + np.array(two)) / 2, atol=1e-5)
    assert both.key() not in (run.key(), changed.key())
    text = (other / "recipe.toml").read_text().replace('"bilinear"', '"area"')
    (other / "recipe.toml").write_text(text)
    with pytest.raises(UsageError, match="prepared unlike those of"):
        predict.Run.load_mean([folder, other])
