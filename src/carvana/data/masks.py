"""Read masks, whatever their format, as labels: which class each pixel is of."""

import io
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from carvana.data.images import MODES, raw_mode, readable, turn_upright
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


ON = ("#ffffff", "#010101")  # white, and the 1 that programs write for it: surely the foreground


@dataclass(frozen=True)
class Mask:
    """A mask as it was read."""

    labels: np.ndarray  # (height, width) uint8
    palette: dict[int, str]  # the colour of each number; empty where numbers are greys


@dataclass
class _Value:
    """One of the values that pixels of a file have."""

    place: int  # what stands for it in the array of pixels
    number: float | None  # grey value or palette index; None in a picture of colours
    colour: str  # #rrggbb; of greys with more than 8 bits that are neither black nor white, decimal
    alpha: int
    count: int  # of its pixels
    outside: bool = False  # of a GIF's frame


def read_mask(path: Path, settings: Data) -> np.ndarray:
    """Read a mask's labels at full size; see `open_mask`."""
    return open_mask(path, settings).labels


def open_mask(path: Path, settings: Data) -> Mask:
    """Read a mask at full size.

    Without `data.classes` a mask has two colours: what is black, transparent or outside of a
    GIF's frame is background; white, 1 or `data.foreground` is the car. With them, each pixel is
    of the class whose number (grey value or palette index) or colour it has.

    Args:
        path: a GIF, PNG, BMP, TIFF or lossless WebP; with `data.soft` a JPEG, too.
        settings: the recipe's classes, foreground and soft.

    Returns:
        Labels: 0 background, 1 car; or the place of the class in `data.classes`, 255 for ignored
        pixels. The palette, where `data.classes` are numbers and the file has one.

    Raises:
        CarvanaError: it cannot be read, or has other values than a mask of these classes.
    """
    with readable(path, "mask"), Image.open(io.BytesIO(path.read_bytes())) as picture:
        frames, kind = getattr(picture, "n_frames", 1), picture.format
        frame = picture.tile[0][1] if kind == "GIF" else None
        raw, picture = raw_mode(picture), turn_upright(picture)
        picture.load()
    try:
        _check_kind(picture, kind, frames, raw, settings)
        places, values = _values(picture, raw)
        if frame is not None and frame != (0, 0, *places.shape[::-1]):
            places, values = _clear_outside(places, values, frame)
        labels = _label(places, values, settings, kind == "JPEG")
    except ValueError as error:
        raise CarvanaError(f"{path}: {error}") from error
    return Mask(labels, _palette_of(picture, values, settings))


def _check_kind(
    picture: Image.Image, kind: str | None, frames: int, raw: str, settings: Data
) -> None:
    """Refuse files whose pixels do not tell classes.

    Raises:
        ValueError: what it is, and what to do.
    """
    if kind not in FORMATS and not settings.soft:
        remedy = 'set data.soft = "threshold", which cuts it at half grey'
        if settings.classes:
            remedy = "get the masks it was made from, as PNG"
        raise ValueError(f"is a {kind}, which does not keep a mask's values; {remedy}")
    if frames != 1:
        raise ValueError(f"has {frames} frames; a mask has one")
    if picture.mode.startswith(("I", "F")):
        return
    if ";16" in raw:
        raise ValueError("has colours of 16 bits, which are not read; save it with 8 bits")
    if picture.mode not in MODES:
        raise ValueError(
            f"has pixels of the kind {picture.mode}, which is not read; save it as PNG"
        )


def _palette_of(picture: Image.Image, values: list[_Value], settings: Data) -> dict[int, str]:
    numbered = any(isinstance(value, int) for value in settings.classes.values())
    if picture.mode != "P" or not numbered:
        return {}
    palette = {v.number: v.colour for v in values if v.number is not None}
    greys = all(colour == _grey(number) for number, colour in palette.items())
    return {} if greys else palette


def _grey(value: int) -> str:
    return f"#{value:02x}{value:02x}{value:02x}"


def label_name(label: int, settings: Data) -> str:
    """Name a label."""
    return "ignored" if label == IGNORED else settings.class_names[label]


def target_of(labels: np.ndarray, number: int, settings: Data) -> np.ndarray:
    """Return what one output of a network learns of labels: (height, width, 1) uint8, 0 or 255.

    Without classes the only output is the car. Ignored pixels have 0 in all outputs.
    """
    label = number if settings.classes else 1
    return np.where(labels == label, np.uint8(255), np.uint8(0))[..., None]


