"""The rows of a prediction on disk while it is made: shards, whoever makes them.

A shard is a few hundred photographs in the sample's order. Its rows are added to a file of their
own, `00007.<token>.partial`, which is renamed to `00007.csv` when it is whole. Any number of
processes may make shards in one folder. If two make the same one, both write the same rows, and the
second rename replaces the first's file by its equal.
"""

import csv
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from carvana.competition.submission import parse_row
from carvana.data.images import read_bytes
from carvana.errors import CarvanaError, UsageError
from carvana.files import write_text
from carvana.machine import cores
from carvana.progress import progress
from carvana.recipe import Data

LARGEST = 256  # photographs of a shard
SMALLEST = 16
FEWEST = 64  # shards of a prediction, as far as they are not made too small by it
MANIFEST = "shards.json"


@dataclass(frozen=True)
class Shard:
    """Photographs that are predicted together."""

    number: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """What a process needs to make shards, besides the model."""

    key: str  # of the model, the recipe and the threshold: rows of another key are not used
    folder: Path  # of the shards
    images: Path  # the folder of photographs
    masks: Path | None = None  # a folder for label maps, where they are what is made
    threshold: float | None = None  # the recipe's when None
    workers: int | None = None  # threads that read, see `Model.predict`

    def whole(self, number: int) -> Path:
        """Return the file of a shard that is made."""
        return self.folder / f"{number:05}.csv"

    def begin(self, number: int) -> Path:
        """Return a new name for the rows of a shard that is not whole."""
        return self.folder / f"{number:05}.{uuid.uuid4().hex[:12]}.partial"

    def begun(self, number: int) -> list[Path]:
        """Return the files of a shard's rows from stopped processes, and from running ones."""
        return sorted(self.folder.glob(f"{number:05}.*.partial"))


@dataclass(frozen=True)
class Manifest:
    """What the shards of a folder are made of, in `shards.json`."""

    key: str
    usual: float | None  # soft dice of the run's validation photographs
    size: int  # photographs of a shard
    photographs: list[str]

    def shards(self) -> list[Shard]:
        """Cut the photographs into shards."""
        names = self.photographs
        starts = range(0, len(names), self.size)
        return [
            Shard(number, tuple(names[start : start + self.size]))
            for number, start in enumerate(starts)
        ]

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Read a folder's manifest; None where there is none that can be read."""
        try:
            return cls(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        write_text(folder / MANIFEST, json.dumps(vars(self)) + "\n")


def shard_size(photographs: int, batch_size: int) -> int:
    """Choose how many photographs a shard has: whole batches, so that none is filled up."""
    size = min(max(-(-photographs // FEWEST), SMALLEST), LARGEST)
    return -(-size // batch_size) * batch_size


def open_folder(job: Job, manifest: Manifest, shared: bool) -> None:
    """Make the folder of the shards, or take over what is in it.

    Rows of other photographs beside the same ones are sorted into the shards as they are now.

    Args:
        job: what is made.
        manifest: of the shards as they are now.
        shared: whether others make shards in it too; then nothing in it is changed.

    Raises:
        UsageError: it is shared, and of another model, threshold or set of photographs.
        CarvanaError: it cannot be written.
    """
    before = Manifest.read(job.folder)
    if before == manifest:
        return
    if before and shared:
        what = "photographs" if before.key == manifest.key else "model, recipe or threshold"
        raise UsageError(
            f"{job.folder}: holds shards of another {what}; choose another --out, or delete it"
        )
    files = sorted((*job.folder.glob("*.csv"), *job.folder.glob("*.partial")))
    if before and before.key != manifest.key:
        print(f"{job.folder}: rows of another model, recipe or threshold; starting over")
        for file in files:
            file.unlink(missing_ok=True)
    elif before:
        scatter(job, files, manifest.shards())
    manifest.write(job.folder)


def scatter(job: Job, files: Iterable[Path], shards: Iterable[Shard]) -> None:
    """Put the rows of files back among those of shards that are not whole, to be checked."""
    numbers = {name: shard.number for shard in shards for name in shard.names}
    for file in files:
        rows: dict[int, list[list[str]]] = {}
        for row in read_rows(file, job.key):
            if row[0] in numbers:
                rows.setdefault(numbers[row[0]], []).append(row)
        for number, some in rows.items():
            with job.begin(number).open("x", encoding="utf-8", newline="") as target:
                target.write(f"{job.key}\n")
                csv.writer(target, lineterminator="\n").writerows(some)
        file.unlink(missing_ok=True)


def read_rows(file: Path, key: str) -> Iterator[list[str]]:
    """Yield image, photograph's digest, expected dice and row; none of a file of another key.

    A row that was cut short is left out.
    """
    try:
        lines = file.open("rb")
    except FileNotFoundError:  # another process has finished the shard
        return
    with lines:
        if next(lines, b"") != f"{key}\n".encode():
            return
        for line in lines:
            if line.endswith(b"\n"):
                yield parse_row(line.decode("utf-8"))


def whole_shards(job: Job, shards: Iterable[Shard], settings: Data) -> list[Shard]:
    """Return the shards that are made, of the photographs now on disk.

    A shard of which a photograph has changed is put back among those that are not whole.

    Args:
        job: what is made.
        shards: those to look for.
        settings: the recipe's masks.
    """
    made = {
        shard: {name: digest for name, digest, *_ in read_rows(job.whole(shard.number), job.key)}
        for shard in shards
    }
    made = {shard: rows for shard, rows in made.items() if rows.keys() >= set(shard.names)}
    photographs = [(name, rows[name]) for shard, rows in made.items() for name in shard.names]
    changed = set()
    with ThreadPoolExecutor(cores()) as pool:
        checked = pool.map(lambda row: is_good(job, *row, settings), photographs)
        checked = progress(checked, "checking existing rows", len(photographs))
        for (name, _), good in zip(photographs, checked, strict=True):
            if not good:
                changed.add(name)
    whole = [shard for shard in made if changed.isdisjoint(shard.names)]
    begun = [shard for shard in made if not changed.isdisjoint(shard.names)]
    scatter(job, [job.whole(shard.number) for shard in begun], begun)
    return whole


def map_of(folder: Path, name: str, settings: Data) -> Path:
    """Return where the label map of a photograph goes."""
    return folder / f"{settings.mask_names.replace('{name}', Path(name).stem)}.png"


def digest_of(photograph: bytes) -> str:
    """Recognise a photograph by its content: the rows of a copied folder are still valid."""
    return hashlib.blake2b(photograph, digest_size=12).hexdigest()


def is_good(job: Job, name: str, digest: str, settings: Data) -> bool:
    """Tell whether a row was made of the photograph now on disk, and its label map still exists."""
    if job.masks and not map_of(job.masks, name, settings).is_file():
        return False
    try:
        return digest_of(read_bytes(job.images / name)) == digest
    except CarvanaError:
        return False
