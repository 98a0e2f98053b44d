"""Trainings of a tiny network: what they write, how they stop and resume, what they refuse."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from carvana import progress
from carvana.cli import main
from carvana.data.pairs import find_pairs
from carvana.data.split import names_in, read_split
from carvana.errors import CarvanaError, UsageError
from carvana.recipe import load_recipe, to_toml
from carvana.runs.folder import read_metrics
from carvana.runs.weights import CARS, trained_on
from carvana.training import checkpoint, train
from conftest import DATA, TINY, TINY_PYRAMID, prepare_and_read, write_competition


def recipe(*overrides):
    return load_recipe("blog", [*TINY, *overrides])


def weights(run):
    return keras.saving.load_model(run / "model.keras").get_weights()


@pytest.fixture(autouse=True)
def quickly(eagerly, monkeypatch):
    """Train eagerly and plot nothing; `trained` has both."""
    monkeypatch.setattr(train, "draw_history", lambda run: None)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """Return a function that copies a run trained for so many epochs, each trained once."""
    root = tmp_path_factory.mktemp("after")
    data = write_competition(root / "data").root

    def copy(epochs, run):
        if not (root / str(epochs)).exists():
            train.train(recipe(f"training.epochs={epochs}"), data, root / str(epochs))
        shutil.copytree(root / str(epochs), run, dirs_exist_ok=True)

    return copy


def test_a_whole_training(trained, tmp_path):
    data, run = trained[0].root, shutil.copytree(trained[1], tmp_path / "run")
    long = recipe("training.epochs=40", "training.learning_rate=0.004")
    metrics = read_metrics(run)
    assert metrics["val_dice"] > 0.6  # it learns: the shapes' share of the picture is 0.3
    history = pd.read_csv(run / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 41))
    assert history["steps"].tolist() == [2 * e for e in range(1, 41)]
    assert metrics["val_dice"] == history["val_dice"].iloc[-1]
    assert metrics.keys() >= {
        *("val_dice", "val_accuracy", "val_loss", "steps", "epochs", "seconds"),
        *("images_per_second", "parameters"),
    }
    assert list((run / "logs").rglob("events.*"))
    assert load_recipe(run / "recipe.toml") == long
    assert {f.name for f in run.iterdir()} == {
        *("model.keras", "best.keras", "recipe.toml", "split.csv", "history.csv"),
        *("metrics.json", "logs", "history.png", "run.json"),
    }

    # Once more is nothing to do; the best model is the one with the highest dice.
    assert train.train(long, data, run) == metrics
    assert metrics["best_val_dice"] == history["val_dice"].max()


def test_the_figures_printed_and_returned_are_those_of_the_saved_model(
    tiny, tmp_path, monkeypatch, capsys
):
    tf.config.run_functions_eagerly(False)
    traced, step = [], keras.Model.train_step
    monkeypatch.setattr(
        keras.Model, "train_step", lambda self, data: traced.append(data) or step(self, data)
    )
    monkeypatch.setattr(progress, "LINE_SECONDS", 1000)
    settings = [*TINY, "training.batch_size=3", "training.epochs=1"]
    metrics = train.train("blog", str(tiny.root), str(tmp_path), settings)
    assert len(traced) == 1  # twice, if the first step makes a variable
    device, start, epoch = capsys.readouterr().out.splitlines()
    assert device.startswith("training on CPU, ")
    assert start == f"{tmp_path}: 6 steps, in float32"
    figures = r"loss \d\.\d{4}  dice 0\.\d{4}  val_loss \d\.\d{4}  val_dice 0\.\d{4}"
    assert re.fullmatch(f"epoch 1/1  {figures}", epoch)

    split = read_split(tmp_path / "split.csv", find_pairs(tiny.root, DATA))
    images, masks = prepare_and_read(split.validation, tiny, recipe())
    model = keras.saving.load_model(tmp_path / "model.keras")
    dice, right = [], []  # averaged over batches, of which the last is short
    for first in (0, 3):
        p, t = model(images[first : first + 3]).numpy(), masks[first : first + 3]
        dice.append((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
        right.append((p > 0.5) == t)
    assert len(images) == 4
    assert metrics["val_dice"] == pytest.approx(np.mean(dice), abs=1e-5)
    assert metrics["val_accuracy"] == pytest.approx(np.concatenate(right).mean(), abs=1e-5)


SMALLER = ["training.epochs=2", "training.stages=[0.5]", "model.filters=[20]"]
RESUMED = {  # with dropout; with stages, batch normalisation and Muon
    "unet": recipe(),
    "pyramid": load_recipe("sharper", [*TINY_PYRAMID, *SMALLER]),
}


@pytest.mark.parametrize(
    ("name", "last_step", "stop", "code", "progress_shown"),
    [
        ("unet", 3, signal.SIGINT, 130, ["83%"]),  # of 4: in the middle of an epoch
        # Between two stages; a larger picture is more work.
        ("pyramid", 2, signal.SIGTERM, 143, ["41%", "71%"]),
    ],
)
def test_a_stopped_run_resumes_exactly_where_it_was(
    name, last_step, stop, code, progress_shown, tiny, tmp_path, monkeypatch, capsys
):
    class Stop(train.Checkpoint):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if self.step == last_step:
                signal.raise_signal(stop)

    whole, broken, path = tmp_path / "whole", tmp_path / "broken", tmp_path / "recipe.toml"
    path.write_text(to_toml(RESUMED[name]))
    train.train(path, tiny.root, whole)
    command = ["train", "--recipe", str(path), "--data", str(tiny.root), "--run", str(broken)]
    with monkeypatch.context() as patch:
        patch.setattr(train, "Checkpoint", Stop)
        assert main(command) == code
    said = f"saved at step {last_step} of 4; run the same command to resume"
    assert said in capsys.readouterr().out
    assert not (broken / "metrics.json").exists()
    monkeypatch.setattr(progress, "LINE_SECONDS", -1)
    assert main(command) == 0
    said = capsys.readouterr().out
    assert re.findall(r"epoch 2/2: (\d+%), loss [\d.]+, dice ", said) == progress_shown
    histories = [pd.read_csv(run / "history.csv") for run in (whole, broken)]
    assert histories[1]["epoch"].tolist() == [1, 2]
    assert histories[1]["steps"].tolist() == [2, 4]
    for a, b in zip(weights(whole), weights(broken), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(*(h["val_loss"].to_numpy() for h in histories), atol=1e-6)
    # The training figures of half an epoch do not pass for those of the whole.
    assert histories[1][["loss", "seconds"]].isna().all(axis=1).tolist() == [
        epoch == (last_step - 1) // 2 for epoch in range(2)
    ]


def test_a_kill_between_an_epochs_last_step_and_its_row_loses_nothing(after, tiny, tmp_path):
    after(2, tmp_path)
    rows = pd.read_csv(tmp_path / "history.csv")
    rows.iloc[:1].to_csv(tmp_path / "history.csv", index=False)
    train.train(recipe(), tiny.root, tmp_path)
    again = pd.read_csv(tmp_path / "history.csv")
    assert again["epoch"].tolist() == [1, 2]
    assert again["val_dice"].tolist() == pytest.approx(rows["val_dice"].tolist(), abs=1e-6)
    (tmp_path / "metrics.json").unlink()
    assert train.train(recipe(), tiny.root, tmp_path)["epochs"] == 2


def test_a_history_that_does_not_fit_the_model_is_named(trained, tmp_path):
    text = (trained[1] / "history.csv").read_text()
    for broken in ("", text[:300], text[:-5], text.replace("\n2,", "\n7,")):
        (tmp_path / "history.csv").write_text(broken)
        with pytest.raises(CarvanaError, match="history.csv: (is not a training|does not fit)"):
            checkpoint.read_completed(tmp_path, recipe(), 40)


@pytest.mark.parametrize("name", ["model.keras", "best.keras", "report.html"])
def test_a_folder_with_files_of_others_is_refused_and_left_alone(name, tiny, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"holds {name} but no run.json"):
        train.train(recipe(), tiny.root, tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "run.json").exists()


def test_a_run_never_lies_among_the_data(tiny):
    held_out = recipe('data.validation_folders=["val", "val_masks"]')
    for folder in (tiny.root, tiny.train, tiny.train_masks, tiny.root / "val"):
        with pytest.raises(UsageError, match="holds the data; choose another folder for the run"):
            train.train(held_out, tiny.root, folder)


def test_a_second_training_is_refused_and_a_killed_one_resumed(tiny, tmp_path):
    run, history = tmp_path / "run", tmp_path / "run" / "history.csv"
    command = [sys.executable, "-m", "carvana", "train", "--data", tiny.root, "--run", run]
    for setting in (*TINY, "training.epochs=400"):
        command += ["--set", setting]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not history.exists() or history.read_text().count("\n") < 3:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    with pytest.raises(CarvanaError, match="run: another training is writing it"):
        train.train(recipe(), tiny.root, run)
    process.kill()
    process.wait()
    epochs = history.read_text().count("\n")  # one more than it has
    metrics = train.train(recipe(f"training.epochs={epochs}"), tiny.root, run)
    assert metrics["epochs"] == epochs
    assert pd.read_csv(history)["epoch"].tolist() == list(range(1, epochs + 1))


def test_a_broken_model_and_changed_data_are_named(after, tiny, tmp_path):
    after(1, tmp_path)
    whole = (tmp_path / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(whole[:1000])  # not to be trained from the beginning
    with pytest.raises(CarvanaError, match=r"model\.keras: is not a readable Keras model"):
        train.train(recipe(), tiny.root, tmp_path)
    assert (tmp_path / "model.keras").read_bytes() == whole[:1000]
    (tmp_path / "model.keras").write_bytes(whole)
    tiny.image("car0_01.jpg").unlink()
    tiny.mask("car0_01.jpg").unlink()
    with pytest.raises(CarvanaError, match=r"split\.csv: 1 of its images are not in the data"):
        train.train(recipe(), tiny.root, tmp_path)


@pytest.mark.parametrize(("what", "step", "epochs"), [("weights", 3, 3), ("optimizer", 4, 2)])
def test_weights_that_are_no_numbers_never_replace_good_ones(
    what, step, epochs, after, tiny, tmp_path, monkeypatch
):
    class Broken(train.Checkpoint):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if self.step == step:
                owner = self.whole if what == "weights" else self.whole.optimizer
                victim = next(each for each in owner.variables if len(each.shape) == 4)
                victim.assign(victim * np.nan)

    after(1, tmp_path)  # then in the middle of a run, or in its last step
    good = {name: (tmp_path / name).read_bytes() for name in ("model.keras", "best.keras")}
    monkeypatch.setattr(train, "Checkpoint", Broken)
    with pytest.raises(CarvanaError, match="the loss or a weight is not a number; the last good"):
        train.train(recipe(f"training.epochs={epochs}"), tiny.root, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in good} == good
    assert pd.read_csv(tmp_path / "history.csv")["epoch"].tolist() == [1]


def test_a_prepared_pair_that_is_cut_short_is_named(after, tiny, tmp_path, monkeypatch):
    class CuttingShort(train.Checkpoint):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 1:
                for file in tiny.cache.glob("*/car*"):
                    file.write_bytes(b"cut short")

    after(1, tmp_path)
    monkeypatch.setattr(train, "Checkpoint", CuttingShort)
    with pytest.raises(CarvanaError, match="a prepared pair in .*cache cannot be read; run"):
        train.train(recipe("training.epochs=9"), tiny.root, tmp_path)


def test_out_of_memory_is_one_line_and_no_error_is_taken_for_a_broken_pair(
    tiny, tmp_path, monkeypatch, capsys
):
    def train_with(error):
        def fail(*_):
            raise error

        monkeypatch.setattr(train, "_fit", fail)
        settings = [part for setting in TINY for part in ("--set", setting)]
        return main(["train", "--data", str(tiny.root), "--run", str(tmp_path), *settings])

    for error in (MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")):
        assert train_with(error) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("carvana train: out of memory; lower training.batch_size, ")
    with pytest.raises(tf.errors.InvalidArgumentError):
        train_with(tf.errors.InvalidArgumentError(None, None, "matrices do not fit"))


def test_disk_full_keeps_what_stood_before(after, tiny, tmp_path, monkeypatch):
    after(1, tmp_path)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*.keras")}

    def full(self, path, **options):
        path.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(CarvanaError, match="cannot be written .No space left on device.*free"):
        train.train(recipe(), tiny.root, tmp_path)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*.keras")} == before


def test_two_devices_share_each_batch(tiny, tmp_path):
    # With no dropout and no batch normalisation the gradient is the same.
    settings = [*TINY, "model.dropout=0", "model.num_layers=1", "training.epochs=1"]
    settings += ["training.learning_rate=1e-4"]
    code = f"""
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
from carvana.training import train
assert train._strategy([8, 0, 4]).num_replicas_in_sync == 2
assert train._strategy([8, 3, 4]).num_replicas_in_sync == 1  # would share unevenly
train.draw_history = print
train.train("blog", {str(tiny.root)!r}, {str(tmp_path / "two")!r}, {settings!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    one = train.train("blog", tiny.root, tmp_path / "one", settings)
    two = read_metrics(tmp_path / "two")
    assert two["steps"] == one["steps"]
    assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-3)


def test_a_run_takes_more_epochs_in_its_own_precision_and_no_other_change(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "choose_precision", lambda wanted: "mixed_bfloat16")
    auto = recipe("training.precision=auto", "training.epochs=1")
    assert train.train(auto, tiny.root, tmp_path)["precision"] == "mixed_bfloat16"
    monkeypatch.setattr(train, "choose_precision", lambda wanted: "float32")  # another machine
    metrics = train.train(recipe("training.precision=auto"), tiny.root, tmp_path)
    assert (metrics["epochs"], metrics["precision"]) == (2, "mixed_bfloat16")
    before = (tmp_path / "model.keras").read_bytes()
    named = recipe("training.precision=mixed_bfloat16", "training.epochs=1")
    assert train.train(named, tiny.root, tmp_path) == metrics  # fewer: nothing to do
    assert load_recipe(tmp_path / "recipe.toml").training.epochs == 2
    for change, says in (
        ("training.precision=float32", r"training\.precision \(auto, here float32\)"),
        ("model.filters=8", r"another recipe: model\.filters \(4, here 8\)"),
    ):
        with pytest.raises(UsageError, match=says):
            train.train(recipe("training.precision=auto", change), tiny.root, tmp_path)
    assert (tmp_path / "model.keras").read_bytes() == before


def test_a_training_shorter_than_a_pass_prepares_what_it_reads_alone_and_elsewhere(tiny, tmp_path):
    run, short = tmp_path / "run", recipe("training.epochs=1", "training.steps_per_epoch=1")
    for folder in (tiny.root, tiny.train, tiny.train_masks):
        folder.chmod(0o555)
    try:
        train.train(short, tiny.root, run, cache=tmp_path / "cache")
    finally:
        tiny.root.chmod(0o755)
    assert not tiny.cache.exists()
    validated = len(read_split(run / "split.csv", find_pairs(tiny.root, DATA)).validation)
    assert len(list((tmp_path / "cache").glob("*/car*"))) == 8 + validated < 20
    assert pd.read_csv(run / "history.csv")["val_dice"].notna().all()


def starting_from(source, *overrides):
    """The recipe, with a training rate so low that weights stay what they were."""
    still = recipe("training.epochs=1", "training.learning_rate=1e-9", *overrides)
    return dataclasses.replace(
        still, training=dataclasses.replace(still.training, initial_weights=str(source))
    )


def test_training_starts_from_weights_with_a_word_on_photographs_they_know(
    trained, tmp_path, monkeypatch, capsys
):
    def stop(*_):
        raise KeyboardInterrupt

    paths, before = trained
    run, start = tmp_path / "run", shutil.copytree(before, tmp_path / "start")
    wanted = starting_from(start, "input.height=64", "data.seed=5")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "_fit", stop)  # in its first step
        train.train(wanted, paths.root, run, cache=tmp_path / "cache")
    said = re.search(r"(\d+) of the \d+ validation photographs have", capsys.readouterr().err)
    validated = names_in(run / "split.csv", "validation")
    assert int(said[1]) == len(validated & names_in(before / "split.csv", "train")) > 0
    shutil.rmtree(start)  # a resumed run has no need of it
    assert train.train(wanted, paths.root, run, cache=tmp_path / "cache")["epochs"] == 1
    for old, new in zip(weights(before), weights(run), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


def test_the_photographs_that_a_start_was_trained_on_are_known(trained, tmp_path):
    names = [f"{car}_01.jpg" for car in ("00087a6bd4dc", "0ed6904e1004", "street")]
    names += [f"{car}_02.jpg" for car in pd.read_csv(CARS).query("sharp == 'test'")["car"]]
    roundabout = os.path.relpath(CARS.with_name("sharp.npz"))
    assert trained_on("sharp", names) == trained_on(roundabout, names) == names[:1]
    split = trained[1] / "split.csv"
    assert trained_on(str(trained[1]), names_in(split, "validation")) == []
    (tmp_path / "split.csv").write_text("img;subset\ncar_01.jpg;train\n")  # broken
    assert trained_on(str(tmp_path), names_in(split, "train")) == []


def test_a_start_that_does_not_fit_is_named_and_does_not_stand_in_the_way(trained, tiny, tmp_path):
    before, run = trained[1], tmp_path / "run"
    says = r"initial_weights = .*: are of another network: model\.filters \(4, here 5\)"
    with pytest.raises(UsageError, match=says):
        train.train(starting_from(before, "model.filters=5"), tiny.root, run)
    with pytest.raises(UsageError, match="initial_weights = nowhere: nowhere: no such run"):
        train.train(starting_from("nowhere"), tiny.root, run)
    photograph = tiny.image("car0_01.jpg")
    good = photograph.read_bytes()
    photograph.write_bytes(good[:300])
    with pytest.raises(CarvanaError, match="car0_01.jpg"):
        train.train(recipe(), tiny.root, run)
    photograph.write_bytes(good)
    assert train.train(recipe("training.epochs=1"), tiny.root, run)["epochs"] == 1
