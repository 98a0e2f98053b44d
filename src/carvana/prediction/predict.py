"""Predict: photographs -> full-resolution probabilities, streamed, whatever their number."""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from carvana.backend import check_process, keras, keras_settings, tf
from carvana.data.images import as_photograph, read_photograph
from carvana.data.resize import resize, upsample
from carvana.errors import CarvanaError, UsageError
from carvana.recipe import Input, Recipe
from carvana.run import Run

_In, _Out = TypeVar("_In"), TypeVar("_Out")
Photograph = str | os.PathLike | Image.Image | np.ndarray


def load(source: str | Path | Sequence[str | Path]) -> "Model":
    """Load a trained model.

    Args:
        source: weights the kit ships ("sharp"), a run's folder, an `.npz` file, or a list of
            those: their mean.

    Raises:
        UsageError: there is nothing of this name.
        CarvanaError: a file is broken, or does not match its recipe.

    Example:
        >>> mask = carvana.load("sharp").mask("car.jpg")
    """
    return Model(Run.load(source))


class Model:
    """A trained network, ready for photographs of any size.

    Args:
        run: the network and its recipe.
    """

    def __init__(self, run: Run):
        self.run = run
        self._networks = [
            tf.function(
                functools.partial(_probabilities, network, run.recipe.prediction.flip),
                reduce_retracing=True,
            )
            for network in run.networks
        ]

    @property
    def recipe(self) -> Recipe:
        """The recipe it was trained by."""
        return self.run.recipe

    @property
    def background(self) -> int | None:
        """The label of the background; None if no class is called that."""
        return self.recipe.data.background

    @property
    def white(self) -> int:
        """The value of white in photographs of 16 bits; 0 for 65535."""
        return self.recipe.input.white

    @property
    def usual(self) -> float | None:
        """The `expected_dice` of the validation photographs, where it is known."""
        return self.run.usual

    def mask(self, photograph: Photograph) -> np.ndarray:
        """Return where the car is, or of several classes which one each pixel is of.

        Args:
            photograph: a path, a PIL image, or an array (height, width, 3) of uint8, RGB.

        Returns:
            (height, width), of the photograph's size as people see it: bool, or for several
            classes uint8, places in `recipe.data.class_names`.

        Raises:
            UsageError: it is none of these.
            CarvanaError: the file cannot be read.
        """
        labels = self.decide(self.probability(photograph))
        return labels if self.recipe.data.classes else labels.astype(bool)

    def decide(self, probability: np.ndarray, threshold: float | None = None) -> np.ndarray:
        """Turn probabilities into labels: (height, width) uint8, 0 background, 1 car, or a class.

        Args:
            probability: as `probability` returns.
            threshold: of the car's probability, the recipe's when None.
        """
        if probability.ndim == 3:
            return probability.argmax(axis=-1).astype(np.uint8)
        threshold = self.recipe.prediction.threshold if threshold is None else threshold
        return (probability > threshold).astype(np.uint8)

    def probability(self, photograph: Photograph) -> np.ndarray:
        """Return the probability that each pixel is car, (height, width) float32; see `mask`.

        For several classes (height, width, classes).
        """
        ((_, probability),) = self.predict([photograph])
        return probability

    def predict(
        self,
        photographs: Iterable[Photograph],
        finish: Callable[[Photograph, np.ndarray], _Out] = lambda *result: result,
        read: Callable | None = None,
        workers: int | None = None,
    ) -> Iterator[_Out]:
        """Predict photographs of any size, in order.

        Reading, the network and finishing overlap on threads; no more than a few batches are in
        memory at any moment.

        Args:
            photographs: paths, PIL images or arrays, any number.
            finish: called on a thread with each photograph as it was given and its probabilities,
                (height, width) float32 in [0, 1], or (height, width, classes); what it returns
                is yielded, by default both.
            read: as `read_photograph`, for paths.
            workers: threads that read, and as many that finish; a core each when None.

        Raises:
            UsageError: the model was loaded before this process was forked.
            CarvanaError: a photograph cannot be read; it is named, after the results of all
                before it have been yielded.
        """
        if isinstance(photographs, (str, os.PathLike, Image.Image, np.ndarray)):
            raise UsageError("predict takes a list of photographs; for one use mask or probability")
        check_process()
        if workers is not None and workers < 1:
            raise UsageError(f"workers = {workers}: give 1 or more, or None for a core each")
        return self._predict(photographs, finish, read or read_photograph, workers)

    def _predict(
        self, photographs: Iterable, finish: Callable, read: Callable, workers: int | None
    ) -> Iterator:
        batch_size = self.recipe.prediction.batch_size
        workers = workers or os.cpu_count()
        inputs = self.recipe.prediction_inputs

        def finish_one(item: tuple[Photograph, tuple[int, int], list[np.ndarray]]) -> _Out:
            photograph, (height, width), probabilities = item
            whole, *others = (upsample(each, height, width) for each in probabilities)
            for other in others:
                whole += other
            return finish(photograph, whole / len(probabilities) if others else whole)

        with (
            ThreadPoolExecutor(workers) as readers,
            ThreadPoolExecutor(workers) as finishers,
        ):
            load_one = functools.partial(_load, inputs=inputs, read=read)
            loaded = ahead(readers, load_one, photographs, max(2 * batch_size, workers))
            predicted = self._predict_batches(_batches(loaded, batch_size))
            yield from ahead(finishers, finish_one, predicted, max(batch_size, workers))

    def _predict_batches(self, batches: Iterator[list]) -> Iterator[tuple]:
        """Run the networks; yield each photograph, its size and its probabilities by scale."""
        for batch in batches:
            photographs, sizes, pictures = zip(*batch, strict=True)
            with keras_settings("float32"):
                by_scale = [
                    network(np.stack(small)).numpy()
                    for network, small in zip(
                        self._networks, zip(*pictures, strict=True), strict=True
                    )
                ]
            yield from zip(photographs, sizes, zip(*by_scale, strict=True), strict=True)


