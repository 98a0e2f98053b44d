"""Predict: run + photographs -> full-resolution masks, streamed, whatever their number."""

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

import filelock
import keras
import numpy as np
import tensorflow as tf

from carvana import pipeline, rle
from carvana.dataset import list_images
from carvana.errors import CarvanaError
from carvana.files import replacing
from carvana.progress import progress
from carvana.recipe import Recipe, load_recipe
from carvana.submission import HEADER
from carvana.train import MODEL, RECIPE, load_model

_In, _Out = TypeVar("_In"), TypeVar("_Out")


@dataclass(frozen=True)
class Run:
    """A trained model with the recipe it was trained by."""

    recipe: Recipe
    model: keras.Model
    path: Path  # of the model's file

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Load a run folder.

        Raises:
            CarvanaError: the model is absent, unreadable, or not of the run's recipe.
        """
        path = folder / MODEL
        model = load_model(path, compiled=False)
        recipe = load_recipe(folder / RECIPE)
        size = (recipe.input.height, recipe.input.width)
        if model.input_shape[1:3] != size:
            raise CarvanaError(
                f"{path}: takes {model.input_shape[1:3]}, its {RECIPE} says {size}; the model is "
                "another recipe's: bring back the right one or train again"
            )
        return cls(recipe, model, path)


def upsample(probability: tf.Tensor, height: int, width: int) -> np.ndarray:
    """Bring probabilities to a photograph's size, bilinearly.

    Args:
        probability: (h, w, 1) float32 in [0, 1].

    Returns:
        (height, width) float32.
    """
    return tf.image.resize(probability, (height, width), "bilinear").numpy()[..., 0]


def predict_each(
    run: Run, images: Iterable[Path], finish: Callable[[Path, np.ndarray], _Out]
) -> Iterator[_Out]:
    """Predict photographs of any size and hand each full-size result to `finish`, in order.

    Decoding, the network and `finish` overlap on threads; no more than a few batches are held at
    any moment.

    Args:
        run: the model and its recipe.
        images: paths of JPEG or PNG files.
        finish: called with the path and the probabilities, (height, width) float32 in [0, 1].

    Raises:
        CarvanaError: a photograph cannot be read; it is named.
    """
    batch_size = run.recipe.prediction.batch_size
    network = tf.function(lambda batch: run.model(batch, training=False))

    def finish_one(item: tuple[Path, tuple[int, int], tf.Tensor]) -> _Out:
        path, (height, width), probability = item
        return finish(path, upsample(probability, height, width))

    def probabilities(loaded):
        while batch := list(itertools.islice(loaded, batch_size)):
            paths, sizes, small = zip(*batch, strict=True)
            yield from zip(paths, sizes, network(tf.stack(small)), strict=True)

    with (
        ThreadPoolExecutor(os.cpu_count()) as readers,
        ThreadPoolExecutor(os.cpu_count()) as finishers,
    ):
        loaded = _ahead(readers, lambda path: _load(path, run.recipe), images, 2 * batch_size)
        yield from _ahead(finishers, finish_one, probabilities(loaded), batch_size)


def write_submission(run: Run, images: Path, out: Path, threshold: float | None = None) -> None:
    """Predict a folder of photographs into a submission, or go on where a kill stopped it.

    Rows are added to `.<out>.partial` as they come; the finished file is put in place at once.

    Args:
        run: the model and its recipe.
        images: the folder; every photograph in it gets a row.
        out: `….csv.gz` or `….csv`.
        threshold: of the probability, the recipe's when None.

    Raises:
        CarvanaError: the folder is empty, a photograph cannot be read, another prediction
            writes the same file, or the disk is full. Rows already made are kept.
    """
    if not out.name.endswith((".csv", ".csv.gz")):
        raise CarvanaError(f"{out}: a submission's name ends in .csv or .csv.gz")
    threshold = run.recipe.prediction.threshold if threshold is None else threshold
    names = list_images(images)
    key = _fingerprint(run, images, names, threshold)
    partial = out.with_name(f".{out.name}.partial")

    def row(path: Path, probability: np.ndarray) -> tuple[str, str]:
        return path.name, rle.encode(probability > threshold)

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            filelock.FileLock(f"{partial}.lock", blocking=False),
            _open_partial(partial, key) as (file, done),
        ):
            todo = [images / name for name in names if name not in done]
            if done:
                print(f"{out}: goes on after {len(done)} of {len(names)} images")
            writer = csv.writer(file, lineterminator="\n")
            rows = predict_each(run, todo, row)
            for cells in progress(rows, "predicting", len(names), len(done)):
                writer.writerow(cells)
                file.flush()
            file.seek(0)
            file.readline()  # the key
            with replacing(out) as temporary:
                opened = gzip.open if out.suffix == ".gz" else open
                with opened(temporary, "wt", encoding="utf-8", newline="") as finished:
                    shutil.copyfileobj(file, finished)
        partial.unlink()
        Path(f"{partial}.lock").unlink(missing_ok=True)
    except filelock.Timeout as error:
        raise CarvanaError(
            f"{out}: another prediction is writing it; wait for it or choose another --out"
        ) from error
    except OSError as error:
        raise CarvanaError(
            f"{out}: cannot be written ({error.strerror or error}); the rows made so far are "
            "kept: free some space and run the same command again"
        ) from error


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[_In], _Out], items: Iterable[_In], depth: int
) -> Iterator[_Out]:
    """Map in order on a pool, at most `depth` items ahead of what has been taken."""
    waiting = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _load(path: Path, recipe: Recipe) -> tuple[Path, tuple[int, int], tf.Tensor]:
    """Read a photograph: its path, its (height, width), and the network's input."""
    try:
        picture = pipeline.decode_image(path.read_bytes())
    except (OSError, tf.errors.OpError) as error:
        raise CarvanaError(
            f"{path}: is not a readable photograph (cut short?); fetch it again and run the same "
            "command: masks made so far are kept"
        ) from error
    return path, tuple(picture.shape[:2]), pipeline.resize(pipeline.to_float(picture), recipe.input)


def _fingerprint(run: Run, images: Path, names: list[str], threshold: float) -> str:
    """Hash all that decides the rows: model, threshold, and each photograph's name and date."""
    digest = hashlib.sha256(run.path.read_bytes())
    digest.update(repr(threshold).encode())
    for name in names:
        status = (images / name).stat()
        digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _open_partial(path: Path, key: str) -> Iterator[tuple[TextIO, set[str]]]:
    """Open the rows made so far for adding to: the file, and the images that are in it.

    The first line is the key; another key starts the file anew. A row cut short is dropped.
    """
    with path.open("a+b") as file:
        file.seek(0)
        done = set()
        if file.readline().decode("utf-8", "replace").strip() == key:
            good = file.tell()
            while (line := file.readline()).endswith(b"\n"):
                good = file.tell()
                done.add(line.partition(b",")[0].decode("utf-8"))
            file.truncate(good)
            file.seek(good)
        else:
            file.truncate(0)
            file.write(f"{key}\n".encode())
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        if HEADER[0] not in done:
            text.write(",".join(HEADER) + "\n")
        yield text, done - {HEADER[0]}
        text.detach()
