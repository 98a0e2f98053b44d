"""The network's input, step by step: decode, scale, resize, augment (`augment.py`), batch.

Each step takes and returns arrays and can be looked at on its own; `carvana look` draws them.
"""

import contextlib
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from carvana.augment import augment
from carvana.competition import Paths
from carvana.dataset import mask_fault, pair_fault
from carvana.errors import CarvanaError, list_faults
from carvana.files import clear_temporaries, in_turn, replacing, stamp
from carvana.progress import progress
from carvana.recipe import Input, Recipe


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """Raise OpenCV's want of memory as Python's own; as a decorator too.

    Raises:
        MemoryError: OpenCV could not allocate.
    """
    try:
        yield
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        raise


def decode_image(data: bytes, settings: Input | None = None) -> np.ndarray:
    """Decode the bytes of a JPEG (or PNG): (height, width, 3) uint8.

    Where `settings` average areas, a JPEG comes out at 1/2, 1/4 or 1/8 of its size if that is
    whole and no smaller than theirs: the decoder averages pixels before they exist.
    """
    if settings and settings.method == "area" and tf.io.is_jpeg(data):
        height, width, _ = tf.io.extract_jpeg_shape(data).numpy()
        shrink = min(height // settings.height, width // settings.width)
        for ratio in (8, 4, 2):
            if ratio <= shrink and height % ratio == 0 and width % ratio == 0:
                return tf.io.decode_jpeg(data, channels=3, ratio=ratio).numpy()
    return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def decode_mask(data: bytes) -> np.ndarray:
    """Decode the bytes of a GIF, frame 0, channel 0: (height, width, 1) uint8 in {0, 255}.

    By Pillow: `tf.io.decode_gif`, the article's, gives the same of opaque masks that fill their
    picture, and takes three times as long.
    """
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode != "P":
            return np.asarray(picture.convert("RGB"))[..., :1]
        red = np.zeros(256, np.uint8)
        levels = picture.getpalette("RGB")[::3]
        red[: len(levels)] = levels
        return cv2.LUT(np.asarray(picture), red)[..., None]


def resize(picture: np.ndarray, settings: Input) -> np.ndarray:
    """Resize to the recipe's size, aspect ratio not kept, and scale to [0, 1].

    Args:
        picture: (height, width, channels) uint8.
        settings: the recipe's size, and how pixels are averaged.

    Returns:
        (settings.height, settings.width, channels) float32.
    """
    size, white = (settings.height, settings.width), np.float32(255)
    if settings.method == "bilinear" and not settings.antialias:
        return _bilinear(picture, size)
    grows = picture.shape[0] < size[0] and picture.shape[1] < size[1]
    if settings.method == "area" and grows:  # areas would repeat pixels
        larger = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC)
        return larger.reshape(*size, -1) / white
    resized = tf.image.resize(picture, size, settings.method, antialias=settings.antialias)
    # Sums of many shares miss 1 by a rounding error, which accuracy would count as wrong.
    return np.round(resized.numpy() / white * 2**16) / np.float32(2**16)


