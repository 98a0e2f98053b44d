"""Read masks, whatever their format, as labels: which class each pixel is of."""

import io
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from carvana.data.images import readable, turn_upright
from carvana.errors import CarvanaError, plural
from carvana.recipe import Data

FORMATS = ("GIF", "PNG", "BMP", "TIFF", "WEBP")  # those that can keep every pixel's value
# Colours of label maps whose recipe numbers its classes.
PALETTE = (
    *("#000000", "#ffffff", "#e6194b", "#3cb44b", "#4363d8", "#ffe119", "#f58231", "#911eb4"),
    *("#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#469990", "#dcbeff", "#9a6324", "#fffac8"),
    *("#800000", "#aaffc3", "#808000", "#ffd8b1", "#000075", "#a9a9a9"),
)
IGNORED = 255  # the label of pixels that do not count
LEAST_SHARE = 1e-3  # of the pixels: a class expected on fewer says nothing of how sure a mask is


@dataclass
class _Value:
    """One of the values that pixels of a file have."""

    place: int  # what stands for it in the array of pixels
    number: int | None  # grey value or palette index; None in a picture of colours
    colour: str  # #rrggbb
    alpha: int
    count: int  # of its pixels
    outside: bool = False  # of a GIF's frame


def read_mask(path: Path, settings: Data) -> np.ndarray:
    """Read a mask at full size.

    Without `data.classes` a mask has two colours: what is black, transparent or outside of a
    GIF's frame is background, the other colour is the car. With them, each pixel is of the class
    whose number (grey value or palette index) or colour it has.

    Args:
        path: a GIF, PNG, BMP, TIFF or lossless WebP.
        settings: the recipe's classes.

    Returns:
        (height, width) uint8: 0 background, 1 car; or the place of the class in `data.classes`,
        255 for ignored pixels.

    Raises:
        CarvanaError: it cannot be read, or has other values than a mask of these classes.
    """
    with readable(path, "mask"), Image.open(io.BytesIO(path.read_bytes())) as picture:
        if picture.format not in FORMATS:
            raise CarvanaError(
                f"{path}: is a {picture.format}, which does not keep a mask's values; save masks "
                "as PNG"
            )
        frames = getattr(picture, "n_frames", 1)
        if frames != 1:
            raise CarvanaError(f"{path}: has {frames} frames; a mask has one")
        frame = picture.tile[0][1] if picture.format == "GIF" else None
        places, values = _values(turn_upright(picture))
    if frame is not None and frame != (0, 0, *places.shape[::-1]):
        places, values = _clear_outside(places, values, frame)
    try:
        return _label(places, values, settings)
    except ValueError as error:
        raise CarvanaError(f"{path}: {error}") from error


def label_name(label: int, settings: Data) -> str:
    """Name a label."""
    return "ignored" if label == IGNORED else settings.class_names[label]


def to_targets(labels: np.ndarray, settings: Data) -> np.ndarray:
    """Turn labels into what a network learns: (height, width, outputs) uint8, 0 or 255.

    Without classes there is one output, the car; else one for each class, and ignored pixels have
    0 in all of them. The labels may be overwritten.
    """
    if not settings.classes:
        return np.multiply(labels, np.uint8(255), out=labels)[..., None]
    return (labels[..., None] == np.arange(len(settings.classes))) * np.uint8(255)


def to_picture(labels: np.ndarray, settings: Data) -> Image.Image:
    """Turn labels into a palette picture that `read_mask` reads back to the same labels."""
    values = list(settings.classes.values()) or [0, 1]
    if settings.ignore != "":
        values.append(settings.ignore)
    table, palette = np.zeros(256, np.uint8), np.zeros((256, 3), np.uint8)
    for place, (value, colour) in enumerate(zip(values, colours(settings), strict=False)):
        label = IGNORED if place == len(settings.class_names) else place
        table[label] = value if isinstance(value, int) else place
        palette[table[label]] = colour
    picture = Image.fromarray(table[labels])
    picture.putpalette(palette.tobytes())
    return picture


