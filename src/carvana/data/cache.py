"""Prepared pairs on disk: decoded and resized once for all epochs and runs."""

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from carvana.backend import tf
from carvana.data.dataset import Pair
from carvana.data.images import load_pair
from carvana.errors import CarvanaError, list_faults
from carvana.files import clear_temporaries, in_turn, replacing, stamp
from carvana.progress import progress
from carvana.recipe import Input


def prepare(pairs: list[Pair], cache: Path, settings: Input) -> list[Path]:
    """Decode and resize pairs once for all epochs and runs, on all cores, with progress.

    Each pair becomes a file of its own, renamed into place when whole: a kill, or two processes at
    once, leave nothing half made. A pair is prepared again when its photograph or mask changes.

    Args:
        pairs: the photographs and masks.
        cache: the folder for prepared pairs, those of other recipes among them.
        settings: the recipe's size and way of resizing.

    Returns:
        The files, in the order of `pairs`, for `read_prepared`.

    Raises:
        CarvanaError: pairs cannot be used (all are counted, the first twenty named), or the cache
            cannot be written.
    """
    folder = cache / _settings_key(settings)
    files = [folder / f"{Path(pair.name).stem}.{_pair_key(pair)}" for pair in pairs]
    if not any(_missing(files, settings)):
        return files
    try:
        with in_turn(folder):
            clear_temporaries(folder)
            faults = _prepare_missing(pairs, files, cache, settings)
    except OSError as error:
        raise CarvanaError(
            f"{folder}: prepared pairs cannot be written ({error.strerror or error}); "
            f"{_remedy(cache)}"
        ) from error
    if faults:
        summary = f"{len(faults)} of {len(pairs)} pairs cannot be used:"
        raise CarvanaError(list_faults(summary, faults))
    current = {file.name for file in files}
    stems = {file.stem for file in files}
    for file in folder.iterdir():
        if file.name not in current and file.stem in stems:  # of a photograph since changed
            file.unlink(missing_ok=True)
    return files


def _remedy(cache: Path) -> str:
    return f"free some space, or make {cache} a link to a folder that has it"


def _missing(files: list[Path], settings: Input) -> list[bool]:
    """Tell for each file whether it is absent or cut short."""
    size = settings.height * settings.width * 4 * _dtype(settings).itemsize
    missing = []
    for file in files:
        try:
            missing.append(file.stat().st_size != size)
        except OSError:
            missing.append(True)
    return missing


def _prepare_missing(
    pairs: list[Pair], files: list[Path], cache: Path, settings: Input
) -> list[str]:
    """Make the files that are not there whole; return what is wrong with their pairs."""

    def make(pair: Pair, file: Path) -> str | None:
        try:
            pictures = load_pair(pair.image, pair.mask, settings)
        except CarvanaError as error:
            return str(error)
        with replacing(file, _remedy(cache)) as temporary:  # `tofile` would not say why it failed
            temporary.write_bytes(_pack(np.concatenate(pictures, axis=-1), settings).tobytes())
        return None

    todo = list(itertools.compress(zip(pairs, files, strict=True), _missing(files, settings)))
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda item: make(*item), todo)
        return [fault for fault in progress(results, "decoding", len(todo)) if fault]


def read_prepared(file: Path, settings: Input) -> np.ndarray:
    """Read a prepared pair: (height, width, RGB and mask), uint8 or float32."""
    return np.fromfile(file, _dtype(settings)).reshape(settings.height, settings.width, 4)


def _dtype(settings: Input) -> np.dtype:
    """Return the type pairs are stored as: exact, or a quarter of the size for area averages."""
    return np.dtype(np.uint8 if settings.method == "area" else np.float32)


def _pack(pair: np.ndarray, settings: Input) -> np.ndarray:
    return np.rint(pair * 255).astype(np.uint8) if _dtype(settings) == np.uint8 else pair


def _settings_key(settings: Input) -> str:
    made_by = (settings, tf.__version__, "5")  # the last: the version of this code
    return hashlib.sha256(repr(made_by).encode()).hexdigest()[:12]


def _pair_key(pair: Pair) -> str:
    stamps = f"{stamp(pair.image)} {stamp(pair.mask)}"
    return hashlib.sha256(stamps.encode()).hexdigest()[:12]
