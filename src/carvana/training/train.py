"""Train: recipe + data -> runs/<name>/, resumable after a kill at any moment."""

import contextlib
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from carvana.backend import keras, keras_settings, tf
from carvana.competition.facts import Paths
from carvana.data.batches import UnreadablePair, reached, training_dataset, validation_dataset
from carvana.data.pairs import Pair, find_pairs
from carvana.data.prepared import prepare
from carvana.data.split import draw_split, read_split
from carvana.errors import CarvanaError, Terminated, UsageError, plural
from carvana.files import alone, clear_temporaries, real_path
from carvana.networks.build import build_network, choose_precision, describe_device
from carvana.recipe import Recipe, load_recipe
from carvana.runs.folder import MODEL, OURS, SPLIT, read_metrics
from carvana.runs.trained import initialize
from carvana.runs.weights import trained_on
from carvana.training.checkpoint import (
    Checkpoint,
    check_run,
    draw_history,
    keep_best,
    load_checkpoint,
    read_completed,
    start_folder,
    write_metrics,
)
from carvana.training.display import Display
from carvana.training.losses import loss_of, metrics_of
from carvana.training.optimizers import compile_network, exact_products


def train(
    recipe: str | Path | Recipe,
    data: str | Path = "data",
    run: str | Path = "runs/mine",
    overrides: Sequence[str] = (),
    cache: str | Path | None = None,
    fold: tuple[int, int] | None = None,
) -> dict:
    """Train a recipe, or resume a run that was stopped.

    Args:
        recipe: the name of one of the kit's recipes, the path of a TOML file, or a loaded recipe.
        data: the data folder.
        run: the folder for what training writes, see `runs/folder.py`.
        overrides: of a named recipe, `section.key=value` each, as in "training.epochs=3".
        cache: the folder for prepared pairs; `cache` in the data folder when None.
        fold: (2, 5) to validate on the second of five folds, see `train_folds`.

    Returns:
        What `metrics.json` holds.

    Raises:
        CarvanaError: the data cannot be used, a file cannot be written, or training diverged.
        UsageError: the recipe is wrong, or `run` holds another recipe's model or files that
            the kit did not write.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the model has been saved.
    """
    run, data = Path(run), Path(data)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise UsageError(
            "overrides need a recipe's name or path; use dataclasses.replace on a loaded Recipe"
        )
    if fold:  # the recipe of the run says how much was held out
        recipe = replace(recipe, data=replace(recipe.data, validation=1 / fold[1]))
    cache = Path(cache) if cache else Paths(data).cache
    settings = recipe.data
    folders = (".", settings.images, settings.masks, *settings.validation_folders)
    if real_path(run) in [real_path(data / folder) for folder in folders]:
        raise UsageError(f"{run}: holds the data; choose another folder for the run")
    with alone(run, "training"):
        precision = check_run(run, recipe)  # of a run to be resumed, whatever hardware does it
        precision = precision or choose_precision(recipe.training.precision)
        with _settings(recipe, precision), _handling(_terminate, signal.SIGTERM):
            metrics = _train(recipe, data, cache, run, precision, fold)
    draw_history(run)
    return metrics


@contextlib.contextmanager
def _settings(recipe: Recipe, precision: str) -> Iterator[None]:
    """Set what training needs of the process, and restore it afterwards."""
    threads = cv2.getNumThreads()
    with keras_settings(precision), exact_products(recipe.training.optimizer):
        try:
            cv2.setNumThreads(0)  # the input's own threads take a batch each
            yield
        finally:
            cv2.setNumThreads(threads)


@dataclass(frozen=True)
class _Job:
    """What each call of Keras's `fit` needs."""

    recipe: Recipe
    run: Path
    steps: int  # of an epoch
    parts: list["keras.Model"]  # what each stage trains, the whole network last
    training_files: list[Path | None]  # None for those that no step reads
    validation_files: list[Path]
    checkpoint: Checkpoint
    display: Display

    def part(self, epoch: int) -> tuple["keras.Model", int]:
        """Return the network that an epoch trains, and how much its pictures are shrunk."""
        network = self.parts[self.recipe.training.stage_of(epoch)]
        return network, self.recipe.input.height // network.input_shape[1]


