"""Write files so that a reader sees the old or the new one, never a part of it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from carvana.errors import CarvanaError


@contextlib.contextmanager
def replacing(
    path: Path, remedy: str = "free some space or choose another place"
) -> Iterator[Path]:
    """Yield a temporary path beside `path`; put it in place if the block succeeds.

    The temporary name keeps the ending of `path`, which Keras and gzip depend on. If the block
    fails, `path` stays as it was.

    Raises:
        CarvanaError: the file cannot be written (disk full, folder read-only).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise CarvanaError(
            f"{path}: cannot be written ({error.strerror or error}); {remedy}, "
            "then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def clear_temporaries(folder: Path) -> None:
    """Delete what killed writes left in a folder."""
    for left in folder.glob(".*.tmp*"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path, who: str, lock_path: Path | None = None) -> Iterator[None]:
    """Keep other processes from writing `path` while the block runs.

    Args:
        path: what is written.
        who: what writes it, for the message, as in "training".
        lock_path: the lock file; beside `path` when None.

    Raises:
        CarvanaError: another process is writing it.
    """
    lock_path = lock_path or path.with_name(f".{path.name}.lock")
    lock = filelock.FileLock(lock_path, blocking=False)
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise CarvanaError(
            f"{path}: another {who} is writing it; wait until it ends or choose another place"
        ) from error
    except OSError as error:
        raise CarvanaError(
            f"{lock_path.parent}: cannot be written ({error.strerror or error}); "
            "choose another place"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Make a folder, wait until no other process works in it, and keep others waiting.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"):
        yield


def write_text(path: Path, text: str) -> None:
    """Write text to `path` atomically.

    Raises:
        CarvanaError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def stamp(path: Path) -> str:
    """Return a file's size and date, which change when it does.

    Raises:
        CarvanaError: there is no such file, or it is a broken link.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise CarvanaError(
            f"{path}: is gone or a broken link; fetch it again or remove it"
        ) from error
    return f"{status.st_size}:{status.st_mtime_ns}"
