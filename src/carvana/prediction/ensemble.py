"""Score runs together, each photograph by those that did not train on it; see which runs help."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from carvana.competition.facts import Paths
from carvana.competition.score import Member, Score
from carvana.data.pairs import Pair
from carvana.errors import UsageError
from carvana.prediction.evaluate import (
    count_overlap,
    read_truth,
    record_score,
    set_dice,
    summarise,
    validation_pairs,
)
from carvana.prediction.model import Model, Prediction, load
from carvana.progress import progress
from carvana.runs.folder import require_metrics


def score_together(folders: Sequence[Path], paths: Paths, worst: int = 10) -> Score:
    """Score runs at full size on what they hold out: the out-of-fold Dice of folds.

    A photograph is predicted by the mean of the runs that have it in their validation split. Each
    run's own mean goes into its `metrics.json` as `full_resolution_dice`.

    Args:
        folders: the runs, their training finished.
        paths: the data folder.
        worst: how many of the worst photographs to return.

    Returns:
        The score, with `members`: each run's own, and where it shares photographs with others, by
        how much the mean is better with it.

    Raises:
        UsageError: the runs' masks are of different kinds.
        CarvanaError: a run or its data are absent or broken, or training is not finished.
    """
    for folder in folders:
        require_metrics(folder)
    models = [load(folder) for folder in folders]
    settings = models[0].recipe.data
    held_out: dict[Path, tuple[int, ...]] = {}
    pairs: dict[Path, Pair] = {}
    for number, (folder, model) in enumerate(zip(folders, models, strict=True)):
        data = model.recipe.data
        if data.other_classes(settings) or data.masks != settings.masks:
            raise UsageError(f"{folder}: has other classes or masks than {folders[0]}")
        for pair in validation_pairs(folder, paths, data):
            held_out[pair.image] = (*held_out.get(pair.image, ()), number)
            pairs[pair.image] = pair

    scored, own = [], [[] for _ in models]
    compared: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in models]  # with it, without
    predicted = progress(_predict(models, held_out), "scoring", len(held_out))
    for image, members, probabilities in predicted:
        truth = read_truth(pairs[image], probabilities[0].shape[:2], settings)

        def overlap(some: list[np.ndarray], truth=truth, model=models[members[0]]) -> np.ndarray:
            mean = np.mean(some, axis=0)
            mean = mean if mean.ndim == 3 else mean[..., None]
            found = Prediction([mean], truth.shape, model.threshold, model.background)
            return count_overlap(found.decide()[0], truth, settings)

        together = overlap(probabilities)
        scored.append((together, image.name))
        for place, member in enumerate(members):
            own[member].append((overlap([probabilities[place]]), image.name))
            if len(members) > 1:
                others = overlap([*probabilities[:place], *probabilities[place + 1 :]])
                compared[member].append((together, others))
    result = summarise(scored, settings, worst)
    for folder, values, both in zip(folders, own, compared, strict=True):
        alone, gain = summarise(values, settings, worst), None
        if both:
            with_it, without = zip(*both, strict=True)
            gain = set_dice(with_it, settings) - set_dice(without, settings)
        result.members[str(folder)] = Member(alone.mean, alone.count, gain)
        record_score(folder, alone.mean)
    return result


def _predict(
    models: list[Model], held_out: dict[Path, tuple[int, ...]]
) -> Iterator[tuple[Path, tuple[int, ...], list[np.ndarray]]]:
    """Yield photographs, the models that hold them out, and each one's probabilities."""
    for members in sorted(set(held_out.values())):
        images = [image for image, holders in held_out.items() if holders == members]
        streams = [models[member].predict(images) for member in members]
        for results in zip(*streams, strict=True):
            yield results[0][0], members, [probability for _, probability in results]
