"""Draw what a network is trained on."""

from pathlib import Path

import numpy as np
from PIL import Image

from carvana.competition.facts import Paths
from carvana.data.augment import apply, draw
from carvana.data.marks import check_sheet, png_mark
from carvana.data.masks import paint
from carvana.data.pairs import evenly, find_pairs
from carvana.data.prepared import load_pair
from carvana.files import replacing
from carvana.recipe import Recipe


def draw_samples(recipe: Recipe, paths: Paths, count: int, out: Path) -> None:
    """Save a picture of training samples: a row each of image, augmented image, mask.

    Args:
        recipe: whose input and augmentation to show.
        paths: the competition's data.
        count: how many photographs, from all over the data.
        out: the picture, `.png`.

    Raises:
        CarvanaError: a pair cannot be used, or the picture cannot be written.
        UsageError: `out` does not end in .png, or is another picture.
    """
    check_sheet(out)
    pairs = find_pairs(paths.root, recipe.data)
    rows = []
    for number, pair in enumerate(evenly(pairs, count)):
        before = load_pair(pair, recipe)
        seed = (recipe.training.seed, number)
        image, mask = apply(before, draw(seed, recipe.augment, *before.shape[:2]))
        white = 255 if before.dtype == np.uint8 else 1
        row = (before[..., :3] / white, image / white, paint(mask / np.float32(white), recipe.data))
        rows.append(np.hstack(row))
    picture = Image.fromarray(np.round(np.vstack(rows) * 255).astype(np.uint8))
    with replacing(out) as temporary:
        picture.save(temporary, "PNG", pnginfo=png_mark("sheet"))
