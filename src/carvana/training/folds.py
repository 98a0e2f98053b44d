"""Train folds: as many runs of a recipe, each validated on other cars."""

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from carvana.errors import CarvanaError, UsageError, raise_faults
from carvana.recipe import Recipe


def train_folds(
    recipe: Recipe, data: Path, folder: Path, folds: int, cache: Path | None = None
) -> Iterator[tuple[Path, dict]]:
    """Train a recipe's folds one after the other, or resume them.

    Each is an ordinary run in `fold-1`, `fold-2` and so on. Each car (or what `data.split` and
    `data.group` say) is in the validation of one of them.

    Yields:
        Each fold's run folder and metrics.

    Raises:
        UsageError: the recipe or a folder is wrong.
        CarvanaError: a fold failed; the others are trained. Or there are fewer cars than folds.
    """
    from carvana.training.train import train  # here: a cluster's client needs no TensorFlow

    faults = []
    for run, fold in runs_of(folder, folds):
        print(f"{run}:", flush=True)
        try:
            yield run, train(recipe, data, run, cache=cache, fold=fold)
        except UsageError:
            raise
        except Exception as error:  # out of memory, say: the other folds go on
            if not isinstance(error, CarvanaError):
                traceback.print_exc()
            faults.append(f"{run}: {brief_of(error, run)}")
            print(faults[-1], file=sys.stderr)
    raise_faults(f"{folder}: {len(faults)} folds are not trained:", faults)


def brief_of(error: Exception, run: Path) -> str:
    """Say in one line why a fold is not trained."""
    if isinstance(error, CarvanaError):
        return str(error).removeprefix(f"{run}: ")
    if isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__:
        return "out of memory; lower training.batch_size or the input's size"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"


def runs_of(folder: Path, folds: int) -> list[tuple[Path, tuple[int, int]]]:
    """Return each fold's run folder, and its number with their number."""
    return [(folder / f"fold-{number}", (number, folds)) for number in range(1, folds + 1)]
