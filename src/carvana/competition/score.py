"""The competition's metric on two CSVs, computed from run lengths without decoding a pixel."""

import contextlib
import heapq
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from carvana.competition import rle
from carvana.competition.facts import HEIGHT, WIDTH, view_of
from carvana.competition.submission import EXCEL_CELL, check_header, chunks, parse_row, read_rows
from carvana.errors import CarvanaError

CUT_NOTE = f"the longest cells have {EXCEL_CELL:,} characters: did Excel cut them?"
LOOKED_AT = 50  # of the first masks, to tell a file whose masks all have one mistake


@dataclass
class Score:
    """Mean Dice over images, and of each part of the board where the truth names them."""

    mean: float
    count: int
    parts: dict[str, float] = field(default_factory=dict)  # "Public", "Private" -> mean
    worst: list[tuple[float, str]] = field(default_factory=list)  # (dice, image), worst first
    views: dict[str, float] = field(default_factory=dict)  # "01".."16" -> mean
    classes: dict[str, float] = field(default_factory=dict)  # of several classes, each one's
    iou: dict[str, float] = field(default_factory=dict)  # likewise
    mean_iou: float | None = None  # over those, the background among them, as in Pascal VOC
    absent: list[str] = field(default_factory=list)  # classes in no mask, true or predicted
    members: dict[str, float] = field(default_factory=dict)  # of several runs, each one's mean
    note: str = ""  # what looks like a mistake


