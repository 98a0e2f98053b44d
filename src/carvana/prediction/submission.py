"""Predict a folder of photographs into a submission; merge separately predicted parts."""

import math
import zlib
from collections.abc import Sequence
from pathlib import Path

from carvana.competition.submission import HEADER
from carvana.data.folders import list_images
from carvana.errors import UsageError
from carvana.files import alone, replacing
from carvana.prediction.certainty import review_of, write_review
from carvana.prediction.model import Model
from carvana.prediction.rows import (
    ABOUT,
    LABEL_MAPS,
    OTHER_ROWS,
    About,
    Job,
    Make,
    Part,
    Rows,
    completed,
    info_of,
    to_line,
)
from carvana.runs.trained import RunInfo


def write_submission(
    model: Model | RunInfo,
    images: Path,
    out: Path,
    threshold: float | None = None,
    workers: int | None = None,
    part: Part | None = None,
    minutes: float = math.inf,
    make: Make | None = None,
) -> None:
    """Predict a folder of photographs into a submission, or resume where a kill stopped it.

    Rows are kept in `<out>.rows/` as they are made; the finished file is renamed into place.
    `<out>.review.csv` ranks the photographs by how sure their masks are, the least sure first.

    Args:
        model: the model, of two colours; with `make`, its info is enough.
        images: the folder; every photograph in it gets a row.
        out: `….csv.gz` or `….csv`.
        threshold: of the probability, the recipe's when None.
        workers: as in `Model.map`; they change no row.
        part: (3, 16) makes the rows of the third of sixteen shares of the photographs; the
            submission is not written then, see `merge`.
        minutes: to stop after.
        make: what makes the rows; this process when None.

    Raises:
        UsageError: `out` has another ending, or the model has several classes.
        CarvanaError: the folder is empty, a photograph cannot be read, another prediction
            writes the same file, the disk is full, or the time is up. Rows already made are kept.
    """
    _check_csv(out)
    info = info_of(model)
    if classes := info.recipe.data.classes:
        raise UsageError(
            f"{out}: a submission holds one mask a photograph, this model has {len(classes)} "
            "classes; write label maps with --masks"
        )
    job = Job.of(info, rows_of(out), images, threshold, workers=workers)
    with completed(model, job, list_images(images), out, make, part, minutes) as rows:
        if rows:
            _write_csv(out, rows, info.usual)


def merge(out: Path, parts: Sequence[Path]) -> int:
    """Merge separately made rows into a submission; return their number.

    Args:
        out: the submission, as of `write_submission`.
        parts: folders of rows, `….rows`. They are only read.

    Raises:
        UsageError: `out` has another ending; a folder holds no rows, or those of another model,
            threshold or set of photographs than the first one's.
        CarvanaError: no folder has a photograph's row; or the file cannot be written.
    """
    _check_csv(out)
    first = None
    for folder in parts:
        about = About.read(folder)
        if about is None:
            raise UsageError(
                f"{folder}: holds no {ABOUT}, so it is not a folder of rows; name the "
                "….csv.gz.rows folders that `carvana predict --part` made"
            )
        first = first or about
        if about.key.endswith(LABEL_MAPS):
            raise UsageError(
                f"{folder}: holds no run lengths, but the rows of label maps, which are written "
                "already; merge what `carvana predict --out` made"
            )
        if about != first:
            raise UsageError(
                f"{folder}: {OTHER_ROWS} than {parts[0]}; merge parts of one prediction"
            )
    with alone(out, "prediction"):
        _write_csv(out, Rows(parts, first), first.usual)
    return len(first.sizes)


def rows_of(out: Path) -> Path:
    """Return the folder of a submission's rows."""
    return out.with_name(f"{out.name}.rows")


def _check_csv(out: Path) -> None:
    if not out.name.endswith((".csv", ".csv.gz")) or out.is_dir():
        raise UsageError(f"{out}: a submission is a file whose name ends in .csv or .csv.gz")


def _write_csv(out: Path, rows: Rows, usual: float | None) -> None:
    """Write a submission and its review.

    The same rows make the same file: zlib puts no date and no name into gzip's header.
    """
    expected = []
    # Gzip's format, at level 4: 3% larger, 6 times faster.
    packer = zlib.compressobj(4, wbits=31) if out.suffix == ".gz" else None

    def encode(cells: Sequence[str]) -> bytes:
        data = to_line(cells).encode()
        return packer.compress(data) if packer else data

    with replacing(out) as temporary, temporary.open("wb") as file:
        file.write(encode(HEADER))
        for row in rows:
            expected.append((row.name, row.expected))
            file.write(encode((row.name, row.runs)))
        if packer:
            file.write(packer.flush())
    write_review(review_of(out), expected, usual)
