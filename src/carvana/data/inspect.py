"""Look at a data folder before training on it: what it holds, and what is wrong with it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from carvana.data.dataset import Pair, size_fault, spread
from carvana.data.images import open_photograph, read_photograph
from carvana.data.marks import png_mark
from carvana.data.masks import IGNORED, label_name, read_mask, to_picture
from carvana.errors import CarvanaError, plural
from carvana.files import replacing
from carvana.progress import progress
from carvana.recipe import Data

TILE = 320  # pixels a side of the sheet's pictures, at most


@dataclass
class Inspection:
    """What a data folder holds."""

    pairs: int
    sizes: dict[str, int]  # "1918x1280" -> photographs
    formats: dict[str, int]  # ".jpg + .gif" -> pairs
    classes: dict[str, float]  # class -> share of all pixels
    warnings: list[str]  # masks of one class alone
    faults: list[str]  # pairs that cannot be used


def inspect(pairs: list[Pair], faults: list[str], settings: Data) -> Inspection:
    """Read every photograph and mask of a data folder.

    Args:
        pairs, faults: what `match_pairs` found.
        settings: the recipe's classes.
    """
    faults = list(faults)
    sizes, formats, pixels, plain = Counter(), Counter(), Counter(), Counter()
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda pair: _inspect_pair(pair, settings), pairs)
        for pair, result in zip(pairs, progress(results, "reading", len(pairs)), strict=True):
            formats[f"{pair.image.suffix.lower()} + {pair.mask.suffix.lower()}"] += 1
            if isinstance(result, str):
                faults.append(result)
                continue
            size, counts = result
            sizes[size] += 1
            for label in np.flatnonzero(counts):
                pixels[label_name(label, settings)] += int(counts[label])
            if np.count_nonzero(counts) == 1:
                plain[label_name(int(counts.argmax()), settings)] += 1
    total = sum(pixels.values())
    names = [*settings.class_names, *(["ignored"] if "ignored" in pixels else [])]
    return Inspection(
        len(pairs),
        dict(sizes.most_common()),
        dict(formats.most_common()),
        {name: pixels[name] / total if total else 0.0 for name in names},
        [f"{plural(count, 'mask')} with nothing but {name}" for name, count in plain.items()],
        faults,
    )


def _inspect_pair(pair: Pair, settings: Data) -> tuple[str, np.ndarray] | str:
    """Return a pair's size and its pixels by label, or what is wrong with it."""
    try:
        (height, width), labels = read_photograph(pair.image)[1], read_mask(pair.mask, settings)
    except CarvanaError as error:
        return str(error)
    if labels.shape != (height, width):
        return size_fault(pair, labels.shape)
    return f"{width}x{height}", np.bincount(labels.ravel(), minlength=IGNORED + 1)


def draw_sheet(pairs: list[Pair], settings: Data, out: Path, count: int = 12) -> None:
    """Save a PNG of photographs and their masks side by side, from all over the data.

    Raises:
        CarvanaError: there are no pairs to draw, or the picture cannot be written.
    """
    tiles = []
    for pair in spread(pairs, count):
        try:
            photograph = open_photograph(pair.image).convert("RGB")
            mask = to_picture(read_mask(pair.mask, settings), settings).convert("RGB")
        except CarvanaError:
            continue  # it is among the faults
        photograph.thumbnail((TILE, TILE))
        tile = Image.new("RGB", (2 * TILE, photograph.height), "grey")
        tile.paste(photograph)
        tile.paste(mask.resize(photograph.size, Image.Resampling.NEAREST), (TILE, 0))
        tiles.append(tile)
    if not tiles:
        raise CarvanaError(f"{out}: no pair can be drawn; see the faults")
    columns = min(3, len(tiles))
    height = max(tile.height for tile in tiles)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * 2 * TILE, rows * height), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * 2 * TILE, number // columns * height))
    with replacing(out) as temporary:
        sheet.save(temporary, "PNG", pnginfo=png_mark("sheet"))