def paint(mask: np.ndarray, settings: Data) -> np.ndarray:
    """Colour a network's target or probabilities: (height, width, 3) float32 in [0, 1].

    Args:
        mask: (height, width, outputs), float32 in [0, 1].
        settings: the recipe's classes.
    """
    if mask.shape[-1] == 1:
        return np.repeat(mask, 3, axis=-1)
    shades = np.array(colours(settings)[: mask.shape[-1]], np.float32) / 255
    return np.clip(mask @ shades, 0, 1)


def colours(settings: Data) -> list[list[int]]:
    """Return the colour, RGB, of each class, then of ignored pixels: the recipe's, or ours."""
    values = [*settings.classes.values(), settings.ignore]
    own = isinstance(values[0], str) and bool(settings.classes)
    count = len(settings.class_names)
    names = values if own else [*(PALETTE[i % len(PALETTE)] for i in range(count)), "#808080"]
    return [list(bytes.fromhex((name or "#808080")[1:])) for name in names]


def _values(picture: Image.Image) -> tuple[np.ndarray, list[_Value]]:
    """Return the place of each pixel's value, (height, width) integers, and the values."""
    if picture.mode == "1":  # white is number 1
        places = np.asarray(picture).astype(np.uint8)
        counts = np.bincount(places.ravel(), minlength=2)
        values = [_Value(0, 0, "#000000", 255, int(counts[0]))]
        values.append(_Value(1, 1, "#ffffff", 255, int(counts[1])))
        return places, [value for value in values if value.count]
    if picture.mode in ("L", "P"):
        return np.asarray(picture), _values_of_bytes(picture)
    if picture.mode.startswith("I"):
        numbers, places, counts = np.unique(
            np.asarray(picture), return_inverse=True, return_counts=True
        )
        scale = 1 if numbers[-1] <= 255 else 257  # of greys with 16 bits
        greys = np.clip(np.rint(numbers / scale), 0, 255).astype(int)
        values = [
            _Value(place, int(number), f"#{grey:02x}{grey:02x}{grey:02x}", 255, int(count))
            for place, (number, grey, count) in enumerate(zip(numbers, greys, counts, strict=True))
        ]
        return places.reshape(picture.size[::-1]), values
    pixels = np.ascontiguousarray(picture.convert("RGBA")).view("<u4")[..., 0]
    packed, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    red, green, blue, alpha = (packed >> shift & 255 for shift in (0, 8, 16, 24))
    grey = bool(((red == green) & (green == blue)).all())
    parts = zip(red, green, blue, alpha, counts, strict=True)
    values = [
        _Value(place, int(r) if grey else None, f"#{r:02x}{g:02x}{b:02x}", int(a), int(count))
        for place, (r, g, b, a, count) in enumerate(parts)
    ]
    return places.reshape(pixels.shape), values


def _values_of_bytes(picture: Image.Image) -> list[_Value]:
    """Return the values that occur in a picture of 8-bit greys or palette indices."""
    palette = picture.getpalette("RGB") if picture.mode == "P" else None
    transparency = picture.info.get("transparency")
    if isinstance(transparency, int):
        transparency = b"\xff" * transparency + b"\0"
    alphas = (transparency if isinstance(transparency, bytes) else b"").ljust(256, b"\xff")
    values = []
    for number, count in enumerate(picture.histogram()[:256]):
        if count:
            rgb = palette[3 * number : 3 * number + 3] if palette else [number] * 3
            colour = "#{:02x}{:02x}{:02x}".format(*(rgb or [0, 0, 0]))
            values.append(_Value(number, number, colour, alphas[number], count))
    return values


