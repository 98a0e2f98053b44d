"""Predict on a Dask cluster: what a part does here, a few hundred names a task, on its workers."""

import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from distributed import Client

from carvana.cluster.dask import (
    check_workers,
    prepare_worker,
    run_tasks,
    share_of_cores,
    wait_for_workers,
    workers_of,
)
from carvana.errors import CarvanaError
from carvana.files import check_writable
from carvana.networks.build import describe_device
from carvana.prediction.model import Model, load
from carvana.prediction.rows import About, Job, make_rows
from carvana.runs.trained import RunInfo

LARGEST, SMALLEST = 256, 16  # photographs of a task
TASKS = 64  # of a prediction, as far as they are not made too small by it


def make_on(client: Client, where: str, info: RunInfo) -> Callable:
    """Return what makes rows on a cluster's workers; see `make_rows`, whose errors it yields."""

    def make(job: Job, names: Sequence[str], until: float) -> Iterator[str | CarvanaError]:
        if not wait_for_workers(client, where, until):
            return
        if local := workers_of(where):
            job = replace(job, workers=job.workers or share_of_cores(local))
        needs = (tuple(path.absolute() for path in info.paths), info.fingerprint(), job)
        check_workers(client, check_here, *needs)
        tasks = [(*needs, info.precision, some) for some in share(names, info)]
        devices: set[str] = set()
        for (*_, some), result in run_tasks(client, make_here, tasks, until):
            if isinstance(result, Exception):
                yield CarvanaError(f"{some[0]} to {some[-1]}: their workers died")
                continue
            made, device = result
            if device not in devices:
                devices.add(device)
                print(f"{where}: predicting on {device}", file=sys.stderr)
            yield from made
        if len({device.rpartition(" ")[2] for device in devices}) > 1:
            print(
                f"{where}: the workers compute in different precisions; masks differ by a few "
                "pixels from those of one kind of worker",
                file=sys.stderr,
            )

    return make


def share(names: Sequence[str], info: RunInfo) -> list[Sequence[str]]:
    """Cut names into tasks of whole batches."""
    batch = info.recipe.prediction.batch_size
    size = min(max(-(-len(names) // TASKS), SMALLEST), LARGEST)
    size = -(-size // batch) * batch
    return [names[start : start + size] for start in range(0, len(names), size)]


def make_here(
    sources: tuple[Path, ...], expected: str, job: Job, precision: str, names: Sequence[str]
) -> tuple[list[str | CarvanaError], str]:
    """Make rows, on a worker; return what is made, or why not, and on what device."""
    model = _load_here(sources, expected, job, precision)
    made = list(make_rows(model, job, names, math.inf))
    return made, f"{describe_device()}, in {model.run.precision}"


@functools.lru_cache(maxsize=1)
def _load_here(sources: tuple[Path, ...], expected: str, job: Job, precision: str) -> Model:
    """Load the model once a worker, in its first task; one that comes late is checked too."""
    check_here(sources, expected, job)
    prepare_worker()
    return load(list(sources), precision)


def check_here(sources: Sequence[Path], expected: str, job: Job) -> None:
    """Make sure, on a worker, that it can make rows: model, photographs, a folder to write in.

    Raises:
        CarvanaError: something is absent, or not what the client has.
    """
    if RunInfo.read(list(sources)).fingerprint() != expected:
        named = ", ".join(map(str, sources))
        raise CarvanaError(f"{named}: is another model than here; copy the same")
    about = About.read(job.folder)
    if not about or about.key != job.key:
        raise CarvanaError(f"{job.folder}: is not what it is here; share the folder of --out")
    try:
        missing = about.sizes.keys() - set(os.listdir(job.images))
    except OSError as error:
        raise CarvanaError(
            f"{job.images}: {error.strerror}; share the folder of --images"
        ) from error
    if missing:
        raise CarvanaError(
            f"{job.images}: {len(missing)} photographs are not there (first: {min(missing)}); "
            "share the folder of --images"
        )
    for folder in filter(None, (job.folder, job.masks)):
        check_writable(folder)
