"""Make shards: photographs through the network in one stream, rows into their shards' files."""

import csv
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from carvana.competition import rle
from carvana.data.images import decode_photograph, read_bytes
from carvana.data.marks import png_mark
from carvana.data.masks import to_picture
from carvana.errors import CarvanaError
from carvana.files import cannot_write, replacing
from carvana.prediction.predict import Model, Prediction
from carvana.prediction.rows import Job, Shard, digest_of, is_good, map_of, read_rows
from carvana.recipe import Data, Input

FILLING = np.zeros((1, 1, 3), np.uint8)  # a picture that stands where there is no photograph
KEPT = "the rows made so far are kept"


def make_shards(
    model: Model, job: Job, shards: Iterable[Shard], faults: list[str], until: float = np.inf
) -> Iterator[str]:
    """Make shards, all in one stream through the network; go on with those that were begun.

    Batches are always full, as a network may round differently in batches of another size. So a
    row is the same in whichever shard, process or second attempt it is made.

    Args:
        model: the model.
        job: what to make.
        shards: which.
        faults: gets a line for each photograph that cannot be read. Its shard is not whole; all
            other photographs are made.
        until: when to stop, by `time.monotonic`; shards are then left begun.

    Yields:
        The photographs that are made, those that were made before among them.

    Raises:
        CarvanaError: the folder cannot be written. Rows already made are kept.
    """
    ready: deque[str] = deque()  # made before
    unread: dict[Path, str] = {}
    digests: dict[Path, str] = {}  # of photographs on their way through the network
    where: dict[str, Begun] = {}  # the same photographs' shards
    finish = partial(_finish, model, job)

    def photographs() -> Iterator[Path | np.ndarray]:
        given = 0
        for shard in shards:
            if time.monotonic() > until:
                break
            begun = Begun(job, shard, model.recipe.data)
            ready.extend(begun.made)
            where.update(dict.fromkeys(begun.todo, begun))
            for name in begun.todo:
                if time.monotonic() > until:
                    break
                given += 1
                yield job.images / name
        yield from [FILLING] * (-given % model.recipe.prediction.batch_size)

    def read(path: Path, settings: Input) -> tuple[np.ndarray, tuple[int, int]]:
        try:
            data = read_bytes(path)
            digests[path] = digest_of(data)
            return decode_photograph(data, path, settings)
        except CarvanaError as error:  # black in its place: the others go on
            digests.pop(path, None)
            unread[path] = str(error)
            return FILLING, (1, 1)

    def row(photograph: Path | np.ndarray, found: Prediction) -> tuple | None:
        if isinstance(photograph, np.ndarray):
            return None
        if photograph in unread:
            return photograph.name, None
        cells = finish(photograph, found)
        return photograph.name, (photograph.name, digests.pop(photograph), *cells)

    try:
        for made in model.map(photographs(), row, job.workers, read):
            if made:
                name, cells = made
                begun = where.pop(name)
                begun.add(cells)
                if cells:
                    ready.append(name)
                else:
                    fault = unread.pop(job.images / name)
                    faults.append(f"{fault} (shard {begun.shard.number})")
            while ready:
                yield ready.popleft()
        yield from ready
    except OSError as error:
        raise cannot_write(job.folder, error, kept=KEPT) from error
    finally:
        for begun in set(where.values()):
            begun.file.close()


class Begun:
    """A shard that is being made: its rows are those made before, then those added."""

    def __init__(self, job: Job, shard: Shard, settings: Data):
        self.job, self.shard = job, shard
        self._before = job.begun(shard.number)
        rows = {
            row[0]: row
            for file in self._before
            for row in read_rows(file, job.key)
            if row[0] in shard.names and is_good(job, row[0], row[1], settings)
        }
        self.made = list(rows)
        self.todo = [name for name in shard.names if name not in rows]
        self._missing = self._left = len(self.todo)
        self._path = job.begin(shard.number)
        self.file = self._path.open("x", encoding="utf-8", newline="")
        self.file.write(f"{job.key}\n")
        self._writer = csv.writer(self.file, lineterminator="\n")
        self._writer.writerows(rows.values())
        self.file.flush()
        self._end_if_whole()

    def add(self, cells: tuple | None) -> None:
        """Add a photograph's row; None if there can be none."""
        self._left -= 1
        if cells:
            self._missing -= 1
            self._writer.writerow(cells)
            self.file.flush()
        self._end_if_whole()

    def _end_if_whole(self) -> None:
        if self._left:
            return
        self.file.close()
        if self._missing:
            return
        try:
            os.replace(self._path, self.job.whole(self.shard.number))
        except FileNotFoundError:  # another process took the rows over
            if not self.job.whole(self.shard.number).exists():
                raise
        for file in self._before:
            file.unlink(missing_ok=True)


def _finish(model: Model, job: Job, path: Path, found: Prediction) -> tuple[float, str]:
    """Return a photograph's expected dice and its run lengths, or write its label map."""
    labels, expected = found.decide(job.threshold)
    expected = round(expected, 6)
    if job.masks is None:
        return expected, rle.encode(labels)
    picture = to_picture(labels, model.recipe.data)
    with replacing(map_of(job.masks, path.name, model.recipe.data)) as temporary:
        picture.save(temporary, "PNG", pnginfo=png_mark("label map"))
    return expected, ""
