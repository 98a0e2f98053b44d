"""Read masks, whatever their format, as labels: which class each pixel is of."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from carvana.data.folders import MASKS, list_files
from carvana.data.images import Unsupported, check_mode, raw_mode, readable, turn_upright
from carvana.data.values import FORMATS, PixelValue, hex_of, values_in_frame, values_of
from carvana.errors import CarvanaError
from carvana.recipe import Data

# Colours of label maps whose recipe numbers its classes.
PALETTE = (
    *("#000000", "#ffffff", "#e6194b", "#3cb44b", "#4363d8", "#ffe119", "#f58231", "#911eb4"),
    *("#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#469990", "#dcbeff", "#9a6324", "#fffac8"),
    *("#800000", "#aaffc3", "#808000", "#ffd8b1", "#000075", "#a9a9a9"),
)
GREY = "#808080"  # of ignored pixels in label maps
IGNORED = 255  # the label of pixels that do not count
LEAST_SHARE = 1e-3  # of the pixels: a class expected on fewer says nothing of how sure a mask is
ON = ("#ffffff", "#010101")  # white, and the 1 that programs write for it: surely the foreground


@dataclass(frozen=True)
class Mask:
    """A mask as it was read."""

    labels: np.ndarray  # (height, width) uint8
    palette: dict[int, str]  # the colour of each number; empty where numbers are greys
    shares: np.ndarray | None = None  # (height, width) uint8, of 255; of data.soft = "share"


def read_mask(path: Path, settings: Data) -> np.ndarray:
    """Read a mask's labels at full size; see `open_mask`."""
    return open_mask(path, settings).labels


def open_mask(path: Path, settings: Data) -> Mask:
    """Read a mask at full size.

    Without `data.classes` a mask has two colours: what is black, transparent or outside of a
    GIF's frame is background; white, 1 or `data.foreground` is the car. With them, each pixel is
    of the class whose number (grey value or palette index) or colour it has. A folder holds a file
    an object: the car is where any of them has it.

    Returns:
        Labels: 0 background, 1 car; or the place of the class in `data.classes`, 255 for ignored
        pixels. The palette, where `data.classes` are numbers and the file has one. How much of each
        pixel is the car's, where `data.soft` is "share".

    Raises:
        CarvanaError: it cannot be read, or has other values than a mask of these classes.
    """
    if path.is_dir():
        return _unite(path, settings)
    with readable(path, "mask"), Image.open(io.BytesIO(path.read_bytes())) as picture:
        _check_kind(picture, settings)
        is_jpeg, raw = picture.format == "JPEG", raw_mode(picture)
        frame = picture.tile[0][1] if picture.format == "GIF" else None
        picture = turn_upright(picture)
        picture.load()
        if frame in (None, (0, 0, *picture.size)):
            places, values = values_of(picture, raw)
        else:
            places, values = values_in_frame(picture, raw, frame)
        if settings.soft and _is_soft(values, is_jpeg):
            shares = _shares(values, settings)
            labels = [int(share > 127) for share in shares]
            shares = _look_up(shares, places, values) if settings.soft == "share" else None
            return Mask(_look_up(labels, places, values), {}, shares)
        label = _label_classes if settings.classes else _label_two_colours
        labels = label(values, settings)
        palette = {}
        if picture.mode == "P" and _are_numbered(settings):
            palette = {v.number: v.colour for v in values if v.number is not None}
        if all(colour == hex_of(number, number, number) for number, colour in palette.items()):
            palette = {}
        return Mask(_look_up(labels, places, values), palette)


def _unite(folder: Path, settings: Data) -> Mask:
    """Read the masks in a folder, a file an object, as one."""
    names, _ = list_files(folder, MASKS)
    if not names:
        raise CarvanaError(f"{folder}: holds no mask; put one there for each object")
    if settings.classes:
        raise CarvanaError(
            f"{folder}: holds a file an object, which goes with one class; leave out data.classes"
        )
    united = None
    for name in names:
        part = open_mask(folder / name, settings)
        shares = 255 * part.labels if part.shares is None else part.shares
        united = shares if united is None else united
        if shares.shape != united.shape:
            raise CarvanaError(
                f"{folder}: its masks differ in size; make them their photograph's size"
            )
        np.maximum(united, shares, out=united)
    labels = (united > 127).astype(np.uint8)
    shares = united if settings.soft == "share" else None
    return Mask(labels, {}, shares)


