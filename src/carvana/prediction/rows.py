"""The rows of a prediction on disk while it is made, whichever processes make them.

Each process appends to a file of its own, whose first line says what its rows are made by: model,
recipe and threshold. The state is the union of the files. Nothing is moved or renamed; a last line
that was cut short is ignored, and two processes may make the same row. A row belongs to a
photograph by its name and its size in bytes.
"""

import contextlib
import itertools
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from carvana.competition import rle
from carvana.competition.submission import parse_row
from carvana.data.masks import to_picture
from carvana.data.provenance import png_mark
from carvana.errors import CarvanaError, UsageError, list_faults
from carvana.files import alone, cannot_write, replacing, to_line, write_text
from carvana.prediction.model import Model, Prediction
from carvana.progress import progress
from carvana.recipe import Data
from carvana.runs.trained import RunInfo

ABOUT = "photographs.json"  # in the folder of rows: which photographs get one
LABEL_MAPS = "label maps"  # the end of the key of rows that hold no run lengths
OTHER_ROWS = "holds rows of another model, recipe, threshold or set of photographs"
MOST_OPEN = 32  # files at a time
_FIRST = "carvana rows "  # a file's first line begins so; its key follows

Part = tuple[int, int]  # 3 of 16


class Row(NamedTuple):
    """What is kept of a photograph's prediction."""

    name: str
    size: int  # of the photograph's file, bytes
    expected: float  # Dice
    runs: str  # run lengths; empty where a label map is written instead


@dataclass(frozen=True)
class Job:
    """What a process needs to make rows, besides the model and names."""

    key: str  # of the model, recipe and threshold
    folder: Path  # of the rows
    images: Path  # the folder of photographs
    threshold: float | None = None  # instead of the recipe's
    workers: int | None = None  # threads that read, see `Model.map`
    masks: Path | None = None  # the folder of label maps, where those are made

    @classmethod
    def of(
        cls, info: RunInfo, folder: Path, images: Path, threshold: float | None, **rest
    ) -> "Job":
        """Return the job of a model's rows, with its key and absolute paths."""
        wanted = info.recipe.prediction.threshold if threshold is None else threshold
        kind = LABEL_MAPS if rest.get("masks") else "rows"
        key = f"{info.fingerprint()} {wanted} {info.precision} 5 {kind}"
        return cls(key, folder.absolute(), images.absolute(), threshold, **rest)


# What makes rows of names until a time, by `time.monotonic`: `make_rows` of a model, or a cluster.
Make = Callable[[Job, Sequence[str], float], Iterator[str | CarvanaError]]


def make_rows(
    model: Model, job: Job, names: Iterable[str], until: float
) -> Iterator[str | CarvanaError]:
    """Predict photographs and append their rows to a new file of the job's folder.

    Yields:
        The name of each row that is made, or what is wrong with its photograph, until the time
        `until`.

    Raises:
        OSError: the folder cannot be written. Rows already made are kept.
    """
    in_time = itertools.takewhile(lambda _: time.monotonic() <= until, names)
    photographs = (job.images / name for name in in_time)

    def row(path: Path, found: Prediction) -> Row:
        labels, expected = found.decide(job.threshold)
        if job.masks:
            with replacing(map_of(job.masks, path.name, model.recipe.data)) as temporary:
                picture = to_picture(labels, model.recipe.data)
                picture.save(temporary, "PNG", pnginfo=png_mark("label map"))
        runs = "" if job.masks else rle.encode(labels)
        return Row(path.name, path.stat().st_size, round(expected, 6), runs)

    with (job.folder / f"{uuid.uuid4().hex[:12]}.csv").open("x", encoding="utf-8") as file:
        file.write(f"{_FIRST}{job.key}\n")
        file.flush()
        for made in model.map(photographs, row, job.workers, keep_going=True, full_batches=True):
            if isinstance(made, Row):
                file.write(to_line(made))
                file.flush()
            yield made.name if isinstance(made, Row) else made


def map_of(folder: Path, name: str, settings: Data) -> Path:
    """Return where the label map of a photograph goes."""
    mask_names = "{name}" if "/" in settings.mask_names else settings.mask_names
    return folder / f"{mask_names.replace('{name}', Path(name).stem)}.png"


