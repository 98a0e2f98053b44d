"""Change training pairs at random, image and mask alike.

By OpenCV, a pair at a time on a thread of the input's: several times faster than the same in
TensorFlow's operations, and on 8-bit pairs as on exact ones.
"""

import math

import cv2
import numpy as np

from carvana.recipe import Augment

BENDS = (4, 5)  # points, down and across, that move each its own way where pictures are warped
cv2.setNumThreads(0)  # the input's own threads take a batch each


def augment(pair: np.ndarray, seed: np.ndarray, settings: Augment) -> tuple[np.ndarray, np.ndarray]:
    """Shift brightness, then scale contrast, then saturation, each at random; clip.

    Where the recipe says so, image and mask are first moved and warped alike, half of them
    mirrored, half of the cars painted anew, and greys made darker or brighter. What a recipe does
    not change is left out, not done by zero.
    Values of 8 bits are clipped after each step, exact ones at the end.

    Args:
        pair: (height, width, RGB and mask), float32 in [0, 1] or uint8.
        seed: integers; the same seed draws the same changes.
        settings: the recipe's ranges.

    Returns:
        image (height, width, 3) and mask (height, width, 1), of the pair's dtype and range.
    """
    rng = np.random.default_rng(seed)
    mirrored, repainted = rng.random(2) < 0.5
    geometry = rng.uniform(-1, 1, 5)
    paint = rng.random(5)
    brightness, contrast, saturation = rng.random(3)
    bends = rng.uniform(-1, 1, (*BENDS, 2))
    gamma = rng.uniform(-1, 1)
    white = 255.0 if pair.dtype == np.uint8 else 1.0

    if settings.flip and mirrored:
        pair = cv2.flip(pair, 1)
    if settings.warp or settings.zoom or settings.stretch or settings.rotate or settings.shift:
        pair = _move(pair, geometry, bends, settings)
    image, mask = cv2.cvtColor(pair, cv2.COLOR_RGBA2RGB), pair[..., 3:]
    if settings.repaint and repainted:
        image = _repaint(image, cv2.extractChannel(pair, 3), paint, settings.repaint, white)
    if settings.gamma:
        image = _expose(image, gamma * settings.gamma)
    shift = (2 * brightness - 1) * settings.brightness * white
    scale = _between(settings.contrast, contrast)
    if shift or scale != 1:  # about the mean of each channel, as tf.image.adjust_contrast
        mean = np.array(cv2.mean(image)[:3])
        image = cv2.transform(image, np.c_[np.eye(3) * scale, shift + (1 - scale) * mean])
    if tuple(settings.saturation) != (1, 1):
        vivid = _saturate(image, _between(settings.saturation, saturation))
        image = vivid if pair.dtype == np.float32 else np.rint(vivid).astype(pair.dtype)
    return _clip(image), mask


def _clip(image: np.ndarray) -> np.ndarray:
    """Keep exact values in [0, 1]; OpenCV has kept 8-bit ones in range."""
    return image if image.dtype == np.uint8 else np.clip(image, 0, 1)


def _between(limits: list[float], share: float) -> float:
    low, high = limits
    return low + (high - low) * share


def _move(pair: np.ndarray, draws: np.ndarray, bends: np.ndarray, settings: Augment) -> np.ndarray:
    """Scale, turn, shift and warp a pair; what comes in from outside is the edge's."""
    zoom, stretch, turn, right, down = draws
    height, width = pair.shape[:2]
    scale = math.exp(zoom * math.log1p(settings.zoom))
    narrower = math.exp(stretch / 2 * math.log1p(settings.stretch))
    angle = turn * math.radians(settings.rotate)
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
    places = cv2.resize(  # (height, width, x and y), smooth between the points
        (bends * settings.warp * (width, height)).astype(np.float32),
        (-(-width // 8), -(-height // 8)),
        interpolation=cv2.INTER_CUBIC,
    )
    places = cv2.resize(places, (width, height), interpolation=cv2.INTER_LINEAR)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    for axis, (across, down, start) in enumerate(transform.astype(np.float32)):
        places[..., axis] += (across * x + start) + down * y
    return cv2.remap(pair, places, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)


def _expose(image: np.ndarray, stops: float) -> np.ndarray:
    """Raise values in [0, 1] to a power, exp(stops): black and white stay, greys change."""
    power = math.exp(stops)
    if image.dtype != np.uint8:
        return image ** np.float32(power)
    return cv2.LUT(image, np.rint(255 * (np.arange(256) / 255) ** power).astype(np.uint8))


def _repaint(
    image: np.ndarray, mask: np.ndarray, draws: np.ndarray, strength: float, white: float
) -> np.ndarray:
    """Paint the car anew: other saturation, brightness and tint, the studio unchanged."""
    saturation, brightness, *tint = draws
    gains = np.exp(strength * (2 * brightness - 1 + np.array(tint) - 0.5))
    colours = np.eye(3) * 1.5 * saturation + (1 - 1.5 * saturation) / 3
    painted = _clip(cv2.transform(image, gains[:, None] * colours))
    car = cv2.merge([mask] * 3)
    studio = cv2.subtract((white,) * 3, car)
    return cv2.add(
        cv2.multiply(painted, car, scale=1 / white), cv2.multiply(image, studio, scale=1 / white)
    )


def _saturate(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the saturation of hue, saturation, value, as tf.image.adjust_saturation: float32."""
    red, green, blue = channels = cv2.split(image.astype(np.float32, copy=False))
    value = cv2.max(cv2.max(red, green), blue)
    spread = value - cv2.min(cv2.min(red, green), blue)
    # Saturation is spread / value, and stays between 0 and 1.
    kept = np.clip(value / np.maximum(spread, np.float32(1e-12)), 0, np.float32(factor))
    return cv2.merge([value - (value - channel) * kept for channel in channels])