def numbers(settings: Data) -> list[int]:
    """Return the number of each class in label maps: the recipe's, its place where it has colours.

    Without classes 0 is the background, 1 the car.
    """
    values = settings.classes.values()
    return [v if isinstance(v, int) else place for place, v in enumerate(values)] or [0, 1]


def to_picture(labels: np.ndarray, settings: Data) -> Image.Image:
    """Turn labels into a palette picture that `read_mask` reads back to the same labels."""
    table, palette = np.zeros(256, np.uint8), np.zeros((256, 3), np.uint8)
    known = numbers(settings)
    table[: len(known)] = known
    table[IGNORED] = settings.ignore if isinstance(settings.ignore, int) else len(known)
    for label, colour in zip([*range(len(known)), IGNORED], colours(settings), strict=True):
        if label != IGNORED or settings.ignore != "":
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


def _values(picture: Image.Image, raw: str) -> tuple[np.ndarray, list[_Value]]:
    """Return the place of each pixel's value, (height, width) integers, and the values.

    Args:
        picture: decoded.
        raw: how its file stores pixels, see `raw_mode`.
    """
    if picture.mode == "1":  # white is number 1
        places = np.asarray(picture).astype(np.uint8)
        counts = np.bincount(places.ravel(), minlength=2)
        values = [_Value(0, 0, "#000000", 255, int(counts[0]))]
        values.append(_Value(1, 1, "#ffffff", 255, int(counts[1])))
        return places, [value for value in values if value.count]
    if picture.mode in ("L", "P"):
        values = _values_of_bytes(picture)
        if raw in ("L;2", "L;4"):  # whose numbers Pillow stretches to 8 bits
            for value in values:
                value.number //= 85 if raw == "L;2" else 17
        return np.asarray(picture), values
    if picture.mode.startswith(("I", "F")):
        return _values_of_numbers(np.asarray(picture))
    colours = picture if picture.mode in ("RGB", "RGBA") else picture.convert("RGBA")
    pixels = np.ascontiguousarray(colours.convert("RGBA")).view("<u4")[..., 0]
    packed, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    red, green, blue, alpha = (packed >> shift & 255 for shift in (0, 8, 16, 24))
    grey = bool(((red == green) & (green == blue)).all())
    parts = zip(red, green, blue, alpha, counts, strict=True)
    values = [
        _Value(place, int(r) if grey else None, f"#{r:02x}{g:02x}{b:02x}", int(a), int(count))
        for place, (r, g, b, a, count) in enumerate(parts)
    ]
    return places.reshape(pixels.shape), values


def _values_of_numbers(pixels: np.ndarray) -> tuple[np.ndarray, list[_Value]]:
    """Return places and values of greys of more than 8 bits; no number is taken for another."""
    numbers, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    whole = bool((numbers == np.floor(numbers)).all())
    values = []
    for place, (number, count) in enumerate(zip(numbers.tolist(), counts.tolist(), strict=True)):
        number = int(number) if whole else float(number)
        colour = f"{number:.7g}"
        if number == 65535:
            colour = "#ffffff"
        elif number in range(256):
            colour = _grey(int(number))
        values.append(_Value(place, number, colour, 255, count))
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


def _label(places: np.ndarray, values: list[_Value], settings: Data, is_lossy: bool) -> np.ndarray:
    """Turn places of values into labels, (height, width) uint8.

    Raises:
        ValueError: they are not those of a mask of these classes.
    """
    if settings.classes:
        labels = _label_classes(values, settings)
    elif settings.soft and (is_lossy or not _are_two_colours(values)):
        labels = _label_by_threshold(values, settings)
    else:
        labels = _label_two_colours(values, settings)
    table = np.zeros(max(256, *(value.place + 1 for value in values)), np.uint8)
    table[[value.place for value in values]] = labels
    if places.dtype == np.uint8:
        return cv2.LUT(places, table)  # ten times as fast
    return table[places]


def _are_two_colours(values: list[_Value]) -> bool:
    clear = all(value.alpha in (0, 255) for value in values)
    return clear and len({value.colour for value in values if value.alpha}) <= 2