def _train(
    recipe: Recipe,
    data: Path,
    cache: Path,
    run: Path,
    precision: str,
    fold: tuple[int, int] | None,
) -> dict:
    training, fresh = recipe.training, not (run / MODEL).exists()
    pairs = find_pairs(data, recipe.data)
    split = draw_split(pairs, recipe.data, fold) if fresh else read_split(run / SPLIT, pairs)
    images = len(split.train)
    steps = training.steps_per_epoch or math.ceil(images / training.batch_size)
    total = steps * training.epochs
    print(f"training on {describe_device()}", flush=True)

    if fresh:
        start_folder(run, split, precision)
    last = [len(part) % training.batch_size for part in (split.train, split.validation)]
    with _strategy([training.batch_size, *last]).scope():
        if fresh:
            network = build_network(recipe, precision, seed=training.seed)
            initialize(network, recipe)
            compile_network(network, recipe, steps)
        else:
            network = load_checkpoint(run, precision, training.seed)
        parts = _parts(network, recipe)
    done = int(network.optimizer.iterations.numpy())
    history = read_completed(run, recipe, done // steps)
    if done and done % steps == 0 and len(history) == done // steps:
        keep_best(run, history, training)  # a kill may have come before
    if done >= total and len(history) >= training.epochs:
        print(f"{run}: {plural(len(history), 'epoch')} trained already; nothing to do")
        return read_metrics(run) or write_metrics(run, recipe, history, network, precision, images)
    where = f"resuming after step {done} of {total}" if done else f"{total} steps"
    print(f"{run}: {where}, in {precision}", flush=True)
    if fresh:
        _warn_of_seen(run, training.initial_weights, split.validation)

    wanted = reached(images, training.batch_size, training.seed, total)
    files = prepare([split.train[i] for i in wanted] + split.validation, cache, recipe)
    by_index = dict(zip(wanted, files, strict=False))  # the validation's come after them
    training_files = [by_index.get(i) for i in range(images)]
    validation_files = files[len(wanted) :]
    clear_temporaries(run, OURS)
    checkpoint = Checkpoint(run, history, steps, done, network, recipe)
    batches = math.ceil(len(validation_files) / training.batch_size)
    display = Display(training, parts, steps, batches, done)
    job = _Job(recipe, run, steps, parts, training_files, validation_files, checkpoint, display)
    _fit_all(job, done, cache)
    return write_metrics(run, recipe, checkpoint.history, network, precision, images)


def _fit_all(job: _Job, done: int, cache: Path) -> None:
    """Train from step `done` to the last one; save at the end, and where it is interrupted."""
    checkpoint, steps, training = job.checkpoint, job.steps, job.recipe.training
    epochs_done, steps_into = divmod(done, steps)
    try:
        with job.display.bar:
            if epochs_done > len(checkpoint.history):
                _validate(job, epochs_done - 1)
            if steps_into:  # first the rest of the epoch that was cut short
                _fit(job, done, epochs_done + 1, steps - steps_into)
                done += steps - steps_into
            for last_epoch in training.stage_ends:
                if done < steps * last_epoch:
                    _fit(job, done, last_epoch, steps)
                    done = steps * last_epoch
    except (BrokenPipeError, KeyboardInterrupt) as error:  # the first: nobody reads our output
        with _handling(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM):
            checkpoint.save()
        if isinstance(error, BrokenPipeError):
            raise
        print(
            f"\n{job.run}: saved at step {checkpoint.step} of {steps * training.epochs}; "
            "run the same command to resume"
        )
        raise
    except tf.errors.OpError as error:
        if UnreadablePair.__name__ not in str(error):
            raise
        checkpoint.save(after_failed_step=True)
        raise CarvanaError(
            f"{job.run}: a prepared pair in {cache} cannot be read; run the same command again: "
            f"the pair is prepared again and training resumes after step {checkpoint.step}"
        ) from error


def _validate(job: _Job, epoch: int) -> None:
    """Validate an epoch that was interrupted after its last step."""
    network, shrink = job.part(epoch)
    validation = validation_dataset(job.validation_files, job.recipe, shrink)
    logs = network.evaluate(validation, return_dict=True, verbose=0)
    logs = {f"val_{name}": value for name, value in logs.items()}
    for callback in (job.checkpoint, job.display):
        callback.on_epoch_end(epoch, logs)


def _fit(job: _Job, first_step: int, last_epoch: int, steps_per_epoch: int) -> None:
    """Train the epochs up to `last_epoch`, all of one stage.

    Always by steps: Keras 3.15 runs an empty step at the end of a dataset of unknown length.
    """
    first_epoch = first_step // job.steps
    end = job.steps * job.recipe.training.epochs
    network, shrink = job.part(first_epoch)
    network.fit(
        training_dataset(job.training_files, job.recipe, first_step, shrink, end),
        initial_epoch=first_epoch,
        epochs=last_epoch,
        steps_per_epoch=steps_per_epoch,
        validation_data=validation_dataset(job.validation_files, job.recipe, shrink),
        callbacks=[
            keras.callbacks.TensorBoard(job.run / "logs", profile_batch=0),
            job.checkpoint,
            job.display,
        ],
        shuffle=False,  # the batches are shuffled already
        verbose=0,  # `display` shows more in fewer lines
    )


def _warn_of_seen(run: Path, start: str, validation: list[Pair]) -> None:
    """Warn if photographs to validate on have the names of those that the start was trained on."""
    seen = trained_on(start, [pair.image.name for pair in validation]) if start else []
    if seen:
        print(
            f"{run}: {len(seen)} of the {len(validation)} validation photographs have the same "
            f"file names as training photographs of {start} (first: {min(seen)}); if they are the "
            "same, the validation dice will be optimistic",
            file=sys.stderr,
        )


def _parts(network: "keras.Model", recipe: Recipe) -> list["keras.Model"]:
    """Return what each stage trains, the whole network last."""
    stages = range(len(recipe.training.stages))
    parts = [recipe.model.part(network, pictures=stage + 1) for stage in stages]
    for part in parts:
        part.compile(network.optimizer, loss_of(recipe), metrics=metrics_of(recipe))
    return [*parts, network]


def _strategy(batches: list[int]) -> "tf.distribute.Strategy":
    """Share batches of these sizes among as many of the machine's GPUs as divide them all.

    Keras averages uneven shares wrongly, and returns NaN for empty ones.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    count = max(n for n in range(1, len(devices) + 1) if all(size % n == 0 for size in batches))
    if count < len(devices):
        sizes = ", ".join(map(str, sorted({*batches} - {0})))
        print(f"using {count} of {len(devices)} GPUs, as more do not divide batches of {sizes}")
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices[:count]])


@contextlib.contextmanager
def _handling(handler: Callable | signal.Handlers, *signals: signal.Signals) -> Iterator[None]:
    """Handle signals in one way while the block runs; other threads than the main one cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, handler) for each in signals}
    try:
        yield
    finally:
        for each, former in before.items():
            signal.signal(each, former)


def _terminate(*_) -> None:
    """Save at SIGTERM, which queues and `docker stop` send, as at Ctrl-C."""
    raise Terminated
