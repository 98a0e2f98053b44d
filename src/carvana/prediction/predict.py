"""Predict: photographs -> full-resolution probabilities, streamed, whatever their number."""

import functools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from carvana.backend import check_process, keras, keras_settings, tf
from carvana.data.images import READING, as_photograph, pixels_of, read_photograph
from carvana.data.masks import LEAST_SHARE
from carvana.data.resize import resize, upsample
from carvana.errors import CarvanaError, UsageError
from carvana.machine import Turns, cores
from carvana.prediction.certainty import expected_dice, expected_of, sums_of
from carvana.recipe import Input, Recipe
from carvana.run import Run

_In, _Out = TypeVar("_In"), TypeVar("_Out")
FINISHING = 32  # bytes a pixel: a channel of probabilities, labels, and what is made of them
Photograph = str | os.PathLike | Image.Image | np.ndarray


def load(source: str | Path | Sequence[str | Path], precision: str = "float32") -> "Model":
    """Load a trained model.

    Args:
        source: weights the kit ships ("sharp"), a run's folder, an `.npz` file, or a list of
            those: their mean.
        precision: "float32", or "auto" for bfloat16 or float16 where the hardware has it: faster,
            and masks differ a little from float32's (a Dice of 0.9994 to 0.9997 to them).

    Raises:
        UsageError: there is nothing of this name.
        CarvanaError: a file is broken, or does not match its recipe.

    Example:
        >>> mask = carvana.load("sharp").mask("car.jpg")
    """
    return Model(Run.load(source, precision))


