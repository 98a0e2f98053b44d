"""Turn photographs, masks and errors into pictures inside of a page."""

import base64
import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from carvana.data.images import read_photograph
from carvana.data.masks import IGNORED, colours, read_mask, to_picture
from carvana.recipe import Data, Recipe
from carvana.report.examine import CONFUSED, EXTRA, MISSED, RIGHT, Examined, error_kinds

# Told apart also by colour-blind eyes; the stylesheet has the same.
ERROR_COLOURS = {MISSED: (43, 127, 255), EXTRA: (230, 119, 0), CONFUSED: (214, 51, 132)}
_VEIL = (16, 18, 22, 165)  # what lies over the background: colour and opacity
_TINT = 110  # opacity of a class's colour
_BYTES = 400_000  # of a photograph in the page, at most
_THUMBNAIL = 320  # pixels wide
_FIGURE = 480  # pixels wide
_CELL = 64  # pixels a side: errors in one of these count as one place
_PLACES = 12  # to visit in a photograph


@dataclass(frozen=True)
class Picture:
    """A photograph as the viewer shows it; the pictures are data URLs."""

    name: str
    caption: str
    width: int  # of the masks, pixels
    height: int
    photograph: str
    thumbnail: str
    left: str  # the mask on the slider's left
    right: str
    left_errors: str
    right_errors: str
    places: list[list[int]]  # [x, y] of the worst errors


def view(examined: Examined, recipe: Recipe) -> Picture:
    """Make what the viewer shows of a prediction: the truth on the left, it on the right."""
    settings, (photograph, truth, labels) = recipe.data, _read(examined, recipe)
    kinds = error_kinds(labels, truth, settings)
    errors = _errors(kinds)
    return Picture(
        name=examined.name,
        caption=f"Dice {examined.dice:.4f}",
        width=truth.shape[1],
        height=truth.shape[0],
        photograph=_jpeg(photograph),
        thumbnail=_thumbnail(photograph, kinds),
        left=_layer(truth, settings),
        right=_layer(labels, settings),
        left_errors=errors,
        right_errors=errors,
        places=_places(kinds != RIGHT),
    )


def view_two(left: Examined, right: Examined, recipe: Recipe) -> Picture:
    """Make what the viewer shows of two runs' predictions of one photograph."""
    settings, (photograph, truth, labels) = recipe.data, _read(left, recipe)
    both = [labels, _decode(right)]
    kinds = [error_kinds(each, truth, settings) for each in both]
    return Picture(
        name=left.name,
        caption=f"Dice {left.dice:.4f} and {right.dice:.4f}",
        width=truth.shape[1],
        height=truth.shape[0],
        photograph=_jpeg(photograph),
        thumbnail=_thumbnail(photograph, kinds[left.dice > right.dice]),
        left=_layer(both[0], settings),
        right=_layer(both[1], settings),
        left_errors=_errors(kinds[0]),
        right_errors=_errors(kinds[1]),
        places=_places(both[0] != both[1]),
    )


def side_by_side(examined: Examined, recipe: Recipe) -> list[str]:
    """Return truth, photograph and prediction, small, as the article's figure shows them."""
    settings, (photograph, truth, labels) = recipe.data, _read(examined, recipe)
    size = (_FIGURE, round(_FIGURE * truth.shape[0] / truth.shape[1]))
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    masks = [to_picture(each, settings) for each in (truth, labels)]
    if not settings.classes:
        masks = [mask.convert("L") for mask in masks]
    true, predicted = (_url(_shrunk(mask, size), "PNG") for mask in masks)
    return [true, _url(Image.fromarray(small), "JPEG", quality=85), predicted]


def _shrunk(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    if mask.mode == "P":
        return mask.resize(size)
    return mask.resize(size, Image.Resampling.BOX).quantize(16)


def _read(examined: Examined, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    photograph, _ = read_photograph(examined.pair.image, white=recipe.input.white)
    return photograph, read_mask(examined.pair.mask, recipe.data), _decode(examined)


def _decode(examined: Examined) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(examined.labels, np.uint8), cv2.IMREAD_GRAYSCALE)


def _layer(labels: np.ndarray, settings: Data) -> str:
    """Draw a mask to lie over a photograph: the background is dimmed, classes are tinted."""
    if not settings.classes:
        return _palette_png(labels, {0: _VEIL})
    tints = dict(enumerate((*rgb, _TINT) for rgb in colours(settings)[: settings.outputs]))
    if "background" in settings.classes:
        tints[settings.class_names.index("background")] = _VEIL
    return _palette_png(labels, {**tints, IGNORED: (128, 128, 128, 220)})


def _errors(kinds: np.ndarray) -> str:
    return _palette_png(kinds, {kind: (*rgb, 215) for kind, rgb in ERROR_COLOURS.items()})


def _palette_png(values: np.ndarray, table: dict[int, tuple[int, int, int, int]]) -> str:
    """Return a PNG whose pixels have the colours of their values, else are transparent."""
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    place = np.zeros(256, np.uint8)
    place[present] = np.arange(len(present))  # few values take few bits
    rgba = [table.get(int(value), (0, 0, 0, 0)) for value in present]
    picture = Image.fromarray(cv2.LUT(values, place))
    picture.putpalette([part for colour in rgba for part in colour[:3]])
    return _url(picture, "PNG", transparency=bytes(colour[3] for colour in rgba))


def _jpeg(photograph: np.ndarray) -> str:
    """Return a photograph as a JPEG of no more than _BYTES: as large and good as that allows."""
    for side, quality in ((2048, 88), (2048, 75), (2048, 55), (1024, 75), (512, 75)):
        picture = Image.fromarray(photograph)
        picture.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
        url = _url(picture, "JPEG", quality=quality, optimize=True)
        if len(url) * 3 / 4 <= _BYTES:
            break
    return url


def _thumbnail(photograph: np.ndarray, kinds: np.ndarray) -> str:
    """Draw a small photograph whose errors, however thin, are seen."""
    height, width = kinds.shape
    scale = max(1, round(width / _THUMBNAIL))
    size = (_THUMBNAIL, round(_THUMBNAIL * height / width))
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    for kind, colour in ERROR_COLOURS.items():
        there = cv2.dilate((kinds == kind).astype(np.uint8), np.ones((scale, scale), np.uint8))
        small[cv2.resize(there, size, interpolation=cv2.INTER_NEAREST) > 0] = colour
    return _url(Image.fromarray(small), "JPEG", quality=82)


def _places(wrong: np.ndarray) -> list[list[int]]:
    """Return the middles, [x, y], of the cells with the most wrong pixels, the worst first."""
    rows, columns = np.nonzero(wrong)
    cells = rows // _CELL * wrong.shape[1] + columns // _CELL
    numbers, counts = np.unique(cells, return_counts=True)
    worst = numbers[np.argsort(-counts, kind="stable")[:_PLACES]]
    chosen = [cells == cell for cell in worst]
    return [[round(columns[at].mean()), round(rows[at].mean())] for at in chosen]


def _url(picture: Image.Image, kind: str, **options) -> str:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"
