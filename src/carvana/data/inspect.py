"""Look at a data folder before training on it: what it holds, and what is wrong with it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from carvana.data.checks import MaskChecks
from carvana.data.images import READING, open_photograph, pixels_of, read_photograph
from carvana.data.marks import png_mark
from carvana.data.masks import open_mask, read_mask, to_picture
from carvana.data.pairs import Pair, evenly, size_fault
from carvana.errors import CarvanaError
from carvana.files import replacing
from carvana.machine import Turns, cores
from carvana.progress import progress
from carvana.recipe import Recipe

TILE = 320  # pixels a side of the sheet's pictures, at most


@dataclass
class Inspection:
    """What a data folder holds."""

    pairs: int
    sizes: dict[str, int]  # "1918x1280" -> photographs
    formats: dict[str, int]  # ".jpg + .gif" -> pairs
    classes: dict[str, float]  # class -> share of all pixels
    warnings: list[str]  # what may be a mistake
    faults: list[str]  # pairs that cannot be used


def inspect(pairs: list[Pair], faults: list[str], recipe: Recipe) -> Inspection:
    """Read every photograph and mask of a data folder.

    Args:
        pairs, faults: what `match_pairs` found.
        recipe: whose classes and input.
    """
    faults, checks, turns = list(faults), MaskChecks(recipe), Turns()
    sizes, formats = Counter(), Counter()
    with ThreadPoolExecutor(cores()) as pool:
        results = pool.map(lambda pair: _inspect_pair(pair, recipe, checks, turns), pairs)
        for pair, result in zip(pairs, progress(results, "reading", len(pairs)), strict=True):
            formats[f"{pair.image.suffix.lower()} + {pair.mask.suffix.lower()}"] += 1
            if isinstance(result, str):
                faults.append(result)
            else:
                sizes["{1}x{0}".format(*result)] += 1
    return Inspection(
        len(pairs),
        dict(sizes.most_common()),
        dict(formats.most_common()),
        checks.shares(),
        checks.warnings(),
        faults,
    )


def _inspect_pair(
    pair: Pair, recipe: Recipe, checks: MaskChecks, turns: Turns
) -> tuple[int, int] | str:
    """Return a photograph's height and width, or what is wrong with the pair."""
    with turns.take(pixels_of(pair.image) * READING):
        try:
            _, size = read_photograph(pair.image, white=recipe.input.white)
            mask = open_mask(pair.mask, recipe.data)
        except CarvanaError as error:
            return str(error)
        if mask.labels.shape != tuple(size):
            return size_fault(pair, mask.labels.shape)
        return checks.add(pair.mask, mask) or size


def draw_sheet(pairs: list[Pair], recipe: Recipe, out: Path, count: int = 12) -> None:
    """Save a PNG of photographs and their masks side by side, from all over the data.

    Raises:
        CarvanaError: there are no pairs to draw, or the picture cannot be written.
    """
    tiles, settings = [], recipe.data
    for pair in evenly(pairs, count):
        try:
            photograph = open_photograph(pair.image, recipe.input.white).convert("RGB")
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