class Prediction:
    """What a network says of a photograph, brought to the photograph's size when asked.

    Args:
        by_scale: the network's probabilities at each scale, (h, w, outputs) float32 each.
        size: (height, width) of the photograph.
        threshold: of the car's probability, where there is one output.
        background: the output of the background among several, None for none.
    """

    def __init__(
        self,
        by_scale: Sequence[np.ndarray],
        size: tuple[int, int],
        threshold: float,
        background: int | None,
    ):
        self.size, self._by_scale = size, by_scale
        self._threshold, self._background = threshold, background
        self._outputs = by_scale[0].shape[-1]

    def channel(self, number: int) -> np.ndarray:
        """Return one output's probability: (height, width) float32, the mean over scales."""
        whole, *others = (
            upsample(np.ascontiguousarray(each[..., number]), *self.size) for each in self._by_scale
        )
        for other in others:
            whole += other
        return whole / len(self._by_scale) if others else whole

    def probability(self) -> np.ndarray:
        """Return the car's probability (height, width), or (height, width, classes); float32."""
        if self._outputs == 1:
            return self.channel(0)
        whole = np.empty((*self.size, self._outputs), np.float32)
        for number in range(self._outputs):
            whole[..., number] = self.channel(number)
        return whole

    def foreground(self) -> np.ndarray:
        """Return the probability that a pixel is not background: (height, width) float32."""
        return self.channel(0) if self._outputs == 1 else 1 - self.channel(self._background)

    def decide(self, threshold: float | None = None) -> tuple[np.ndarray, float]:
        """Return labels, (height, width) uint8, and the Dice to expect of them.

        One class at a time, so that memory does not grow with their number.

        Args:
            threshold: instead of the recipe's.
        """
        if self._outputs == 1:
            probability = self.channel(0)
            above = probability > (self._threshold if threshold is None else threshold)
            return above.astype(np.uint8), expected_dice(probability)
        labels, highest, sums = np.zeros(self.size, np.uint8), None, []
        for number in range(self._outputs):
            probability = self.channel(number)
            if number != self._background:
                sums.append(sums_of(probability))
            if highest is None:
                highest = probability
                continue
            labels[probability > highest] = number
            np.maximum(highest, probability, out=highest)
        return labels, expected_of(sums, LEAST_SHARE * labels.size)


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
        ((labels, _),) = self.map([photograph], lambda _, found: found.decide())
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
        self, photographs: Iterable[Photograph], workers: int | None = None
    ) -> Iterator[tuple[Photograph, np.ndarray]]:
        """Predict photographs of any size, in order, streamed: any number may be given.

        Args:
            photographs: paths, PIL images or arrays.
            workers: threads that read, and as many that finish; a core each when None.

        Yields:
            Each photograph as it was given, and its probabilities: (height, width) float32 in
            [0, 1], or (height, width, classes).

        Raises:
            UsageError: one photograph is given, not a list; or the model was loaded before this
                process was forked.
            CarvanaError: a photograph cannot be read; it is named, after the results of all
                before it have been yielded.
        """
        return self.map(photographs, lambda each, found: (each, found.probability()), workers)

    def map(
        self,
        photographs: Iterable[Photograph],
        work: Callable[[Photograph, Prediction], _Out],
        workers: int | None = None,
        read: Callable | None = None,
    ) -> Iterator[_Out]:
        """Predict photographs and do something with each prediction; see `predict`.

        Reading, the network and the work overlap on threads. No more than a few batches are in
        memory at any moment, and no more photographs at full size than fit into a third of it.

        Args:
            photographs: as of `predict`.
            work: done on a thread with each photograph as it was given and its prediction; what
                it returns is yielded.
            workers: as of `predict`.
            read: as `read_photograph`, for paths.
        """
        if isinstance(photographs, (str, os.PathLike, Image.Image, np.ndarray)):
            raise UsageError("predict takes a list of photographs; for one use mask or probability")
        check_process()
        if workers is not None and workers < 1:
            raise UsageError(f"workers = {workers}: give 1 or more, or None for a core each")
        return self._map(photographs, work, workers or cores(), read or read_photograph)

    def _map(self, photographs: Iterable, work: Callable, workers: int, read: Callable) -> Iterator:
        batch_size = self.recipe.prediction.batch_size
        turns = Turns()

        def finish(item: tuple[Photograph, Prediction]) -> _Out:
            with turns.take(math.prod(item[1].size) * FINISHING):
                return work(*item)

        with (
            ThreadPoolExecutor(workers) as readers,
            ThreadPoolExecutor(workers) as finishers,
        ):
            load_one = functools.partial(
                _load, inputs=self.recipe.prediction_inputs, read=read, turns=turns
            )
            loaded = ahead(readers, load_one, photographs, max(2 * batch_size, workers))
            predicted = self._predict_batches(_batches(loaded, batch_size))
            yield from ahead(finishers, finish, predicted, max(batch_size, workers))

    def _predict_batches(self, batches: Iterator[list]) -> Iterator[tuple[Photograph, Prediction]]:
        """Run the networks; yield each photograph and its prediction."""
        for batch in batches:
            photographs, sizes, pictures = zip(*batch, strict=True)
            with keras_settings("float32"):
                by_scale = [
                    network(np.stack(small)).numpy()
                    for network, small in zip(
                        self._networks, zip(*pictures, strict=True), strict=True
                    )
                ]
            for photograph, size, each in zip(
                photographs, sizes, zip(*by_scale, strict=True), strict=True
            ):
                threshold = self.recipe.prediction.threshold
                yield photograph, Prediction(each, size, threshold, self.background)


def _probabilities(network: "keras.Model", flip: bool, batch: "tf.Tensor") -> "tf.Tensor":
    """Run a network; with `flip` also on the mirrored pictures, and average."""
    probabilities = network(batch, training=False)
    if flip:
        mirrored = network(tf.reverse(batch, [2]), training=False)
        probabilities = (probabilities + tf.reverse(mirrored, [2])) / 2
    return probabilities


def _load(
    photograph: Photograph, inputs: list[Input], read: Callable, turns: Turns
) -> tuple[Photograph, tuple[int, int], list[np.ndarray]]:
    """Read a photograph; return it, its (height, width), and the network's input at each scale."""
    if not isinstance(photograph, (str, os.PathLike)):
        picture = as_photograph(photograph, inputs[0].white)
        return photograph, picture.shape[:2], [resize(picture, settings) for settings in inputs]
    largest = max(inputs, key=lambda settings: (settings.height, settings.width))
    with turns.take(pixels_of(Path(photograph)) * READING):
        picture, size = read(Path(photograph), largest)
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