def _check_kind(picture: Image.Image, settings: Data) -> None:
    """Refuse files whose pixels do not tell classes; they are not decoded yet."""
    if picture.format not in FORMATS and not settings.soft:
        remedy = 'set data.soft = "threshold", which cuts it at half grey'
        if settings.classes:
            remedy = "get the masks it was made from, as PNG"
        raise Unsupported(f"is a {picture.format}, which does not keep a mask's values; {remedy}")
    if (frames := getattr(picture, "n_frames", 1)) != 1:
        raise Unsupported(f"has {frames} frames; a mask has one")
    if not picture.mode.startswith(("I", "F")):
        if ";16" in raw_mode(picture):
            raise Unsupported("has colours of 16 bits, which are not read; save it with 8 bits")
        check_mode(picture)


# ---- writing


def numbers(settings: Data) -> list[int]:
    """Return the number of each class in label maps: the recipe's, its place where it has colours.

    Without classes 0 is the background, 1 the car.
    """
    values = settings.classes.values()
    return [*values] if _are_numbered(settings) else [*range(len(values) or 2)]


def colours(settings: Data) -> list[list[int]]:
    """Return the colour, RGB, of each class, then of ignored pixels: the recipe's, or ours."""
    if settings.classes and not _are_numbered(settings):
        names = [*settings.classes.values(), settings.ignore or GREY]
    else:
        count = len(settings.class_names)
        names = [*(PALETTE[place % len(PALETTE)] for place in range(count)), GREY]
    return [_rgb(name) for name in names]


def to_picture(labels: np.ndarray, settings: Data) -> Image.Image:
    """Turn labels into a palette picture that `read_mask` reads back to the same labels."""
    table, palette = np.zeros(256, np.uint8), np.zeros((256, 3), np.uint8)
    known, (*shades, grey) = numbers(settings), colours(settings)
    table[: len(known)] = known
    table[IGNORED] = settings.ignore if isinstance(settings.ignore, int) else len(known)
    palette[known] = shades
    if settings.ignore != "":
        palette[table[IGNORED]] = grey
    picture = Image.fromarray(table[labels])
    picture.putpalette(palette.tobytes())
    return picture


def paint(mask: np.ndarray, settings: Data) -> np.ndarray:
    """Colour a network's target or probabilities, (height, width, outputs) float32 in [0, 1].

    Returns:
        (height, width, 3) float32 in [0, 1].
    """
    if mask.shape[-1] == 1:
        return np.repeat(mask, 3, axis=-1)
    shades = np.array(colours(settings)[: mask.shape[-1]], np.float32) / 255
    return np.clip(mask @ shades, 0, 1)


def _are_numbered(settings: Data) -> bool:
    return any(isinstance(value, int) for value in settings.classes.values())


def _rgb(colour: str) -> list[int]:
    return list(bytes.fromhex(colour[1:]))


# ---- the labels of values


def _look_up(table: Sequence[int], places: np.ndarray, values: list[PixelValue]) -> np.ndarray:
    """Turn places of values into what stands for each, (height, width) uint8."""
    whole = np.zeros(max(256, *(value.place + 1 for value in values)), np.uint8)
    whole[[value.place for value in values]] = table
    if places.dtype == np.uint8:
        return cv2.LUT(places, whole)  # ten times as fast
    return whole[places]


