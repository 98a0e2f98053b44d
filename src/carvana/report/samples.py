"""Draw what a network is trained on."""

from pathlib import Path

import numpy as np

from carvana.competition.facts import Paths
from carvana.data.augment import apply, draw
from carvana.data.masks import paint
from carvana.data.pairs import evenly, find_pairs
from carvana.data.prepared import read_pair, resize_pair
from carvana.data.provenance import check_sheet
from carvana.data.sheet import Tile, draw_sheet, make_tile
from carvana.recipe import Recipe


def draw_samples(recipe: Recipe, paths: Paths, count: int, out: Path) -> None:
    """Save a sheet of training samples: a row each of image, augmented image, mask.

    Raises:
        CarvanaError: a pair cannot be used, or the picture cannot be written.
        UsageError: `out` does not end in .png, or is another picture.
    """
    check_sheet(out)
    pairs = find_pairs(paths.root, recipe.data)
    groups = []
    for number, pair in enumerate(evenly(pairs, count)):
        before = resize_pair(*read_pair(pair, recipe), recipe)
        seed = (recipe.training.seed, number)
        after = np.dstack(apply(before, draw(seed, recipe.augment, *before.shape[:2])))
        white = np.float32(255 if before.dtype == np.uint8 else 1)
        groups.append(
            [
                _tile(before / white, pair.name),
                _tile(after / white, "augmented"),
                make_tile(_eight_bits(paint(after[..., 3:] / white, recipe.data)), "mask"),
            ]
        )
    draw_sheet(groups, 1, out)


def _tile(pair: np.ndarray, name: str) -> Tile:
    image, mask = pair[..., :3], pair[..., 3:]
    labels = mask.argmax(axis=-1) if mask.shape[-1] > 1 else mask[..., 0] > 0.5
    return make_tile(_eight_bits(image), name, labels.astype(np.uint8))


def _eight_bits(picture: np.ndarray) -> np.ndarray:
    return np.rint(picture * 255).astype(np.uint8)
