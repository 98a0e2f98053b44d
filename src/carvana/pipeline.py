"""The network's input, step by step: decode, scale, resize, augment, batch.

Each step takes and returns tensors and can be looked at on its own; `carvana look` draws them.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from carvana.competition import Paths
from carvana.dataset import mask_fault, pair_fault
from carvana.errors import CarvanaError, list_faults
from carvana.progress import progress
from carvana.recipe import Augment, Input, Recipe


def decode_image(data: tf.Tensor) -> tf.Tensor:
    """Decode the bytes of a JPEG (or PNG): (height, width, 3) uint8."""
    return tf.io.decode_image(data, channels=3, expand_animations=False)


def decode_mask(data: tf.Tensor) -> tf.Tensor:
    """Decode the bytes of a GIF, frame 0, channel 0: (height, width, 1) uint8 in {0, 255}."""
    return tf.io.decode_gif(data)[0, :, :, :1]


def to_float(picture: tf.Tensor) -> tf.Tensor:
    """Scale uint8 in [0, 255] to float32 in [0, 1]."""
    return tf.image.convert_image_dtype(picture, tf.float32)


def resize(picture: tf.Tensor, settings: Input) -> tf.Tensor:
    """Resize (..., height, width, channels) to the recipe's size, aspect ratio not kept."""
    size = (settings.height, settings.width)
    resized = tf.image.resize(picture, size, settings.method, antialias=settings.antialias)
    if settings.method == "area":
        # Sums of many shares miss 1 by a rounding error, which accuracy would count as wrong.
        resized = tf.round(resized * 2**16) / 2**16
    return resized


def augment(image: tf.Tensor, seed: tf.Tensor, settings: Augment) -> tf.Tensor:
    """Shift brightness, then scale contrast, then saturation, each at random; clip to [0, 1].

    Args:
        image: (height, width, 3) float32 in [0, 1].
        seed: (2,) integers; the same seed draws the same changes.
        settings: the recipe's ranges.
    """
    seeds = tf.random.split(tf.cast(seed, tf.int32), 3)
    image = tf.image.stateless_random_brightness(image, settings.brightness, seeds[0])
    for change, (low, high), key in (
        (tf.image.adjust_contrast, settings.contrast, seeds[1]),
        (tf.image.adjust_saturation, settings.saturation, seeds[2]),
    ):
        image = change(image, tf.random.stateless_uniform([], key, low, high))
    return tf.clip_by_value(image, 0.0, 1.0)


def load_pair(image: Path, mask: Path, settings: Input) -> tuple[np.ndarray, np.ndarray]:
    """Load a photograph and its mask as the network sees them before augmentation.

    Returns:
        image (height, width, 3) and mask (height, width, 1), float32 in [0, 1].

    Raises:
        CarvanaError: the pair is at fault; the message names the file.
    """
    fault = pair_fault(image, mask)
    if fault:
        raise CarvanaError(fault)
    decoded = []
    for path, decode in ((image, decode_image), (mask, decode_mask)):
        try:
            decoded.append(decode(path.read_bytes()))
        except (OSError, tf.errors.OpError) as error:
            raise CarvanaError(f"{path}: is cut short or broken; fetch it again") from error
    fault = mask_fault(decoded[1].numpy())
    if fault:
        raise CarvanaError(f"{mask}: {fault}")
    photograph, truth = (resize(to_float(picture), settings) for picture in decoded)
    return photograph.numpy(), truth.numpy()


def load_pairs(names: list[str], paths: Paths, settings: Input) -> tuple[np.ndarray, np.ndarray]:
    """Load every pair, decoded and resized once, on all cores, with progress.

    Returns:
        images (n, height, width, 3) and masks (n, height, width, 1), float32 in [0, 1].

    Raises:
        CarvanaError: pairs are at fault; all of them are told, at most twenty by name.
    """
    images = np.empty((len(names), settings.height, settings.width, 3), np.float32)
    masks = np.empty((len(names), settings.height, settings.width, 1), np.float32)

    def load(index: int) -> str | None:
        name = names[index]
        try:
            images[index], masks[index] = load_pair(paths.image(name), paths.mask(name), settings)
        except CarvanaError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        results = pool.map(load, range(len(names)))
        faults = [f for f in progress(results, "decoding", len(names)) if f]
    if faults:
        summary = f"{paths.root}: {len(faults)} of {len(names)} pairs are at fault:"
        raise CarvanaError(list_faults(summary, faults))
    return images, masks


def training_batches(
    count: int, batch_size: int, seed: int, first_batch: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, without end, the indices of each batch and a seed for each of its images.

    Each pass is a fresh permutation of all images, its last batch maybe short. That is what the
    published shuffle buffer of 128 batches gives on its 4,070 images, which it holds whole.
    The order depends on the seed and the batch's number alone, so that a resumed run goes on
    with the very batches it would have had.
    """
    batches_per_pass = -(-count // batch_size)
    passes, skip = divmod(first_batch, batches_per_pass)
    while True:
        rng = np.random.default_rng([seed, passes])
        order = rng.permutation(count)
        seeds = rng.integers(0, 2**31, (count, 2))
        for start in range(skip * batch_size, count, batch_size):
            yield order[start : start + batch_size], seeds[start : start + batch_size]
        passes, skip = passes + 1, 0


def training_dataset(
    images: np.ndarray, masks: np.ndarray, recipe: Recipe, first_batch: int = 0
) -> tf.data.Dataset:
    """Shuffle, augment and batch, without end, from batch number `first_batch` on.

    Yields:
        images (batch, height, width, 3) and masks (batch, height, width, 1), float32 in [0, 1].
    """
    training = recipe.training

    def gather(indices, seeds):
        picked = tf.numpy_function(
            lambda i: (images[i], masks[i]), [indices], (tf.float32, tf.float32), stateful=False
        )
        for tensor, array in zip(picked, (images, masks), strict=True):
            tensor.set_shape((None, *array.shape[1:]))
        augmented = tf.map_fn(
            lambda pair: augment(*pair, recipe.augment),
            (picked[0], seeds),
            fn_output_signature=tf.TensorSpec(images.shape[1:], tf.float32),
        )
        return augmented, picked[1]

    return (
        tf.data.Dataset.from_generator(
            lambda: training_batches(len(images), training.batch_size, training.seed, first_batch),
            output_signature=(
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([None, 2], tf.int64),
            ),
        )
        .map(gather, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def validation_dataset(images: np.ndarray, masks: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Batch in order, with no augmentation."""

    def batches():
        for start in range(0, len(images), batch_size):
            yield images[start : start + batch_size], masks[start : start + batch_size]

    signature = tuple(tf.TensorSpec((None, *a.shape[1:]), tf.float32) for a in (images, masks))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    count = -(-len(images) // batch_size)
    return dataset.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)
