"""Bring pictures to the network's size, and its probabilities back to the photograph's."""

import contextlib
from collections.abc import Iterator

import cv2
import numpy as np

from carvana.backend import tf
from carvana.recipe import Input


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn OpenCV's out-of-memory error into MemoryError; also a decorator."""
    try:
        yield
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        raise


def resize(picture: np.ndarray, settings: Input, enlarge: int = cv2.INTER_CUBIC) -> np.ndarray:
    """Resize to the recipe's size, aspect ratio not kept, and scale to [0, 1].

    Args:
        picture: (height, width, channels) uint8.
        settings: the recipe's size, and how pixels are averaged.
        enlarge: OpenCV's interpolation of pictures that are smaller, where areas are averaged.

    Returns:
        (height, width, channels) float32 of the recipe's size.
    """
    size, white = (settings.height, settings.width), np.float32(255)
    if settings.method == "bilinear" and not settings.antialias:
        return _bilinear(picture, size)
    grows = picture.shape[0] < size[0] and picture.shape[1] < size[1]
    if settings.method == "area" and grows:  # areas would repeat pixels
        larger = cv2.resize(picture, size[::-1], interpolation=enlarge)
        return larger.reshape(*size, -1) / white
    resized = tf.image.resize(picture, size, settings.method, antialias=settings.antialias)
    # Sums of many shares miss 1 by a rounding error, which accuracy would count as an error.
    return np.round(resized.numpy() / white * 2**16) / np.float32(2**16)


def _bilinear(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Do what `tf.image.resize` does after `convert_image_dtype`, bit for bit.

    TensorFlow converts every pixel; without antialiasing, most of them are never used.
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


@memory_errors()
def upsample(probability: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarge one output's probabilities, (h, w) float32, bilinearly to (height, width)."""
    return cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
