"""Download the competition's files: fetch, check, unpack; resume after any stop."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from tqdm import tqdm

from carvana.competition.facts import SLUG, Paths
from carvana.errors import CarvanaError, UsageError, plural
from carvana.files import alone
from carvana.kaggle import archives
from carvana.kaggle.archives import BrokenArchive, disk_error, size_text
from carvana.kaggle.client import NOT_KAGGLE, PAGE, connect, pages, say, with_retries
from carvana.kaggle.local import is_complete, note_files, open_whole, size_of, take_all, target_of
from carvana.progress import LINE_SECONDS, on_terminal

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

    Archives are fetched to `NAME.zip.part`, checked, renamed to `NAME.zip` and unpacked. Whatever
    stops this, the next call resumes. A folder that lacks some of its files is completed. The
    archives stay; you may delete them.

    Args:
        paths: the data folder; archives that lie in it are used before Kaggle is asked.
        only: "train", "test", "all", or "sample" for the sample submission alone.
        source: a folder with the competition's archives, or with their contents, or the single
            zip of the whole competition, to use instead of Kaggle.

    Returns:
        The folders and files put in place; empty if all were there.

    Raises:
        UsageError: `only` or `source` is wrong.
        CarvanaError: the download failed.
    """
    if only not in FILES:
        raise UsageError(f"--only {only}: is none of {', '.join(FILES)}")
    root = paths.root
    if source is not None and not (source.suffix.lower() == ".zip" and source.is_file()):
        here, there = root.absolute(), source.absolute()
        if not source.is_dir():
            raise UsageError(f"--from {source}: no such folder or zip; check the name")
        if there in here.parents:
            raise UsageError(f"--from {source}: holds the data folder {root}; give another")
    if not _missing(root, only, source):
        say(f"{root}: everything is in place ({only}); nothing to fetch")
        return []
    try:
        with alone(root, "download", root / ".download.lock"):
            missing = _missing(root, only, source)
            for name in missing:
                archives.follow(target_of(name, root))
            source = open_whole(source, missing, root)
            if source is not None:
                take_all(missing, source, root)
            elif not _take_archives_here(missing, root):
                _fetch_all(missing, root)
            note_files(missing, root)
    except OSError as error:
        raise disk_error(root, error) from error
    return [target_of(name, root) for name in missing]


def _missing(root: Path, only: str, source: Path | None) -> list[str]:
    return [name for name in FILES[only] if not is_complete(name, root, source)]


def _take_archives_here(names: list[str], root: Path) -> bool:
    """Unpack archives that lie in the data folder, if all do and are intact."""
    if not all((root / name).is_file() for name in names):
        return False
    try:
        take_all(names, root, root)
    except BrokenArchive as error:
        say(f"{error}; asking Kaggle")
        return False
    return True


def _fetch_all(names: list[str], root: Path) -> None:
    api = connect()
    sizes = {}  # bytes, of all the competition's files
    ask = partial(api.competition_list_files, SLUG, page_size=100)
    for page in pages("the list of files", lambda token: ask(page_token=token)):
        sizes |= {file.name: file.total_bytes for file in page.files}
    if absent := [name for name in names if name not in sizes]:
        raise CarvanaError(f"{absent[0]}: Kaggle does not list it; see {PAGE}/data")
    to_fetch = {  # bytes, less the part of it that is here already
        name: max(sizes[name] - size_of(root / f"{name}.part"), 0)
        for name in names
        if not _is_whole(root / name, sizes[name])
    }
    # Photographs do not shrink in a zip: unpacked, they take about the same again.
    needed = sum(to_fetch.values()) + sum(sizes[name] for name in names)
    free = archives.require_room(root, needed, f"{', '.join(names)} (fetched and unpacked)")
    for name in names:  # a link may lead to another disk
        archives.require_room(archives.follow(target_of(name, root)).parent, sizes[name], name)
    fetched = f"fetching {plural(len(to_fetch), 'archive')}, {size_text(sum(to_fetch.values()))}"
    say(f"{root}: {fetched}; needs {size_text(needed)} in all, {size_text(free)} are free")
    for name in names:
        if name in to_fetch:
            _fetch(api, name, sizes[name], root)
        archives.unpack(root / name, target_of(name, root))
        say(f"{target_of(name, root)}: ready")


def _is_whole(archive: Path, size: int) -> bool:
    """Tell whether an archive is there already, intact and of the size Kaggle lists."""
    if size_of(archive) != size:
        return False
    try:
        archives.check(archive)
    except BrokenArchive as error:
        say(f"{archive}: {error.reason}; fetching it again")
        return False
    return True


def _fetch(api: "KaggleApi", name: str, size: int, root: Path) -> None:
    """Fetch one archive, resuming a part of it, and put it in place once it is checked."""
    part = root / f"{name}.part"
    for again in (True, False):
        if size_of(part) != size:  # else an earlier run was stopped before its check
            with_retries(name, lambda: _transfer(api, name, part, size), lambda: size_of(part))
        try:
            archives.check(part)
            break
        except BrokenArchive as error:
            with part.open("rb") as file:
                is_page = file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html"))
            # What an earlier run left may be damaged: fetch once more, from the first byte.
            _discard(part)
            if is_page:
                raise CarvanaError(f"{root / name}: {NOT_KAGGLE}") from error
            if not again:
                raise CarvanaError(
                    f"{root / name}: fetched twice, and both times it {error.reason}, as by a "
                    "proxy or virus scanner on the way; try later or on another network, or fetch "
                    f"it in a browser at {PAGE}/data and use --from FOLDER"
                ) from error
            say(f"{name}: {error.reason}; fetching it once more from the beginning")
    if size_of(part) != size:
        say(f"{name}: {size_of(part)} bytes, Kaggle lists {size}; its checksums match: kept")
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
        limits = {"chunk_size": CHUNK, "max_retries": 0, "timeout": STALL_SECONDS}
        with response, _watched(part, name, size, response):
            try:
                api.download_file(response, str(part), kaggle.http_client(), resume=True, **limits)
            except requests.RequestException:
                raise
            except ValueError as error:
                # Another length than announced: if an error page answers the request for the
                # rest of a part, the client writes that page into the file.
                _discard(part)
                raise requests.ConnectionError("the transfer had a wrong length") from error


def _discard(part: Path) -> None:
    """Delete a part and the client's note beside it."""
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.kaggle-partial").unlink(missing_ok=True)


@contextlib.contextmanager
def _watched(part: Path, name: str, size: int, response: requests.Response) -> Iterator[None]:
    """Show a transfer's progress by the growth of its file; end it if it stalls."""
    ended, shown = threading.Event(), on_terminal(sys.stderr)

    def watch() -> None:
        said = grown = time.monotonic()
        start = last = size_of(part)
        bar = tqdm(
            desc=name, total=size, initial=start, unit="B", unit_scale=True, disable=not shown
        )
        with bar:
            while not ended.wait(0.5):
                now, here = time.monotonic(), size_of(part)
                bar.update(here - last)
                if here != last:
                    last, grown = here, now
                elif now - grown > STALL_SECONDS:
                    with contextlib.suppress(ValueError, RuntimeError):
                        response.raw.shutdown()  # to the reader the transfer then looks cut short
                if not shown and now - said > LINE_SECONDS:
                    said = now
                    say(f"{name}: {size_text(here)} of {size_text(size)}")
            bar.update(size_of(part) - last)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
