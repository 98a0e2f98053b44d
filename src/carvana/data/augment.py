"""Augmentations: their settings, and how each changes a training pair, image and mask alike.

By OpenCV, a pair at a time on a thread of the input's: several times faster than the same in
TensorFlow's operations, and on 8-bit pairs as on exact ones.
"""

import math
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from carvana.sections import Factors, Share, section

# The random numbers that each augmentation takes of a pair's own stream. A new augmentation takes
# the next free ones, and so changes no other's draws.
FLIP, REPAINTED = 0, 1
ZOOM, STRETCH, ROTATE, SHIFT = 2, 3, 4, slice(5, 7)
PAINT = slice(7, 12)
BRIGHTNESS, CONTRAST, SATURATION = 12, 13, 14
WARP = slice(15, 55)
GAMMA = 55
DRAWS = 56  # in all

WARP_POINTS = (4, 5)  # rows and columns of points that a warp moves, each its own way


@section
class Augment:
    """How much training pairs change: a recipe's [augment]."""

    brightness: Share
    contrast: Factors
    saturation: Factors
    flip: bool
    zoom: Share
    rotate: Annotated[float, Field(ge=0, le=180)]
    shift: Share
    repaint: Annotated[float, Field(ge=0, le=2)]
    stretch: Share
    warp: Share
    gamma: Annotated[float, Field(ge=0, le=2)]


def augment(pair: np.ndarray, seed: np.ndarray, settings: Augment) -> tuple[np.ndarray, np.ndarray]:
    """Change a pair at random: flip, move, repaint, gamma, light, saturation; clip.

    A change whose setting is zero is skipped, not computed with zero.
    Values of 8 bits are clipped after each step, exact ones at the end.

    Args:
        pair: (height, width, RGB and mask), float32 in [0, 1] or uint8; the mask is one channel, or
            one for each class, the background first.
        seed: integers; the same seed draws the same changes.
        settings: the recipe's ranges.

    Returns:
        image (height, width, 3) and mask (height, width, 1 or classes), of the pair's dtype and
        range.
    """
    draws = np.random.default_rng(seed).random(DRAWS)  # in [0, 1)
    if settings.flip and draws[FLIP] < 0.5:
        pair = cv2.flip(pair, 1)
    if settings.warp or settings.zoom or settings.stretch or settings.rotate or settings.shift:
        pair = _move(pair, draws, settings)
    image, mask = _rgb(pair), pair[..., 3:]
    if settings.repaint and draws[REPAINTED] < 0.5:
        image = _repaint(image, _foreground(pair), draws[PAINT], settings.repaint)
    if settings.gamma:
        image = _apply_gamma(image, _signed(draws[GAMMA]) * settings.gamma)
    image = _light(image, draws, settings)
    if tuple(settings.saturation) != (1, 1):
        image = _saturate(image, _between(settings.saturation, draws[SATURATION]))
    return _clip(image), mask


def _signed(draw):
    """Map draws from [0, 1) to [-1, 1)."""
    return -1 + 2 * draw


def _white(image: np.ndarray) -> float:
    return 255.0 if image.dtype == np.uint8 else 1.0


def _rgb(pair: np.ndarray) -> np.ndarray:
    if pair.shape[-1] == 4:
        return cv2.cvtColor(pair, cv2.COLOR_RGBA2RGB)
    return np.ascontiguousarray(pair[..., :3])


def _foreground(pair: np.ndarray) -> np.ndarray:
    """Return how much of each pixel is not background: (height, width)."""
    first = cv2.extractChannel(pair, 3)  # the car; of several classes, the background
    return first if pair.shape[-1] == 4 else pair.dtype.type(_white(pair)) - first


def _clip(image: np.ndarray) -> np.ndarray:
    """Keep exact values in [0, 1]; OpenCV has kept 8-bit ones in range."""
    return image if image.dtype == np.uint8 else np.clip(image, 0, 1)


def _between(limits: list[float], share: float) -> float:
    low, high = limits
    return low + (high - low) * share


