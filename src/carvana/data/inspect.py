"""Look at a data folder before training on it: what it holds, and what is wrong with it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from carvana.data import sheet
from carvana.data.checks import MaskChecks
from carvana.data.masks import to_picture
from carvana.data.pairs import Pair, evenly
from carvana.data.prepared import read_pair, read_pairs
from carvana.errors import CarvanaError
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
    """Read every photograph and mask of a data folder, as `match_pairs` returned them."""
    checks = MaskChecks(recipe)
    results = read_pairs(pairs, checks, "reading", lambda pair, picture, mask: mask.labels.shape)
    formats = (f"{pair.image.suffix} + {_format(pair.mask)}".lower() for pair in pairs)
    sizes = (f"{r[1]}x{r[0]}" for r in results if not isinstance(r, CarvanaError))
    return Inspection(
        len(pairs),
        dict(Counter(sizes).most_common()),
        dict(Counter(formats).most_common()),
        checks.shares(),
        checks.warnings(),
        [*faults, *(str(r) for r in results if isinstance(r, CarvanaError))],
    )


def _format(mask: Path | None) -> str:
    if mask is None:
        return "no mask"
    return "a folder of masks" if mask.is_dir() else mask.suffix


def draw_sheet(pairs: list[Pair], recipe: Recipe, out: Path, count: int = 12) -> None:
    """Save a PNG of photographs and their masks side by side, from all over the data.

    Raises:
        CarvanaError: there are no pairs to draw, or the picture cannot be written.
    """
    groups = []
    for pair in evenly(pairs, count):
        try:
            picture, mask = read_pair(pair, recipe)
        except CarvanaError:
            continue  # it is among the faults
        photograph = Image.fromarray(picture)
        photograph.thumbnail((TILE, TILE))
        labels = cv2.resize(mask.labels, photograph.size, interpolation=cv2.INTER_NEAREST)
        label_map = to_picture(labels, recipe.data).convert("RGB")
        groups.append(
            [
                sheet.make_tile(np.asarray(photograph), pair.name, labels),
                sheet.make_tile(np.asarray(label_map), pair.mask.name if pair.mask else "no mask"),
            ]
        )
    if not groups:
        raise CarvanaError(f"{out}: no pair can be drawn; see the faults")
    sheet.draw_sheet(groups, 3, out)
