"""A model: photographs -> full-resolution probabilities, streamed, whatever their number."""

import functools
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from carvana.prediction.certainty import expected_dice
from carvana.runs.trained import Run, Source

_Out = TypeVar("_Out")
Photograph = str | os.PathLike | Image.Image | np.ndarray
FINISHING = 32  # bytes a pixel: a channel of probabilities, labels, and what is made of them


def load(source: Source, precision: str = "float32") -> "Model":
    """Load a trained model.

    Args:
        source: weights the kit ships ("sharp"), a run's folder, an `.npz` file, or a list of
            those: their mean.
        precision: "float32", or "auto" for bfloat16 or float16 where the hardware is faster at it,
            with masks of a Dice of 0.9984 to 0.9998 to those of float32.

    Raises:
        UsageError: there is nothing of this name.
        CarvanaError: a file is broken, or does not match its recipe.

    Example:
        >>> mask = carvana.load("sharp").mask("car.jpg")
    """
    return Model(Run.load(source, precision))


@dataclass(frozen=True)
class Prediction:
    """What a network says of a photograph, brought to the photograph's size when asked."""

    by_scale: Sequence[np.ndarray]  # probabilities at each scale, (h, w, outputs) float32 each
    size: tuple[int, int]  # (height, width) of the photograph
    threshold: float  # of the car's probability, where there is one output
    background: int | None  # the output of the background among several, None for none

    @property
    def outputs(self) -> int:
        return self.by_scale[0].shape[-1]

    def channel(self, number: int) -> np.ndarray:
        """Return one output's probability: (height, width) float32, the mean over scales."""
        channels = [np.ascontiguousarray(each[..., number]) for each in self.by_scale]
        whole = upsample(channels[0], *self.size)
        for other in channels[1:]:
            whole += upsample(other, *self.size)
        return whole / len(channels) if len(channels) > 1 else whole

    def probability(self) -> np.ndarray:
        """Return the car's probability (height, width), or (height, width, classes); float32."""
        if self.outputs == 1:
            return self.channel(0)
        whole = np.empty((*self.size, self.outputs), np.float32)
        for number in range(self.outputs):
            whole[..., number] = self.channel(number)
        return whole

    def foreground(self) -> np.ndarray:
        """Return the probability that a pixel is not background: (height, width) float32."""
        return self.channel(0) if self.outputs == 1 else 1 - self.channel(self.background)

    def mask(self) -> np.ndarray:
        """Return where the car is, (height, width) bool; of several classes places, uint8."""
        labels, _ = self.decide()
        return labels.astype(bool) if self.outputs == 1 else labels

    def decide(self, threshold: float | None = None) -> tuple[np.ndarray, float]:
        """Return labels, (height, width) uint8, and the Dice to expect of them.

        Of several classes it is the mean over those, but for the background, that a thousandth of
        the pixels or more is expected to be of. `threshold` is used instead of the recipe's. Memory
        does not grow with classes.
        """
        if self.outputs == 1:
            probability = self.channel(0)
            above = probability > (self.threshold if threshold is None else threshold)
            return above.astype(np.uint8), expected_dice(probability)
        labels, highest = np.zeros(self.size, np.uint8), np.full(self.size, -np.inf, np.float32)
        dices = []
        for number in range(self.outputs):
            probability = self.channel(number)
            if number != self.background and probability.sum() >= LEAST_SHARE * labels.size:
                dices.append(expected_dice(probability))
            labels[probability > highest] = number
            np.maximum(highest, probability, out=highest)
        return labels, float(np.mean(dices)) if dices else 1.0