def _clear_outside(
    places: np.ndarray, values: list[_Value], frame: tuple[int, int, int, int]
) -> tuple[np.ndarray, list[_Value]]:
    """Make what lies outside of a GIF's frame a transparent value of its own."""
    left, top, right, bottom = frame
    inside, outside = places[top:bottom, left:right], 256
    cleared = np.full(places.shape, outside, np.int64)
    cleared[top:bottom, left:right] = inside
    counts = np.bincount(inside.ravel(), minlength=outside)
    values = [replace(value, count=int(counts[value.place])) for value in values]
    values.append(_Value(outside, None, "#000000", 0, places.size - inside.size, outside=True))
    return cleared, [value for value in values if value.count]


def _label(places: np.ndarray, values: list[_Value], settings: Data) -> np.ndarray:
    """Turn places of values into labels, (height, width) uint8.

    Raises:
        ValueError: they are not those of a mask of these classes.
    """
    label = _label_classes if settings.classes else _label_two_colours
    table = np.zeros(max(256, *(value.place + 1 for value in values)), np.uint8)
    table[[value.place for value in values]] = label(values, settings)
    if places.dtype == np.uint8:
        return cv2.LUT(places, table)  # ten times as fast
    return table[places]


def _label_two_colours(values: list[_Value], settings: Data) -> list[int]:
    """Return the label of each value: 1 for the colour that is not black or transparent."""
    if any(0 < value.alpha < 255 for value in values):
        raise ValueError(
            "has half-transparent pixels; save it without smoothing, as black and white"
        )
    opaque = [value for value in values if value.alpha]
    counts = Counter()
    for value in opaque:
        counts[value.colour] += value.count
    colours = list(counts)
    if len(colours) > 2:
        *others, _, _ = sorted(counts.values())
        raise ValueError(
            f"has {plural(sum(others), 'pixel')} of {plural(len(others), 'more colour')} than the "
            "two of a mask; was it a JPEG, or resized with smoothing? Save it again as PNG; more "
            "classes go into data.classes"
        )
    car = {colour for colour in colours if colour != "#000000"}
    if settings.foreground:
        car = {settings.foreground}
        if len(colours) == 2 and settings.foreground not in colours:
            raise ValueError(
                f"has the colours {' and '.join(colours)}, and data.foreground = "
                f"{settings.foreground} is neither"
            )
    elif colours == ["#000000"] and any(not v.alpha and not v.outside for v in values):
        raise ValueError(
            "has black and transparent pixels alone; set data.foreground to #000000 if black is "
            "not the background, to #ffffff if it is"
        )
    elif len(car) == 2:
        raise ValueError(
            f"has the colours {' and '.join(colours)}, and neither is black; name the one that is "
            "not the background in data.foreground"
        )
    return [int(value.alpha > 0 and value.colour in car) for value in values]


def _label_classes(values: list[_Value], settings: Data) -> list[int]:
    """Return the label of each value by the recipe's classes; transparent ones are background."""
    labels = {wanted: label for label, wanted in enumerate(settings.classes.values())}
    if settings.ignore != "":
        labels[settings.ignore] = IGNORED
    by_number = isinstance(next(iter(settings.classes.values())), int)
    keys = [value.number if by_number else value.colour for value in values]
    clear = settings.background
    if clear is None and settings.ignore != "":
        clear = IGNORED
    if clear is None and any(not value.alpha for value in values):
        raise ValueError(
            'has transparent pixels, and no class is called "background"; fill them, or set '
            "data.ignore"
        )
    unknown = [v for v, key in zip(values, keys, strict=True) if v.alpha and key not in labels]
    if by_number and any(value.number is None for value in unknown):
        raise ValueError("is in colours, but data.classes gives numbers; give colours there")
    if unknown:
        named = [str(value.number) if by_number else value.colour for value in unknown]
        shown = ", ".join(named[:5]) + (", ..." if len(named) > 5 else "")
        raise ValueError(
            f"has {sum(value.count for value in unknown)} pixels of values that data.classes does "
            f"not name ({shown}); add them, set data.ignore, or save the mask again as PNG without "
            "smoothing"
        )
    return [labels[k] if v.alpha else clear for v, k in zip(values, keys, strict=True)]