def _probabilities(network: "keras.Model", flip: bool, batch: "tf.Tensor") -> "tf.Tensor":
    """Run a network; with `flip` also on the mirrored pictures, and average."""
    probabilities = network(batch, training=False)
    if flip:
        mirrored = network(tf.reverse(batch, [2]), training=False)
        probabilities = (probabilities + tf.reverse(mirrored, [2])) / 2
    return probabilities


def _load(
    photograph: Photograph, inputs: list[Input], read: Callable
) -> tuple[Photograph, tuple[int, int], list[np.ndarray]]:
    """Read a photograph; return it, its (height, width), and the network's input at each scale."""
    if isinstance(photograph, (str, os.PathLike)):
        largest = max(inputs, key=lambda settings: (settings.height, settings.width))
        picture, size = read(Path(photograph), largest)
    else:
        picture = as_photograph(photograph, inputs[0].white)
        size = picture.shape[:2]
    return photograph, size, [resize(picture, settings) for settings in inputs]


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[_In], _Out], items: Iterable[_In], depth: int
) -> Iterator[_Out]:
    """Map in order on a pool, at most `depth` items ahead of what has been taken.

    If `items` fails, earlier results are yielded before the error is raised.
    """
    waiting = deque()
    items, failure = iter(items), None
    try:
        while True:
            try:
                waiting.append(pool.submit(work, next(items)))
            except StopIteration:
                break
            except CarvanaError as error:
                failure = error
                break
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
    if failure:
        raise failure


def _batches(items: Iterator[_In], size: int) -> Iterator[list[_In]]:
    """Gather items; if they fail, yield the incomplete batch before the error is raised."""
    batch, failure = [], None
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except CarvanaError as error:
        failure = error
    if batch:
        yield batch
    if failure:
        raise failure
