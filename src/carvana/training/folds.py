"""Train folds: as many runs of a recipe, each validated on other cars."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from carvana.recipe import Recipe, load_recipe


def train_folds(
    recipe: str | Path | Recipe,
    data: str | Path,
    folder: str | Path,
    folds: int,
    overrides: Sequence[str] = (),
    cache: str | Path | None = None,
) -> Iterator[tuple[Path, dict]]:
    """Train a recipe's folds one after the other, or resume them.

    Each is an ordinary run in `fold-1`, `fold-2` and so on. Each car (or what `data.split` and
    `data.group` say) is in the validation of one of them.

    Args:
        recipe, data, overrides, cache: as of `train`.
        folder: the folder for the runs.
        folds: how many.

    Yields:
        Each fold's run folder and metrics.

    Raises:
        CarvanaError: as `train`; there are fewer cars than folds.
    """
    from carvana.training.train import train  # here: a cluster's client needs no TensorFlow

    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, list(overrides))
    for run, fold in runs_of(Path(folder), folds):
        print(f"{run}:", flush=True)
        yield run, train(recipe, data, run, cache=cache, fold=fold)


def runs_of(folder: Path, folds: int) -> list[tuple[Path, tuple[int, int]]]:
    """Return each fold's run folder, and its number with their number."""
    return [(folder / f"fold-{number}", (number, folds)) for number in range(1, folds + 1)]
