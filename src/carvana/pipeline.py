"""The network's input, step by step: decode, scale, resize, augment, batch.

Each step takes and returns tensors and can be looked at on its own; `carvana look` draws them.
"""

import hashlib
import itertools
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from carvana.competition import Paths
from carvana.dataset import mask_fault, pair_fault
from carvana.errors import CarvanaError, list_faults
from carvana.files import clear_temporaries, in_turn, replacing, stamp
from carvana.progress import progress
from carvana.recipe import Augment, Input, Recipe


def decode_image(data: bytes, settings: Input | None = None) -> tf.Tensor:
    """Decode the bytes of a JPEG (or PNG): (height, width, 3) uint8.

    Where `settings` average areas, a JPEG comes out at 1/2, 1/4 or 1/8 of its size if that is
    whole and no smaller than theirs: the decoder averages pixels before they exist.
    """
    if settings and settings.method == "area" and tf.io.is_jpeg(data):
        height, width, _ = tf.io.extract_jpeg_shape(data).numpy()
        shrink = min(height // settings.height, width // settings.width)
        for ratio in (8, 4, 2):
            if ratio <= shrink and height % ratio == 0 and width % ratio == 0:
                return tf.io.decode_jpeg(data, channels=3, ratio=ratio)
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


def augment(
    image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, settings: Augment
) -> tuple[tf.Tensor, tf.Tensor]:
    """Shift brightness, then scale contrast, then saturation, each at random; clip to [0, 1].

    Where the recipe says so, image and mask are first moved alike, half of them mirrored, and
    half of the cars painted anew.

    Args:
        image: (height, width, 3) float32 in [0, 1].
        mask: (height, width, 1) float32 in [0, 1].
        seed: (2,) integers; the same seed draws the same changes.
        settings: the recipe's ranges.
    """
    seed = tf.cast(seed, tf.int32)
    if settings.flip and _uniform(seed, 1) < 0.5:
        image, mask = tf.reverse(image, [1]), tf.reverse(mask, [1])
    if settings.zoom or settings.rotate or settings.shift:
        image, mask = _move(image, mask, seed, settings)
    if settings.repaint:
        image = _repaint(image, mask, seed, settings.repaint)
    seeds = tf.random.split(seed, 3)
    image = tf.image.stateless_random_brightness(image, settings.brightness, seeds[0])
    for change, (low, high), key in (
        (tf.image.adjust_contrast, settings.contrast, seeds[1]),
        (tf.image.adjust_saturation, settings.saturation, seeds[2]),
    ):
        if low < 1 or high > 1:
            image = change(image, tf.random.stateless_uniform([], key, low, high))
    return tf.clip_by_value(image, 0.0, 1.0), mask


def _uniform(seed: tf.Tensor, draw: int, low=0.0, high=1.0, shape=()) -> tf.Tensor:
    """Draw what is number `draw` of a seed's, apart from those of its `split`."""
    return tf.random.stateless_uniform(shape, tf.random.fold_in(seed, draw), low, high)


def _move(
    image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, settings: Augment
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scale, turn and shift a pair about its centre; what comes in from outside is the edge's."""
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(image)[:2]))
    scale = tf.exp(_uniform(seed, 2, -1, 1) * tf.math.log1p(settings.zoom))
    angle = _uniform(seed, 3, -1, 1) * settings.rotate * math.pi / 180
    cosine, sine = scale * tf.cos(angle), scale * tf.sin(angle)
    x, y = (width - 1) / 2, (height - 1) / 2
    right, down = tf.unstack(_uniform(seed, 4, -1, 1, [2]) * settings.shift)
    transform = tf.stack(  # of output pixels to input pixels
        [
            (cosine, -sine, x - cosine * x + sine * y + right * width),
            (sine, cosine, y - sine * x - cosine * y + down * height),
        ]
    )
    pair = tf.concat([image, mask], -1)
    moved = tf.numpy_function(_warp, [pair, transform], tf.float32, stateful=False)
    moved = tf.ensure_shape(moved, pair.shape)
    return moved[..., :3], moved[..., 3:]


