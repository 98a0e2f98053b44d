"""Score masks by the competition's metric: a run's validation split, or two folders of masks."""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from carvana.competition.facts import Paths
from carvana.competition.score import Score, mean_by_view
from carvana.data.folders import MASKS, list_files
from carvana.data.masks import IGNORED, read_mask
from carvana.data.pairs import Pair, find_pairs, open_truth
from carvana.data.split import read_split
from carvana.errors import CarvanaError, UsageError, plural
from carvana.files import write_text
from carvana.prediction.model import Model, Prediction, load
from carvana.progress import progress
from carvana.recipe import Data
from carvana.runs.folder import METRICS, SPLIT, require_metrics

_Out = TypeVar("_Out")


def score_runs(folders: Sequence[Path], paths: Paths, worst: int = 10) -> Score:
    """Score finished runs on the photographs that they hold out, at full size.

    A photograph that several runs hold out is predicted by their mean: over the folds of a recipe
    this is the out-of-fold Dice. Each run's own mean goes into its `metrics.json` as
    `full_resolution_dice`. The `worst` photographs are returned, too.

    Raises:
        UsageError: the runs' masks are of different kinds.
        CarvanaError: a run or its data are absent or broken, or training is not finished.
    """
    for folder in folders:
        require_metrics(folder)
    models = [load(folder) for folder in folders]
    settings = models[0].recipe.data
    holders: dict[Pair, tuple[int, ...]] = {}
    for number, (folder, model) in enumerate(zip(folders, models, strict=True)):
        data = model.recipe.data
        if data.other_classes(settings) or data.masks != settings.masks:
            raise UsageError(f"{folder}: has other classes or masks than {folders[0]}")
        for pair in validation_pairs(folder, paths, data):
            holders[pair] = (*holders.get(pair, ()), number)
    scored, own = [], [[] for _ in folders]
    for members in sorted(set(holders.values())):
        pairs = [pair for pair, some in holders.items() if some == members]
        for together, *each in _score_mean([models[member] for member in members], pairs):
            scored.append(together)
            for member, alone in zip(members, each or [together], strict=True):
                own[member].append(alone)
    result = summarise(scored, settings, worst)
    for folder, some in zip(folders, own, strict=True):
        alone = summarise(some, settings)
        record_score(folder, alone)
        if len(folders) > 1:
            result.members[str(folder)] = alone.mean
    return result


def _score_mean(models: Sequence[Model], pairs: list[Pair]) -> Iterator[list]:
    """Yield each photograph's overlap and name by the mean of models; of several, also by each."""
    settings = models[0].recipe.data

    def compare(pair: Pair, found: Prediction, truth: np.ndarray) -> tuple[np.ndarray, str]:
        return count_overlap(found.decide()[0], truth, settings), pair.name

    if len(models) == 1:
        for overlap in predict_pairs(models[0], pairs, compare):
            yield [overlap]
        return
    streams = [
        predict_pairs(model, pairs, lambda _, found, truth: (found.probability(), truth))
        for model in models
    ]
    for pair, *results in zip(pairs, *streams, strict=True):
        truth = results[0][1]
        some = [probability.reshape(*truth.shape, -1) for probability, _ in results]
        yield [
            compare(pair, models[0].prediction([each], truth.shape), truth)
            for each in (np.mean(some, axis=0), *some)
        ]


def validation_pairs(folder: Path, paths: Paths, settings: Data) -> list[Pair]:
    return read_split(folder / SPLIT, find_pairs(paths.root, settings)).validation


def predict_pairs(
    model: Model,
    pairs: list[Pair],
    compare: Callable[[Pair, Prediction, np.ndarray], _Out],
    what: str = "scoring",
) -> Iterator[_Out]:
    """Predict photographs once, in order, and compare each with its true mask.

    `compare` is called on a thread with the pair, its prediction and the true labels, (height,
    width) uint8; what it returns is yielded. `what` is the work's name, for the progress shown.

    Raises:
        CarvanaError: a photograph or mask cannot be read, or their sizes differ.
    """
    by_path = {pair.image: pair for pair in pairs}

    def finish(path: Path, found: Prediction) -> _Out:
        pair = by_path[path]
        return compare(pair, found, open_truth(pair, model.recipe.data, found.size).labels)

    return progress(model.map(by_path, finish), what, len(pairs))


def record_score(folder: Path, score: Score) -> None:
    """Add the mean Dice, and IoU, of the validation photographs to a run's `metrics.json`."""
    found = {"full_resolution_dice": score.mean}
    if score.mean_iou is not None:
        found["full_resolution_iou"] = score.mean_iou
    try:
        text = json.dumps(require_metrics(folder) | found, indent=2)
        write_text(folder / METRICS, text + "\n")
    except CarvanaError as error:  # the score itself is worth more than its record
        print(f"{error} (the score was not recorded)", file=sys.stderr)


