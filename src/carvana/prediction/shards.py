"""Predict a folder of photographs, whole or by parts, into a submission or into label maps."""

import contextlib
import csv
import glob
import io
import math
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from carvana.competition.submission import HEADER
from carvana.data.folders import list_images
from carvana.data.marks import is_ours
from carvana.errors import CarvanaError, UsageError, list_faults
from carvana.files import alone, beside, cannot_write, real_path, replacing
from carvana.prediction.certainty import review_of, write_review
from carvana.prediction.predict import Model
from carvana.prediction.rows import (
    MANIFEST,
    Job,
    Manifest,
    Shard,
    map_of,
    open_folder,
    read_rows,
    shard_size,
    whole_shards,
)
from carvana.prediction.stream import KEPT, make_shards
from carvana.progress import progress
from carvana.run import Run

# (job, shards, faults, until) -> the photographs as they are made; see `stream.make_shards`.
Make = Callable[[Job, list[Shard], list[str], float], Iterator[str]]
Part = tuple[int, int]  # 3 of 16


def write_submission(
    model: Model,
    images: Path,
    out: Path,
    threshold: float | None = None,
    workers: int | None = None,
    part: Part | None = None,
    minutes: float = math.inf,
    make: Make | None = None,
) -> None:
    """Predict a folder of photographs into a submission, or resume where a kill stopped it.

    Rows are kept in `<out>.shards/` as they are made; the finished file is renamed into place.
    Beside it, `<out>.review.csv` names the photographs by how sure their masks are, the least sure
    first.

    Args:
        model: the model, of two colours; or, with `make`, what has its `run`.
        images: the folder; every photograph in it gets a row.
        out: `….csv.gz` or `….csv`.
        threshold: of the probability, the recipe's when None.
        workers: as in `Model.predict`; they change no row.
        part: which part of the shards to make, (3, 16) for the third of sixteen; the submission
            is not written then, see `merge`.
        minutes: to stop after.
        make: what makes the shards; this process when None.

    Raises:
        UsageError: `out` has another ending, or the model has several classes.
        CarvanaError: the folder is empty, a photograph cannot be read, another prediction
            writes the same file, the disk is full, or the time is up. Rows already made are kept.
    """
    _check_csv(out)
    if classes := model.run.recipe.data.classes:
        raise UsageError(
            f"{out}: a submission holds one mask a photograph, this model has "
            f"{len(classes)} classes; write label maps with --masks"
        )
    job = _job(model.run, shards_of(out), images, threshold, workers)
    with _made(model, job, list_images(images), out, part, minutes, make) as rows:
        if rows:
            expected = _write_csv(out, rows)
            write_review(review_of(out), expected, model.run.usual)


def write_masks(
    model: Model,
    images: Path,
    out: Path,
    threshold: float | None = None,
    workers: int | None = None,
    part: Part | None = None,
    minutes: float = math.inf,
    make: Make | None = None,
) -> None:
    """Predict a folder of photographs into a folder of PNG label maps, or resume.

    A map is a palette picture: the index of a pixel is its class as the recipe's masks number it
    (0 background, 1 car without classes), and its colour the class's. It is named after the
    photograph as the recipe's masks are. `<out>.review.csv` is written as by `write_submission`.

    Args:
        model, images, threshold, workers, part, minutes, make: as of `write_submission`; the
            threshold is for where there are no classes.
        out: the folder for the maps; earlier maps of the same names in it are replaced.

    Raises:
        UsageError: `out` is not a folder, or a picture that is not ours would be replaced.
        CarvanaError: as `write_submission`. Maps already made are kept.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is not a folder; choose another --masks")
    settings = model.run.recipe.data
    if threshold is not None and settings.classes:
        raise UsageError("--threshold goes with masks of two colours, this model has classes")
    names, targets = list_images(images), {}
    for name in names:
        path = map_of(out, name, settings)
        if (other := targets.setdefault(path, name)) != name:
            raise UsageError(f"{other} and {name} would both write {path}; rename one")
        if path.exists() and not is_ours(path, "label map"):
            raise UsageError(
                f"{path}: would be replaced, and is not a label map of ours; choose another --masks"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    job = _job(model.run, beside(out / "masks", "shards"), images, threshold, workers, out)
    with _made(model, job, names, out, part, minutes, make, locked=out / "masks") as rows:
        if rows:
            expected = [(name, value) for name, value, _ in rows]
            write_review(review_of(out), expected, model.run.usual)


def merge(out: Path, parts: Sequence[Path]) -> int:
    """Put shards that were made apart together into a submission; return its rows' number.

    Args:
        out: the submission, as of `write_submission`.
        parts: folders of shards, `….shards`. They are only read.

    Raises:
        UsageError: `out` has another ending; a folder holds no shards, or those of another model,
            threshold or set of photographs than the first one's.
        CarvanaError: no folder has a photograph's row; or the file cannot be written.
    """
    _check_csv(out)
    manifests = {}
    for folder in parts:
        manifests[folder] = manifest = Manifest.read(folder)
        if manifest is None:
            raise UsageError(
                f"{folder}: holds no {MANIFEST}, so it is not a folder of shards; name the "
                "….csv.gz.shards folders that `carvana predict --part` made"
            )
        first = manifests[parts[0]]
        if manifest != first:
            what = "photographs" if manifest.key == first.key else "model, recipe or threshold"
            raise UsageError(
                f"{folder}: its shards are of another {what} than those of {parts[0]}; merge "
                "parts of one prediction"
            )
    folders = [Job(first.key, folder, Path()) for folder in parts]
    with alone(out, "prediction"):
        expected = _write_csv(out, _merged(folders, first.shards()))
        write_review(review_of(out), expected, first.usual)
    return len(expected)


def shards_of(out: Path) -> Path:
    """Return the folder of a submission's shards."""
    return out.with_name(f"{out.name}.shards")


