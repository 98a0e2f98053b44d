"""Train folds on a Dask cluster: each an ordinary run, a task of a worker."""

import contextlib
import traceback
from pathlib import Path

from distributed import Client

from carvana.cluster.dask import check_workers, prepare_worker, run_tasks, wait_for_workers
from carvana.data.pairs import list_photographs
from carvana.errors import CarvanaError, raise_faults
from carvana.files import check_writable
from carvana.progress import progress
from carvana.recipe import Recipe
from carvana.training.folds import brief_of, runs_of


def train_folds_on(
    client: Client,
    where: str,
    recipe: Recipe,
    data: Path,
    folder: Path,
    folds: int,
    cache: Path | None = None,
) -> list[tuple[Path, dict]]:
    """Train a recipe's folds on a cluster's workers, or resume them; see `train_folds`.

    What each training prints goes to `fold-1.log` and so on in the folder, which all workers share,
    as they do `data` and `cache`. `where` is how the user named the cluster.

    Raises:
        CarvanaError: a worker lacks the data, a fold failed (the others are trained), or the
            scheduler is gone.
    """
    data, folder = data.absolute(), folder.absolute()
    cache = cache.absolute() if cache else None
    folder.mkdir(parents=True, exist_ok=True)
    wait_for_workers(client, where)
    names = list_photographs(data, recipe.data.images)
    check_workers(client, check_here, data, recipe.data.images, len(names), folder)
    tasks = [(recipe, data, run, cache, fold) for run, fold in runs_of(folder, folds)]
    ended = progress(run_tasks(client, train_here, tasks), "training", folds, unit="fold")
    results: dict[Path, dict | str] = {}
    for (_, _, run, *_), result in ended:
        results[run] = "its workers died" if isinstance(result, Exception) else result
    in_order = [(run, results[run]) for _, _, run, *_ in tasks]
    faults = [f"{run}: {result}" for run, result in in_order if isinstance(result, str)]
    raise_faults(f"{folder}: {len(faults)} folds are not trained:", faults)
    return in_order


def check_here(data: Path, images: str, count: int, folder: Path) -> None:
    """Make sure, on a worker, that it can train: photographs, a folder to write in.

    Raises:
        CarvanaError: something is absent, or not what the client has.
    """
    if len(list_photographs(data, images)) != count:
        raise CarvanaError(f"{data / images}: holds other photographs than here; share one folder")
    check_writable(folder)


def train_here(
    recipe: Recipe, data: Path, run: Path, cache: Path | None, fold: tuple[int, int]
) -> dict | str:
    """Train a fold, on a worker; return its metrics, or why there are none."""
    prepare_worker()
    from carvana.training.train import train  # here: the client needs no TensorFlow

    with (
        run.with_name(f"{run.name}.log").open("a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            return train(recipe, data, run, cache=cache, fold=fold)
        except Exception as error:  # of any kind: the other folds go on
            if not isinstance(error, CarvanaError):
                traceback.print_exc()
            return brief_of(error, run)
