"""Draw what the network sees, and how a training went."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from carvana import pipeline
from carvana.competition import Paths
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing
from carvana.recipe import Recipe


def draw_samples(recipe: Recipe, paths: Paths, names: list[str], out: Path) -> None:
    """Save a picture of what the network sees: a row each of image, augmented image, mask.

    Args:
        recipe: whose input and augmentation to show.
        paths: the competition's data.
        names: the training photographs to show, one or more.
        out: the picture, `.png`.

    Raises:
        CarvanaError: a pair is at fault, or the picture cannot be written.
        UsageError: `out` does not end in .png.
    """
    if out.suffix != ".png":
        raise UsageError(f"{out}: a picture's name ends in .png")
    rows = []
    for number, name in enumerate(names):
        image, mask = pipeline.load_pair(paths.image(name), paths.mask(name), recipe.input)
        seed = (recipe.training.seed, number)
        augmented = pipeline.augment(image, seed, recipe.augment).numpy()
        rows.append(np.hstack((image, augmented, np.repeat(mask, 3, axis=2))))
    picture = Image.fromarray(np.round(np.vstack(rows) * 255).astype(np.uint8))
    with replacing(out) as temporary:
        picture.save(temporary)


def draw_history(history: Path, out: Path) -> None:
    """Save a plot of dice, accuracy and loss by training step.

    Args:
        history: a run's `history.csv`.
        out: the picture, `.png` or `.svg`.

    Raises:
        CarvanaError: the history cannot be read or the picture not be written.
    """
    from matplotlib.figure import Figure

    try:
        rows = pd.read_csv(history)
    except (OSError, ValueError) as error:
        raise CarvanaError(f"{history}: is not a training history; train first") from error
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("dice", "accuracy", "loss"), strict=True):
        axes.plot(rows["steps"], rows[name], ".--", label="training")
        axes.plot(rows["steps"], rows[f"val_{name}"], "o-", label="validation")
        axes.set(xlabel="step", title=name)
        axes.legend()
    with replacing(out) as temporary:
        figure.savefig(temporary)
