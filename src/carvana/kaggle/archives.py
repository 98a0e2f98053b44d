"""Check and unpack the competition's zip archives without trusting their contents."""

import contextlib
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from carvana.errors import CarvanaError
from carvana.files import cannot_write, check_writable, real_path, replacing
from carvana.progress import progress

MOST_RATIO = 100  # unpacked to packed; photographs have 1, a CSV of run lengths 10 at most
SMALL = 16 * 2**20  # bytes below which a high ratio is harmless
_CHUNK = 2**20
_JUNK = ("__MACOSX", "desktop.ini", "thumbs.db")  # what macOS and Windows add


class BrokenArchive(CarvanaError):
    """An archive is damaged, or holds something no archive of the competition does."""

    def __init__(self, archive: Path, reason: str):
        super().__init__(f"{archive}: {reason}; delete it and fetch it again")
        self.reason = reason  # to go after "it": "is cut short or damaged"


class Member(NamedTuple):
    """A file of an archive, or of the folder that was unpacked from one."""

    size: int  # bytes
    open: Callable[[], BinaryIO]


def check(archive: Path) -> None:
    """Read an archive through, checking each entry's name, kind, size and checksum.

    Raises:
        BrokenArchive: truncated, damaged, encrypted, an entry that would land outside its folder,
            a link, or an implausible size.
    """
    with _opened(archive) as opened:
        entries = _entries(opened, archive)
        name = archive.name.removesuffix(".part")
        for entry in progress(entries, f"checking {name}", len(entries), unit="file"):
            with opened.open(entry) as file:
                while file.read(_CHUNK):  # its end compares the checksum
                    pass


@contextlib.contextmanager
def members(origin: Path, folder: str) -> Iterator[dict[str, Member]]:
    """Open an archive, or what was unpacked from it; yield its files by their path in `folder`.

    `train.zip` holds `train/...`, or what belongs there without the folder; `train_masks.csv.zip`
    holds `train_masks.csv`.

    Raises:
        BrokenArchive: see `check`; also when it holds something else than `folder`.
    """
    if origin.suffix != ".zip":
        root = origin if origin.is_dir() else origin.parent
        files = [path for path in (origin, *origin.rglob("*")) if path.is_file()]
        yield {
            str(path.relative_to(root)): Member(path.stat().st_size, partial(path.open, "rb"))
            for path in files
        }
        return
    with _opened(origin) as opened:
        entries = [entry for entry in _entries(opened, origin) if not _is_junk(_path(entry))]
        names = _names_within(folder, [PurePosixPath(_path(entry)) for entry in entries], origin)
        yield {
            name: Member(entry.file_size, partial(opened.open, entry))
            for name, entry in zip(names, entries, strict=True)
        }


def _names_within(folder: str, paths: list[PurePosixPath], archive: Path) -> list[str]:
    """Return the paths of entries in the folder or file that their archive is named after."""
    if all(len(path.parts) == 1 for path in paths):  # the folder was left out
        names = [path.name for path in paths]
    else:
        strays = [str(path) for path in paths if path.parts[0] != folder]
        if strays:
            raise BrokenArchive(archive, f"holds {strays[0]!r}, not {folder}")
        names = [str(path.relative_to(folder)) for path in paths]
    if names and all(name.startswith(f"{folder}/") for name in names):  # the folder in itself
        names = [name.removeprefix(f"{folder}/") for name in names]
    if not names or (PurePosixPath(folder).suffix and names != [folder]):
        content = repr(names[0]) if names else "nothing"
        raise BrokenArchive(archive, f"holds {content}, not {folder}")
    return names