def _check_csv(out: Path) -> None:
    if not out.name.endswith((".csv", ".csv.gz")) or out.is_dir():
        raise UsageError(f"{out}: a submission is a file whose name ends in .csv or .csv.gz")


def _job(
    run: Run,
    folder: Path,
    images: Path,
    threshold: float | None,
    workers: int | None,
    masks: Path | None = None,
) -> Job:
    wanted = run.recipe.prediction.threshold if threshold is None else threshold
    key = f"{run.fingerprint()} {wanted} {run.precision} 4"
    places = (path.absolute() if path else None for path in (folder, images, masks))
    return Job(key, *places, threshold, workers)


@contextlib.contextmanager
def _made(
    model: Model,
    job: Job,
    names: list[str],
    out: Path,
    part: Part | None,
    minutes: float,
    make: Make | None,
    locked: Path | None = None,
) -> Iterator[Iterator[tuple[str, float, str]] | None]:
    """Make the shards that are not whole; yield image, expected dice and row of all in order.

    Yield None where a part alone is made. The shards are deleted after the block.
    """
    until = time.monotonic() + 60 * minutes
    recipe = model.run.recipe
    size = shard_size(len(names), recipe.prediction.batch_size)
    manifest = Manifest(job.key, model.run.usual, size, names)
    try:
        with _alone(locked or out, part):
            open_folder(job, manifest, shared=part is not None)
            shards = manifest.shards()
            mine = shards[part[0] - 1 :: part[1]] if part else shards
            total = sum(len(shard.names) for shard in mine)
            whole = set(whole_shards(job, mine, recipe.data))
            todo = [shard for shard in mine if shard not in whole]
            done = sum(len(shard.names) for shard in whole)
            begun = {
                row[0] for s in todo for f in job.begun(s.number) for row in read_rows(f, job.key)
            }
            if done or begun:
                print(f"{out}: resuming after {done + len(begun)} of {total} images")
            faults: list[str] = []
            made = (make or partial(make_shards, model))(job, todo, faults, until)
            done += sum(1 for _ in progress(made, "predicting", total, done))
            if faults:
                raise CarvanaError(_explain(out, faults, done))
            if done < total:
                raise CarvanaError(
                    f"{out}: stopped after {minutes:g} minutes with {done:,} of {total:,} images; "
                    "run the same command to resume"
                )
            if part:
                print(f"{out}: part {part[0]} of {part[1]} is made, {len(mine)} shards")
                yield None
            else:
                yield _merged([job], shards)
                shutil.rmtree(job.folder)
    except OSError as error:
        raise cannot_write(out, error, kept=KEPT) from error


@contextlib.contextmanager
def _alone(out: Path, part: Part | None) -> Iterator[None]:
    """Keep others from making the same: the whole against all, a part against itself."""
    real = real_path(out)
    whole = beside(real, "lock")
    if part:
        lock = beside(real, f"part-{part[0]}-of-{part[1]}.lock")
        with alone(out, f"prediction of part {part[0]} of {part[1]}", lock):
            _check_free(out, [whole])
            yield
    else:
        with alone(out, "prediction"):
            _check_free(out, real.parent.glob(f".{glob.escape(real.name)}.part-*.lock"))
            yield


def _check_free(out: Path, locks: Iterable[Path]) -> None:
    for lock in locks:
        with alone(out, "prediction", lock):
            pass


def _explain(out: Path, faults: list[str], done: int) -> str:
    kept = f"the rows of the other {done:,} images are kept"
    if len(faults) == 1:
        return f"{faults[0]}: {kept}"
    return list_faults(f"{out}: {len(faults)} of its photographs cannot be made; {kept}:", faults)


def _merged(jobs: Sequence[Job], shards: Iterable[Shard]) -> Iterator[tuple[str, float, str]]:
    """Yield image, expected dice and row of shards in order, each from where it is whole.

    Raises:
        CarvanaError: a photograph has no row, or rows of two different photographs.
    """
    for shard in shards:
        rows: dict[str, list[str]] = {}
        for job in jobs:
            for name, *row in read_rows(job.whole(shard.number), job.key):
                if rows.setdefault(name, row)[0] != row[0]:
                    raise CarvanaError(
                        f"{job.folder}: its {name} is another photograph than the other parts'; "
                        "make the part again of the same photographs"
                    )
        for name in shard.names:
            if name not in rows:
                raise CarvanaError(
                    f"{name}: has no mask yet, as shard {shard.number} is not made; run the "
                    "`carvana predict` that makes it again"
                )
            _, expected, row = rows[name]
            yield name, float(expected), row


def _write_csv(out: Path, rows: Iterable[tuple[str, float, str]]) -> list[tuple[str, float]]:
    """Write a submission; return each image's expected dice.

    The same rows make the same file: zlib puts no date and no name into gzip's header.
    """
    expected = []
    # Gzip's format, at level 4: 3% larger, 6 times faster.
    packer = zlib.compressobj(4, wbits=31) if out.suffix == ".gz" else None
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")

    def encode(cells: Sequence[str]) -> bytes:
        line.seek(0)
        line.truncate()
        writer.writerow(cells)
        data = line.getvalue().encode()
        return packer.compress(data) if packer else data

    with replacing(out) as temporary, temporary.open("wb") as file:
        file.write(encode(HEADER))
        for name, value, runs in rows:
            expected.append((name, value))
            file.write(encode((name, runs)))
        if packer:
            file.write(packer.flush())
    return expected