def score_folders(masks: Path, truth: Path, settings: Data) -> Score:
    """Score a folder of masks against a folder of true ones.

    Masks are named alike but for their endings.

    Raises:
        CarvanaError: a folder is absent or empty, a mask cannot be read, has another size, or is
            missing.
    """
    found, wanted = _by_stem(masks, settings), _by_stem(truth, settings)
    if extra := sorted(found.keys() - wanted.keys()):
        print(
            f"{masks}: ignoring {plural(len(extra), 'mask')} that {truth} does not hold "
            f"(first: {extra[0]})",
            file=sys.stderr,
        )
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise CarvanaError(
            f"{masks}: {len(missing)} of {truth}'s masks are missing (first: {missing[0]}); "
            "predict them too"
        )

    def compare(stem: str) -> tuple[np.ndarray, str]:
        pair = [read_mask(path, settings) for path in (found[stem], wanted[stem])]
        if pair[0].shape != pair[1].shape:
            (h, w), (height, width) = (mask.shape for mask in pair)
            raise CarvanaError(f"{found[stem]}: is {w}x{h}, the true mask {width}x{height}")
        return count_overlap(*pair, settings), found[stem].name

    return summarise(progress(map(compare, wanted), "scoring", len(wanted)), settings)


def _by_stem(folder: Path, settings: Data) -> dict[str, Path]:
    """Return a folder's masks by their names without endings, in one Unicode form.

    Of a folder without masks, the folders that hold one an object, by their photographs' names.
    """
    if not folder.is_dir():
        raise CarvanaError(f"{folder}: no such folder; `carvana predict --masks` writes one")
    names, others = list_files(folder, MASKS)
    below = settings.mask_names.partition("/")[2]  # "masks" of {name}/masks
    nested = {
        unicodedata.normalize("NFC", each.name): each / below
        for each in ([] if names else sorted(folder.iterdir()))
        if (each / below).is_dir() and not each.name.startswith(".")
    }
    if nested:
        return nested
    if not names:
        there = f" (there: {others})" if others else ""
        raise CarvanaError(f"{folder}: holds no mask{there}; give the folder they are in")
    masks: dict[str, Path] = {}
    for name in names:
        stem = unicodedata.normalize("NFC", Path(name).stem)
        if stem in masks:
            raise CarvanaError(f"{folder}: holds {masks[stem].name} and {name}; leave one")
        masks[stem] = folder / name
    return masks


def count_overlap(labels: np.ndarray, truth: np.ndarray, settings: Data) -> np.ndarray:
    """Count the pixels that Dice is made of: 2 |A and B| and |A| + |B| of each class.

    Args:
        labels: predicted labels, (height, width) uint8.
        truth: true labels; ignored pixels do not count.
        settings: the recipe's classes; without them the car alone is compared.

    Returns:
        (classes, 2) int64, or (1, 2) of the car. The sum over photographs is that of a set.
    """
    counts = []
    for label in range(len(settings.classes)) or (1,):
        found, wanted = labels == label, truth == label
        if settings.classes:
            found &= truth != IGNORED
        total = np.count_nonzero(found) + np.count_nonzero(wanted)
        counts.append((2 * np.count_nonzero(found & wanted), total))
    return np.array(counts, np.int64)


def dice_by_class(overlap: np.ndarray) -> np.ndarray:
    """Return each class's Dice, (classes,); NaN for one that is in neither mask."""
    shared, total = overlap.T
    return np.divide(shared, total, out=np.full(len(total), np.nan), where=total > 0)


def mean_dice(overlap: np.ndarray, settings: Data) -> float:
    """Average Dice over the classes that occur, but for "background"; 1 if none occurs."""
    counted = [i for i, name in enumerate(settings.classes) if name != "background"] or [0]
    dice = dice_by_class(overlap)[counted]
    return float(np.nanmean(dice)) if np.isfinite(dice).any() else 1.0


def summarise(scored: Iterable[tuple[np.ndarray, str]], settings: Data, worst: int = 10) -> Score:
    """Score a set of photographs: pairs of `count_overlap` and a name.

    The Dice of one class is the competition's, the photographs' mean. Of several it is the mean
    over classes, each one's pixels summed over the set: a class that few photographs show counts
    by those alone.
    """
    scored = list(scored)
    values = [mean_dice(overlap, settings) for overlap, _ in scored]
    ranked = sorted(zip(values, (name for _, name in scored), strict=True))
    total = np.sum([overlap for overlap, _ in scored], axis=0)
    dices = dice_by_class(total).tolist()
    by_class = dict(zip(settings.classes, dices, strict=False))
    occurring = {name: dice for name, dice in by_class.items() if dice == dice}
    iou = {name: dice / (2 - dice) for name, dice in occurring.items()}
    return Score(
        mean=mean_dice(total, settings) if settings.classes else float(np.mean(values)),
        count=len(scored),
        worst=ranked[:worst],
        views={} if settings.classes else mean_by_view(ranked),
        classes=occurring,
        iou=iou,
        mean_iou=float(np.mean([*iou.values()])) if iou else None,
        absent=[name for name in by_class if name not in occurring],
    )
