"""Download the competition's files: fetch, check, unpack; resume after any stop."""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from tqdm import tqdm

from carvana.competition.facts import SLUG, Paths
from carvana.errors import CarvanaError, UsageError
from carvana.files import alone
from carvana.kaggle import archives
from carvana.kaggle.archives import BrokenArchive, disk_error, size_text
from carvana.kaggle.client import PAGE, connect, patiently, say
from carvana.progress import LINE_SECONDS

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

FILES = {  # what each --only needs
    "sample": ("sample_submission.csv.zip",),
    "test": ("test.zip", "sample_submission.csv.zip"),
    "train": ("train.zip", "train_masks.zip", "train_masks.csv.zip", "sample_submission.csv.zip"),
}
FILES["all"] = tuple(dict.fromkeys(FILES["train"] + FILES["test"]))

STALL_SECONDS = 60  # without a byte, after which a transfer counts as dropped
CHUNK = 2**16  # bytes; what a kill loses at most


def download(paths: Paths, only: str = "train", source: Path | None = None) -> list[Path]:
    """Put the competition's files in place: fetch, check and unpack what is not there yet.

    Archives are fetched to `NAME.zip.part`, checked, renamed to `NAME.zip`, unpacked to a
    temporary folder and renamed into place. Whatever stops this, the next call resumes, and no
    partial result is ever in place. The archives stay; you may delete them.

    Args:
        paths: the data folder.
        only: "train", "test", "all", or "sample" for the sample submission alone.
        source: a folder with the competition's archives, or with their contents, to use instead
            of Kaggle.

    Returns:
        The folders and files put in place; empty if all were there.

    Raises:
        UsageError: `only` or `source` is wrong.
        CarvanaError: the download failed; the message says what to do.
    """
    if only not in FILES:
        raise UsageError(f"--only {only}: is none of {', '.join(FILES)}")
    if source is not None and not source.is_dir():
        raise UsageError(f"--from {source}: no such folder")
    if source is not None and paths.root.absolute().is_relative_to(source.absolute()):
        raise UsageError(f"--from {source}: holds the data folder {paths.root}; give another")
    if not _missing(paths, only):
        say(f"{paths.root}: everything is in place ({only}); nothing to fetch")
        return []
    try:
        with alone(paths.root, "download", paths.root / ".download.lock"):
            missing = _missing(paths, only)
            if source is None:
                _fetch_all(missing, paths.root)
            else:
                _take_all(missing, source, paths.root)
    except OSError as error:
        raise disk_error(paths.root, error) from error
    return [_target(name, paths.root) for name in missing]


def _missing(paths: Paths, only: str) -> list[str]:
    return [name for name in FILES[only] if not _is_there(_target(name, paths.root))]


def _target(name: str, root: Path) -> Path:
    """Return where what an archive holds belongs: `data/train` for `train.zip`."""
    return root / name.removesuffix(".zip")


def _is_there(target: Path) -> bool:
    if target.suffix:
        return target.is_file()
    return target.is_dir() and any(file.suffix in (".jpg", ".gif") for file in target.iterdir())


def _take_all(names: list[str], source: Path, root: Path) -> None:
    """Unpack archives that lie in a folder, or copy what was unpacked from them."""
    absent = [name for name in names if _in_source(name, source) is None]
    if absent:
        raise UsageError(
            f"--from {source}: holds neither {absent[0]} nor {_target(absent[0], Path()).name}; "
            f"give the folder with the competition's files ({PAGE}/data)"
        )
    needed = sum(_size_of_all(_in_source(name, source)) for name in names)
    free = archives.require_room(root, needed, ", ".join(names))
    say(f"{root}: takes about {size_text(needed)} of {size_text(free)} free")
    for name in names:
        origin, target = _in_source(name, source), _target(name, root)
        if origin.name == name:
            archives.check(origin)
            archives.unpack(origin, target)
        else:
            _copy(origin, target)
        say(f"{target}: taken from {origin}")


def _in_source(name: str, source: Path) -> Path | None:
    """Find an archive or its contents: `train.zip`, `train/train` or `train`."""
    unpacked = _target(name, source)
    places = (source / name, unpacked / unpacked.name, unpacked)
    return next((place for place in places if place.exists() and _is_there(place)), None)


def _size_of_all(origin: Path) -> int:
    """Sum the bytes of a file, or of a folder's files."""
    files = origin.rglob("*") if origin.is_dir() else (origin,)
    return sum(_size(file) for file in files)


def _copy(origin: Path, target: Path) -> None:
    with archives.temporary_beside(target) as temporary:
        if origin.is_dir():
            shutil.copytree(origin, temporary / target.name)
        else:
            shutil.copy2(origin, temporary / target.name)
        os.replace(temporary / target.name, target)