class Model:
    """A trained network, that of a run, ready for photographs of any size."""

    def __init__(self, run: Run):
        self.run, self.recipe = run, run.recipe
        self.background = self.recipe.data.background  # its output; None if no class is called that
        self.usual = run.usual  # the `expected_dice` of validation photographs, where known
        self.white = self.recipe.input.white
        self.threshold = self.recipe.prediction.threshold
        self.batch_size = self.recipe.prediction.batch_size
        self._inputs = self.recipe.prediction_inputs
        flip = self.recipe.prediction.flip
        self._networks = [
            tf.function(functools.partial(_probabilities, network, flip), reduce_retracing=True)
            for network in run.networks
        ]

    def mask(self, photograph: Photograph) -> np.ndarray:
        """Return where the car is, or of several classes which one each pixel is of.

        Args:
            photograph: a path, a PIL image, or an array (height, width, 3) of uint8, RGB.

        Returns:
            (height, width), of the photograph's size as people see it: bool, or for several
            classes uint8, places in `recipe.data.class_names`.

        Raises:
            UsageError: it is not a photograph.
            CarvanaError: the file cannot be read.
        """
        (mask,) = self.map([photograph], lambda _, found: found.mask())
        return mask

    def probability(self, photograph: Photograph) -> np.ndarray:
        """Return each pixel's probability of car, float32: (height, width), or with classes last.

        Arguments and errors are those of `mask`.
        """
        ((_, probability),) = self.predict([photograph])
        return probability

    def predict(
        self, photographs: Iterable[Photograph], workers: int | None = None
    ) -> Iterator[tuple[Photograph, np.ndarray]]:
        """Predict any number of photographs in order, streamed.

        Args:
            photographs: paths, PIL images or arrays of any size.
            workers: threads that read, and as many that finish; a core each when None.

        Yields:
            Each photograph as it was given, and its `probability`.

        Raises:
            UsageError: one photograph is given, not a list; or the model was loaded before this
                process was forked.
            CarvanaError: a photograph cannot be read; raised after the results of those before it.
        """
        return self.map(photographs, lambda each, found: (each, found.probability()), workers)

    def map(
        self,
        photographs: Iterable[Photograph],
        work: Callable[[Photograph, Prediction], _Out],
        workers: int | None = None,
        keep_going: bool = False,
        full_batches: bool = False,
    ) -> Iterator[_Out | CarvanaError]:
        """Predict photographs as `predict` does, and yield what `work` makes of each prediction.

        Reading, the network and the work overlap on threads. A few batches are in memory at any
        moment, and no more photographs at full size than fit into a third of it.

        Args:
            photographs, workers: as of `predict`.
            work: called on a thread with each photograph as it was given and its prediction.
            keep_going: yield the error of a photograph that cannot be read in its place.
            full_batches: fill smaller batches up. A network may round differently in batches of
                another size; so no result depends on what else is predicted.
        """
        if isinstance(photographs, (str, os.PathLike, Image.Image, np.ndarray)):
            raise UsageError("predict takes a list of photographs; for one use mask or probability")
        check_process()
        if workers is not None and workers < 1:
            raise UsageError(f"workers = {workers}: give 1 or more, or None for a core each")
        return self._map(photographs, work, workers or cores(), keep_going, full_batches)

    def _map(
        self, photographs: Iterable, work: Callable, workers: int, keep_going: bool, full: bool
    ) -> Iterator:
        turns = Turns()

        def load(photograph: Photograph) -> tuple | CarvanaError:
            try:
                return photograph, *self._load(photograph, turns)
            except CarvanaError as error:
                return error

        def finish(item: tuple[Photograph, Prediction] | CarvanaError) -> object:
            if isinstance(item, CarvanaError):
                return item
            with turns.take(math.prod(item[1].size) * FINISHING):
                return work(*item)

        with ThreadPoolExecutor(workers) as readers, ThreadPoolExecutor(workers) as finishers:
            loaded = ahead(readers, load, photographs, max(2 * self.batch_size, workers))
            predicted = self._predict_all(loaded, full)
            for result in ahead(finishers, finish, predicted, max(self.batch_size, workers)):
                if isinstance(result, CarvanaError) and not keep_going:
                    raise result
                yield result

    def _predict_all(self, loaded: Iterator, full: bool) -> Iterator:
        """Yield photographs with their predictions, and errors, in order."""
        while batch := list(itertools.islice(loaded, self.batch_size)):
            good = [item for item in batch if not isinstance(item, CarvanaError)]
            found = iter(self._predict_batch([inputs for *_, inputs in good], full) if good else ())
            for item in batch:
                if isinstance(item, CarvanaError):
                    yield item
                else:
                    photograph, size, _ = item
                    yield photograph, self.prediction(next(found), size)

    def prediction(self, by_scale: Sequence[np.ndarray], size: tuple[int, int]) -> Prediction:
        """Return what probabilities say by this model's threshold and background."""
        return Prediction(by_scale, size, self.threshold, self.background)

    def _load(self, photograph: Photograph, turns: Turns) -> tuple[tuple[int, int], list]:
        """Read a photograph; return its (height, width), and the network's input at each scale."""
        if not isinstance(photograph, (str, os.PathLike)):
            picture = as_photograph(photograph, self.white)
            return picture.shape[:2], [resize(picture, settings) for settings in self._inputs]
        path = Path(photograph)
        largest = max(self._inputs, key=lambda settings: (settings.height, settings.width))
        with turns.take(pixels_of(path) * READING):
            picture, size = read_photograph(path, largest)
            return size, [resize(picture, settings) for settings in self._inputs]

    def _predict_batch(self, inputs: list[list[np.ndarray]], full: bool) -> Iterator:
        """Run the networks; return an iterator of each photograph's probabilities by scale."""
        blank = self.batch_size - len(inputs) if full else 0
        with keras_settings("float32"):
            by_scale = []
            for network, pictures in zip(self._networks, zip(*inputs, strict=True), strict=True):
                batch = np.stack([*pictures, *[np.zeros_like(pictures[0])] * blank])
                by_scale.append(network(batch).numpy()[: len(inputs)])
        return zip(*by_scale, strict=True)


def _probabilities(network: "keras.Model", flip: bool, batch: "tf.Tensor") -> "tf.Tensor":
    probabilities = network(batch, training=False)
    if flip:
        mirrored = network(tf.reverse(batch, [2]), training=False)
        probabilities = (probabilities + tf.reverse(mirrored, [2])) / 2
    return probabilities


def ahead(pool: ThreadPoolExecutor, work: Callable, items: Iterable, depth: int) -> Iterator:
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
