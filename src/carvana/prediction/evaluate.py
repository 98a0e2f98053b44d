"""Score a run's validation split at full resolution, by the competition's metric."""

import json
from pathlib import Path

import numpy as np

from carvana.competition import rle
from carvana.competition.facts import Paths
from carvana.competition.score import Score, dice, mean_by_view
from carvana.data.dataset import find_pairs, read_split
from carvana.data.images import read_mask
from carvana.errors import CarvanaError
from carvana.files import write_text
from carvana.prediction.predict import load
from carvana.progress import progress
from carvana.run import METRICS, SPLIT


def score_validation(folder: Path, paths: Paths, worst: int = 10) -> Score:
    """Predict a run's validation photographs and score them at the size they were taken.

    The mean goes into the run's `metrics.json` as `full_resolution_dice`.

    Args:
        folder: the run, its training finished.
        paths: the competition's data.
        worst: how many of the worst photographs to keep.

    Raises:
        CarvanaError: the run or its data are absent or broken, or training is not finished.
    """
    model = load(folder)
    metrics = folder / METRICS
    try:
        kept = json.loads(metrics.read_text())
    except (OSError, ValueError) as error:
        raise CarvanaError(
            f"{folder}: its training is not finished; run `carvana train` again"
        ) from error
    pairs = read_split(folder / SPLIT, find_pairs(paths)).validation
    masks = {pair.image: pair.mask for pair in pairs}
    threshold = model.recipe.prediction.threshold

    def compare(path: Path, probability: np.ndarray) -> tuple[float, str]:
        both = probability > threshold, read_mask(masks[path])
        return dice(*(rle.parse(rle.encode(mask)) for mask in both)), path.name

    scored = model.predict(masks, compare)
    values = sorted(progress(scored, "scoring", len(masks)))
    mean = float(np.mean([value for value, _ in values]))
    write_text(metrics, json.dumps({**kept, "full_resolution_dice": mean}, indent=2) + "\n")
    return Score(mean, len(values), worst=values[:worst], views=mean_by_view(values))
