"""Turn photographs, masks and errors into pictures inside of a page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from carvana.data.images import read_photograph
from carvana.data.masks import IGNORED, colours, to_picture
from carvana.data.pairs import open_truth
from carvana.recipe import Data, Recipe
from carvana.report.examine import CONFUSED, EXTRA, MISSED, RIGHT, Examined, error_kinds

# Told apart also by colour-blind eyes; the stylesheet has the same.
ERROR_COLOURS = {MISSED: (43, 127, 255), EXTRA: (230, 119, 0), CONFUSED: (214, 51, 132)}
_ERROR = 140  # opacity of an error's colour
_VEIL = (16, 18, 22, 165)  # what lies over the background: colour and opacity
_TINT = 110  # opacity of a class's colour
_BYTES = 400_000  # of a photograph in the page, at most
_THUMBNAIL = 320  # pixels wide
_FIGURE = 480  # pixels wide
_LARGE = 800  # pixels wide
_REGIONS = 12  # to visit in a photograph


@dataclass(frozen=True)
class Picture:
    """A photograph as the viewer shows it; the pictures are data URLs."""

    name: str
    caption: str
    width: int  # of the masks, pixels
    height: int
    thumbnail: str
    layers: list[str]  # of each of `view_names`: the photograph, and what lies over it
    regions: list[list[int]]  # to visit: left, top, width, height and area in pixels


@dataclass(frozen=True)
class Figure:
    """Small pictures of one photograph; data URLs."""

    name: str
    dice: float
    width: int  # pixels
    height: int
    pictures: list[str]


def view_names(titles: Sequence[str]) -> list[str]:
    """Name the views of a photograph whose predictions have these titles."""
    several = len(titles) > 1
    errors = [f"errors of {title}" if several else "errors" for title in titles]
    return ["photograph", "truth", *titles, *errors]


def view(runs: Sequence[Examined], recipe: Recipe) -> Picture:
    """Make what the viewer shows of one run's prediction of a photograph, or of two.

    The regions are the errors of one, and where the masks of two differ.
    """
    settings, photograph, truth = recipe.data, *_read(runs[0], recipe)
    masks = [_decode(one) for one in runs]
    kinds = [error_kinds(mask, truth, settings) for mask in masks]
    worse = int(np.argmin([one.dice for one in runs]))
    layers = [_palette_png(mask, _tints(settings)) for mask in (truth, *masks)]
    errors = {kind: (*rgb, _ERROR) for kind, rgb in ERROR_COLOURS.items()}
    return Picture(
        name=runs[0].name,
        caption="Dice " + " and ".join(f"{one.dice:.4f}" for one in runs),
        width=truth.shape[1],
        height=truth.shape[0],
        thumbnail=_small(photograph, masks[worse], kinds[worse], settings, _THUMBNAIL),
        layers=[_jpeg(photograph), *layers, *(_palette_png(each, errors) for each in kinds)],
        regions=_regions(kinds[0] != RIGHT if len(runs) == 1 else masks[0] != masks[1]),
    )


def mask_and_errors(examined: Examined, recipe: Recipe) -> Figure:
    """Show a photograph whose predicted background is dark, and the errors in their colours."""
    settings, photograph, truth = recipe.data, *_read(examined, recipe)
    labels = _decode(examined)
    kinds = error_kinds(labels, truth, settings)
    picture = _small(photograph, labels, kinds, settings, _LARGE)
    return Figure(examined.name, examined.dice, *_size(truth, _LARGE), [picture])


def side_by_side(examined: Examined, recipe: Recipe) -> Figure:
    """Show truth, photograph and prediction, as the article's figure does."""
    settings, photograph, truth = recipe.data, *_read(examined, recipe)
    size = _size(truth, _FIGURE)
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    masks = [to_picture(each, settings).convert("RGB") for each in (truth, _decode(examined))]
    true, predicted = (
        _url(mask.resize(size, Image.Resampling.BOX).quantize(64), "PNG") for mask in masks
    )
    pictures = [true, _url(Image.fromarray(small), "JPEG", quality=85), predicted]
    return Figure(examined.name, examined.dice, *size, pictures)


def _size(mask: np.ndarray, width: int) -> tuple[int, int]:
    return width, round(width * mask.shape[0] / mask.shape[1])


def _read(examined: Examined, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    photograph, _ = read_photograph(examined.pair.image, white=recipe.input.white)
    return photograph, open_truth(examined.pair, recipe.data, photograph.shape[:2]).labels


def _decode(examined: Examined) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(examined.labels, np.uint8), cv2.IMREAD_GRAYSCALE)


def _tints(settings: Data) -> dict[int, tuple[int, int, int, int]]:
    """Return what lies over each label: the background is dimmed, classes are tinted."""
    if not settings.classes:
        return {0: _VEIL}
    tints = dict(enumerate((*rgb, _TINT) for rgb in colours(settings)[: settings.outputs]))
    if settings.background is not None:
        tints[settings.background] = _VEIL
    return {**tints, IGNORED: (128, 128, 128, 220)}


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


def _small(
    photograph: np.ndarray, labels: np.ndarray, kinds: np.ndarray, settings: Data, width: int
) -> str:
    """Draw a small photograph under its mask; errors, however thin, are seen."""
    size = _size(labels, width)
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    for label, (*colour, opacity) in _tints(settings).items():
        share = cv2.resize((labels == label).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        share = share[..., None] * (opacity / 255)
        small = (small * (1 - share) + np.array(colour) * share).astype(np.uint8)
    scale = max(1, round(labels.shape[1] / width))
    for kind, colour in ERROR_COLOURS.items():
        there = cv2.dilate((kinds == kind).astype(np.uint8), np.ones((scale, scale), np.uint8))
        small[cv2.resize(there, size, interpolation=cv2.INTER_NEAREST) > 0] = colour
    return _url(Image.fromarray(small), "JPEG", quality=82)


def _regions(wrong: np.ndarray) -> list[list[int]]:
    """Return the boxes and areas of the largest connected regions, the largest first."""
    _, _, boxes, _ = cv2.connectedComponentsWithStats(wrong.astype(np.uint8))
    boxes = boxes[1:]  # without the background
    largest = np.argsort(-boxes[:, cv2.CC_STAT_AREA], kind="stable")[:_REGIONS]
    return boxes[largest].tolist()


def _url(picture: Image.Image, kind: str, **options) -> str:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"
