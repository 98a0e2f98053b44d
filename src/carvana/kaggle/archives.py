"""Check and unpack the competition's zip archives without trusting their contents."""

import contextlib
import errno
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from carvana.errors import CarvanaError
from carvana.progress import progress

MOST_RATIO = 100  # unpacked to packed; photographs have 1, a CSV of run lengths 10 at most
SMALL = 16 * 2**20  # bytes below which a high ratio does no harm
_CHUNK = 2**20
_MACINTOSH = "__MACOSX"  # a folder that macOS adds


class BrokenArchive(CarvanaError):
    """An archive is damaged, or holds something no archive of the competition does.

    Attributes:
        reason: what is wrong, to go after "it": "is cut short or damaged".
    """

    def __init__(self, archive: Path, reason: str):
        super().__init__(f"{archive}: {reason}; delete it and fetch it again")
        self.reason = reason


def check(archive: Path) -> int:
    """Read an archive through, checking each entry's name, kind, size and checksum.

    Args:
        archive: a zip.

    Returns:
        The bytes it takes when unpacked.

    Raises:
        BrokenArchive: truncated, damaged, encrypted, an entry that would land outside its folder,
            a link, or an implausible size.
        CarvanaError: it cannot be read.
    """
    with _opened(archive) as opened:
        entries = _entries(opened, archive)
        name = archive.name.removesuffix(".part")
        for entry in progress(entries, f"checking {name}", len(entries), unit="file"):
            with opened.open(entry) as file:
                while file.read(_CHUNK):  # its end compares the checksum
                    pass
        return sum(entry.file_size for entry in entries)


def unpack(archive: Path, target: Path) -> None:
    """Unpack the folder or file an archive is named after, all of it or nothing.

    `train.zip` holds `train/...`, `train_masks.csv.zip` holds `train_masks.csv`. Call it with the
    folder locked against others, for the temporary folder's name is always the same.

    Args:
        archive: a zip; what it holds is checked again while it is unpacked.
        target: where its one folder or file goes; absent, or an empty folder.

    Raises:
        BrokenArchive: see `check`; also when it holds something else than `target.name`.
        CarvanaError: the disk is full or cannot be written. What stood at `target` still does.
    """
    with _opened(archive) as opened, temporary_beside(target) as temporary:
        entries = [entry for entry in _entries(opened, archive) if _top(entry) != _MACINTOSH]
        strays = [entry.filename for entry in entries if _top(entry) != target.name]
        if strays or not entries:
            content = f"{strays[0]!r}" if strays else "nothing"
            raise BrokenArchive(archive, f"holds {content}, not {target.name}")
        require_room(target.parent, sum(entry.file_size for entry in entries), archive.name)
        for entry in progress(entries, f"unpacking {archive.name}", len(entries), unit="file"):
            opened.extract(entry, temporary)
        os.replace(temporary / target.name, target)


@contextlib.contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Yield a fresh folder on the disk of `target`, for what is to be renamed to it.

    Raises:
        CarvanaError: the disk is full or cannot be written.
    """
    temporary = target.with_name(f".{target.name}.unpacking")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
        temporary.mkdir(parents=True)
        yield temporary
    except OSError as error:
        raise disk_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_room(folder: Path, needed: int, what: str) -> int:
    """Make sure that the disk of `folder` has room.

    Args:
        folder: where it will be written; it may not exist yet.
        needed: bytes.
        what: what needs them, for the message.

    Returns:
        Bytes free.

    Raises:
        CarvanaError: there is less.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise CarvanaError(
            f"{folder}: {what} needs {size_text(needed)}, the disk has {size_text(free)} free; "
            "make room or choose another folder, then run the same command again"
        )
    return free


def disk_error(path: Path, error: OSError) -> CarvanaError:
    """Explain in one line why `path` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CarvanaError(
            f"{path}: the disk is full; make room or choose another folder, then run the same "
            "command again: it resumes where it stopped"
        )
    return CarvanaError(
        f"{path}: cannot be written ({error.strerror or error}); choose another folder or "
        "change its permissions, then run the same command again"
    )


def size_text(count: float) -> str:
    """Format a number of bytes: `405 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip; an error in reading it becomes one line that names it."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BrokenArchive(archive, f"is cut short or damaged ({error})") from error
    except FileNotFoundError as error:
        raise CarvanaError(f"{archive}: no such file") from error
    except OSError as error:
        raise CarvanaError(f"{archive}: cannot be read ({error.strerror or error})") from error


def _entries(opened: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """List the entries, after checking each one's name and kind and their total size."""
    entries = opened.infolist()
    for entry in entries:
        if fault := _fault(entry):
            raise BrokenArchive(archive, f"is not safe: its entry {entry.filename!r} {fault}")
    total = sum(entry.file_size for entry in entries)
    if total > max(SMALL, MOST_RATIO * archive.stat().st_size):
        raise BrokenArchive(
            archive,
            f"is not safe: it unpacks to {size_text(total)}, over {MOST_RATIO} times its own size",
        )
    return entries


def _fault(entry: zipfile.ZipInfo) -> str:
    """Say what makes an entry unsafe to unpack; "" if nothing does."""
    name = entry.filename
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archiver left it out
    if not name or name.startswith("/") or "\\" in name or ":" in name.split("/")[0]:
        return "is an absolute path"
    if ".." in PurePosixPath(name).parts:
        return "climbs out of its folder"
    if stat.S_ISLNK(kind):
        return "is a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    return "is encrypted" if entry.flag_bits & 1 else ""


def _top(entry: zipfile.ZipInfo) -> str:
    """Return the first part of an entry's path."""
    return entry.filename.removeprefix("./").split("/")[0]
