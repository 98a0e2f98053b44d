"""Score masks by the competition's metric: a run's validation split, or two folders of masks."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from carvana.competition.facts import Paths
from carvana.competition.score import Score, mean_by_view
from carvana.data.dataset import find_pairs, read_split
from carvana.data.images import list_images
from carvana.data.masks import IGNORED, read_mask
from carvana.errors import CarvanaError
from carvana.files import write_text
from carvana.prediction.predict import load
from carvana.progress import progress
from carvana.recipe import Data
from carvana.run import METRICS, SPLIT


def score_validation(folder: Path, paths: Paths, worst: int = 10) -> Score:
    """Predict a run's validation photographs and score them at the size they were taken.

    The mean goes into the run's `metrics.json` as `full_resolution_dice`.

    Args:
        folder: the run, its training finished.
        paths: the data folder.
        worst: how many of the worst photographs to return.

    Raises:
        CarvanaError: the run or its data are absent or broken, or training is not finished.
    """
    model = load(folder)
    settings = model.recipe.data
    read_metrics(folder / METRICS)
    pairs = read_split(folder / SPLIT, find_pairs(paths.root, settings)).validation
    masks = {pair.image: pair.mask for pair in pairs}

    def compare(path: Path, probability: np.ndarray) -> tuple[list[float], str]:
        truth = read_mask(masks[path], settings)
        return dice_by_class(model.decide(probability), truth, settings), path.name

    scored = progress(model.predict(masks, compare), "scoring", len(masks))
    result = summarize(scored, settings, worst)
    record_dice(folder, result.mean)
    return result


def record_dice(folder: Path, dice: float) -> None:
    """Write a score into a run's `metrics.json`; say so if it cannot be written."""
    metrics = folder / METRICS
    try:
        kept = read_metrics(metrics)
        text = json.dumps({**kept, "full_resolution_dice": dice}, indent=2)
        write_text(metrics, text + "\n")
    except CarvanaError as error:  # the score itself is worth more than its record
        print(f"{error} (the score was not recorded)", file=sys.stderr)


def read_metrics(path: Path) -> dict:
    """Read a run's `metrics.json`.

    Raises:
        CarvanaError: it cannot be read, or training is not finished.
    """
    try:
        metrics = json.loads(path.read_text())
        if isinstance(metrics, dict):
            return metrics
        error = None
    except (OSError, ValueError) as fault:
        error = fault
    raise CarvanaError(
        f"{path}: cannot be read, or training is not finished; run `carvana train` again"
    ) from error


def score_folders(masks: Path, truth: Path, settings: Data, worst: int = 10) -> Score:
    """Score a folder of masks against a folder of true ones.

    Args:
        masks: label maps or masks, named like those in `truth` but for their endings.
        truth: the true masks.
        settings: the recipe's classes.
        worst: how many of the worst images to return.

    Raises:
        CarvanaError: a folder is absent or empty, a mask cannot be read, has another size, or is
            missing.
    """
    found = {Path(name).stem: masks / name for name in list_images(masks)}
    wanted = {Path(name).stem: truth / name for name in list_images(truth)}
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise CarvanaError(
            f"{masks}: {len(missing)} of {truth}'s masks are missing (first: {missing[0]}); "
            "predict them too"
        )

    def compare(stem: str) -> tuple[list[float], str]:
        pair = [read_mask(path, settings) for path in (found[stem], wanted[stem])]
        if pair[0].shape != pair[1].shape:
            (h, w), (height, width) = (mask.shape for mask in pair)
            raise CarvanaError(f"{found[stem]}: is {w}x{h}, the true mask {width}x{height}")
        return dice_by_class(*pair, settings), wanted[stem].name

    return summarize(progress(map(compare, wanted), "scoring", len(wanted)), settings, worst)


def dice_by_class(labels: np.ndarray, truth: np.ndarray, settings: Data) -> list[float]:
    """Compute the Dice of each class: 2 |A and B| / (|A| + |B|), both empty counts 1.

    Args:
        labels: predicted labels, (height, width) uint8.
        truth: true labels; ignored pixels do not count.
        settings: the recipe's classes; without them the car alone is compared.

    Returns:
        A number in [0, 1] for each class, or one for the car.
    """
    if not settings.classes:
        return [_dice(labels == 1, truth == 1)]
    counted = truth != IGNORED
    return [
        _dice((labels == label) & counted, truth == label) for label in range(len(settings.classes))
    ]


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else 1.0


def summarize(scored: Iterable[tuple[list[float], str]], settings: Data, worst: int) -> Score:
    """Average over images; over classes too, but for one that is called "background"."""
    by_class, names = [], []
    for values, name in scored:
        by_class.append(values)
        names.append(name)
    values = np.array(by_class)  # (images, classes)
    counted = [i for i, name in enumerate(settings.classes) if name != "background"] or [0]
    each = values[:, counted].mean(axis=1)
    listed = sorted(zip(each.tolist(), names, strict=True))
    return Score(
        mean=float(each.mean()),
        count=len(names),
        worst=listed[:worst],
        views={} if settings.classes else mean_by_view(listed),
        classes=dict(zip(settings.classes, values.mean(axis=0).tolist(), strict=False)),
    )