@dataclass(frozen=True)
class About:
    """Which photographs get a row, and by what, in `photographs.json`."""

    key: str
    usual: float | None  # how sure the model's masks usually are
    sizes: dict[str, int]  # photographs in the sample's order -> bytes

    @classmethod
    def read(cls, folder: Path) -> "About | None":
        try:
            return cls(**json.loads((folder / ABOUT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, folder: Path, shared: bool) -> None:
        """Write it into the folder of rows; if that is shared, not in place of another's."""
        before = self.read(folder)
        if before == self:
            return
        if before and shared:
            raise UsageError(f"{folder}: {OTHER_ROWS}; choose another --out, or delete it")
        if before and before.key != self.key:
            print(f"{folder}: rows of another model, recipe or threshold; starting over")
        write_text(folder / ABOUT, json.dumps(vars(self)) + "\n")


class Rows:
    """The rows that folders hold of a prediction; memory holds only where each lies."""

    def __init__(self, folders: Iterable[Path], about: About):
        self._about = about
        self._places: dict[str, tuple[Path, int]] = {}  # name -> file, and where its line begins
        for folder in folders:
            for file in sorted(folder.glob("*.csv")):
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    self._index(file)

    def _index(self, file: Path) -> None:
        with file.open("rb") as lines:
            if next(lines, b"") != f"{_FIRST}{self._about.key}\n".encode():
                return
            place = lines.tell()
            for line in iter(lines.readline, b""):
                if line.endswith(b"\n"):
                    with contextlib.suppress(ValueError):  # a damaged line is made again
                        name, size = _name_and_size(line)
                        if self._about.sizes.get(name) == size:
                            self._places[name] = (file, place)
                place += len(line)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[Row]:
        """Yield all rows in the sample's order; raise CarvanaError if a photograph has none."""
        with contextlib.ExitStack() as stack:
            opened = {}
            for name in self._about.sizes:
                if name not in self:
                    raise CarvanaError(
                        f"{name}: has no mask yet; run the `carvana predict` that makes it again"
                    )
                path, place = self._places[name]
                if path not in opened:
                    if len(opened) == MOST_OPEN:
                        stack.close()
                        opened.clear()
                    opened[path] = stack.enter_context(path.open("rb"))
                opened[path].seek(place)
                _, size, expected, runs = parse_row(opened[path].readline().decode("utf-8"))
                yield Row(name, int(size), float(expected), runs)


def _name_and_size(line: bytes) -> tuple[str, int]:
    if line.startswith(b'"'):  # the name has a comma or a quotation mark
        name, size, expected, _ = parse_row(line.decode("utf-8"))
    else:
        name, size, expected, _ = line.decode("utf-8").split(",", 3)
    float(expected)
    return name, int(size)


@contextlib.contextmanager
def completed(
    model: Model | RunInfo,
    job: Job,
    names: Sequence[str],
    out: Path,
    make: Make | None,
    part: Part | None,
    minutes: float,
) -> Iterator[Rows | None]:
    """Make the rows that are not there; yield all of them, which are deleted after the block.

    Args:
        model, make, part, minutes: as of `write_submission`; of a part None is yielded.
        job: where the rows are made.
        names: of the photographs, in the sample's order.
        out: what is made of them, for messages and against others that make the same.

    Raises:
        UsageError: the folder is shared by parts, and holds another prediction's rows.
        CarvanaError: as `write_submission`.
    """
    until = time.monotonic() + 60 * minutes
    info = info_of(model)
    mine = names[part[0] - 1 :: part[1]] if part else names
    try:
        with contextlib.nullcontext() if part else alone(out, "prediction"):
            sizes = {name: _size_of(job.images / name) for name in names}
            about = About(job.key, info.usual, sizes)
            job.folder.mkdir(parents=True, exist_ok=True)
            about.write(job.folder, shared=part is not None)
            rows = Rows([job.folder], about)
            todo = [name for name in mine if not _is_made(name, rows, job, info.recipe.data)]
            done = len(mine) - len(todo)
            if done:
                print(f"{out}: resuming after {done} of {len(mine)} images")
            if todo:
                made = (make or partial(make_rows, model))(job, todo, until)
                _count(progress(made, "predicting", len(mine), done), done, len(mine), out, minutes)
            if part:
                print(f"{out}: part {part[0]} of {part[1]} is made, {len(mine)} photographs")
                yield None
            else:
                yield Rows([job.folder], about)
                _clear(job.folder)
    except OSError as error:
        raise cannot_write(out, error, kept="the rows made so far are kept") from error


def info_of(model: Model | RunInfo) -> RunInfo:
    """Return what is known of a model without its networks."""
    return model.run if isinstance(model, Model) else model


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone, or a broken link: reading it will say so
        return -1


def _is_made(name: str, rows: Rows, job: Job, settings: Data) -> bool:
    """Tell whether a photograph has a row and, where those are made, its label map."""
    return name in rows and (not job.masks or map_of(job.masks, name, settings).is_file())


def _count(
    made: Iterable[str | CarvanaError], done: int, total: int, out: Path, minutes: float
) -> None:
    """Make rows until there are `total`; raise what is wrong with photographs."""
    faults = []
    for each in made:
        if isinstance(each, CarvanaError):
            faults.append(str(each))
        else:
            done += 1
    if len(faults) == 1:
        raise CarvanaError(f"{faults[0]}: the rows of the other {done:,} images are kept")
    if faults:
        summary = f"{out}: {len(faults)} of its photographs cannot be made; the rows of the other "
        raise CarvanaError(list_faults(f"{summary}{done:,} images are kept:", faults))
    if done < total:
        raise CarvanaError(
            f"{out}: stopped after {minutes:g} minutes with {done:,} of {total:,} images; run the "
            "same command to resume"
        )


def _clear(folder: Path) -> None:
    """Delete the rows in a folder, and the folder if nothing else is in it."""
    for file in folder.glob("*.csv"):
        if re.fullmatch(r"[\da-f]{12}\.csv", file.name):
            with file.open("rb") as lines:
                ours = _FIRST.encode().startswith(lines.read(len(_FIRST)))  # may be cut short
            if ours:
                file.unlink()
    (folder / ABOUT).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
