"""Write files so that a reader sees the old or the new one, never a part of it."""

import contextlib
import csv
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import filelock

from carvana.errors import CarvanaError, UsageError

LONGEST_NAME = 255  # bytes, on the usual file systems
_SPACE = "free some space or choose another place"
_RIGHTS = "change its permissions or choose another place"
_IN_THE_WAY = "move what is in the way or choose another place"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: "choose a place that is not read-only",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTEMPTY: _IN_THE_WAY,
    errno.ELOOP: "remove the link, which leads back to itself",
}


def cannot_write(path: Path, error: OSError, remedy: str = "", kept: str = "") -> CarvanaError:
    """Explain in one line why `path` could not be written, with a remedy that fits the cause.

    `remedy` replaces the usual one; `kept` says at the end of the line what is not lost.
    """
    line = f"{path}: cannot be written ({error.strerror or error}); {remedy or remedy_for(error)}"
    return CarvanaError(f"{line}, then run the same command again{f': {kept}' if kept else ''}")


def remedy_for(error: OSError) -> str:
    """Return what to do about a file that cannot be written."""
    return _REMEDIES.get(error.errno, "choose another place")


def real_path(path: Path) -> Path:
    """Follow links, as `Path.resolve` does, which raises at one that leads back to itself."""
    return Path(os.path.realpath(path))


def beside(path: Path, ending: str) -> Path:
    """Return the path of a hidden file beside another, `.<name>.<ending>`.

    A name that is too long for this is replaced by a digest of it.
    """
    hidden = path.with_name(f".{path.name}.{ending}")
    if len(os.fsencode(hidden.name)) <= LONGEST_NAME:
        return hidden
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return path.with_name(f".{digest}.{ending}")


@contextlib.contextmanager
def replacing(path: Path, remedy: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`; put it in place if the block succeeds.

    The temporary name keeps the ending of `path`, which Keras and gzip depend on. If the block
    fails, `path` stays as it was.

    Raises:
        CarvanaError: the file cannot be written (disk full, folder read-only); with `remedy`.
    """
    path = Path(path)
    temporary = beside(path, f"tmp{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error, remedy) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_writable(folder: Path) -> None:
    """Write a small file into a folder, and delete it.

    Raises:
        CarvanaError: it is not there, is read-only or full.
    """
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error


def clear_temporaries(folder: Path, names: Collection[str] | None = None) -> None:
    """Delete what killed writes of these files (of any file when None) left in a folder."""
    for path in folder.glob(".*.tmp*"):
        left = re.fullmatch(r"\.(.+)\.tmp[\da-f]{8}(\.\w+)?", path.name)
        if left and path.is_file() and (names is None or left[1] in names):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path, who: str, lock_path: Path | None = None) -> Iterator[None]:
    """Keep other processes from writing `path` while the block runs.

    `who` writes it, as in "training". The lock is a file beside `path` unless `lock_path` is given.

    Raises:
        UsageError: `path` is the root of the file system.
        CarvanaError: another process is writing it, or the lock cannot be written.
    """
    real = real_path(path)  # one lock, by whatever link it is named
    if not real.name:
        raise UsageError(f"{path}: choose a folder within it")
    lock_path = lock_path or beside(real, "lock")
    lock = filelock.FileLock(lock_path, blocking=False)
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock_path.touch()  # filelock takes a place where none can be made for a lock that is held
        lock.acquire()
    except filelock.Timeout as error:
        raise CarvanaError(
            f"{path}: another {who} is writing it; wait until it ends or choose another place"
        ) from error
    except OSError as error:
        raise cannot_write(lock_path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; put it in place of what is there if the block succeeds.

    A kill leaves the old folder or the new one, between two renames the old one beside its place;
    the next call clears up after it.

    Raises:
        CarvanaError: it cannot be written.
    """
    path = real_path(path)
    temporary, old = beside(path, f"tmp{uuid.uuid4().hex[:8]}"), beside(path, "old")
    lock = filelock.FileLock(temporary / ".lock")  # held while its process lives
    try:
        if old.exists() and not path.exists():  # a kill came between two renames
            os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)  # or after both
        for left in path.parent.glob(".*.tmp*"):
            if re.fullmatch(rf"\.{re.escape(path.name)}\.tmp[\da-f]{{8}}", left.name):
                _remove_if_dead(left)
        temporary.mkdir(parents=True)
        lock.acquire()
        yield temporary
        lock.release()
        (temporary / ".lock").unlink(missing_ok=True)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    except Exception as error:  # libraries in C++ raise errors of their own
        full = any(text in str(error) for text in (os.strerror(errno.ENOSPC), "iostream error"))
        if isinstance(error, CarvanaError) or not full:
            raise
        raise cannot_write(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # another process may have put its own there
            if old.exists() and not path.exists():
                os.replace(old, path)
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


def _remove_if_dead(temporary: Path) -> None:
    """Delete the folder that a killed process left: nobody holds its lock."""
    with contextlib.suppress(OSError, filelock.Timeout):
        with filelock.FileLock(temporary / ".lock", blocking=False):
            pass
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def some_home() -> Iterator[None]:
    """Give a process without a home folder an empty one, for libraries that read and write there.

    In a container whose user has no entry they would make a folder called "~" where they stand.
    """
    if os.path.expanduser("~") != "~":
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            del os.environ["HOME"]


def write_text(path: Path, text: str) -> None:
    """Write text to `path` atomically.

    Raises:
        CarvanaError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_line(cells: Sequence) -> str:
    """Write cells as a line of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def stamp(path: Path) -> str:
    """Return a file's size and date, which change when it does; a folder's are all its files'.

    Raises:
        CarvanaError: there is no such file, or it is a broken link.
    """
    try:
        if path.is_dir():
            return " ".join(f"{each.name}:{stamp(each)}" for each in sorted(path.iterdir()))
        status = path.stat()
    except OSError as error:
        raise CarvanaError(
            f"{path}: is gone or a broken link; fetch it again or remove it"
        ) from error
    return f"{status.st_size}:{status.st_mtime_ns}"