def _warp(picture: np.ndarray, transform: np.ndarray) -> np.ndarray:
    cv2.setNumThreads(0)  # the dataset's own threads take a picture each
    bilinear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = picture.shape[1::-1]
    return cv2.warpAffine(picture, transform, size, None, bilinear, cv2.BORDER_REPLICATE)


def _repaint(image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Paint half of the cars anew: other saturation, brightness and tint, the studio unchanged."""
    if _uniform(seed, 8) >= 0.5:
        return image
    gray = tf.reduce_mean(image, -1, keepdims=True)
    painted = gray + (image - gray) * _uniform(seed, 5, 0, 1.5)
    gains = _uniform(seed, 6, -1, 1) + _uniform(seed, 7, -0.5, 0.5, [3])
    painted = tf.clip_by_value(painted * tf.exp(strength * gains), 0.0, 1.0)
    return image + (painted - image) * mask


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
    decoders = ((image, lambda data: decode_image(data, settings)), (mask, decode_mask))
    for path, decode in decoders:
        try:
            decoded.append(decode(path.read_bytes()))
        except (OSError, tf.errors.OpError) as error:
            raise CarvanaError(f"{path}: is cut short or broken; fetch it again") from error
    fault = mask_fault(decoded[1].numpy())
    if fault:
        raise CarvanaError(f"{mask}: {fault}")
    photograph, truth = (resize(to_float(picture), settings) for picture in decoded)
    return photograph.numpy(), truth.numpy()


def prepare(names: list[str], paths: Paths, settings: Input) -> list[Path]:
    """Decode and resize pairs once for all epochs and runs, on all cores, with progress.

    Each pair becomes a file of its own under the data's `cache/`, put in place whole: a kill, or
    two processes at once, leave nothing half made, and a pair whose photograph or mask has
    changed since is made anew.

    Returns:
        The files, in the order of `names`, for `read_prepared`.

    Raises:
        CarvanaError: pairs are at fault (all are told, at most twenty by name), or the cache
            cannot be written.
    """
    folder = paths.cache / _settings_key(settings)
    files = [folder / f"{Path(name).stem}.{_pair_key(name, paths)}" for name in names]
    if not any(_missing(files, settings)):
        return files
    try:
        with in_turn(folder):
            clear_temporaries(folder)
            faults = _prepare_missing(names, files, paths, settings)
    except OSError as error:
        raise CarvanaError(
            f"{folder}: prepared pairs cannot be written ({error.strerror or error}); free some "
            f"space, or make {paths.cache} a link to a folder that has it"
        ) from error
    if faults:
        summary = f"{paths.root}: {len(faults)} of {len(names)} pairs are at fault:"
        raise CarvanaError(list_faults(summary, faults))
    current = {file.name for file in files}
    stems = {file.stem for file in files}
    for file in folder.iterdir():
        if file.name not in current and file.stem in stems:  # of a photograph since changed
            file.unlink(missing_ok=True)
    return files


def _missing(files: list[Path], settings: Input) -> list[bool]:
    """Tell for each file whether it is not there whole."""
    size = settings.height * settings.width * 4 * _dtype(settings).itemsize
    missing = []
    for file in files:
        try:
            missing.append(file.stat().st_size != size)
        except OSError:
            missing.append(True)
    return missing


def _prepare_missing(
    names: list[str], files: list[Path], paths: Paths, settings: Input
) -> list[str]:
    """Make the files that are not there whole; return the faults of their pairs."""

    def make(name: str, file: Path) -> str | None:
        try:
            pictures = load_pair(paths.image(name), paths.mask(name), settings)
        except CarvanaError as error:
            return str(error)
        with replacing(file) as temporary:
            _pack(np.concatenate(pictures, axis=-1), settings).tofile(temporary)
        return None

    todo = list(itertools.compress(zip(names, files, strict=True), _missing(files, settings)))
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda pair: make(*pair), todo)
        return [fault for fault in progress(results, "decoding", len(todo)) if fault]


def read_prepared(file: Path, settings: Input) -> np.ndarray:
    """Read what `prepare` made of a pair: (height, width, RGB and mask) uint8 or float32."""
    return np.fromfile(file, _dtype(settings)).reshape(settings.height, settings.width, 4)


def _dtype(settings: Input) -> np.dtype:
    """Return what pairs are kept as: exactly, or at a quarter of that where shares are averaged."""
    return np.dtype(np.uint8 if settings.method == "area" else np.float32)


def _pack(pair: np.ndarray, settings: Input) -> np.ndarray:
    return np.rint(pair * 255).astype(np.uint8) if _dtype(settings) == np.uint8 else pair


def _settings_key(settings: Input) -> str:
    made_by = (settings, tf.__version__, "2")  # the last: of this code's way of preparing
    return hashlib.sha256(repr(made_by).encode()).hexdigest()[:12]


def _pair_key(name: str, paths: Paths) -> str:
    stamps = f"{stamp(paths.image(name))} {stamp(paths.mask(name))}"
    return hashlib.sha256(stamps.encode()).hexdigest()[:12]


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
    files: list[Path], recipe: Recipe, first_batch: int = 0, shrink: int = 1
) -> tf.data.Dataset:
    """Shuffle, augment and batch, without end, from batch number `first_batch` on.

    Args:
        files: what `prepare` made.
        recipe: whose input, augmentation, batch size and seed.
        first_batch: counted over all passes.
        shrink: average this many pixels a side into one.

    Yields:
        images (batch, height, width, 3) and masks (batch, height, width, 1), float32 in [0, 1].
    """
    training = recipe.training

    def load(indices, seeds):
        pairs = _gather(files, indices, recipe.input, shrink)
        return tf.map_fn(
            lambda pair: augment(*pair, recipe.augment),
            (*pairs, seeds),
            fn_output_signature=tuple(tf.TensorSpec(part.shape[1:], tf.float32) for part in pairs),
        )

    return (
        tf.data.Dataset.from_generator(
            lambda: training_batches(len(files), training.batch_size, training.seed, first_batch),
            output_signature=(
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([None, 2], tf.int64),
            ),
        )
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
        .with_options(_own_threads())
    )


def validation_dataset(files: list[Path], recipe: Recipe, shrink: int = 1) -> tf.data.Dataset:
    """Batch in order, with no augmentation."""
    return (
        tf.data.Dataset.range(len(files))
        .batch(recipe.training.batch_size)
        .map(
            lambda indices: _gather(files, indices, recipe.input, shrink),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .prefetch(2)
        .with_options(_own_threads())
    )


def _own_threads() -> tf.data.Options:
    """Keep the input's many small operations from queueing behind the network's long ones.

    On two cores, with the threads they share by default, an epoch takes twice as long.
    """
    options = tf.data.Options()
    options.threading.private_threadpool_size = os.cpu_count()
    options.threading.max_intra_op_parallelism = 1
    return options


def _gather(
    files: list[Path], indices: tf.Tensor, settings: Input, shrink: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Read the pairs of a batch: images and masks, float32 in [0, 1]."""
    pairs = tf.numpy_function(
        lambda chosen: np.stack([read_prepared(files[i], settings) for i in chosen]),
        [indices],
        _dtype(settings),
        stateful=False,
    )
    pairs.set_shape((None, settings.height, settings.width, 4))
    pairs = to_float(pairs)
    if shrink > 1:
        pairs = tf.nn.avg_pool2d(pairs, shrink, shrink, "VALID")
    return pairs[..., :3], pairs[..., 3:]
