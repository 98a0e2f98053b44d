"""The network's input: prepared pairs, shuffled, augmented (`augment.py`) and batched."""

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from carvana.backend import tf
from carvana.data.augment import apply, draw
from carvana.data.prepared import read_prepared
from carvana.data.resize import memory_errors
from carvana.machine import cores
from carvana.recipe import Recipe


class UnreadablePair(Exception):
    """A prepared pair is gone or cut short. TensorFlow keeps no more of it than this name."""


def training_batch(
    number: int, count: int, batch_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of a batch, and two integers for each of its images to seed its draws.

    Each pass is a fresh permutation of all images, and its last batch may be short. That is what
    the published shuffle buffer of 128 batches gives on its 4,070 images, which it holds whole.
    The order depends on the seed and the batch's number alone, so that a resumed run gets the
    batches it would have had.
    """
    passes, place = divmod(number, -(-count // batch_size))
    rng = np.random.default_rng([seed, passes])
    order = rng.permutation(count)
    seeds = rng.integers(0, 2**31, (count, 2))
    chosen = slice(place * batch_size, (place + 1) * batch_size)
    return order[chosen], seeds[chosen]


def reached(count: int, batch_size: int, seed: int, steps: int) -> list[int]:
    """Return the indices of the images in the first `steps` batches, in ascending order."""
    first_pass, _ = training_batch(0, count, count, seed)
    return sorted(first_pass[: steps * batch_size].tolist())


def training_dataset(
    files: list[Path | None],
    recipe: Recipe,
    first_batch: int = 0,
    shrink: int = 1,
    end: int = 2**62,
) -> "tf.data.Dataset":
    """Shuffle, augment and batch, from batch number `first_batch` up to `end`, over and over.

    Args:
        files: prepared pairs, see `prepared.prepare`; None for those that are not `reached`.
        recipe: whose input, augmentation, batch size and seed.
        first_batch: counted over all passes.
        shrink: average this many pixels a side into one.
        end: the number after the training's last batch. Input threads read on past it; what they
            read there is not used.

    Yields:
        images (batch, height, width, 3) and masks (batch, height, width, outputs), float32 in
        [0, 1].
    """
    training = recipe.training

    def load(number):
        indices, seeds = training_batch(number, len(files), training.batch_size, training.seed)
        return _stack(map(change, indices, seeds), len(indices))

    def change(index, seed):
        pair = _read(files[index], recipe, shrink)
        return apply(pair, draw(seed, recipe.augment, *pair.shape[:2]))

    # Not `from_generator`: it sets malloc so that every array of 128 KiB or more is mapped again.
    return _load_all(tf.data.Dataset.range(first_batch, end).repeat(), load, recipe, shrink)


def validation_dataset(files: list[Path], recipe: Recipe, shrink: int = 1) -> "tf.data.Dataset":
    """Batch in order, with no augmentation."""

    def load(indices):
        pairs = (_read(files[index], recipe, shrink) for index in indices)
        return _stack(((pair[..., :3], pair[..., 3:]) for pair in pairs), len(indices))

    numbers = tf.data.Dataset.range(len(files)).batch(recipe.training.batch_size)
    return _load_all(numbers, load, recipe, shrink)


def _load_all(
    numbers: "tf.data.Dataset", load: Callable, recipe: Recipe, shrink: int
) -> "tf.data.Dataset":
    """Load a batch in NumPy for each element of a dataset.

    The workers are its own, so that the input's many small operations do not queue behind the
    network's long ones: with the threads they share by default, an epoch takes twice as long on
    two cores. The number of parallel calls is set rather than tuned: TensorFlow's tuner sleeps
    between its measurements, and leaving a dataset waits for it, up to 15 s after each call of
    Keras's `fit`.
    """
    size = (recipe.input.height // shrink, recipe.input.width // shrink)
    load = memory_errors()(load)

    def step(*drawn):
        parts = tf.numpy_function(load, drawn, (tf.float32, tf.float32), stateful=False)
        for part, channels in zip(parts, (3, recipe.data.outputs), strict=True):
            part.set_shape((None, *size, channels))
        return tuple(parts)

    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = cores()
    options.threading.max_intra_op_parallelism = 1
    return numbers.map(step, num_parallel_calls=cores()).prefetch(2).with_options(options)


def _read(file: Path, recipe: Recipe, shrink: int) -> np.ndarray:
    try:
        pair = read_prepared(file, recipe)
    except (OSError, ValueError) as error:
        raise UnreadablePair(file) from error
    if shrink > 1:
        size = (recipe.input.width // shrink, recipe.input.height // shrink)
        pair = cv2.resize(pair, size, interpolation=cv2.INTER_AREA)
    return pair


def _stack(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Stack images and masks, float32 in [0, 1]; each is read into place, and gone before the next.

    Of 32 pairs at once most would be out of the processor's cache again.
    """
    batch = None
    for number, pair in enumerate(pairs):
        if batch is None:
            batch = tuple(np.empty((count, *part.shape), np.float32) for part in pair)
        for part, whole in zip(pair, batch, strict=True):
            np.divide(part, np.float32(255 if part.dtype == np.uint8 else 1), out=whole[number])
    return batch
