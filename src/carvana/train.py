"""Train: recipe + data -> runs/<name>/, resumable after a kill at any moment."""

import contextlib
import io
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf

from carvana import dataset, pipeline
from carvana.competition import Paths
from carvana.errors import CarvanaError, UsageError
from carvana.files import alone, clear_temporaries, replacing, write_text
from carvana.losses import LOSSES
from carvana.metrics import dice
from carvana.muon import ConvolutionMuon
from carvana.progress import LINE_SECONDS
from carvana.pyramid import coarse_part, pyramid_unet
from carvana.recipe import Input, PyramidUnet, Recipe, Training, differences, load_recipe, to_toml
from carvana.unet import unet

MODEL, BEST, RECIPE, SPLIT, HISTORY, METRICS = (
    "model.keras",  # the last: what prediction uses and training goes on from
    "best.keras",  # of the epoch with the highest validation dice
    "recipe.toml",
    "split.csv",
    "history.csv",
    "metrics.json",
)
COLUMNS = [  # of history.csv; empty where an epoch was cut short
    *("epoch", "steps", "seconds", "accuracy", "dice", "loss"),
    *("val_accuracy", "val_dice", "val_loss"),
]
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
    with alone(run, "training"):
        return _train(recipe, paths, run)


def _train(recipe: Recipe, paths: Paths, run: Path) -> dict:
    _check_run(run, recipe)
    names = dataset.find_pairs(paths)
    split = _split(run, names, recipe)
    training = recipe.training
    steps = training.steps_per_epoch or math.ceil(len(split.train) / training.batch_size)

    keras.utils.set_random_seed(training.seed)
    keras.mixed_precision.set_global_policy(choose_precision(training.precision))
    last = [len(part) % training.batch_size for part in (split.train, split.validation)]
    with _strategy([training.batch_size, *last]).scope():
        model = _load_or_build(run, recipe, steps)
        parts = _parts(model, recipe)
    done = int(model.optimizer.iterations.numpy())
    history = _read_history(run, done // steps)
    if done >= steps * training.epochs and len(history) >= training.epochs:
        print(f"{run}: {len(history)} epochs are trained already; nothing to do")
        return _read_metrics(run) or _write_metrics(run, history, model, len(split.train), training)
    if done:
        print(f"{run}: goes on after step {done} of {steps * training.epochs}")

    files = pipeline.prepare(split.train + split.validation, paths, recipe.input)
    n = len(split.train)
    write_text(run / RECIPE, to_toml(recipe))
    (run / METRICS).unlink(missing_ok=True)  # it is there when training is finished
    clear_temporaries(run)
    epochs_done, steps_into = divmod(done, steps)
    record = _Record(run, history, steps, done, model, training)
    callbacks = [
        keras.callbacks.TensorBoard(run / "logs", profile_batch=0),
        keras.callbacks.TerminateOnNaN(),
        record,
    ]

    def trained_in(epoch: int) -> tuple[keras.Model, int, tf.data.Dataset]:
        """The network an epoch trains, how much its pictures are shrunk, and its validation."""
        network = parts[_stage(training, epoch)]
        shrink = recipe.input.height // network.input_shape[1]
        return network, shrink, pipeline.validation_dataset(files[n:], recipe, shrink)

    if epochs_done > len(history):  # stopped between an epoch's last step and its validation
        network, _, validation = trained_in(epochs_done - 1)
        logs = network.evaluate(validation, return_dict=True, verbose=0)
        record.set_model(network)
        record.on_epoch_end(epochs_done - 1, {f"val_{name}": v for name, v in logs.items()})

    def fit_epochs(first_step: int, last_epoch: int, steps_per_epoch: int) -> None:
        # Always by steps: Keras 3.15 runs an empty step at the end of a dataset of unknown length.
        first = first_step // steps
        network, shrink, validation = trained_in(first)
        network.fit(
            pipeline.training_dataset(files[:n], recipe, first_step, shrink),
            initial_epoch=first,
            epochs=last_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation,
            callbacks=callbacks,
            shuffle=False,  # the batches are shuffled already
            verbose=1 if sys.stdout.isatty() else 2,  # a bar on a terminal, else a line an epoch
        )
        if network.stop_training:
            raise CarvanaError(
                f"{run}: the loss is not a number; the last good model, if one was saved, is kept; "
                "lower training.learning_rate (--set training.learning_rate=...) in another run"
            )

    try:
        if steps_into:  # first the rest of the epoch that was cut short
            fit_epochs(done, epochs_done + 1, steps - steps_into)
            done += steps - steps_into
        for last_epoch in training.stages:
            if done < steps * last_epoch:
                fit_epochs(done, last_epoch, steps)
                done = steps * last_epoch
    except KeyboardInterrupt:
        with _uninterrupted():
            record.save()
        print(
            f"\n{run}: saved at step {record.step} of {steps * training.epochs}; "
            "the same command goes on from there"
        )
        raise
    except tf.errors.ResourceExhaustedError:
        raise
    except tf.errors.OpError as error:  # of the input: a prepared pair is gone
        record.save()
        raise CarvanaError(
            f"{run}: a prepared pair in {paths.cache} cannot be read; run the same command again: "
            f"it is made anew, and training goes on from step {record.step}"
        ) from error
    return _write_metrics(run, record.history, model, n, training)


def build_network(recipe: Recipe, pictures: Input | None = None) -> keras.Model:
    """Build the recipe's network with fresh weights, in the precision that is set.

    Args:
        recipe: whose network.
        pictures: what it takes; what the recipe trains on when None.
    """
    pictures = pictures or recipe.input
    settings, input_shape = recipe.model, (pictures.height, pictures.width, 3)
    if isinstance(settings, PyramidUnet):
        return pyramid_unet(
            input_shape, settings.filters, settings.fine_filters, settings.pretrained
        )
    return unet(
        input_shape,
        dropout=settings.dropout,
        filters=settings.filters,
        num_layers=settings.num_layers,
    )


def build_model(recipe: Recipe, steps: int) -> keras.Model:
    """Build the recipe's network, untrained and compiled.

    Args:
        recipe: whose network, optimizer, loss and schedule.
        steps: of an epoch, which the learning rate's schedule counts by.
    """
    training, model = recipe.training, build_network(recipe)
    rate = training.learning_rate
    if training.schedule == "cosine":
        total = steps * training.epochs
        warmup = min(math.ceil(total * training.warmup), total - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate, total - warmup, warmup_target=rate, warmup_steps=warmup
        )
    # Keras decays weights apart from the gradient, so that its Adam with decay is AdamW.
    kind = {
        "rmsprop": keras.optimizers.RMSprop,
        "adamw": keras.optimizers.Adam,
        "muon": ConvolutionMuon,
    }
    optimizer = kind[training.optimizer](
        rate, epsilon=training.epsilon, weight_decay=training.weight_decay or None
    )
    _compile(model, optimizer, recipe)
    model.optimizer.build(model.trainable_variables)  # all, also where a part is trained first
    return model


def _compile(model: keras.Model, optimizer: keras.optimizers.Optimizer, recipe: Recipe) -> None:
    """Give a model an optimizer, and the recipe's loss and metrics (accuracy and dice)."""
    model.compile(
        optimizer=optimizer,
        loss=LOSSES[recipe.training.loss](),
        metrics=[dice, keras.metrics.BinaryAccuracy(name="accuracy")],
    )


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


def _strategy(batches: list[int]) -> tf.distribute.Strategy:
    """Share batches of these sizes among as many of the machine's GPUs as divide them all.

    Of uneven shares Keras makes wrong means, of empty ones not-a-number.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    count = max(n for n in range(1, len(devices) + 1) if all(size % n == 0 for size in batches))
    if count < len(devices):
        sizes = ", ".join(map(str, sorted({size for size in batches if size})))
        print(f"{count} of {len(devices)} GPUs: no more divide batches of {sizes} evenly")
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices[:count]])


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

    def __init__(
        self,
        run: Path,
        history: pd.DataFrame,
        steps: int,
        done: int,
        whole: keras.Model,
        training: Training,
    ):
        super().__init__()
        self.run, self.history, self.steps, self.step = run, history, steps, done
        self.whole, self.training = whole, training
        self.set_model(whole)  # until a part of it is fitted; the whole is what is saved
        self.saved = self.told = time.monotonic()
        self.begun = None  # when this epoch's first step began, None if that was before a stop

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.monotonic() if self.step % self.steps == 0 else None

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        now = time.monotonic()
        if self.step % self.steps and now - self.saved > SAVE_SECONDS:
            self.save()
        if not sys.stdout.isatty() and now - self.told > LINE_SECONDS:
            figures = ", ".join(f"{name} {value:.4f}" for name, value in logs.items())
            print(f"step {self.step}: {figures}", flush=True)
            self.told = now

    def on_epoch_end(self, epoch, logs=None):
        if self.model.stop_training:  # diverged: keep the last good model
            return
        row = {"epoch": epoch + 1, "steps": self.step, **logs}
        if self.begun:
            row["seconds"] = time.monotonic() - self.begun
        else:  # figures of a part of the epoch would pass for those of the whole
            row = {key: row[key] for key in row if key not in ("accuracy", "dice", "loss")}
        best = _of_one_stage(self.history, self.training, epoch + 1).max()
        rows = [*self.history.to_dict("records"), row]
        self.history = pd.DataFrame(rows, columns=COLUMNS)
        write_text(self.run / HISTORY, self.history.to_csv(index=False))
        if not row["val_dice"] <= best:
            with replacing(self.run / BEST) as temporary:
                self.whole.save(temporary)
        self.save()

    def save(self):
        if self.model.stop_training:
            return
        # A step whose float16 gradients overflowed is skipped, and not counted, by the optimizer.
        self.step = max(self.step, int(self.whole.optimizer.iterations.numpy()))
        self.whole.optimizer.iterations.assign(self.step)
        with replacing(self.run / MODEL) as temporary:
            self.whole.save(temporary)
        self.saved = time.monotonic()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let a second Ctrl-C wait for what the first has begun."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_run(run: Path, recipe: Recipe) -> None:
    """Make sure that a model in the run is this recipe's, or that there is none."""
    if not (run / MODEL).exists():
        for name in (SPLIT, HISTORY, METRICS, BEST):  # of a start that came to nothing
            (run / name).unlink(missing_ok=True)
        return
    for name in (RECIPE, SPLIT):
        if not (run / name).exists():
            raise UsageError(f"{run}: holds a model without its {name}; choose another --run")
    changed = differences(load_recipe(run / RECIPE), recipe)
    if recipe.training.schedule == "constant" and not recipe.training.coarse:
        # Then more epochs go on from fewer.
        changed = [key for key in changed if not key.startswith("training.epochs ")]
    if changed:
        raise UsageError(
            f"{run}: holds a run of another recipe: {', '.join(changed)}; "
            "give this one a name of its own (--run, or make NAME=...)"
        )


def _split(run: Path, names: list[str], recipe: Recipe) -> dataset.Split:
    path = run / SPLIT
    if path.exists():
        return dataset.read_split(path, names)
    settings = recipe.data
    split = dataset.draw_split(names, settings.split, settings.validation, settings.seed)
    dataset.write_split(path, split)
    return split


def _load_or_build(run: Path, recipe: Recipe, steps: int) -> keras.Model:
    if (run / MODEL).exists():
        model = load_model(run / MODEL)
        if model.optimizer is None:
            raise CarvanaError(f"{run / MODEL}: has no optimizer to go on with; start another run")
        if int(model.optimizer.iterations.numpy()) == 0 and (run / HISTORY).exists():
            raise CarvanaError(
                f"{run / MODEL}: its optimizer's state does not load in this precision; go on "
                "with --set training.precision as it was, or start another run"
            )
        for layer in model.layers:  # Keras saves no random state: count the draws made so far
            if isinstance(layer, keras.layers.Dropout) and layer.rate:
                seed, _ = layer.seed_generator.state.numpy()
                layer.seed_generator.state.assign([seed, int(model.optimizer.iterations.numpy())])
        return model
    return build_model(recipe, steps)


def _parts(model: keras.Model, recipe: Recipe) -> list[keras.Model]:
    """Return what each stage trains, the whole model last."""
    parts = []
    for stage in range(len(recipe.training.coarse)):
        parts.append(coarse_part(model, without=len(recipe.model.fine_filters) - stage))
        _compile(parts[-1], model.optimizer, recipe)
    return [*parts, model]


def _stage(training: Training, epoch: int) -> int:
    """Return the number of the stage that trains an epoch; both count from 0."""
    return sum(epoch >= end for end in training.stages[:-1])


def _read_history(run: Path, epochs_done: int) -> pd.DataFrame:
    """Read the rows of epochs the model has behind it; the last may be missing after a kill."""
    path = run / HISTORY
    if epochs_done == 0:
        return pd.DataFrame(columns=COLUMNS)
    fault = f"{path}: does not fit the model beside it; restore it or start another run"
    try:
        text = path.read_text() if path.exists() else ",".join(COLUMNS) + "\n"
        history = pd.read_csv(io.StringIO(text))
    except (OSError, ValueError) as error:
        raise CarvanaError(fault) from error
    if list(history.columns) != COLUMNS or not text.endswith("\n"):
        raise CarvanaError(fault)
    history = history[history["epoch"] <= epochs_done]
    if list(history["epoch"]) != list(range(1, len(history) + 1)) or len(history) < epochs_done - 1:
        raise CarvanaError(fault)
    return history


def _read_metrics(run: Path) -> dict | None:
    try:
        return json.loads((run / METRICS).read_text())
    except (OSError, ValueError):
        return None


def _of_one_stage(history: pd.DataFrame, training: Training, epoch: int) -> pd.Series:
    """Return the validation dice of epochs that trained the same network as `epoch` does."""
    stages = history["epoch"].map(lambda number: _stage(training, number - 1))
    return history["val_dice"][stages == _stage(training, epoch - 1)]


def precision_of(model: keras.Model) -> str:
    """Return the dtype policy a model was built by."""
    convolutions = (layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    policies = {layer.dtype_policy.name for layer in convolutions}
    return next(iter(policies - {"float32"}), "float32")


def _write_metrics(
    run: Path, history: pd.DataFrame, model: keras.Model, images: int, training: Training
) -> dict:
    last, timed = history.iloc[-1], history.dropna(subset="seconds")
    seconds = float(timed["seconds"].sum())
    epoch_images = training.steps_per_epoch * training.batch_size or images
    metrics = {
        "val_dice": float(last["val_dice"]),
        "val_accuracy": float(last["val_accuracy"]),
        "val_loss": float(last["val_loss"]),
        "best_val_dice": float(_of_one_stage(history, training, int(last["epoch"])).max()),
        "steps": int(last["steps"]),
        "epochs": int(last["epoch"]),
        # Of epochs that were not cut short; validation and the first step's compilation included.
        "seconds": round(seconds, 1),
        "images_per_second": round(epoch_images * len(timed) / seconds, 3) if seconds else None,
        "parameters": model.count_params(),
        "precision": precision_of(model),
    }
    write_text(run / METRICS, json.dumps(metrics, indent=2) + "\n")
    return metrics
