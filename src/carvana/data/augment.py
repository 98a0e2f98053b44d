"""Augmentation in two steps: draw how a training pair changes, apply it to image and mask alike.

By OpenCV, a pair at a time on a thread of the input's: several times faster than the same in
TensorFlow's operations. Pairs are uint8, as area averages are stored, or float32 in [0, 1], as the
published recipe has them.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from carvana.recipe import Augment

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


@dataclass(frozen=True)
class Changes:
    """What is done to a pair, in this order; what is None, 0 or 1 is left out."""

    flip: bool
    transform: np.ndarray | None  # (2, 3): pixels (x, y, 1) of the output to those of the input
    offsets: np.ndarray | None  # (*WARP_POINTS, 2): how far points of a grid move, (x, y) pixels
    paint: np.ndarray | None  # (3, 3): new colours of the foreground, from RGB to RGB
    power: float  # of the image's values in [0, 1]
    brightness: float  # added to them
    contrast: float  # factor, about each channel's mean
    saturation: float  # factor, of hue, saturation, value


def draw(seed: np.ndarray, settings: Augment, height: int, width: int) -> Changes:
    """Draw the changes of a pair.

    Args:
        seed: integers; the same seed draws the same changes.
        settings: the recipe's ranges.
        height, width: of the pair, pixels.
    """
    draws = np.random.default_rng(seed).random(DRAWS)  # in [0, 1)
    moves = settings.warp or settings.zoom or settings.stretch or settings.rotate or settings.shift
    repaints = settings.repaint and draws[REPAINTED] < 0.5
    offsets = _signed(draws[WARP]).reshape(*WARP_POINTS, 2) * settings.warp * (width, height)
    return Changes(
        flip=bool(settings.flip and draws[FLIP] < 0.5),
        transform=_draw_transform(draws, settings, height, width) if moves else None,
        offsets=offsets if settings.warp else None,
        paint=_draw_paint(draws[PAINT], settings.repaint) if repaints else None,
        power=math.exp(_signed(draws[GAMMA]) * settings.gamma),
        brightness=_signed(draws[BRIGHTNESS]) * settings.brightness,
        contrast=_between(settings.contrast, draws[CONTRAST]),
        saturation=_between(settings.saturation, draws[SATURATION]),
    )


def apply(pair: np.ndarray, changes: Changes) -> tuple[np.ndarray, np.ndarray]:
    """Change a pair: flip, move, repaint, gamma, light, saturation; clip.

    Values of 8 bits are clipped after each step, exact ones at the end.

    Args:
        pair: (height, width, RGB and mask), uint8 or float32 in [0, 1]; the mask is one channel,
            or one for each class, the background first.
        changes: what `draw` drew.

    Returns:
        image (height, width, 3) and mask (height, width, 1 or classes), of the pair's dtype.
    """
    if changes.flip:
        pair = cv2.flip(pair, 1)
    if changes.transform is not None:
        pair = _move(pair, changes.transform, changes.offsets)
    image = _rgb(pair)
    if changes.paint is not None:
        image = _repaint(image, _foreground(pair), changes.paint)
    if changes.power != 1:
        image = _raise(image, changes.power)
    if changes.brightness or changes.contrast != 1:
        image = _light(image, changes.brightness * _white(image), changes.contrast)
    if changes.saturation != 1:
        image = _saturate(image, changes.saturation)
    return _clip(image), pair[..., 3:]


# ---- drawing


def _signed(draw):
    """Map draws from [0, 1) to [-1, 1)."""
    return -1 + 2 * draw


def _between(limits: list[float], share: float) -> float:
    low, high = limits
    return low + (high - low) * share


def _draw_transform(draws: np.ndarray, settings: Augment, height: int, width: int) -> np.ndarray:
    """Draw zoom, stretch, rotation and shift as one matrix."""
    scale = math.exp(_signed(draws[ZOOM]) * math.log1p(settings.zoom))
    narrower = math.exp(_signed(draws[STRETCH]) / 2 * math.log1p(settings.stretch))
    angle = _signed(draws[ROTATE]) * math.radians(settings.rotate)
    right, down = _signed(draws[SHIFT])
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    turned = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([narrower, 1 / narrower])
    centre = np.array([width - 1, height - 1]) / 2
    shifted = np.array([right * width, down * height]) * settings.shift
    return np.c_[turned, centre - turned @ centre + shifted]


def _draw_paint(draws: np.ndarray, strength: float) -> np.ndarray:
    """Draw another saturation, brightness and tint as a matrix of colours."""
    saturation, brightness, *tint = draws
    gains = np.exp(strength * (2 * brightness - 1 + np.array(tint) - 0.5))
    return gains[:, None] * (np.eye(3) * 1.5 * saturation + (1 - 1.5 * saturation) / 3)


# ---- applying


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


def _move(pair: np.ndarray, transform: np.ndarray, offsets: np.ndarray | None) -> np.ndarray:
    """Move a pair in one resampling; borders are repeated."""
    height, width = pair.shape[:2]
    if offsets is None:
        bilinear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            pair, transform, (width, height), None, bilinear, cv2.BORDER_REPLICATE
        )
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


def _repaint(image: np.ndarray, mask: np.ndarray, paint: np.ndarray) -> np.ndarray:
    """Give the car other colours; the studio stays as it is."""
    white = _white(image)
    painted = _clip(cv2.transform(image, paint))
    car = cv2.merge([mask] * 3)
    studio = cv2.subtract((white,) * 3, car)
    return cv2.add(
        cv2.multiply(painted, car, scale=1 / white), cv2.multiply(image, studio, scale=1 / white)
    )


def _raise(image: np.ndarray, power: float) -> np.ndarray:
    """Raise values in [0, 1] to a power: black and white stay, greys change."""
    if image.dtype != np.uint8:
        return image ** np.float32(power)
    return cv2.LUT(image, np.rint(255 * (np.arange(256) / 255) ** power).astype(np.uint8))


def _light(image: np.ndarray, shift: float, scale: float) -> np.ndarray:
    """Shift the brightness, then scale the contrast, as tf.image.adjust_contrast; in one pass."""
    mean = np.array(cv2.mean(image)[:3])  # of each channel
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