def _fetch_all(names: list[str], root: Path) -> None:
    api = connect()
    sizes = _sizes(api)
    if absent := [name for name in names if name not in sizes]:
        raise CarvanaError(f"{absent[0]}: Kaggle does not list it; see {PAGE}/data")
    here = [name for name in names if _is_whole(root / name, sizes[name])]
    parts = {n: min(_size(_part(root, n)), sizes[n]) for n in names if n not in here}
    to_fetch = sum(sizes[name] - part for name, part in parts.items())
    # Photographs do not shrink in a zip: unpacked, they take about the same again.
    needed = to_fetch + sum(sizes[name] for name in names)
    free = archives.require_room(root, needed, f"{', '.join(names)} (fetched and unpacked)")
    listed = ", ".join(f"{name} {size_text(sizes[name])}" for name in parts) or "nothing"
    kept = f", {size_text(sum(parts.values()))} of it here already" if any(parts.values()) else ""
    say(
        f"{root}: to fetch: {listed}{kept}; takes about {size_text(needed)} of "
        f"{size_text(free)} free with what it unpacks to"
    )
    for name in names:
        if name in parts:
            _fetch(api, name, sizes[name], root)
        archives.unpack(root / name, _target(name, root))
        say(f"{_target(name, root)}: ready")


def _sizes(api: "KaggleApi") -> dict[str, int]:
    """Ask Kaggle for the competition's files and their sizes in bytes."""
    sizes, token = {}, ""
    while True:
        page = patiently(
            "the list of files",
            lambda token=token: api.competition_list_files(SLUG, page_token=token, page_size=100),
        )
        sizes |= {file.name: file.total_bytes for file in page.files}
        if not page.next_page_token or page.next_page_token == token:
            return sizes
        token = page.next_page_token


def _part(root: Path, name: str) -> Path:
    return root / f"{name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_whole(archive: Path, size: int) -> bool:
    """Tell whether an archive is there already, intact and of the size Kaggle lists."""
    if _size(archive) != size:
        return False
    try:
        archives.check(archive)
    except BrokenArchive as error:
        say(f"{archive}: {error.reason}; fetching it again")
        return False
    return True


def _fetch(api: "KaggleApi", name: str, size: int, root: Path) -> None:
    """Fetch one archive, resuming a part of it, and put it in place once it is checked."""
    part = _part(root, name)
    for again in (True, False):
        if _size(part) != size:  # else an earlier run was stopped before its check
            patiently(name, lambda: _transfer(api, name, part, size), lambda: _size(part))
        try:
            archives.check(part)
            break
        except BrokenArchive as error:
            # What an earlier run left may be damaged: fetch once more, from the first byte.
            _discard(part)
            if not again:
                raise CarvanaError(
                    f"{root / name}: fetched twice, and both times it {error.reason}; try later, "
                    f"or fetch it in a browser at {PAGE}/data and use --from FOLDER"
                ) from error
            say(f"{name}: {error.reason}; fetching it once more from the beginning")
    if _size(part) != size:
        say(f"{name}: {_size(part)} bytes, Kaggle lists {size}; its checksums hold, so it is used")
    os.replace(part, root / name)


def _transfer(api: "KaggleApi", name: str, part: Path, size: int) -> None:
    """Make one attempt to fetch an archive.

    The client resumes a part if its `.kaggle-partial` note beside the part names the file that
    Kaggle has now. We call the parts of `competition_download_file` (2.2) to avoid three traps of
    it: it keeps any file as new as Kaggle's ("Skipping, ..."), broken or not; it retries for a
    minute silently; and its first request has no time limit (see `_watched`).
    """
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFileRequest

    request = ApiDownloadDataFileRequest()
    request.competition_name, request.file_name = SLUG, name
    with api.build_kaggle_client() as kaggle:
        response = kaggle.competitions.competition_api_client.download_data_file(request)
        with response, _watched(part, name, size, response):
            try:
                api.download_file(
                    response,
                    str(part),
                    kaggle.http_client(),
                    resume=True,
                    chunk_size=CHUNK,
                    max_retries=0,
                    timeout=STALL_SECONDS,
                )
            except ValueError as error:
                # Another length than announced: if an error page answers the request for the
                # rest of a part, the client writes that page into the file.
                if not isinstance(error, requests.RequestException):
                    _discard(part)
                    raise requests.ConnectionError("the transfer had a wrong length") from error
                raise


def _discard(part: Path) -> None:
    """Delete a part and the client's note beside it."""
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.kaggle-partial").unlink(missing_ok=True)


@contextlib.contextmanager
def _watched(part: Path, name: str, size: int, response: requests.Response) -> Iterator[None]:
    """Show a transfer's progress by the growth of its file; end it if it stalls."""
    ended = threading.Event()

    def watch() -> None:
        on_terminal = sys.stderr.isatty()
        before = grown = time.monotonic()
        start, last = _size(part), _size(part)
        bar = tqdm(
            desc=name, total=size, initial=start, unit="B", unit_scale=True, disable=not on_terminal
        )
        with bar:
            while not ended.wait(0.5):
                now, here = time.monotonic(), _size(part)
                bar.update(here - last)
                if here != last:
                    last, grown = here, now
                elif now - grown > STALL_SECONDS:
                    with contextlib.suppress(ValueError, RuntimeError):
                        response.raw.shutdown()  # to the reader the transfer then looks cut short
                if not on_terminal and now - before > LINE_SECONDS:
                    before = now
                    say(f"{name}: {size_text(here)} of {size_text(size)}")
            bar.update(_size(part) - last)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