def _bilinear(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Do what `tf.image.resize` does to a picture scaled by `convert_image_dtype`, bit for bit.

    TensorFlow converts every pixel; with no antialiasing nearly none of them counts.
    """

    def neighbours(count: int, wanted: int):
        step = np.float32(count) / np.float32(wanted)
        at = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * step - np.float32(0.5)
        low = np.floor(at)
        high = np.minimum(np.ceil(at), count - 1)
        return np.maximum(low, 0).astype(int), high.astype(int), (at - low)[:, None]

    top, bottom, down = neighbours(picture.shape[0], size[0])
    left, right, across = neighbours(picture.shape[1], size[1])

    def row(chosen: np.ndarray) -> np.ndarray:
        pixels = picture[chosen]
        a, b = (pixels[:, at] * np.float32(1 / 255) for at in (left, right))
        return a + (b - a) * across

    upper, lower = row(top), row(bottom)
    return upper + (lower - upper) * down[:, None]


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
            with memory_told():
                decoded.append(decode(path.read_bytes()))
        except (MemoryError, tf.errors.ResourceExhaustedError):
            raise
        except Exception as error:  # Pillow raises whatever the broken part raised
            raise CarvanaError(f"{path}: is cut short or broken; fetch it again") from error
    fault = mask_fault(decoded[1])
    if fault:
        raise CarvanaError(f"{mask}: {fault}")
    photograph, truth = (resize(picture, settings) for picture in decoded)
    return photograph, truth


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
            f"{folder}: prepared pairs cannot be written ({error.strerror or error}); "
            f"{_remedy(paths)}"
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


def _remedy(paths: Paths) -> str:
    return f"free some space, or make {paths.cache} a link to a folder that has it"


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
        with replacing(file, _remedy(paths)) as temporary:  # `tofile` would not say why it failed
            temporary.write_bytes(_pack(np.concatenate(pictures, axis=-1), settings).tobytes())
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
    made_by = (settings, tf.__version__, "5")  # the last: of this code's way of preparing
    return hashlib.sha256(repr(made_by).encode()).hexdigest()[:12]


def _pair_key(name: str, paths: Paths) -> str:
    stamps = f"{stamp(paths.image(name))} {stamp(paths.mask(name))}"
    return hashlib.sha256(stamps.encode()).hexdigest()[:12]


def training_batch(
    number: int, count: int, batch_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of a batch, and two integers for each of its images to draw changes by.

    Each pass is a fresh permutation of all images, its last batch maybe short. That is what the
    published shuffle buffer of 128 batches gives on its 4,070 images, which it holds whole.
    The order depends on the seed and the batch's number alone, so that a resumed run goes on
    with the very batches it would have had.
    """
    passes, place = divmod(number, -(-count // batch_size))
    rng = np.random.default_rng([seed, passes])
    order = rng.permutation(count)
    seeds = rng.integers(0, 2**31, (count, 2))
    chosen = slice(place * batch_size, (place + 1) * batch_size)
    return order[chosen], seeds[chosen]


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

    def load(number):
        indices, seeds = training_batch(number, len(files), training.batch_size, training.seed)
        pairs = (_read(files[index], recipe.input, shrink) for index in indices)
        return _batch(map(augment, pairs, seeds, itertools.repeat(recipe.augment)), len(indices))

    # Not `from_generator`: it sets malloc so that every array of 128 KiB or more is mapped anew.
    return (
        tf.data.Dataset.counter(first_batch)
        .map(_numpy(load, recipe.input, shrink), num_parallel_calls=os.cpu_count())
        .prefetch(2)
        .with_options(_own_workers())
    )


def validation_dataset(files: list[Path], recipe: Recipe, shrink: int = 1) -> tf.data.Dataset:
    """Batch in order, with no augmentation."""

    def load(indices):
        pairs = (_read(files[index], recipe.input, shrink) for index in indices)
        return _batch(((pair[..., :3], pair[..., 3:]) for pair in pairs), len(indices))

    return (
        tf.data.Dataset.range(len(files))
        .batch(recipe.training.batch_size)
        .map(_numpy(load, recipe.input, shrink), num_parallel_calls=os.cpu_count())
        .prefetch(2)
        .with_options(_own_workers())
    )


def _own_workers() -> tf.data.Options:
    """Keep the input's many small operations from queueing behind the network's long ones.

    On two cores, with the threads they share by default, an epoch takes twice as long. A core
    each is set above: TensorFlow's tuner of such numbers sleeps between its looks, and leaving a
    dataset waits for it, up to 15 s after each call of Keras' `fit`.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = os.cpu_count()
    options.threading.max_intra_op_parallelism = 1
    return options


def _read(file: Path, settings: Input, shrink: int) -> np.ndarray:
    """Read a prepared pair, averaging `shrink` pixels a side into one."""
    pair = read_prepared(file, settings)
    if shrink > 1:
        size = (settings.width // shrink, settings.height // shrink)
        pair = cv2.resize(pair, size, interpolation=cv2.INTER_AREA)
    return pair


def _batch(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Stack images and masks, float32 in [0, 1]."""
    batch = None
    for number, pair in enumerate(pairs):
        if batch is None:
            batch = tuple(np.empty((count, *part.shape), np.float32) for part in pair)
        for part, whole in zip(pair, batch, strict=True):
            white = np.float32(255 if part.dtype == np.uint8 else 1)
            np.divide(part, white, out=whole[number])
    return batch


def _numpy(load: Callable, settings: Input, shrink: int) -> Callable:
    """Make what loads a batch in NumPy a step of a dataset's."""
    size = (settings.height // shrink, settings.width // shrink)
    load = memory_told()(load)

    def step(*drawn):
        found = tf.numpy_function(load, drawn, (tf.float32, tf.float32), stateful=False)
        for part, channels in zip(found, (3, 1), strict=True):
            part.set_shape((None, *size, channels))
        return tuple(found)

    return step
