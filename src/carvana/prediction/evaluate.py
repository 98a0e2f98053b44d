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
from carvana.data.dataset import Pair, find_pairs, read_split, size_fault
from carvana.data.folders import MASKS, list_files
from carvana.data.masks import IGNORED, read_mask
from carvana.errors import CarvanaError, plural
from carvana.files import write_text
from carvana.prediction.predict import Model, load
from carvana.progress import progress
from carvana.recipe import Data
from carvana.run import METRICS, SPLIT

_Out = TypeVar("_Out")


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
    read_metrics(folder)
    settings = model.recipe.data

    def compare(pair: Pair, probability: np.ndarray, truth: np.ndarray) -> tuple[list[float], str]:
        return dice_by_class(model.decide(probability), truth, settings), pair.name

    pairs = validation_pairs(folder, paths, settings)
    result = summarise(predict_pairs(model, pairs, compare), settings, worst)
    record_score(folder, result.mean)
    return result


def validation_pairs(folder: Path, paths: Paths, settings: Data) -> list[Pair]:
    """Return the photographs and masks that a run was validated on."""
    return read_split(folder / SPLIT, find_pairs(paths.root, settings)).validation


def predict_pairs(
    model: Model,
    pairs: list[Pair],
    compare: Callable[[Pair, np.ndarray, np.ndarray], _Out],
    what: str = "scoring",
) -> Iterator[_Out]:
    """Predict photographs once, in order, and compare each with its true mask.

    Args:
        model: what predicts.
        pairs: the photographs and masks.
        compare: called on a thread with the pair, the probability as `Model.predict` gives it and
            the true labels, (height, width) uint8; what it returns is yielded.
        what: the name of the work, for the progress shown.
    """
    by_path = {pair.image: pair for pair in pairs}

    def finish(path: Path, probability: np.ndarray) -> _Out:
        pair = by_path[path]
        return compare(pair, probability, read_truth(pair, probability, model.recipe.data))

    return progress(model.predict(by_path, finish), what, len(pairs))


def read_truth(pair: Pair, probability: np.ndarray, settings: Data) -> np.ndarray:
    """Read a pair's true labels, (height, width) uint8, as large as its probability.

    Raises:
        CarvanaError: they cannot be read, or have another size.
    """
    truth = read_mask(pair.mask, settings)
    if truth.shape != probability.shape[:2]:
        raise CarvanaError(size_fault(pair, truth.shape))
    return truth


def read_metrics(folder: Path) -> dict:
    """Read the figures of a finished training.

    Raises:
        CarvanaError: they cannot be read, or training is not finished.
    """
    path = folder / METRICS
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(metrics, dict):
            return metrics
        error = None
    except (OSError, ValueError) as fault:
        error = fault
    raise CarvanaError(
        f"{path}: cannot be read, or training is not finished; run `carvana train` again"
    ) from error


def record_score(folder: Path, mean: float) -> None:
    """Add the mean Dice of the validation photographs to a run's `metrics.json`."""
    try:
        text = json.dumps({**read_metrics(folder), "full_resolution_dice": mean}, indent=2)
        write_text(folder / METRICS, text + "\n")
    except CarvanaError as error:  # the score itself is worth more than its record
        print(f"{error} (the score was not recorded)", file=sys.stderr)


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
    found, wanted = _by_stem(masks), _by_stem(truth)
    if extra := sorted(found.keys() - wanted.keys()):
        print(
            f"{masks}: passing over {plural(len(extra), 'mask')} that {truth} does not hold "
            f"(first: {extra[0]})",
            file=sys.stderr,
        )
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

    return summarise(progress(map(compare, wanted), "scoring", len(wanted)), settings, worst)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return a folder's masks by their names without endings, in one Unicode form.

    Raises:
        CarvanaError: the folder is absent or holds no mask, or two masks have one name.
    """
    if not folder.is_dir():
        raise CarvanaError(f"{folder}: no such folder; `carvana predict --masks` writes one")
    names, others = list_files(folder, MASKS)
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


def mean_dice(by_class: Sequence[float], settings: Data) -> float:
    """Average Dice over the classes, but for one that is called "background"."""
    counted = [i for i, name in enumerate(settings.classes) if name != "background"] or [0]
    return float(np.mean([by_class[i] for i in counted]))


def summarise(
    scored: Iterable[tuple[Sequence[float], str]], settings: Data, worst: int = 10
) -> Score:
    """Average over images: pairs of an image's Dice by class, and its name."""
    by_class, listed = [], []
    for values, name in scored:
        by_class.append(values)
        listed.append((mean_dice(values, settings), name))
    listed.sort()
    means = np.mean(by_class, axis=0).tolist()  # of each class
    return Score(
        mean=float(np.mean([dice for dice, _ in listed])),
        count=len(listed),
        worst=listed[:worst],
        views={} if settings.classes else mean_by_view(listed),
        classes=dict(zip(settings.classes, means, strict=False)),
    )
