"""Prepared pairs on disk: decoded and resized once for all epochs and runs."""

import hashlib
import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from carvana.backend import tf
from carvana.data.dataset import Pair, size_fault
from carvana.data.images import read_photograph
from carvana.data.masks import label_name, read_mask, to_targets
from carvana.data.resize import resize
from carvana.errors import CarvanaError, list_faults, plural
from carvana.files import (
    LONGEST_NAME,
    cannot_write,
    clear_temporaries,
    in_turn,
    replacing,
    stamp,
)
from carvana.progress import progress
from carvana.recipe import Input, Recipe


def load_pair(pair: Pair, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Load a photograph and its mask as the network sees them before augmentation.

    Returns:
        image (height, width, 3) and mask (height, width, outputs), float32 in [0, 1].

    Raises:
        CarvanaError: the pair cannot be used; the message names the file.
    """
    picture, labels = _read_pair(pair, recipe)
    return _resize_pair(picture, labels, recipe)


def _read_pair(pair: Pair, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    picture, size = read_photograph(pair.image, recipe.input)
    labels = read_mask(pair.mask, recipe.data)
    if labels.shape != tuple(size):
        raise CarvanaError(size_fault(pair, labels.shape))
    return picture, labels


def _resize_pair(
    picture: np.ndarray, labels: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    # Cubic enlarging would let the shares of several classes add up to more than a pixel.
    enlarge = cv2.INTER_LINEAR if recipe.data.classes else cv2.INTER_CUBIC
    targets = to_targets(labels, recipe.data)
    return resize(picture, recipe.input), resize(targets, recipe.input, enlarge)


def prepare(pairs: list[Pair], cache: Path, recipe: Recipe) -> list[Path]:
    """Decode and resize pairs once for all epochs and runs, on all cores, with progress.

    Each pair becomes a file of its own, renamed into place when whole: a kill, or two processes at
    once, leave nothing half made. A pair is prepared again when its photograph or mask changes.

    Args:
        pairs: the photographs and masks.
        cache: the folder for prepared pairs, those of other recipes among them.
        recipe: whose size, way of resizing and classes.

    Returns:
        The files, in the order of `pairs`, for `read_prepared`.

    Raises:
        CarvanaError: pairs cannot be used (all are counted, the first twenty named), or the cache
            cannot be written.
    """
    folder = cache / _recipe_key(recipe)
    files = [folder / _file_name(pair, cache) for pair in pairs]
    if not any(_missing(files, recipe)):
        return files
    try:
        with in_turn(folder):
            clear_temporaries(folder)
            faults = _prepare_missing(pairs, files, cache, recipe)
    except OSError as error:
        raise cannot_write(folder, error, _remedy(cache)) from error
    if faults:
        summary = f"{len(faults)} of {len(pairs)} pairs cannot be used:"
        raise CarvanaError(list_faults(summary, faults))
    current = {file.name for file in files}
    pictures = {file.stem for file in files}
    for file in folder.iterdir():
        if file.name not in current and file.stem in pictures:  # of a photograph since changed
            file.unlink(missing_ok=True)
    return files


def _remedy(cache: Path) -> str:
    return f"name a cache folder elsewhere (--cache), or free some space in {cache}"


def _missing(files: list[Path], recipe: Recipe) -> list[bool]:
    """Tell for each file whether it is absent or cut short."""
    size = np.prod(_shape(recipe)) * _dtype(recipe.input).itemsize
    missing = []
    for file in files:
        try:
            missing.append(file.stat().st_size != size)
        except OSError:
            missing.append(True)
    return missing


def _prepare_missing(
    pairs: list[Pair], files: list[Path], cache: Path, recipe: Recipe
) -> list[str]:
    """Make the files that are not there whole; return what is wrong with their pairs.

    Masks of one class alone are usable, and often a mistake: they are counted on standard error.
    """
    plain: dict[str, list[Path]] = {}

    def make(pair: Pair, file: Path) -> str | None:
        try:
            picture, labels = _read_pair(pair, recipe)
        except CarvanaError as error:
            return str(error)
        if labels.min() == labels.max():
            plain.setdefault(label_name(labels.min(), recipe.data), []).append(pair.mask)
        pictures = _resize_pair(picture, labels, recipe)
        packed = _pack(np.concatenate(pictures, axis=-1), recipe.input)
        with replacing(file, _remedy(cache)) as temporary:  # `tofile` would not say why it failed
            temporary.write_bytes(packed.tobytes())
        return None

    todo = list(itertools.compress(zip(pairs, files, strict=True), _missing(files, recipe)))
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda item: make(*item), todo)
        faults = [fault for fault in progress(results, "decoding", len(todo)) if fault]
    for name, masks in plain.items():
        what = f"{plural(len(masks), 'mask')} with nothing but {name}"
        print(f"{what} (first: {min(masks)})", file=sys.stderr)
    return faults


def read_prepared(file: Path, recipe: Recipe) -> np.ndarray:
    """Read a prepared pair: (height, width, RGB and mask), uint8 or float32."""
    return np.fromfile(file, _dtype(recipe.input)).reshape(_shape(recipe))


def _shape(recipe: Recipe) -> tuple[int, int, int]:
    return recipe.input.height, recipe.input.width, 3 + recipe.data.outputs


def _dtype(settings: Input) -> np.dtype:
    """Return the type pairs are stored as: exact, or a quarter of the size for area averages."""
    return np.dtype(np.uint8 if settings.method == "area" else np.float32)


def _pack(pair: np.ndarray, settings: Input) -> np.ndarray:
    return np.rint(pair * 255).astype(np.uint8) if _dtype(settings) == np.uint8 else pair


def _recipe_key(recipe: Recipe) -> str:
    """Name the folder of all recipes that prepare pairs alike."""
    data = recipe.data
    values = (list(data.classes.values()), data.foreground, data.ignore)
    made_by = (recipe.input, values, tf.__version__, "7")  # the last: the version of this code
    return hashlib.sha256(repr(made_by).encode()).hexdigest()[:12]


def _file_name(pair: Pair, cache: Path) -> str:
    """Name the file of a prepared pair after its photograph, its place, and the files' states.

    The place is relative to the cache: a data folder can be moved with the cache in it, and a cache
    can serve several data folders.
    """
    stem = Path(pair.name).stem
    if len(os.fsencode(stem)) > LONGEST_NAME - 50:  # room for the rest, also of a temporary name
        stem = _digest(stem)
    place = _digest(f"{os.path.relpath(pair.image, cache)} {os.path.relpath(pair.mask, cache)}")
    return f"{stem}-{place[:8]}.{_digest(f'{stamp(pair.image)} {stamp(pair.mask)}')[:12]}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]
