"""How sure a mask is, told from its probabilities alone."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carvana.files import real_path, to_line, write_text

# A mask is unsure if the odds against it are this many times those of the validation photographs.
# 512 photographs of the studio: 1.4 (`sharp` and `sharper`), 1.6 (`quick`) times at most. Of
# seven or eight street scenes, all are above this limit.
LIMIT = 2.5


def expected_dice(probability: np.ndarray) -> float:
    """Estimate the soft dice that one output's probabilities would score against its true mask.

    With calibrated probabilities p the truth is p on average, and soft dice, 2 sum(p t) /
    (sum(p) + sum(t)), becomes sum(p²) / sum(p).

    Args:
        probability: (height, width) float32 in [0, 1].

    Returns:
        A number in [0, 1]; 1 for an empty mask.
    """
    p = probability.ravel()
    total = float(p.sum())
    return float(np.dot(p, p)) / total if total >= 1 else 1.0


def is_unsure(expected: float, usual: float | None) -> bool:
    """Compare a mask's `expected_dice` with that of validation photographs, None if unknown."""
    return usual is not None and (1 - expected) * usual > LIMIT * (1 - usual) * expected


def review_of(out: Path) -> Path:
    return out.with_name(f"{real_path(out).name}.review.csv")


def write_review(path: Path, expected: Sequence[tuple[str, float]], usual: float | None) -> None:
    """Write a CSV of `img,expected_dice`, the least certain first; say how many look unreliable."""
    ranked = sorted(expected, key=lambda row: (row[1], row[0]))
    rows = [("img", "expected_dice"), *((name, f"{value:.6f}") for name, value in ranked)]
    write_text(path, "".join(map(to_line, rows)))
    unsure = [name for name, value in ranked if is_unsure(value, usual)]
    if unsure:
        print(
            f"{path}: {len(unsure)} of {len(ranked)} masks look unreliable; the photographs may "
            f"differ from the training data (least certain: {unsure[0]})",
            file=sys.stderr,
        )