def unpack(origin: Path, target: Path) -> None:
    """Put what an archive holds in place; complete a folder that is there.

    A link is followed. Files already there stay, but for those that an unpacking cut short. Call
    it with the folder locked against others, for the temporary folder's name is always the same.

    Raises:
        BrokenArchive: see `members`; a zip is checked again while it is unpacked.
        CarvanaError: a file in the folder is another than the archive's, or the disk is full or
            cannot be written. What stood at `target` still does.
    """
    real = follow(target)
    with members(origin, target.name) as files:
        if not target.suffix:
            files = {name: file for name, file in files.items() if not _is_whole(real / name, file)}
        require_room(real, sum(file.size for file in files.values()), origin.name)
        with _temporary_for(real) as temporary:
            items = progress(files.items(), f"unpacking {origin.name}", len(files), unit="file")
            for name, member in items:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                with member.open() as packed, (temporary / name).open("wb") as file:
                    shutil.copyfileobj(packed, file, _CHUNK)
            if target.suffix:
                os.replace(temporary / target.name, real)
            elif not real.exists():
                os.replace(temporary, real)
            else:
                for name in files:
                    (real / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(temporary / name, real / name)


def extract(whole: Path, names: list[str], folder: Path) -> None:
    """Take archives out of a zip of archives; those that lie in the folder already stay.

    Raises:
        BrokenArchive: it is damaged or not safe.
        CarvanaError: it lacks an archive, or the disk is full or cannot be written.
    """
    with _opened(whole) as opened:
        entries = {PurePosixPath(_path(entry)).name: entry for entry in _entries(opened, whole)}
        wanted = [name for name in names if not (folder / name).is_file()]
        absent = [name for name in wanted if name not in entries]
        if absent:
            raise CarvanaError(
                f"{whole}: holds no {absent[0]}; give the folder with the competition's archives, "
                "or the one zip that holds them all"
            )
        require_room(folder, 2 * sum(entries[name].file_size for name in wanted), whole.name)
        for name in progress(wanted, f"unpacking {whole.name}", len(wanted), unit="file"):
            with (
                replacing(folder / name) as temporary,
                opened.open(entries[name]) as packed,
                temporary.open("wb") as file,
            ):
                shutil.copyfileobj(packed, file, _CHUNK)


def follow(target: Path) -> Path:
    """Return where a link leads; the path itself if it is none.

    Raises:
        CarvanaError: it is a broken link, a file where a folder belongs, or cannot be written.
    """
    real = real_path(target)
    if target.is_symlink() and not real.exists():
        raise CarvanaError(f"{target}: is a link to {real}, which does not exist; make that folder")
    if not target.suffix and real.exists() and not real.is_dir():
        raise CarvanaError(f"{target}: is a file, and a folder belongs there; move it elsewhere")
    check_writable(_existing(real))
    return real


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _is_whole(path: Path, member: Member) -> bool:
    """Tell whether a file is in place, and not absent or cut short; refuse another file."""
    if not path.exists():
        return False
    size = path.stat().st_size if path.is_file() else member.size + 1
    if size == member.size:
        return True
    if size < member.size:
        with member.open() as origin:
            if origin.read(size) == path.read_bytes():
                return False
    raise CarvanaError(
        f"{path}: is another file than the one to unpack ({size} bytes, not {member.size}); move "
        "it elsewhere, then run the same command again"
    )


@contextlib.contextmanager
def _temporary_for(target: Path) -> Iterator[Path]:
    """Yield a fresh folder on the disk of `target`, for what is to be moved there."""
    if target.is_dir():  # it may be a disk of its own
        temporary = target / ".unpacking"
    else:
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
    """Return the bytes free on the disk of `folder`, which may not exist yet.

    Raises:
        CarvanaError: there are fewer than `needed` by `what`.
    """
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise CarvanaError(
            f"{folder}: {what} needs {size_text(needed)}, the disk has {size_text(free)} free; "
            "make room or choose another folder, then run the same command again"
        )
    return free


def disk_error(path: Path, error: OSError) -> CarvanaError:
    """Explain in one line why `path` could not be written."""
    return cannot_write(path, error, kept="it resumes where it stopped")


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
    name = _path(entry)
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archiver left it out
    if not name or name.startswith("/") or ":" in name.split("/")[0]:
        return "is an absolute path"
    if ".." in PurePosixPath(name).parts:
        return "climbs out of its folder"
    if stat.S_ISLNK(kind):
        return "is a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    return "is encrypted" if entry.flag_bits & 1 else ""


def _path(entry: zipfile.ZipInfo) -> str:
    """Return an entry's path, with slashes also where a program on Windows wrote backslashes."""
    return entry.filename.replace("\\", "/").removeprefix("./")


def _is_junk(path: str) -> bool:
    """Tell whether an entry is a folder, or something that a file manager added."""
    *_, name = parts = path.split("/")
    return not name or parts[0] in _JUNK or name.lower() in _JUNK or name.startswith(".")
