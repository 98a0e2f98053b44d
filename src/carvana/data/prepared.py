"""Prepared pairs on disk: decoded and resized once for all epochs and runs."""

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import filelock
import numpy as np

from carvana.backend import tf
from carvana.data.checks import MaskChecks, Palette
from carvana.data.images import READING, pixels_of, read_photograph
from carvana.data.masks import Mask
from carvana.data.pairs import Pair, open_truth
from carvana.data.resize import resize
from carvana.errors import CarvanaError, list_faults
from carvana.files import (
    LONGEST_NAME,
    cannot_write,
    clear_temporaries,
    replacing,
    stamp,
    write_text,
)
from carvana.machine import Turns, cores
from carvana.progress import progress
from carvana.recipe import Input, Recipe

PALETTE = "palette.json"  # beside prepared pairs: which colour each number of their masks has


def read_pair(pair: Pair, recipe: Recipe) -> tuple[np.ndarray, Mask]:
    """Read a photograph and its mask; raises CarvanaError if the pair cannot be used."""
    picture, size = read_photograph(pair.image, recipe.input)
    return picture, open_truth(pair, recipe.data, size)


def resize_pair(picture: np.ndarray, mask: Mask, recipe: Recipe) -> np.ndarray:
    """Resize a photograph and its mask to what training reads, before augmentation.

    Returns:
        (height, width, RGB and outputs): uint8; of a recipe that does not average areas, as the
        published one, float32 in [0, 1].
    """
    # Cubic enlarging would let the shares of several classes add up to more than a pixel.
    enlarge = cv2.INTER_LINEAR if recipe.data.classes else cv2.INTER_CUBIC
    parts = [resize(picture, recipe.input)]
    # Without classes the only output is label 1, the car. Ignored pixels are in no output.
    for label in range(recipe.data.outputs) if recipe.data.classes else [1]:
        target = mask.shares
        if target is None:
            target = cv2.compare(mask.labels, label, cv2.CMP_EQ)  # 0 or 255
        parts.append(resize(target[..., None], recipe.input, enlarge))
    pair = np.concatenate(parts, axis=-1)
    return np.rint(pair * 255).astype(np.uint8) if _dtype(recipe.input) == np.uint8 else pair


def read_pairs(
    pairs: list[Pair], checks: MaskChecks, title: str, use: Callable[[Pair, np.ndarray, Mask], Any]
) -> list[Any]:
    """Read pairs and check their masks, on all cores, with progress.

    Returns:
        What `use` returns of each pair, its photograph and its mask; of a pair that cannot be
        used, the CarvanaError.
    """
    turns = Turns()

    def read_one(pair: Pair) -> Any:
        with turns.take(pixels_of(pair.image) * READING):
            try:
                picture, mask = read_pair(pair, checks.recipe)
                checks.add(pair.mask or pair.image, mask)
            except CarvanaError as error:
                return error
            return use(pair, picture, mask)

    with ThreadPoolExecutor(cores()) as pool:
        return list(progress(pool.map(read_one, pairs), title, len(pairs)))


def prepare(pairs: list[Pair], cache: Path, recipe: Recipe) -> list[Path]:
    """Decode and resize pairs once for all epochs and runs, on all cores, with progress.

    Each pair becomes a file of its own, renamed into place when whole: a kill, or two processes at
    once, leave nothing half made. A pair is prepared again when its photograph or mask changes.

    Recipes that prepare pairs alike share a folder of the cache.

    Returns:
        The files, in the order of `pairs`, for `read_prepared`.

    Raises:
        CarvanaError: pairs cannot be used (all are counted, the first twenty named), or the cache
            cannot be written.
    """
    folder = cache / _recipe_key(recipe)
    files = {pair: folder / _file_name(pair, cache) for pair in pairs}
    if not _missing(files, recipe):
        return [*files.values()]
    remedy = f"name a cache folder elsewhere (--cache), or free some space in {cache}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):  # of other processes one at a time
            clear_temporaries(folder)
            faults = _prepare_missing(_missing(files, recipe), folder / PALETTE, recipe, remedy)
    except OSError as error:
        raise cannot_write(folder, error, remedy) from error
    if faults:
        summary = f"{len(faults)} of {len(pairs)} pairs cannot be used:"
        raise CarvanaError(list_faults(summary, faults))
    current = {file.name for file in files.values()}
    pictures = {file.stem for file in files.values()}
    for file in folder.iterdir():
        if file.name not in current and file.stem in pictures:  # of a photograph since changed
            file.unlink(missing_ok=True)
    return [*files.values()]


def _missing(files: dict[Pair, Path], recipe: Recipe) -> dict[Pair, Path]:
    """Return the files that are absent or cut short."""
    size = math.prod(_shape(recipe)) * _dtype(recipe.input).itemsize
    return {
        pair: file
        for pair, file in files.items()
        if not (file.is_file() and file.stat().st_size == size)
    }


def _prepare_missing(
    files: dict[Pair, Path], palette: Path, recipe: Recipe, remedy: str
) -> list[str]:
    """Write the files of pairs; return what is wrong with the pairs.

    What may be a mistake is printed on standard error. `palette` keeps the masks' palette.
    """
    again = {pair.mask.name for pair in files if pair.mask}  # may have been fixed since
    before = {n: seen for n, seen in _read_palette(palette).items() if seen[1] not in again}
    checks = MaskChecks(recipe, before)

    def write(pair: Pair, picture: np.ndarray, mask: Mask) -> None:
        with replacing(files[pair], remedy) as temporary:  # `tofile` would not say why it failed
            temporary.write_bytes(resize_pair(picture, mask, recipe).tobytes())

    results = read_pairs([*files], checks, "decoding", write)
    faults = [str(result) for result in results if result]
    for line in checks.warnings():
        print(line, file=sys.stderr)
    if checks.palette:  # also after a refusal, so that the next run refuses it too
        write_text(palette, json.dumps(checks.palette) + "\n")
    return faults


def _read_palette(path: Path) -> Palette:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {int(number): (colour, name) for number, (colour, name) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def read_prepared(file: Path, recipe: Recipe) -> np.ndarray:
    """Read a prepared pair: (height, width, RGB and mask), uint8 or float32."""
    return np.fromfile(file, _dtype(recipe.input)).reshape(_shape(recipe))


def _shape(recipe: Recipe) -> tuple[int, int, int]:
    return recipe.input.height, recipe.input.width, 3 + recipe.data.outputs


def _dtype(settings: Input) -> np.dtype:
    """Return the type pairs are stored as: exact floats, or a quarter of their size for areas."""
    return np.dtype(np.uint8 if settings.method == "area" else np.float32)


def _recipe_key(recipe: Recipe) -> str:
    """Name the folder of all recipes that prepare pairs alike."""
    data = recipe.data
    values = (list(data.classes.values()), data.foreground, data.soft, data.ignore)
    made_by = (recipe.input, values, tf.__version__, "8")  # the last: the version of this code
    return _digest(repr(made_by))[:12]


def _file_name(pair: Pair, cache: Path) -> str:
    """Name the file of a prepared pair after its photograph, its place, and the files' states.

    The place is relative to the cache: a data folder can be moved with the cache in it, and a cache
    can serve several data folders.
    """
    stem = Path(pair.name).stem
    if len(os.fsencode(stem)) > LONGEST_NAME - 50:  # room for the rest, also of a temporary name
        stem = _digest(stem)
    paths = [path for path in (pair.image, pair.mask) if path]
    place = _digest(" ".join(os.path.relpath(path, cache) for path in paths))
    return f"{stem}-{place[:8]}.{_digest(' '.join(map(stamp, paths)))[:12]}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]
