"""Predict on a Dask cluster: the same shards, each a task of a worker that has loaded the model."""

import contextlib
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from distributed import Client, WorkerPlugin, get_worker

from carvana.cluster import (
    check_workers,
    results_of,
    share_of_cores,
    silent_import,
    use_own_gpu,
    wait_for_workers,
    workers_of,
)
from carvana.errors import CarvanaError
from carvana.files import check_writable
from carvana.networks import describe_device
from carvana.prediction.predict import Model, load
from carvana.prediction.rows import Job, Manifest, Shard
from carvana.prediction.stream import make_shards
from carvana.recipe import Recipe, load_recipe, parse_recipe
from carvana.run import (
    METRICS,
    MODEL,
    RECIPE,
    check_mean,
    find_source,
    fingerprint,
    read_usual,
    usual_key,
)


@dataclass(frozen=True)
class Trained:
    """What a run or a mean of runs is, known without its networks."""

    sources: tuple[str, ...]  # that a worker loads
    recipe: Recipe
    paths: tuple[Path, ...]
    usual: float | None
    precision: str = "float32"  # or "auto", which each worker decides

    def fingerprint(self) -> str:
        """Return what `Run.fingerprint` does."""
        return fingerprint(self.recipe, self.paths)

    @classmethod
    def read(cls, sources: Sequence[str | Path], precision: str = "float32") -> "Trained":
        """Read what `Run.load` would load, without TensorFlow.

        Raises:
            UsageError: there is nothing of a name, or the runs cannot be averaged.
            CarvanaError: a file is absent or broken.
        """
        found = [find_source(source) for source in sources]
        recipes, paths, dices = zip(*map(_read_source, found), strict=True)
        check_mean(recipes, sources)
        known = [dice for dice in dices if dice is not None]
        return cls(
            tuple(str(p.absolute()) for p in found),
            recipes[0],
            paths,
            min(known, default=None),
            precision,
        )


def _read_source(path: Path) -> tuple[Recipe, Path, float | None]:
    if path.is_dir():
        if not (path / MODEL).is_file():
            raise CarvanaError(f"{path / MODEL}: no such model; run `carvana train` first")
        recipe = load_recipe(path / RECIPE)
        return recipe, path / MODEL, read_usual(path / METRICS, recipe)
    try:
        with np.load(path) as arrays:
            recipe = parse_recipe(str(arrays["recipe"]), str(path))
            key = usual_key(recipe)
            return recipe, path, float(arrays[key]) if key in arrays else None
    except (OSError, ValueError, KeyError) as error:
        raise CarvanaError(f"{path}: is not a weights file; fetch it again") from error


class Workers:
    """A cluster's workers, as what predicts: `write_submission(workers, …, make=workers.make)`.

    Args:
        client: of the cluster.
        where: how the user named it.
        sources: the run folders, files or names that the model is loaded from.
        precision: as of `load`.
    """

    def __init__(
        self,
        client: Client,
        where: str,
        sources: Sequence[str | Path],
        precision: str = "float32",
    ):
        self.client, self.where = client, where
        self.run = Trained.read(sources, precision)

    def make(self, job: Job, shards: list[Shard], faults: list[str], until: float) -> Iterator[str]:
        """Make shards on the workers; see `make_shards`.

        A shard whose task fails as its workers die is among the faults, by its first photograph.

        Raises:
            CarvanaError: a worker lacks the data or the model, or has others than are here; or the
                scheduler is gone.
        """
        if not shards:
            return
        client = self.client
        if not wait_for_workers(client, self.where, until):
            return
        if local := workers_of(self.where):
            job = replace(job, workers=job.workers or share_of_cores(local))
        needs = (self.run.sources, self.run.fingerprint(), job)
        check_workers(client, check_here, *needs)
        plugin = f"carvana-{uuid.uuid4().hex[:12]}"
        _register(client, Predictor(needs, self.run.precision), plugin)
        try:
            futures = {
                client.submit(
                    make_one, plugin, job, shard, key=(f"shard-{plugin}", shard.number), pure=False
                ): shard
                for shard in shards
            }
            devices: set[str] = set()
            for future, result in filter(None, results_of(client, list(futures), until)):
                shard = futures.pop(future)
                if isinstance(result, Exception):
                    faults.append(f"{shard.names[0]} to {shard.names[-1]}: their workers died")
                    continue
                made, unread, device = result
                faults += unread
                if device not in devices:
                    devices.add(device)
                    print(f"{self.where}: predicting on {device}", file=sys.stderr)
                yield from made
            if len({device.rpartition(" ")[2] for device in devices}) > 1:
                print(
                    f"{self.where}: the workers compute in different precisions; masks differ by a "
                    "few pixels from those of one kind of worker",
                    file=sys.stderr,
                )
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone
                client.unregister_worker_plugin(plugin)


def check_here(sources: Sequence[str], expected: str, job: Job) -> None:
    """Make sure, on a worker, that it can make shards: model, photographs, a folder to write in.

    Raises:
        CarvanaError: something is absent, or not what the client has.
    """
    if Trained.read(sources).fingerprint() != expected:
        raise CarvanaError(f"{', '.join(sources)}: is another model than here; copy the same")
    manifest = Manifest.read(job.folder)
    if not manifest or manifest.key != job.key:
        raise CarvanaError(f"{job.folder}: is not what it is here; share the folder of --out")
    try:
        missing = set(manifest.photographs) - set(os.listdir(job.images))
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


class Predictor(WorkerPlugin):
    """Loads the model once a worker, in its first task. A worker that comes late is checked too."""

    def __init__(self, needs: tuple, precision: str):
        self.needs, self.precision = needs, precision

    def setup(self, worker) -> None:
        """Check what the worker needs; let it use the GPU of its number on this machine."""
        check_here(*self.needs)
        self.number = worker.name if isinstance(worker.name, int) else None
        self.lock = threading.Lock()

    @cached_property
    def model(self) -> Model:
        """The model, on a GPU of its own where there are several workers of local:N."""
        with silent_import():
            use_own_gpu(self.number)
        return load(list(self.needs[0]), self.precision)


def make_one(plugin: str, job: Job, shard: Shard) -> tuple[list[str], list[str], str]:
    """Make a shard, on a worker; return what is made, what could not be read, and on what."""
    predictor = get_worker().plugins[plugin]
    with predictor.lock:
        model = predictor.model
    faults: list[str] = []
    made = list(make_shards(model, job, [shard], faults))
    return made, faults, f"{describe_device()}, in {model.run.precision}"


def _register(client: Client, predictor: Predictor, name: str) -> None:
    for attempt in range(3):
        try:
            client.register_plugin(predictor, name=name)
            return
        except OSError:  # a worker died meanwhile; the next one is there in seconds
            if attempt == 2:
                raise
            time.sleep(3)
