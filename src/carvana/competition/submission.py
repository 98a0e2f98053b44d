"""Write, read and validate the submission: a CSV of `img,rle_mask`, plain, gzipped or zipped."""

import contextlib
import csv
import gzip
import io
import threading
import unicodedata
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from carvana.competition import rle
from carvana.competition.facts import HEIGHT, WIDTH
from carvana.errors import CarvanaError

HEADER = ["img", "rle_mask"]
EXCEL_CELL = 32_767  # characters, the most that Excel keeps of a cell
LONGEST_CELL = 2**31 - 1  # characters; a noisy mask has more than the csv module's 128 KiB
_BROKEN = (csv.Error, zlib.error, zipfile.BadZipFile)
_limit = threading.Lock()


@contextlib.contextmanager
def open_csv(path: Path, encoding: str = "utf-8-sig") -> Iterator[TextIO]:
    """Open a CSV as text: plain, `.gz`, or the only CSV in a `.zip`.

    The byte order mark that some programs put before it is left out, but with "utf-8".

    Raises:
        CarvanaError: absent, not of the type its name says, or cut short.
    """
    try:
        with contextlib.ExitStack() as stack:
            if path.suffix.lower() == ".gz":
                binary = stack.enter_context(gzip.open(path, "rb"))
            elif path.suffix.lower() == ".zip":
                archive = stack.enter_context(zipfile.ZipFile(path))
                members = [name for name in archive.namelist() if name.lower().endswith(".csv")]
                members = [name for name in members if not name.startswith("__MACOSX/")]
                if len(members) != 1:
                    raise CarvanaError(f"{path}: holds {len(members)} CSV files; zip one alone")
                binary = stack.enter_context(archive.open(members[0]))
            else:
                binary = stack.enter_context(path.open("rb"))
            yield io.TextIOWrapper(binary, encoding=encoding, newline="")
    except FileNotFoundError as error:
        raise CarvanaError(f"{path}: no such file") from error
    except (OSError, EOFError, UnicodeDecodeError, RuntimeError, *_BROKEN) as error:
        reason = getattr(error, "strerror", None) or error
        raise CarvanaError(
            f"{path}: cannot be read ({reason}); write it again (`carvana predict`) or fetch it "
            "again"
        ) from error


def read_rows(path: Path, encoding: str = "utf-8-sig") -> Iterator[tuple[int, list[str]]]:
    """Yield (line number from 1, cells) of a CSV's lines, the header included, blanks skipped."""
    with open_csv(path, encoding) as text:
        reader = csv.reader(text)
        while (cells := next_row(reader)) is not None:
            if cells:
                yield reader.line_num, cells


def chunks(path: Path) -> Iterator[str]:
    """Yield the text of a CSV piece by piece."""
    with open_csv(path) as text:
        while chunk := text.read(2**20):
            yield chunk


def next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """Return a CSV's next row, however long its cells; None at the end."""
    # The csv module has one limit for the whole process, which is as it was afterwards.
    with _limit:
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(before)


def parse_row(line: str) -> list[str]:
    """Return the cells of a CSV's line."""
    return next_row(csv.reader([line])) or []


def _by_semicolons(cells: list[str]) -> list[str]:
    """Split a row at semicolons, as spreadsheets write it in much of Europe."""
    row = ",".join(cells).removeprefix("\ufeff").replace('"', "")
    return row.removesuffix(";").split(";") if ";" in row else []


def check_header(path: Path, header: list[str], more: bool = False) -> None:
    """Refuse a first line but `img,rle_mask`; `more` allows other columns after these."""
    if _by_semicolons(header) == HEADER:
        raise CarvanaError(f"{path}: has semicolons between its cells; save it with commas")
    if header[: len(HEADER) if more else None] != HEADER:
        raise CarvanaError(f"{path}: does not begin with {','.join(HEADER)}")