def _move(pair: np.ndarray, draws: np.ndarray, settings: Augment) -> np.ndarray:
    """Zoom, stretch, rotate, shift and warp a pair in one resampling; borders are repeated."""
    height, width = pair.shape[:2]
    scale = math.exp(_signed(draws[ZOOM]) * math.log1p(settings.zoom))
    narrower = math.exp(_signed(draws[STRETCH]) / 2 * math.log1p(settings.stretch))
    angle = _signed(draws[ROTATE]) * math.radians(settings.rotate)
    right, down = _signed(draws[SHIFT])
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    turned = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([narrower, 1 / narrower])
    centre = np.array([width - 1, height - 1]) / 2
    shifted = np.array([right * width, down * height]) * settings.shift
    transform = np.c_[turned, centre - turned @ centre + shifted]  # output pixels to input pixels
    bilinear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if not settings.warp:
        return cv2.warpAffine(
            pair, transform, (width, height), None, bilinear, cv2.BORDER_REPLICATE
        )
    offsets = _signed(draws[WARP]).reshape(*WARP_POINTS, 2) * settings.warp * (width, height)
    places = cv2.resize(  # (height, width, x and y), smooth between the points
        offsets.astype(np.float32),
        (-(-width // 8), -(-height // 8)),
        interpolation=cv2.INTER_CUBIC,
    )
    places = cv2.resize(places, (width, height), interpolation=cv2.INTER_LINEAR)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    for axis, (across, down, start) in enumerate(transform.astype(np.float32)):
        places[..., axis] += (across * x + start) + down * y
    return cv2.remap(pair, places, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)


def _apply_gamma(image: np.ndarray, exponent: float) -> np.ndarray:
    """Raise values in [0, 1] to the power exp(exponent): black and white stay, greys change."""
    power = math.exp(exponent)
    if image.dtype != np.uint8:
        return image ** np.float32(power)
    return cv2.LUT(image, np.rint(255 * (np.arange(256) / 255) ** power).astype(np.uint8))


def _repaint(image: np.ndarray, mask: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Give the car another saturation, brightness and tint; the studio stays as it is."""
    saturation, brightness, *tint = draws
    white = _white(image)
    gains = np.exp(strength * (2 * brightness - 1 + np.array(tint) - 0.5))
    colours = np.eye(3) * 1.5 * saturation + (1 - 1.5 * saturation) / 3
    painted = _clip(cv2.transform(image, gains[:, None] * colours))
    car = cv2.merge([mask] * 3)
    studio = cv2.subtract((white,) * 3, car)
    return cv2.add(
        cv2.multiply(painted, car, scale=1 / white), cv2.multiply(image, studio, scale=1 / white)
    )


def _light(image: np.ndarray, draws: np.ndarray, settings: Augment) -> np.ndarray:
    """Shift the brightness, then scale the contrast, in one pass."""
    shift = _signed(draws[BRIGHTNESS]) * settings.brightness * _white(image)
    scale = _between(settings.contrast, draws[CONTRAST])
    if not shift and scale == 1:
        return image
    # About the mean of each channel, as tf.image.adjust_contrast.
    mean = np.array(cv2.mean(image)[:3])
    return cv2.transform(image, np.c_[np.eye(3) * scale, shift + (1 - scale) * mean])


def _saturate(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the saturation of hue, saturation, value, as tf.image.adjust_saturation."""
    red, green, blue = channels = cv2.split(image.astype(np.float32, copy=False))
    value = cv2.max(cv2.max(red, green), blue)
    spread = value - cv2.min(cv2.min(red, green), blue)
    # Saturation is spread / value, and stays between 0 and 1.
    kept = np.clip(value / np.maximum(spread, np.float32(1e-12)), 0, np.float32(factor))
    vivid = cv2.merge([value - (value - channel) * kept for channel in channels])
    return vivid if image.dtype == np.float32 else np.rint(vivid).astype(image.dtype)
