"""Score a run's validation split at full resolution, by the competition's metric."""

import json
from pathlib import Path

import numpy as np

from carvana import dataset, rle
from carvana.competition import Paths
from carvana.errors import CarvanaError
from carvana.files import write_text
from carvana.predict import Run, predict_each
from carvana.progress import progress
from carvana.score import Score, dice, mean_by_view
from carvana.train import METRICS, SPLIT


def score_validation(folder: Path, paths: Paths, worst: int = 10) -> Score:
    """Predict a run's validation photographs and score them at the size they were taken.

    The mean goes into the run's `metrics.json` as `full_resolution_dice`.

    Raises:
        CarvanaError: the run or its data are absent or at fault, or training is not finished.
    """
    run = Run.load(folder)
    metrics = folder / METRICS
    try:
        kept = json.loads(metrics.read_text())
    except (OSError, ValueError) as error:
        raise CarvanaError(
            f"{folder}: its training is not finished; run `carvana train` again"
        ) from error
    names = dataset.read_split(folder / SPLIT, dataset.find_pairs(paths)).validation
    threshold = run.recipe.prediction.threshold

    def compare(path: Path, probability: np.ndarray) -> tuple[float, str]:
        masks = probability > threshold, dataset.read_mask(paths.mask(path.name))
        return dice(*(rle.parse(rle.encode(mask)) for mask in masks)), path.name

    scored = predict_each(run, [paths.image(name) for name in names], compare)
    values = sorted(progress(scored, "scoring", len(names)))
    mean = float(np.mean([value for value, _ in values]))
    write_text(metrics, json.dumps({**kept, "full_resolution_dice": mean}, indent=2) + "\n")
    return Score(mean, len(values), worst=values[:worst], views=mean_by_view(values))