@dataclass
class Validation:
    """What is wrong with a submission, kind by kind."""

    rows: int = 0
    empty: int = 0  # empty masks, which are allowed
    faults: Counter = field(default_factory=Counter)  # of each kind, how many
    first: dict[str, str] = field(default_factory=dict)  # of each kind, where and what

    def add(self, kind: str, line: int | None, what: str, count: int = 1) -> None:
        """Count a fault and keep the first of its kind; `line` is None where there is none."""
        self.faults[kind] += count
        self.first.setdefault(kind, f" at line {line}: {what}" if line else f": {what}")

    def lines(self) -> list[str]:
        """Return a line a kind: `3 x overlapping runs, first at line 17: car_01.jpg`."""
        return [f"{count} x {kind}, first{self.first[kind]}" for kind, count in self.faults.items()]


def validate(
    submission: Path, sample: Path, height: int = HEIGHT, width: int = WIDTH
) -> Validation:
    """Check a submission against the sample: its rows, and the run lengths in each.

    Args:
        submission, sample: CSVs, plain, gzipped or zipped.
        height, width: of the masks, in pixels.

    Raises:
        CarvanaError: a file cannot be read at all (absent, cut short, not text).
    """
    rows = read_rows(sample)
    if next(rows, (0, []))[1][:1] != HEADER[:1]:
        raise CarvanaError(f"{sample}: is not a sample submission (img,rle_mask); fetch it again")
    expected = {cells[0] for _, cells in rows}
    result = Validation()
    seen = {}  # name -> line
    rows = read_rows(submission, "utf-8")
    line, header = next(rows, (1, []))
    if _by_semicolons(header) == HEADER:
        result.add("semicolons between the cells instead of commas", line, header[0][:60])
        rows = ((number, _by_semicolons(cells)) for number, cells in rows)
    elif header != HEADER:
        result.add("wrong header", line, f"{','.join(header)[:60]!r}, not {','.join(HEADER)!r}")
    other_forms = {unicodedata.normalize("NFC", name): name for name in expected}
    longest, cut = 0, []
    for line, cells in rows:
        result.rows += 1
        name = cells[0]
        shown = name[:60]
        if len(cells) != 2:
            result.add("row without exactly two cells", line, f"{shown} ({len(cells)})")
        if name in seen:
            result.add("duplicate row", line, f"{shown}, as in line {seen[name]}")
        elif name not in expected:
            kind, same = "unknown image", other_forms.get(unicodedata.normalize("NFC", name))
            if same:
                kind, name = "name in another Unicode form than the sample's (NFC, NFD)", same
            result.add(kind, line, shown)
        seen.setdefault(name, line)
        if len(cells) == 2:
            result.empty += not cells[1].strip()
            longest = max(longest, len(cells[1]))
            if len(cells[1]) == EXCEL_CELL:
                cut.append((line, shown))
            for kind in run_faults(cells[1], height * width):
                result.add(kind, line, shown)
    if cut and longest == EXCEL_CELL:  # no cell is longer: a program has cut them
        kind = f"cell cut at {EXCEL_CELL:,} characters, as Excel does"
        result.add(kind, *cut[0], len(cut))
    missing = sorted(expected - seen.keys())
    if missing:
        result.add("missing image", None, missing[0], len(missing))
    last = deque(chunks(submission), maxlen=1)
    if last and last[0][-1] not in "\r\n":
        result.add("last row without an end of line (cut short?)", line, shown if seen else "")
    return result


def run_faults(runs: str, pixels: int) -> list[str]:
    """Name the kinds of fault in a run-length string, none for a good one."""
    try:
        pairs = rle.parse(runs)
    except ValueError as error:
        return [str(error).split(" (")[0]]
    starts, lengths = pairs[:, 0], pairs[:, 1]
    ends = starts + lengths  # first pixel past each run
    later, earlier_end = starts[1:], ends[:-1]
    ascending = later > starts[:-1]
    checks = {
        "zero length": (lengths == 0).any(),
        "start below 1 (pixels are numbered from 1, not 0)": (starts < 1).any(),
        "out of bounds": (ends > pixels + 1).any(),
        "starts not ascending": (~ascending).any(),
        "overlapping runs": (ascending & (later < earlier_end)).any(),
    }
    return [kind for kind, is_so in checks.items() if is_so]
