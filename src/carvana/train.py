"""Train: recipe + data -> runs/<name>/, resumable after a kill at any moment."""

import json
import math
import sys
import time
from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf

from carvana import dataset, pipeline
from carvana.competition import Paths
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing, write_text
from carvana.losses import LOSSES
from carvana.metrics import dice
from carvana.recipe import Recipe, differences, load_recipe, to_toml
from carvana.unet import unet

MODEL, BEST, RECIPE, SPLIT, HISTORY, METRICS = (
    "model.keras",  # the last: what prediction uses and training goes on from
    "best.keras",  # of the epoch with the highest validation dice
    "recipe.toml",
    "split.csv",
    "history.csv",
    "metrics.json",
)
SAVE_SECONDS = 300  # between saves within an epoch, which on a laptop takes 25 minutes


def train(recipe: Recipe, paths: Paths, run: Path) -> dict:
    """Train a recipe, or go on with a run that was stopped.

    Args:
        recipe: every number of the experiment.
        paths: the competition's data.
        run: the folder for `model.keras`, `best.keras`, `recipe.toml`, `split.csv`,
            `history.csv`, `metrics.json` and TensorBoard's `logs/`.

    Returns:
        What `metrics.json` holds.

    Raises:
        CarvanaError: the data are at fault, a file cannot be written, or training diverged.
        UsageError: `run` holds another recipe's model.
        KeyboardInterrupt: Ctrl-C, after the model has been saved.
    """
    names = dataset.find_pairs(paths)
    _claim(run, recipe)
    split = _split(run, names, recipe)
    training = recipe.training
    steps = training.steps_per_epoch or math.ceil(len(split.train) / training.batch_size)

    keras.utils.set_random_seed(training.seed)
    keras.mixed_precision.set_global_policy(choose_precision(training.precision))
    model = _load_or_build(run, recipe)
    done = int(model.optimizer.iterations)
    history = _read_history(run, done // steps)
    if done >= steps * training.epochs and len(history) >= training.epochs:
        print(f"{run}: all {training.epochs} epochs are trained; nothing to do")
        if (run / METRICS).exists():
            return json.loads((run / METRICS).read_text())
        return _write_metrics(run, history, model, training)
    if done:
        print(f"{run}: goes on after step {done} of {steps * training.epochs}")

    images, masks = pipeline.load_pairs(split.train + split.validation, paths, recipe.input)
    n = len(split.train)
    validation = pipeline.validation_dataset(images[n:], masks[n:], training.batch_size)
    record = _Record(run, history, steps)
    record.set_model(model)
    epochs_done, steps_into = divmod(done, steps)
    if epochs_done > len(history):  # stopped between an epoch's last step and its validation
        logs = model.evaluate(validation, return_dict=True, verbose=0)
        record.on_epoch_begin(epochs_done - 1)
        record.on_epoch_end(epochs_done - 1, {f"val_{k}": v for k, v in logs.items()})

    callbacks = [
        keras.callbacks.TensorBoard(run / "logs", profile_batch=0),
        keras.callbacks.TerminateOnNaN(),
        record,
    ]
    fit = {
        "validation_data": validation,
        "callbacks": callbacks,
        "shuffle": False,  # the batches are shuffled already
        "verbose": 1 if sys.stdout.isatty() else 2,  # a bar on a terminal, else a line an epoch
    }

    def fit_epochs(first_step: int, last_epoch: int, steps_per_epoch: int) -> None:
        # Always by steps: Keras 3.15 runs an empty step at the end of a dataset of unknown length.
        batches = pipeline.training_dataset(images[:n], masks[:n], recipe, first_step)
        first = first_step // steps
        model.fit(
            batches, initial_epoch=first, epochs=last_epoch, steps_per_epoch=steps_per_epoch, **fit
        )

    try:
        if steps_into:  # first the rest of the epoch that was cut short
            fit_epochs(done, epochs_done + 1, steps - steps_into)
            done += steps - steps_into
        fit_epochs(done, training.epochs, steps)
    except KeyboardInterrupt:
        record.save()
        print(
            f"\n{run}: saved at step {int(model.optimizer.iterations)} of "
            f"{steps * training.epochs}; the same command goes on from there"
        )
        raise
    if model.stop_training:
        raise CarvanaError(
            f"{run}: the loss is not a number; the last good model is kept; lower "
            "training.learning_rate (--set training.learning_rate=...) and start another run"
        )
    return _write_metrics(run, record.history, model, training)


def compile_model(model: keras.Model, recipe: Recipe) -> None:
    """Give a model the recipe's optimizer, loss and metrics (accuracy and dice)."""
    training = recipe.training
    model.compile(
        optimizer=keras.optimizers.RMSprop(training.learning_rate, epsilon=training.epsilon),
        loss=LOSSES[training.loss](),
        metrics=[dice, keras.metrics.BinaryAccuracy(name="accuracy")],
    )


def build_model(recipe: Recipe) -> keras.Model:
    """Build the recipe's network, untrained and compiled."""
    settings, size = recipe.model, recipe.input
    model = unet(
        (size.height, size.width, 3),
        dropout=settings.dropout,
        filters=settings.filters,
        num_layers=settings.num_layers,
    )
    compile_model(model, recipe)
    return model


def load_model(path: Path, compiled: bool = True) -> keras.Model:
    """Load a saved model, with its optimizer where `compiled`; no extra arguments are needed.

    Raises:
        CarvanaError: absent, cut short, or not a Keras model.
    """
    if not path.is_file():
        raise CarvanaError(f"{path}: no such model; run `carvana train` first")
    try:
        return keras.saving.load_model(path, compile=compiled)
    except Exception as error:  # Keras raises whatever the broken part raised
        raise CarvanaError(
            f"{path}: is not a readable Keras model; restore it or delete it and train again"
        ) from error


def choose_precision(wanted: str) -> str:
    """Return the Keras dtype policy for "auto": the fastest this hardware computes safely.

    bfloat16 where the processor or GPU has it, float16 (Keras scales the loss) on GPUs with
    tensor cores but no bfloat16, else float32.
    """
    if wanted != "auto":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        major, _ = details.get("compute_capability", (0, 0))
        return {7: "mixed_float16"}.get(major, "mixed_bfloat16" if major >= 8 else "float32")
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


class _Record(keras.callbacks.Callback):
    """Keep `history.csv`, `model.keras` and `best.keras` up to date, each atomically.

    An epoch's row is written before the model that has it behind it: a kill between the two
    trains that epoch again and drops the row, so that none is repeated or lost.
    """

    def __init__(self, run: Path, history: pd.DataFrame, steps: int):
        super().__init__()
        self.run, self.history, self.steps = run, history, steps
        self.saved = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        epoch_ends = int(self.model.optimizer.iterations) % self.steps == 0
        if not epoch_ends and time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        if self.model.stop_training:  # diverged: keep the last good model
            return
        row = {
            "epoch": epoch + 1,
            "steps": int(self.model.optimizer.iterations),
            "seconds": round(time.monotonic() - self.begun, 3),
            **{name: float(value) for name, value in logs.items()},
        }
        best = self.history.get("val_dice", pd.Series(dtype=float)).max()
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        write_text(self.run / HISTORY, self.history.to_csv(index=False))
        if not row["val_dice"] <= best:
            with replacing(self.run / BEST) as temporary:
                self.model.save(temporary)
        self.save()

    def save(self):
        with replacing(self.run / MODEL) as temporary:
            self.model.save(temporary)
        self.saved = time.monotonic()


def _claim(run: Path, recipe: Recipe) -> None:
    """Write the recipe into the run; where a model is there already, it must be this recipe's."""
    path = run / RECIPE
    if not (run / MODEL).exists():
        for name in (SPLIT, HISTORY, METRICS, BEST):  # of a start that came to nothing
            (run / name).unlink(missing_ok=True)
    elif not path.exists():
        raise UsageError(f"{run}: holds a model without its {RECIPE}; choose another --run")
    else:
        changed = differences(load_recipe(path), recipe)
        changed = [key for key in changed if not key.startswith("training.epochs ")]
        if changed:
            raise UsageError(
                f"{run}: holds a run of another recipe: {', '.join(changed)}; "
                "give this one a name of its own (--run, or make NAME=...)"
            )
    write_text(path, to_toml(recipe))


def _split(run: Path, names: list[str], recipe: Recipe) -> dataset.Split:
    path = run / SPLIT
    if path.exists():
        return dataset.read_split(path, names)
    settings = recipe.data
    split = dataset.draw_split(names, settings.split, settings.validation, settings.seed)
    dataset.write_split(path, split)
    return split


def _load_or_build(run: Path, recipe: Recipe) -> keras.Model:
    if (run / MODEL).exists():
        model = load_model(run / MODEL)
        if model.optimizer is None:
            raise CarvanaError(f"{run / MODEL}: has no optimizer to go on with; start another run")
        for layer in model.layers:  # Keras saves no random state: count the draws made so far
            if isinstance(layer, keras.layers.Dropout) and layer.rate:
                seed, _ = layer.seed_generator.state.numpy()
                layer.seed_generator.state.assign([seed, int(model.optimizer.iterations)])
        return model
    return build_model(recipe)


def _read_history(run: Path, epochs_done: int) -> pd.DataFrame:
    path = run / HISTORY
    if not path.exists():
        return pd.DataFrame()
    try:
        history = pd.read_csv(path)
        return history[history["epoch"] <= epochs_done]
    except (KeyError, ValueError) as error:
        raise CarvanaError(f"{path}: is not a training history; start another run") from error


def _write_metrics(run: Path, history: pd.DataFrame, model: keras.Model, training) -> dict:
    last = history.iloc[-1]
    seconds = history["seconds"].sum()
    metrics = {
        "val_dice": last["val_dice"],
        "val_accuracy": last["val_accuracy"],
        "val_loss": last["val_loss"],
        "best_val_dice": history["val_dice"].max(),
        "steps": int(last["steps"]),
        "epochs": int(last["epoch"]),
        "seconds": round(seconds, 1),
        "images_per_second": round(last["steps"] * training.batch_size / seconds, 3),
        "parameters": model.count_params(),
        "precision": model.layers[1].dtype_policy.name,
    }
    write_text(run / METRICS, json.dumps(metrics, indent=2) + "\n")
    return metrics