def mean_by_view(scored: Iterable[tuple[float, str]]) -> dict[str, float]:
    """Average Dice over the photographs of each view; pairs of (dice, image).

    Empty where names have no views, as those of other data.
    """
    scored = list(scored)
    if not all(view_of(name).isdecimal() for _, name in scored):
        return {}
    views: dict[str, list[float]] = {}
    for value, name in scored:
        views.setdefault(view_of(name), []).append(value)
    return {view: float(np.mean(values)) for view, values in sorted(views.items())}


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Compute Dice = 2 |A and B| / (|A| + |B|) of two masks; both empty count 1.

    Source: the competition's evaluation page.

    Args:
        a, b: parsed runs (`rle.parse`), (count, 2) int64, starts ascending, not overlapping.

    Returns:
        A number in [0, 1], exactly what the decoded masks would give.
    """
    total = a[:, 1].sum() + b[:, 1].sum()
    if total == 0:
        return 1.0
    if not (a.size and b.size):
        return 0.0
    # How many pixels of b lie before pixel x is piecewise linear in x, with knots at its runs'
    # ends; whole numbers this small are exact in float64.
    knots = np.stack((b[:, 0], b[:, 0] + b[:, 1]), axis=1).ravel()
    after = np.cumsum(b[:, 1])
    before = np.stack((after - b[:, 1], after), axis=1).ravel()
    ends = np.interp(a[:, 0] + a[:, 1], knots, before)
    starts = np.interp(a[:, 0], knots, before)
    return float(2.0 * (ends - starts).sum() / total)


def score(submission: Path, truth: Path, worst: int = 10) -> Score:
    """Score a submission against the true masks.

    Memory does not grow with the masks: the truth stays on disk and its rows are looked up.

    Args:
        submission: `img,rle_mask`, plain, gzipped or zipped, rows in any order.
        truth: `img,rle_mask[,Usage]`, likewise; Usage is Public, Private or Ignored (not scored).
        worst: how many of the worst images to return.

    Raises:
        CarvanaError: a file cannot be read, an image is missing, duplicated or unknown, or a row
            does not hold run lengths; the image is named.
    """
    seen: set[str] = set()
    sums: dict[str, list] = {}
    scored: list[tuple[float, str]] = []
    mistakes: list[str] = []
    longest = 0  # cell
    with _copied(truth) as file:
        true_rows = _Truth(truth, file)
        rows = read_rows(submission)
        check_header(submission, next(rows, (0, []))[1])
        for line, cells in rows:
            name = cells[0]
            if len(cells) != 2 or name in seen or name not in true_rows.offsets:
                what = "there twice" if name in seen else "not in the truth"
                what = "in a row without exactly two cells" if len(cells) != 2 else what
                raise CarvanaError(
                    f"{submission}: line {line}: {name[:60]} is {what}; see `carvana validate`"
                )
            seen.add(name)
            runs, usage = true_rows.row(name)
            if usage == "Ignored":
                continue
            longest = max(longest, len(cells[1]))
            masks = _parse(cells[1], submission, name), _parse(runs, truth, name)
            value = dice(*masks)
            sums.setdefault(usage, []).append(value)
            scored.append((value, name))
            if len(scored) <= LOOKED_AT:
                mistakes.append(_mistake(*masks, value))
        missing = true_rows.offsets.keys() - seen
    if missing:
        raise CarvanaError(
            f"{submission}: {len(missing)} of {truth}'s images are missing (first: {min(missing)})"
        )
    values = [value for part in sums.values() for value in part]
    if not values:
        raise CarvanaError(f"{truth}: no image to score")
    return Score(
        mean=float(np.mean(values)),
        count=len(values),
        parts={usage: float(np.mean(part)) for usage, part in sums.items() if usage},
        worst=heapq.nsmallest(worst, scored),
        views=mean_by_view(scored),
        note=CUT_NOTE if longest == EXCEL_CELL else _mistake_note(mistakes),
    )


# How a mask may have been written by mistake, and what to say where nearly all would fit better so.
MISTAKES = {
    "shift +1": "when shifted by +1 pixel: are its runs numbered from 0 instead of 1?",
    "shift -1": "when shifted by -1 pixel: check it",
    "inverted": "when inverted: are its runs those of the background?",
    "columns": "with pixels numbered down the columns: encode masks row by row instead",
}


def _mistake(mask: np.ndarray, truth: np.ndarray, value: float) -> str:
    """Return which of MISTAKES would explain a mask best, "" where none fits better.

    `mask` and `truth` are parsed runs, `value` is their Dice.
    """
    if not mask.size:
        return ""
    fits = {"": value}
    for mistake, shift in (("shift +1", (1, 0)), ("shift -1", (-1, 0))):
        fits[mistake] = dice(mask + shift, truth)
    if value < 0.9:  # a mask that fits better has neither of these
        runs = " ".join(map(str, mask.ravel()))
        inverted = ~rle.decode(runs, HEIGHT, WIDTH)
        turned = rle.decode(runs, WIDTH, HEIGHT).T
        for mistake, other in (("inverted", inverted), ("columns", turned)):
            fit = dice(rle.parse(rle.encode(other)), truth)
            if fit > 0.6:
                fits[mistake] = fit
    return max(fits, key=fits.get)


def _mistake_note(mistakes: list[str]) -> str:
    """Say so if nearly all masks would fit better, the same way."""
    for mistake, text in MISTAKES.items():
        if len(mistakes) >= 2 and mistakes.count(mistake) >= 0.95 * len(mistakes):
            return f"nearly every mask fits the truth better {text}"
    return ""


def _parse(runs: str, path: Path, name: str) -> np.ndarray:
    """Parse runs and check that `dice` can count them."""
    try:
        pairs = rle.parse(runs)
    except ValueError as error:
        if len(runs) == EXCEL_CELL:
            error = f"{error} in {EXCEL_CELL:,} characters: did Excel cut it?"
        raise CarvanaError(f"{path}: {name}: {error}; see `carvana validate`") from None
    if (pairs[1:, 0] < pairs[:-1].sum(axis=1)).any():
        raise CarvanaError(f"{path}: {name}: runs overlap or do not ascend; see `carvana validate`")
    if pairs.size and (pairs[0, 0] < 1 or pairs[-1].sum() > HEIGHT * WIDTH + 1):
        raise CarvanaError(f"{path}: {name}: a run is out of bounds; see `carvana validate`")
    return pairs


@contextlib.contextmanager
def _copied(path: Path) -> Iterator[TextIO]:
    """Yield an unpacked copy of a CSV on disk, at its beginning."""
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            file.writelines(chunks(path))
            file.seek(0)
            yield file
    except OSError as error:
        raise CarvanaError(
            f"{tempfile.gettempdir()}: has no room for a copy of {path} "
            f"({error.strerror or error}); free some space there, or set TMPDIR to another folder"
        ) from error


class _Truth:
    """Look up rows of a truth CSV by image; memory holds only where each row begins."""

    def __init__(self, path: Path, file: TextIO):
        self.path, self.file = path, file
        self.columns = parse_row(file.readline())
        check_header(path, self.columns, more=True)
        self.offsets: dict[str, int] = {}
        offset = file.tell()
        while line := file.readline():
            if line.strip():
                name = parse_row(line)[0]
                if name in self.offsets:
                    raise CarvanaError(f"{path}: {name[:60]} is there twice; fetch it again")
                self.offsets[name] = offset
            offset = file.tell()

    def row(self, name: str) -> tuple[str, str]:
        """Return an image's runs, and its part of the board."""
        self.file.seek(self.offsets[name])
        row = dict(zip(self.columns, parse_row(self.file.readline()), strict=False))
        if "rle_mask" not in row:
            raise CarvanaError(f"{self.path}: {name} has no mask (cut short?); fetch it again")
        return row["rle_mask"], row.get("Usage", "")
