"""How sure a mask is, told from its probabilities alone."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carvana.files import real_path, write_text

# A photograph is unlike those trained on if its mask is this many times less sure than theirs.
# 512 photographs of the studio: 1.4 (`sharp` and `sharper`), 1.6 (`quick`) times at most. Of
# seven or eight street scenes, all are above this limit.
LIMIT = 2.5


def expected_dice(probability: np.ndarray) -> float:
    """Estimate the soft dice that a photograph's probabilities would score against its true mask.

    With calibrated probabilities p the truth is p on average, and soft dice, 2 sum(p t) /
    (sum(p) + sum(t)), becomes sum(p²) / sum(p).

    Args:
        probability: (height, width) float32 in [0, 1], or (height, width, classes).

    Returns:
        A number in [0, 1]; the mean of the classes that are there; 1 for an empty mask.
    """
    classes = probability.reshape(-1, probability.shape[2] if probability.ndim == 3 else 1).T
    sums = [(float(np.dot(p, p)), float(p.sum())) for p in map(np.ascontiguousarray, classes)]
    there = [square / total for square, total in sums if total >= 1]
    return float(np.mean(there)) if there else 1.0


def is_unsure(expected: float, usual: float | None) -> bool:
    """Tell whether a mask is much less sure than those of the photographs a model was trained on.

    Args:
        expected: the photograph's `expected_dice`.
        usual: the soft dice of the run's validation photographs; None where it is not known.
    """
    return usual is not None and 1 - expected > LIMIT * (1 - usual)


def review_of(out: Path) -> Path:
    """Return where the review of a prediction is written."""
    return out.with_name(f"{real_path(out).name}.review.csv")


def write_review(path: Path, expected: Sequence[tuple[str, float]], usual: float | None) -> None:
    """Write which masks to look at first, `img,expected_dice`; say how many are unsure.

    Args:
        path: the CSV.
        expected: photographs' names with their `expected_dice`, any order.
        usual: as of `is_unsure`.
    """
    ranked = sorted(expected, key=lambda row: (row[1], row[0]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["img", "expected_dice"])
    writer.writerows((name, f"{value:.6f}") for name, value in ranked)
    write_text(path, text.getvalue())
    unsure = [name for name, value in ranked if is_unsure(value, usual)]
    if unsure:
        print(
            f"{path}: {len(unsure)} of {len(ranked)} masks are unsure, as of photographs unlike "
            f"those the model was trained on (the least sure: {unsure[0]})",
            file=sys.stderr,
        )
