import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from carvana import progress
from carvana.data.pairs import find_pairs
from carvana.data.split import names_in, read_split
from carvana.errors import CarvanaError, UsageError
from carvana.networks.build import build_network
from carvana.recipe import load_recipe
from carvana.runs.folder import read_metrics
from carvana.runs.weights import CARS, trained_on
from carvana.training import checkpoint, train
from carvana.training.display import Display
from carvana.training.optimizers import compile_network
from conftest import DATA, TINY, TINY_PYRAMID, prepare_and_read, press_ctrl_c, write_competition


def recipe(*overrides):
    return load_recipe("blog", [*TINY, *overrides])


def weights(run):
    return keras.saving.load_model(run / "model.keras").get_weights()


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def start(tiny, run, epochs):
    """Train in a process of its own, which can be killed."""
    command = [sys.executable, "-m", "carvana", "train", "--data", tiny.root, "--run", run]
    for setting in (*TINY, f"training.epochs={epochs}"):
        command += ["--set", setting]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.01)


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


def test_the_figures_are_those_of_the_saved_model_averaged_over_batches(tiny, tmp_path):
    metrics = train.train(recipe("training.batch_size=3", "training.epochs=1"), tiny.root, tmp_path)
    split = read_split(tmp_path / "split.csv", find_pairs(tiny.root, DATA))
    images, masks = prepare_and_read(split.validation, tiny, recipe())
    model = keras.saving.load_model(tmp_path / "model.keras")
    dice, right = [], []
    for first in (0, 3):  # the last batch is short
        p, t = model.predict(images[first : first + 3], verbose=0), masks[first : first + 3]
        dice.append((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
        right.append((p > 0.5) == t)
    assert len(images) == 4
    assert metrics["val_dice"] == pytest.approx(np.mean(dice), abs=1e-5)
    assert metrics["val_accuracy"] == pytest.approx(np.concatenate(right).mean(), abs=1e-5)


THREE_STAGES = load_recipe(  # a size for each of its three epochs
    "sharp",
    [
        *TINY_PYRAMID,
        "input.width=64",
        "model.fine_filters=[18, 17]",
        "training.stages=[0.34, 0.33]",
    ],
)
RESUMED = {
    "unet": recipe("training.epochs=3"),
    "pyramid": THREE_STAGES,
    "pretrained": load_recipe("sharper", [*TINY_PYRAMID, "input.width=64"]),
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Train a recipe of RESUMED without a stop, once for all tests."""
    root = tmp_path_factory.mktemp("whole")
    data = write_competition(root / "data").root

    @functools.cache
    def train_whole(name):
        train.train(RESUMED[name], data, root / name)
        return data, root / name

    return train_whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "last_step"),
    [("unet", 3), ("pyramid", 4), ("pretrained", 3)],  # 4: between two stages
)
@pytest.mark.usefixtures("eagerly")
def test_a_stopped_run_resumes_exactly_where_it_was(
    name, last_step, whole_run, tmp_path, monkeypatch
):
    recipe, broken = RESUMED[name], tmp_path / "broken"
    data, whole = whole_run(name)

    # Stop after this step of 6, in the middle of an epoch, as Ctrl-C does.
    class Stop(train.Checkpoint):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if int(self.model.optimizer.iterations) == last_step:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "Checkpoint", Stop)
        with pytest.raises(KeyboardInterrupt):
            train.train(recipe, data, broken)
    assert not (broken / "metrics.json").exists()
    train.train(recipe, data, broken)
    histories = [pd.read_csv(run / "history.csv") for run in (whole, broken)]
    assert histories[1]["epoch"].tolist() == [1, 2, 3]
    assert histories[1]["steps"].tolist() == [2, 4, 6]
    for a, b in zip(weights(whole), weights(broken), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(*(h["val_loss"].to_numpy() for h in histories), atol=1e-6)
    # The training figures of half an epoch do not pass for those of the whole.
    assert histories[1][["loss", "seconds"]].isna().all(axis=1).tolist() == [
        epoch == (last_step - 1) // 2 for epoch in range(3)
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


def test_a_history_that_does_not_fit_the_model_is_named(after, tiny, tmp_path):
    after(3, tmp_path)
    path = tmp_path / "history.csv"
    text = path.read_text()
    for broken in ("", text[:300], text[:-5], text.replace("\n2,", "\n7,")):
        path.write_text(broken)
        with pytest.raises(CarvanaError, match="history.csv: does not fit the model"):
            train.train(recipe("training.epochs=4"), tiny.root, tmp_path)


def test_a_start_that_failed_does_not_stand_in_the_way(tiny, tmp_path):
    good = tiny.image("car0_01.jpg").read_bytes()
    tiny.image("car0_01.jpg").write_bytes(good[:300])
    with pytest.raises(CarvanaError, match="car0_01.jpg"):
        train.train(recipe(), tiny.root, tmp_path)
    tiny.image("car0_01.jpg").unlink()
    tiny.mask("car0_01.jpg").unlink()
    assert train.train(recipe("model.filters=2"), tiny.root, tmp_path)["epochs"] == 2


def test_piped_it_prints_a_line_an_epoch_and_sometimes_one_between(tiny, tmp_path, capsys):
    train.train(recipe(), tiny.root, tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("training on CPU, ")
    assert printed[1] == f"{tmp_path}: 4 steps, in float32"
    metrics = r"  loss \d\.\d{4}  dice 0\.\d{4}  val_loss \d\.\d{4}  val_dice 0\.\d{4}"
    assert len(printed) == 4
    for number, line in enumerate(printed[2:], 1):
        assert re.fullmatch(rf"epoch {number}/2{metrics}", line)


def test_the_bar_of_a_resumed_training_begins_where_it_stopped(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", -1)
    network = build_network(THREE_STAGES, "float32")
    compile_network(network, THREE_STAGES, 2)
    parts = train._parts(network, THREE_STAGES)
    displays = [Display(THREE_STAGES.training, parts, 2, 1, done) for done in range(7)]
    assert displays[0].costs == sorted(set(displays[0].costs))  # a larger picture, more work
    shares = [display.bar.done / display.bar.total for display in displays]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)

    resumed = displays[3]  # in the middle of the second epoch
    for epoch, steps in ((1, 1), (2, 2)):
        resumed.on_epoch_begin(epoch)
        for step in range(steps):
            resumed.on_train_batch_end(step, {"loss": 2.0, "dice": 0.5})
        resumed.on_test_batch_end(0)
        resumed.on_epoch_end(epoch, {"loss": 1.0})
    assert resumed.bar.done == pytest.approx(resumed.bar.total)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("epoch 2/3: ")
    assert printed[0].endswith("%, loss 2.0000, dice 0.5000")
    assert [line for line in printed if ":" not in line] == [
        "epoch 2/3  loss 1.0000",
        "epoch 3/3  loss 1.0000",
    ]


def test_a_recipe_may_be_named_and_the_folders_be_strings(tiny, tmp_path):
    run = str(tmp_path / "run")
    assert train.train("blog", str(tiny.root), run, [*TINY, "training.epochs=1"])["epochs"] == 1
    assert load_recipe(tmp_path / "run" / "recipe.toml") == recipe("training.epochs=1")


@pytest.mark.parametrize("name", ["model.keras", "best.keras", "history.csv", "report.html"])
def test_a_folder_with_files_of_others_is_refused_and_left_alone(name, tiny, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_text("mine")
    with pytest.raises(UsageError, match=f"run: holds {name} but no run.json"):
        train.train(recipe(), tiny.root, run)
    assert [(file.name, file.read_text()) for file in run.iterdir()] == [(name, "mine")]


def test_a_step_is_traced_once(tiny, tmp_path, monkeypatch):
    """A variable that is made in the first step makes TensorFlow trace it again."""
    traced, step = [], keras.Model.train_step
    monkeypatch.setattr(
        keras.Model, "train_step", lambda self, data: traced.append(data) or step(self, data)
    )
    train.train(recipe("training.epochs=1"), tiny.root, tmp_path)
    assert len(traced) == 1


def test_a_run_never_lies_among_the_data(tiny):
    for folder in (tiny.root, tiny.train, tiny.train_masks):
        with pytest.raises(UsageError, match="holds the data; choose another folder for the run"):
            train.train(recipe(), tiny.root, folder)


def test_a_run_never_lies_among_the_pictures_that_validate(tiny):
    held_out = recipe('data.validation_folders=["val", "val_masks"]')
    with pytest.raises(UsageError, match="val: holds the data; choose another folder"):
        train.train(held_out, tiny.root, tiny.root / "val")


def test_a_run_of_another_layout_is_refused_and_left_alone(tiny, tmp_path):
    (tmp_path / "run.json").write_text('{"carvana": "9.0.0", "layout": 9}')
    (tmp_path / "model.keras").write_text("mine")
    with pytest.raises(UsageError, match=r"run\.json: the run has layout 9"):
        train.train(recipe(), tiny.root, tmp_path)
    assert (tmp_path / "model.keras").read_text() == "mine"


def test_a_second_training_is_refused_and_a_killed_one_resumed(tiny, tmp_path):
    run = tmp_path / "run"
    process = start(tiny, run, epochs=400)
    wait_for(lambda: len(_lines(run)) > 2, process)
    with pytest.raises(CarvanaError, match="run: another training is writing it"):
        train.train(recipe(), tiny.root, run)
    process.kill()
    process.wait()
    epochs = len(_lines(run)) + 1
    metrics = train.train(recipe(f"training.epochs={epochs}"), tiny.root, run)
    assert metrics["epochs"] == epochs
    assert pd.read_csv(run / "history.csv")["epoch"].tolist() == list(range(1, epochs + 1))


@pytest.mark.parametrize("stop", ["Ctrl-C", "SIGTERM"])
def test_a_stopped_process_saves_and_says_how_to_resume(stop, tiny, tmp_path):
    run = tmp_path / "run"
    process = start(tiny, run, epochs=400)
    wait_for(lambda: len(_lines(run)) > 2, process)
    if stop == "SIGTERM":
        process.terminate()
        printed, _ = process.communicate(timeout=120)
    else:
        printed, _ = press_ctrl_c(process)
    assert process.returncode == {"SIGTERM": 143, "Ctrl-C": 130}[stop]
    assert "saved at step" in printed
    assert "run the same command to resume" in printed
    assert "Traceback" not in printed
    assert (run / "model.keras").exists()


def _lines(run):
    path = run / "history.csv"
    return path.read_text().splitlines() if path.exists() else []


def test_more_epochs_may_be_asked_of_a_run_but_nothing_else_changed(after, tiny, tmp_path):
    after(2, tmp_path)
    assert train.train(recipe("training.epochs=3"), tiny.root, tmp_path)["epochs"] == 3
    before = (tmp_path / "model.keras").read_bytes()
    assert train.train(recipe(), tiny.root, tmp_path)["epochs"] == 3  # fewer: nothing to do
    assert load_recipe(tmp_path / "recipe.toml").training.epochs == 3
    with pytest.raises(UsageError, match=r"another recipe: model\.filters \(4, here 8\)"):
        train.train(recipe("model.filters=8"), tiny.root, tmp_path)
    assert (tmp_path / "model.keras").read_bytes() == before


def test_broken_model_and_changed_data_are_named(after, tiny, tmp_path):
    after(2, tmp_path)
    model = (tmp_path / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(model[:1000])
    with pytest.raises(CarvanaError, match=r"model\.keras: is not a readable Keras model"):
        train.train(recipe("training.epochs=3"), tiny.root, tmp_path)
    tiny.image("car0_01.jpg").unlink()
    tiny.mask("car0_01.jpg").unlink()
    with pytest.raises(CarvanaError, match=r"split\.csv: 1 of its images are not in the data"):
        train.train(recipe("training.epochs=3"), tiny.root, tmp_path)


def test_divergence_is_told_and_keeps_the_last_good_model(after, tiny, tmp_path):
    after(1, tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    model.optimizer.learning_rate = 1e30
    model.save(tmp_path / "model.keras")
    with pytest.raises(CarvanaError, match="the loss or a weight is not a number"):
        train.train(recipe("training.epochs=9"), tiny.root, tmp_path)
    assert all(np.isfinite(w).all() for w in weights(tmp_path))


def break_at(step, what):
    """A checkpoint that makes a number of the weights or of the optimizer's state NaN."""

    class Broken(train.Checkpoint):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if self.step == step:
                state = self.whole.weights if what == "weights" else self.whole.optimizer.variables
                victim = next(each for each in state if len(each.shape) == 4)
                victim.assign(victim * np.nan)

    return Broken


@pytest.mark.parametrize(("what", "epochs"), [("weights", 2), ("optimizer", 3)])
def test_weights_that_are_no_numbers_never_replace_good_ones(
    what, epochs, after, tiny, tmp_path, monkeypatch
):
    """The last step of the second epoch breaks them: of the last epoch, or before it."""
    after(1, tmp_path)
    good = {name: (tmp_path / name).read_bytes() for name in ("model.keras", "best.keras")}
    monkeypatch.setattr(train, "Checkpoint", break_at(4, what))
    with pytest.raises(CarvanaError, match="the loss or a weight is not a number; the last good"):
        train.train(recipe(f"training.epochs={epochs}"), tiny.root, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in good} == good
    assert pd.read_csv(tmp_path / "history.csv")["epoch"].tolist() == [1]
    monkeypatch.undo()
    assert train.train(recipe(), tiny.root, tmp_path)["epochs"] == 2  # and training can resume


def test_an_epoch_whose_dice_is_no_number_is_not_the_best(after, tmp_path):
    after(2, tmp_path)
    best = (tmp_path / "best.keras").read_bytes()
    os.utime(tmp_path / "model.keras")
    history = pd.read_csv(tmp_path / "history.csv")
    history.loc[1, "val_dice"] = np.nan
    (tmp_path / "model.keras").write_bytes(b"a model of no numbers")
    checkpoint.keep_best(tmp_path, history, recipe().training)
    assert (tmp_path / "best.keras").read_bytes() == best


def test_a_prepared_pair_that_is_gone_is_named_and_no_other_error_taken_for_it(
    after, tiny, tmp_path, monkeypatch
):
    class Deleting(train.Checkpoint):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 1:
                for file in tiny.cache.glob("*/car*"):
                    file.write_bytes(b"cut short")

    after(1, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train, "Checkpoint", Deleting)
        with pytest.raises(CarvanaError, match="a prepared pair in .*cache cannot be read; run"):
            train.train(recipe("training.epochs=9"), tiny.root, tmp_path)

    def fail(*_):
        raise tf.errors.InvalidArgumentError(None, None, "matrices do not fit")

    with monkeypatch.context() as patch, pytest.raises(tf.errors.InvalidArgumentError):
        patch.setattr(train, "_fit", fail)
        train.train(recipe("training.epochs=9"), tiny.root, tmp_path)


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


@pytest.mark.slow
def test_two_devices_share_each_batch(tiny, tmp_path):
    run, name = tmp_path / "two", "blog"
    # With no dropout and no batch normalisation the gradient is the same.
    settings = [*TINY, "model.dropout=0", "training.learning_rate=1e-4"]
    code = f"""
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
from carvana.recipe import load_recipe
from carvana.training import train
assert train._strategy([8, 0, 4]).num_replicas_in_sync == 2
assert train._strategy([8, 3, 4]).num_replicas_in_sync == 1  # would share unevenly
recipe = load_recipe({name!r}, {settings!r})
train.train(recipe, {str(tiny.root)!r}, {str(run)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    train.train(load_recipe(name, settings), tiny.root, tmp_path / "one")
    two, one = (json.loads((run / "metrics.json").read_text()) for run in (run, tmp_path / "one"))
    assert two["steps"] == one["steps"]
    assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-3)


def test_a_run_keeps_its_precision_on_other_hardware(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "choose_precision", lambda wanted: "mixed_bfloat16")
    auto = recipe("training.precision=auto", "training.epochs=1")
    assert train.train(auto, tiny.root, tmp_path)["precision"] == "mixed_bfloat16"
    monkeypatch.setattr(train, "choose_precision", lambda wanted: "float32")  # another machine
    longer = recipe("training.precision=auto")
    assert train.train(longer, tiny.root, tmp_path)["precision"] == "mixed_bfloat16"
    named = recipe("training.precision=mixed_bfloat16", "training.epochs=3")
    assert train.train(named, tiny.root, tmp_path)["epochs"] == 3
    with pytest.raises(UsageError, match=r"training\.precision \(mixed_bfloat16, here float32\)"):
        train.train(recipe("training.precision=float32"), tiny.root, tmp_path)


def test_a_training_shorter_than_a_pass_decodes_what_it_reads_alone(tiny, tmp_path):
    run = tmp_path / "run"
    train.train(recipe("training.epochs=1", "training.steps_per_epoch=1"), tiny.root, run)
    validated = len(read_split(run / "split.csv", find_pairs(tiny.root, DATA)).validation)
    files = [file for file in tiny.cache.rglob("car*") if file.is_file()]
    assert len(files) == 8 + validated < 20
    assert pd.read_csv(run / "history.csv")["val_dice"].notna().all()


def test_prepared_pairs_may_lie_elsewhere(tiny, tmp_path):
    for folder in (tiny.root, tiny.train, tiny.train_masks):
        folder.chmod(0o555)
    try:
        metrics = train.train(recipe(), tiny.root, tmp_path / "run", cache=tmp_path / "cache")
    finally:
        tiny.root.chmod(0o755)
    assert metrics["epochs"] == 2
    assert len(list((tmp_path / "cache").glob("*/car*"))) == 20
    assert not tiny.cache.exists()


def starting_from(source, *overrides):
    """The recipe, with a training rate so low that weights stay what they were."""
    still = recipe("training.epochs=1", "training.learning_rate=1e-9", *overrides)
    return dataclasses.replace(
        still, training=dataclasses.replace(still.training, initial_weights=str(source))
    )


def test_training_may_start_from_weights(trained, tmp_path):
    paths, before = trained
    train.train(starting_from(before, "input.height=64"), paths.root, tmp_path / "run")
    for old, new in zip(weights(before), weights(tmp_path / "run"), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


def test_validating_on_what_the_start_was_trained_on_is_said(trained, tmp_path, capsys):
    paths, before = trained
    train.train(starting_from(before), paths.root, tmp_path / "same")
    assert "validation photographs" not in capsys.readouterr().err
    train.train(starting_from(before, "data.seed=5"), paths.root, tmp_path / "other")
    said = re.search(r"(\d+) of the \d+ validation photographs have", capsys.readouterr().err)
    seen = names_in(before / "split.csv", "train") & names_in(
        tmp_path / "other" / "split.csv", "validation"
    )
    assert int(said[1]) == len(seen) > 0


def test_a_start_with_a_broken_split_is_good_enough(trained, tmp_path, capsys):
    paths, before = trained
    start = shutil.copytree(before, tmp_path / "start")
    (start / "split.csv").write_text("img;subset\ncar_01.jpg;train\n")
    train.train(starting_from(start, "data.seed=5"), paths.root, tmp_path / "run")
    assert "validation photographs" not in capsys.readouterr().err


def test_a_run_stopped_in_its_first_step_resumes_without_its_start(trained, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    paths, before = trained
    start = shutil.copytree(before, tmp_path / "start")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "_fit", stop)
        train.train(starting_from(start), paths.root, tmp_path / "run")
    shutil.rmtree(start)
    assert train.train(starting_from(start), paths.root, tmp_path / "run")["epochs"] == 1


def test_the_cars_that_shipped_weights_were_trained_on_are_known():
    names = [f"{car}_01.jpg" for car in ("00087a6bd4dc", "0ed6904e1004", "street")]
    names += [f"{car}_02.jpg" for car in pd.read_csv(CARS).query("sharp == 'test'")["car"]]
    roundabout = os.path.relpath(CARS.with_name("sharp.npz"))
    assert trained_on("sharp", names) == trained_on(roundabout, names) == names[:1]


def test_a_start_that_does_not_fit_is_named_and_does_not_stand_in_the_way(trained, tmp_path):
    paths, before = trained
    run, changed = tmp_path / "run", shutil.copytree(before, tmp_path / "changed")
    text = (changed / "recipe.toml").read_text()
    for key, wrong in (("filters", 5), ("num_layers", 3)):
        other = re.sub(rf"^{key} = \d$", f"{key} = {wrong}", text, flags=re.MULTILINE)
        assert other != text
        says = rf"initial_weights = .*: are of another network: model\.{key} \(\d, here {wrong}\)"
        with pytest.raises(UsageError, match=says):
            train.train(starting_from(before, f"model.{key}={wrong}"), paths.root, run)
        (changed / "recipe.toml").write_text(other)
        with pytest.raises(CarvanaError, match=r"model\.keras: does not match its recipe\.toml"):
            train.train(starting_from(changed, f"model.{key}={wrong}"), paths.root, run)
    with pytest.raises(UsageError, match="initial_weights = nowhere: nowhere: no such run"):
        train.train(starting_from("nowhere"), paths.root, run)
    train.train(recipe("training.epochs=1"), paths.root, run)