def _label_two_colours(values: list[_Value], settings: Data) -> list[int]:
    """Return the label of each value: 1 for the foreground's colour, 0 for the other."""
    if any(0 < value.alpha < 255 for value in values):
        raise ValueError(
            "has half-transparent pixels; save it without smoothing, as black and white, or set "
            'data.soft = "threshold"'
        )
    opaque = [value for value in values if value.alpha]
    counts = Counter()
    for value in opaque:
        counts[value.colour] += value.count
    car = {colour for colour in counts if colour != "#000000"}
    if settings.foreground != "any" and len(counts) > 2:
        raise ValueError(_explain_more(opaque, counts))
    if settings.foreground == "any":
        if any(value.number is not None and value.number < 0 for value in opaque):
            raise ValueError("has values below 0; give background the value 0")
    elif settings.foreground:
        car = {settings.foreground}
        if len(counts) == 2 and settings.foreground not in counts:
            raise ValueError(
                f"has the colours {' and '.join(counts)}, and data.foreground = "
                f"{settings.foreground} is neither"
            )
    elif list(counts) == ["#000000"] and any(not v.alpha and not v.outside for v in values):
        raise ValueError(
            "has black and transparent pixels alone; set data.foreground to #000000 if black is "
            "not the background, to #ffffff if it is"
        )
    elif len(car) == 2:
        raise ValueError(
            f"has the colours {' and '.join(counts)}, and neither is black; name the one that is "
            "not the background in data.foreground"
        )
    elif not car <= {*ON}:
        raise ValueError(_explain_other(*car, opaque))
    return [int(value.alpha > 0 and value.colour in car) for value in values]


def _explain_other(colour: str, values: list[_Value]) -> str:
    """Say that a mask's colour beside black may mean anything."""
    number = next(value.number for value in values if value.colour == colour)
    what, remedy = f"the colour {colour} beside black, not white", f'"{colour}"'
    if not colour.startswith("#"):
        what, remedy = f"the value {colour} beside 0, neither 1 nor white", '"any"'
    elif number is not None and colour == _grey(int(number)):
        what = f"the value {number} ({colour}) beside 0, neither 1 nor white"
    return (
        f"has {what}; if that is the foreground, set data.foreground = {remedy}; several classes "
        "go into data.classes"
    )


def _explain_more(values: list[_Value], counts: Counter) -> str:
    """Say what a mask of more than two colours may be, and what to do about it."""
    *others, _, _ = sorted(counts.values())
    more = f"{plural(sum(others), 'pixel')} of {plural(len(others), 'more colour')}"
    numbers = [value.number for value in values]
    text = f"has {more} than the two of a mask"
    if None not in numbers:
        text += f" (values {min(numbers):.6g} to {max(numbers):.6g})"
    return (
        f'{text}; if it was a JPEG or smoothed, set data.soft = "threshold", which cuts it at half '
        'grey; if it numbers objects, data.foreground = "any"; several classes go into data.classes'
    )


def _label_by_threshold(values: list[_Value], settings: Data) -> list[int]:
    """Return the label of each value by which of black and the foreground's colour is nearer.

    Raises:
        ValueError: no pixel comes near the foreground's colour, and some are not black.
    """
    wanted = settings.foreground or "#ffffff"
    colours = _rgb_of(values) * np.array([[value.alpha / 255] for value in values])
    from_black = np.abs(colours).max(axis=1)
    from_wanted = np.abs(colours - list(bytes.fromhex(wanted[1:]))).max(axis=1)
    if from_wanted.min() > 63 and from_black.max() > 63:
        furthest = values[int(from_black.argmax())].colour
        raise ValueError(
            f"has no pixel near {wanted}, and some of {furthest}; name the foreground's colour in "
            "data.foreground"
        )
    return (from_wanted < from_black).astype(int).tolist()


def _rgb_of(values: list[_Value]) -> np.ndarray:
    """Return the colours of values, (values, 3) in [0, 255]; greys of any range are scaled."""
    if all(value.colour.startswith("#") for value in values):
        return np.array([list(bytes.fromhex(value.colour[1:])) for value in values], float)
    greys = np.array([[value.number] * 3 for value in values], float)
    white = next((most for most in (1, 255) if greys.max() <= most), 65535)
    return np.clip(greys * 255 / white, 0, 255)


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