def _label_two_colours(values: list[PixelValue], settings: Data) -> list[int]:
    """Return the label of each value: 1 for the foreground's colour, 0 for the other."""
    if any(0 < value.alpha < 255 for value in values):
        raise Unsupported(
            "has half-transparent pixels; save it without smoothing, as black and white, or set "
            'data.soft = "threshold"'
        )
    opaque = [value for value in values if value.alpha]
    by_colour = {value.colour: value for value in opaque}
    shown = _first_five([_describe(value) for value in by_colour.values()])
    car = by_colour.keys() - {"#000000"}
    if settings.foreground == "any":
        if any(value.number is not None and value.number < 0 for value in opaque):
            raise Unsupported("has values below 0; give background the value 0")
    elif len(by_colour) > 2:
        raise Unsupported(
            f"has {len(by_colour)} colours ({shown}), and a mask has two; if it was a JPEG or "
            'smoothed, set data.soft = "threshold", which cuts it at half grey; if it numbers '
            'objects, data.foreground = "any"; several classes go into data.classes'
        )
    elif settings.foreground:
        car = {settings.foreground}
        if len(by_colour) == 2 and settings.foreground not in by_colour:
            raise Unsupported(
                f"has the colours {shown}, and data.foreground = {settings.foreground} is neither"
            )
    elif [*by_colour] == ["#000000"] and any(not v.alpha and not v.outside for v in values):
        raise Unsupported(
            "has black and transparent pixels alone; set data.foreground to #000000 if black is "
            "not the background, to #ffffff if it is"
        )
    elif len(car) == 2 or not car <= {*ON}:
        but_black = ', or to "any" for all but black' if "#000000" in by_colour else ""
        raise Unsupported(
            f"has the colours {shown}, not black and white; set data.foreground to the one that "
            f'counts, as in "#ff0000"{but_black}; several classes go into data.classes'
        )
    return [int(value.alpha > 0 and value.colour in car) for value in values]


def _describe(value: PixelValue) -> str:
    has_both = value.number is not None and value.colour.startswith("#")
    return f"{value.number} ({value.colour})" if has_both else value.colour


def _first_five(names: list) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")


def _is_soft(values: list[PixelValue], is_lossy: bool) -> bool:
    """Tell whether a mask has more than two colours, or may have."""
    is_smooth = any(0 < value.alpha < 255 for value in values)
    return is_lossy or is_smooth or len({value.colour for value in values if value.alpha}) > 2


def _shares(values: list[PixelValue], settings: Data) -> list[int]:
    """Return how much of each value is the foreground's colour, of 255; the rest is black.

    White is the other colour where the foreground is black. A third colour has no share.
    """
    wanted = settings.foreground or "#ffffff"
    car = np.array(_rgb(wanted), float)
    other = np.zeros(3) if car.any() else np.full(3, 255.0)
    alphas = np.array([[value.alpha / 255] for value in values])
    from_other = (_rgb_of(values) - other) * alphas
    from_car = np.abs(from_other + other - car).max(axis=1)
    furthest = np.abs(from_other).max(axis=1)
    if from_car.min() > 63 and furthest.max() > 63:
        colour = values[int(furthest.argmax())].colour
        raise Unsupported(
            f"has no pixel near {wanted}, and some of {colour}; name the foreground's colour in "
            "data.foreground"
        )
    shares = np.clip(from_other @ (car - other) / ((car - other) @ (car - other)), 0, 1)
    aside = np.abs(from_other - shares[:, None] * (car - other)).max(axis=1)
    return np.rint(255 * np.where(aside > 63, 0, shares)).astype(int).tolist()


def _rgb_of(values: list[PixelValue]) -> np.ndarray:
    """Return the colours of values, (values, 3) in [0, 255]; greys of any range are scaled."""
    if all(value.colour.startswith("#") for value in values):
        return np.array([_rgb(value.colour) for value in values], float)
    greys = np.array([[value.number] * 3 for value in values], float)
    white = next((most for most in (1, 255) if greys.max() <= most), 65535)
    return np.clip(greys * 255 / white, 0, 255)


def _label_classes(values: list[PixelValue], settings: Data) -> list[int]:
    """Return the label of each value by the recipe's classes; transparent ones are background."""
    labels = {wanted: label for label, wanted in enumerate(settings.classes.values())}
    clear = settings.background
    if settings.ignore != "":
        labels[settings.ignore] = IGNORED
        clear = IGNORED if clear is None else clear
    if clear is None and any(not value.alpha for value in values):
        raise Unsupported(
            'has transparent pixels, and no class is called "background"; fill them, or set '
            "data.ignore"
        )
    by_number = _are_numbered(settings)
    keys = [value.number if by_number else value.colour for value in values]
    unknown = Counter()
    for value, key in zip(values, keys, strict=True):
        if value.alpha and key not in labels:
            unknown[key] += value.count
    if None in unknown:
        raise Unsupported("is in colours, but data.classes gives numbers; give colours there")
    if unknown:
        raise Unsupported(
            f"has {unknown.total()} pixels of values that data.classes does not name "
            f"({_first_five([*unknown])}); add them, set data.ignore, or save the mask again as "
            "PNG without smoothing"
        )
    return [labels[key] if v.alpha else clear for v, key in zip(values, keys, strict=True)]
