"""What a training keeps in its run folder: history, plot, metrics, models; how it resumes."""

import json
import shutil
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from carvana import __version__
from carvana.backend import keras
from carvana.data.split import Split, write_split
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing, write_text
from carvana.networks.build import describe_device, load_network
from carvana.recipe import Recipe, Training, differences, load_recipe, to_toml
from carvana.runs.folder import (
    BEST,
    HISTORY,
    LAYOUT,
    MARKER,
    METRICS,
    MODEL,
    OURS,
    PLOT,
    RECIPE,
    SPLIT,
    check_layout,
    history_columns,
    read_history,
)

SAVE_SECONDS = 300  # between saves within an epoch, which on a laptop takes 25 minutes


def check_run(run: Path, recipe: Recipe) -> str | None:
    """Make sure that a recipe can be trained in a folder. Nothing is written or deleted.

    Returns:
        The dtype policy under which the run in it was begun; None if there is none to resume.

    Raises:
        UsageError: the folder is not the kit's, or holds a run of another recipe, or a trained
            model that training would replace.
    """
    present = [name for name in OURS if (run / name).exists()]
    precision = None
    if (run / MARKER).exists():
        precision = check_layout(run)["precision"]
    elif present:
        raise UsageError(
            f"{run}: holds {', '.join(present)} but no {MARKER}, so this version of the kit did "
            "not make it; choose another --run"
        )
    if MODEL not in present:
        for name in (BEST, METRICS):
            if name in present:
                raise UsageError(
                    f"{run}: holds {name} without {MODEL}, and training would replace it; restore "
                    "the model or choose another --run"
                )
        return None
    for name in (RECIPE, SPLIT):
        if name not in present:
            raise UsageError(f"{run}: holds a model without its {name}; choose another --run")
    training, may_change = recipe.training, ()
    if training.precision in ("auto", precision):  # then nothing changes
        may_change += ("training.precision ",)
    if training.schedule == "constant" and not training.stages:  # more epochs may be trained
        may_change += ("training.epochs ",)
    changed = differences(load_recipe(run / RECIPE), recipe)
    changed = [key for key in changed if not key.startswith(may_change)]
    if changed:
        raise UsageError(
            f"{run}: holds a run of another recipe: {', '.join(changed)}; "
            "give this one a folder of its own (--run, or make NAME=...)"
        )
    return precision


def start_folder(run: Path, split: Split, precision: str) -> None:
    """Begin a run: mark its folder, write its split; what a failed start left is replaced."""
    marker = {"carvana": __version__, "layout": LAYOUT, "precision": precision}
    write_text(run / MARKER, json.dumps(marker) + "\n")
    (run / HISTORY).unlink(missing_ok=True)
    write_split(run / SPLIT, split)


def load_checkpoint(run: Path, precision: str, seed: int) -> "keras.Model":
    """Load a run's network to train it further, with the random numbers it would have drawn.

    `precision` and `seed` are what it was built with.

    Raises:
        CarvanaError: it cannot be trained further.
    """
    path = run / MODEL
    network = load_network(path, precision, seed)
    optimizer = network.optimizer
    steps = 0 if optimizer is None else int(optimizer.iterations.numpy())
    if optimizer is None or (steps == 0 and (run / HISTORY).exists()):
        raise CarvanaError(f"{path}: has no optimizer's state to resume with; start another run")
    for layer in network.layers:  # Keras saves no random state: count the draws made so far
        if isinstance(layer, keras.layers.Dropout) and layer.rate:
            seed, _ = layer.seed_generator.state.numpy()
            layer.seed_generator.state.assign([seed, steps])
    return network


