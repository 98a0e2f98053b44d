"""Read which values the pixels of a mask's file have, whatever they mean."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from carvana.data.folders import MASKS, list_files
from carvana.data.images import raw_mode, readable

FORMATS = ("GIF", "PNG", "BMP", "TIFF", "WEBP")  # those that can keep every pixel's value


@dataclass
class PixelValue:
    """One of the values that pixels of a file have."""

    place: int  # what stands for it in the array of pixels
    number: float | None  # grey value or palette index; None in a picture of colours
    colour: str  # #rrggbb; of greys with more than 8 bits that are neither black nor white, decimal
    alpha: int
    count: int  # of its pixels
    outside: bool = False  # of a GIF's frame


def mask_values(path: Path) -> tuple[bool, list[PixelValue]]:
    """Return whether a mask's format is lossy, and the values of its pixels, whatever they mean.

    Raises:
        CarvanaError: it cannot be read.
    """
    if path.is_dir():
        found = [mask_values(path / name) for name in list_files(path, MASKS)[0]]
        values = [value for _, values in found for value in values]
        again = -sum(value.count for _, values in found[1:] for value in values)
        black = PixelValue(0, 0, "#000000", 255, again)  # each file is black but for its object
        values.append(black)
        return any(is_lossy for is_lossy, _ in found), values
    with readable(path, "mask"), Image.open(io.BytesIO(path.read_bytes())) as picture:
        is_lossy, raw = picture.format not in FORMATS, raw_mode(picture)
        picture.load()
        return is_lossy, values_of(picture, raw)[1]


def values_of(picture: Image.Image, raw: str) -> tuple[np.ndarray, list[PixelValue]]:
    """Return the place of each pixel's value, (height, width) integers, and the values."""
    if picture.mode in ("1", "L", "P"):
        return _values_of_bytes(picture, raw)
    if picture.mode.startswith(("I", "F")):
        return _values_of_numbers(np.asarray(picture))
    return _values_of_colours(picture)


def _values_of_bytes(picture: Image.Image, raw: str) -> tuple[np.ndarray, list[PixelValue]]:
    stretched = {"L;2": 85, "L;4": 17}.get(raw, 1)  # by Pillow, to 8 bits
    if picture.mode == "1":
        picture, stretched = Image.fromarray(np.asarray(picture, np.uint8) * 255), 255
    every = picture.crop((0, 0, 256, 1))  # a picture of all values, in the same colours
    every.putdata(range(256))
    rgba = np.asarray(every.convert("RGBA"))[0].tolist()
    values = [
        PixelValue(number, number // stretched, hex_of(*rgb), alpha, count)
        for number, (count, (*rgb, alpha)) in enumerate(zip(picture.histogram(), rgba, strict=True))
        if count
    ]
    return np.asarray(picture), values


def _values_of_numbers(pixels: np.ndarray) -> tuple[np.ndarray, list[PixelValue]]:
    """Return places and values of greys of more than 8 bits; no number is taken for another."""
    numbers, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    whole = bool((numbers == np.floor(numbers)).all())
    values = []
    for place, (number, count) in enumerate(zip(numbers.tolist(), counts.tolist(), strict=True)):
        number = int(number) if whole else float(number)
        colour = "#ffffff" if number == 65535 else f"{number:.7g}"
        if number in range(256):
            colour = hex_of(*[int(number)] * 3)
        values.append(PixelValue(place, number, colour, 255, count))
    return places.reshape(pixels.shape), values


def _values_of_colours(picture: Image.Image) -> tuple[np.ndarray, list[PixelValue]]:
    pixels = np.ascontiguousarray(picture.convert("RGBA")).view("<u4")[..., 0]
    packed, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    red, green, blue, _ = channels = [packed >> shift & 255 for shift in (0, 8, 16, 24)]
    grey = bool(((red == green) & (green == blue)).all())
    parts = np.stack([*channels, counts], axis=-1).tolist()
    values = [
        PixelValue(place, r if grey else None, hex_of(r, g, b), alpha, count)
        for place, (r, g, b, alpha, count) in enumerate(parts)
    ]
    return places.reshape(pixels.shape), values


def values_in_frame(
    picture: Image.Image, raw: str, frame: tuple[int, int, int, int]
) -> tuple[np.ndarray, list[PixelValue]]:
    """Return the values in a GIF's frame; what lies outside is a transparent one of its own."""
    inside, values = values_of(picture.crop(frame), raw)
    left, top, right, bottom = frame
    outside = PixelValue(
        256, None, "#000000", 0, picture.width * picture.height - inside.size, True
    )
    places = np.full((picture.height, picture.width), outside.place)
    places[top:bottom, left:right] = inside
    return places, [*values, outside]


def hex_of(red: int, green: int, blue: int) -> str:
    return f"#{red:02x}{green:02x}{blue:02x}"