class Checkpoint(keras.callbacks.Callback):
    """Keep `history.csv`, `model.keras` and `best.keras` up to date, each atomically.

    A loss or weight that is not finite ends the training by a CarvanaError, and is not saved.

    An epoch's row is written before the model that has completed it: a kill between the two
    trains that epoch again and drops the row, so that none is repeated or lost.

    `history` has the rows of the epochs completed before, `steps` are those of an epoch, `done`
    those completed before, and `whole` is the network to save, whichever part of it is fitted.
    """

    def __init__(self, run: Path, history: pd.DataFrame, steps: int, done: int, whole, recipe):
        super().__init__()
        self.run, self.history, self.steps, self.step = run, history, steps, done
        self.whole, self.recipe = whole, recipe
        self.saved = time.monotonic()
        self.began = None  # when this epoch's first step began, None if that was before a stop

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.monotonic() if self.step % self.steps == 0 else None

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if not np.isfinite(logs["loss"]):
            raise self._diverged()
        if self.step % self.steps and time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite(logs["val_loss"]):
            raise self._diverged()
        self._check_weights()
        row = {"epoch": epoch + 1, "steps": self.step, **logs}
        if self.began:
            row["seconds"] = time.monotonic() - self.began
        else:  # figures of a part would look like those of the whole epoch
            row = {key: row[key] for key in row if key not in ("accuracy", "dice", "loss")}
        rows = [*self.history.to_dict("records"), row]
        self.history = pd.DataFrame(rows, columns=history_columns(self.recipe))
        write_text(self.run / HISTORY, self.history.to_csv(index=False))
        self.save()
        keep_best(self.run, self.history, self.recipe.training)

    def save(self, after_failed_step: bool = False):
        """Save the whole network; the optimizer may have counted a step that failed."""
        self._check_weights()
        # A step whose float16 gradients overflowed is skipped, and not counted, by the optimizer.
        if not after_failed_step:
            self.step = max(self.step, int(self.whole.optimizer.iterations.numpy()))
        (self.run / METRICS).unlink(missing_ok=True)  # it is there when training is finished
        write_text(self.run / RECIPE, to_toml(self.recipe))
        self.whole.optimizer.iterations.assign(self.step)
        with replacing(self.run / MODEL) as temporary:
            self.whole.save(temporary)
        self.saved = time.monotonic()

    def _check_weights(self) -> None:
        variables = (*self.whole.variables, *self.whole.optimizer.variables)
        if not all(np.isfinite(keras.ops.convert_to_numpy(each)).all() for each in variables):
            raise self._diverged()

    def _diverged(self) -> CarvanaError:
        return CarvanaError(
            f"{self.run}: the loss or a weight is not a number; the last good model, if one was "
            "saved, is kept; lower training.learning_rate (--set training.learning_rate=...) in "
            "another run"
        )


def keep_best(run: Path, history: pd.DataFrame, training: Training) -> None:
    """Copy the model that completed the last epoch to `best.keras` if none of its stage is better.

    Call it with the model of just that epoch in place.
    """
    *before, last = _dice_of_stage(history, training)
    if before and not last > max(before):
        return
    with replacing(run / BEST) as temporary:
        shutil.copyfile(run / MODEL, temporary)


def read_completed(run: Path, recipe: Recipe, epochs_done: int) -> pd.DataFrame:
    """Read the rows of the epochs the model has completed; the last may be missing after a kill.

    Raises:
        CarvanaError: they do not fit the model.
    """
    columns, path = history_columns(recipe), run / HISTORY
    history = pd.DataFrame(columns=columns)
    if epochs_done and path.exists():
        history = read_history(run, columns)
    history = history[history["epoch"] <= epochs_done]
    if list(history["epoch"]) != list(range(1, len(history) + 1)) or len(history) < epochs_done - 1:
        raise CarvanaError(
            f"{path}: does not fit the model beside it; restore it or start another run"
        )
    return history


def write_metrics(
    run: Path, recipe: Recipe, history: pd.DataFrame, network, precision: str, images: int
) -> dict:
    """Write and return the figures of a finished training on so many photographs."""
    training, now = recipe.training, datetime.now()
    last, timed = history.iloc[-1], history.dropna(subset="seconds")
    seconds = float(timed["seconds"].sum())
    epoch_images = training.steps_per_epoch * training.batch_size or images
    metrics = {name: float(last[name]) for name in ("val_dice", "val_accuracy", "val_loss")}
    metrics |= {
        "best_val_dice": max(_dice_of_stage(history, training)),
        "steps": int(last["steps"]),
        "epochs": int(last["epoch"]),
        # Of epochs that were not cut short; validation and the first step's compilation included.
        "seconds": round(seconds, 1),
        "images_per_second": round(epoch_images * len(timed) / seconds, 3) if seconds else None,
        "parameters": network.count_params(),
        "precision": precision,
        "device": describe_device(),
        "date": f"{now.day} {now:%B %Y}",
    }
    if recipe.data.classes:
        metrics |= {name: float(last[name]) for name in ("val_expected_dice", "val_iou")}
        for score in ("val_dice", "val_iou"):
            each = {name: float(last[f"{score}_{name}"]) for name in recipe.data.classes}
            metrics[f"{score}_by_class"] = {n: value for n, value in each.items() if value == value}
    write_text(run / METRICS, json.dumps(metrics, indent=2) + "\n")
    return metrics


def draw_history(run: Path) -> None:
    """Save a plot of a run's dice, accuracy and loss by training step, `history.png`.

    Raises:
        CarvanaError: the history cannot be read or the picture not be written.
    """
    from matplotlib.figure import Figure

    rows = read_history(run)
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("dice", "accuracy", "loss"), strict=True):
        axes.plot(rows["steps"], rows[name], ":", color="#5c6168", label="training")
        axes.plot(rows["steps"], rows[f"val_{name}"], "o-", color="#1f5fc4", label="validation")
        axes.set(xlabel="step", title=name, yscale="log" if name == "loss" else "linear")
        axes.legend()
    with replacing(run / PLOT) as temporary:
        figure.savefig(temporary)


def _dice_of_stage(history: pd.DataFrame, training: Training) -> list[float]:
    """Return the validation dice of the epochs that trained the same network as the last one."""
    stages = history["epoch"].map(lambda number: training.stage_of(number - 1))
    return history["val_dice"][stages == stages.iloc[-1]].tolist()
