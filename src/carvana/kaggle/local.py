"""The competition's files on this machine: what is in place, and taking it from a folder."""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

from carvana.competition.facts import SLUG, TEST_IMAGES, TRAIN_IMAGES
from carvana.errors import UsageError
from carvana.files import write_text
from carvana.kaggle import archives
from carvana.kaggle.archives import BrokenArchive, size_text
from carvana.kaggle.client import PAGE, say

COUNTS = {"train": TRAIN_IMAGES, "train_masks": TRAIN_IMAGES, "test": TEST_IMAGES}
NOTE = ".unpacked.json"  # in the data folder: which files each folder was given


def target_of(name: str, root: Path) -> Path:
    """Return where what an archive holds belongs: `data/train` for `train.zip`."""
    return root / name.removesuffix(".zip")


def is_complete(name: str, root: Path, source: Path | None) -> bool:
    """Tell whether what an archive holds is in place, all of it as far as we can know."""
    target = target_of(name, root)
    if target.suffix:
        return target.is_file()
    if not target.is_dir():
        return False
    for folder in filter(None, (root, source)):
        origin = _in_source(name, folder) if folder != root else root / name
        if origin is None or not origin.exists():
            continue
        with contextlib.suppress(BrokenArchive):
            sizes = (
                {str(f.relative_to(origin)): size_of(f) for f in origin.rglob("*") if f.is_file()}
                if origin.is_dir()
                else archives.sizes(origin, target.name)
            )
            return all(size_of(target / file) == size for file, size in sizes.items())
    noted = _noted(root).get(target.name)
    return noted == _listing(target) if noted else _count(target) == COUNTS.get(target.name)


def _count(folder: Path) -> int:
    """Count a folder's photographs or masks."""
    return sum(file.suffix.lower() in (".jpg", ".gif") for file in folder.iterdir())


def _listing(folder: Path) -> str:
    """Return a digest of the names of a folder's photographs or masks."""
    names = sorted(
        file.name for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".gif")
    )
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def note_files(names: list[str], root: Path) -> None:
    """Write down which files were unpacked, so that archives may be deleted."""
    folders = [target_of(name, root) for name in names if not target_of(name, root).suffix]
    noted = _noted(root) | {folder.name: _listing(folder) for folder in folders}
    write_text(root / NOTE, json.dumps(noted) + "\n")


def _noted(root: Path) -> dict[str, str]:
    try:
        return dict(json.loads((root / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def open_whole(source: Path | None, names: list[str], root: Path) -> Path | None:
    """Take archives out of the single zip of the whole competition, where that is the source.

    Returns:
        The folder they are in now, or the source as it was.
    """
    whole = source
    if source is not None and source.name in names:
        raise UsageError(f"--from {source}: give the folder that holds it, {source.parent}")
    if source is None or source.is_dir():
        folder = source or root
        whole = folder / f"{SLUG}.zip"
        loose = [name for name in names if _in_source(name, folder) is not None]
        if not whole.is_file() or len(loose) == len(names):
            return source
    archives.extract(whole, names, root)
    return root


def take_all(names: list[str], source: Path, root: Path) -> None:
    """Unpack archives that lie in a folder, or copy what was unpacked from them."""
    origins = {name: _in_source(name, source) for name in names}
    absent = [name for name, origin in origins.items() if origin is None]
    if absent:
        raise UsageError(
            f"--from {source}: holds neither {absent[0]} nor {target_of(absent[0], Path()).name}; "
            f"give the folder with the competition's files ({PAGE}/data)"
        )
    needed = sum(_size_of_all(origin) for origin in origins.values())
    free = archives.require_room(root, needed, ", ".join(names))
    say(f"{root}: takes about {size_text(needed)} of {size_text(free)} free")
    for name, origin in origins.items():
        target = target_of(name, root)
        if origin.name == name:
            archives.check(origin)
            archives.unpack(origin, target)
        else:
            _copy(origin, target)
        say(f"{target}: taken from {origin}")


def _in_source(name: str, source: Path) -> Path | None:
    """Find an archive or its contents: `train.zip`, `train/train` or `train`."""
    if source.is_file():
        return None
    unpacked = target_of(name, source)
    if (source / name).is_file():
        return source / name
    places = (unpacked / unpacked.name, unpacked)
    if unpacked.suffix:
        return next((place for place in places if place.is_file()), None)
    return next((place for place in places if place.is_dir() and _count(place)), None)


def _size_of_all(origin: Path) -> int:
    """Sum the bytes of a file, or of a folder's files."""
    files = origin.rglob("*") if origin.is_dir() else (origin,)
    return sum(size_of(file) for file in files)


def _copy(origin: Path, target: Path) -> None:
    """Copy a file, or what a folder lacks."""
    real = archives.follow(target)
    files = {file.relative_to(origin): file for file in origin.rglob("*") if file.is_file()}
    todo = {
        name: file
        for name, file in files.items()
        if not archives.is_whole(real / name, size_of(file), lambda f=file: f.open("rb"))
    }
    with archives.temporary_for(real) as temporary:
        if not origin.is_dir():
            shutil.copy2(origin, temporary / target.name)
            os.replace(temporary / target.name, real)
            return
        for name, file in todo.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, temporary / name)
        archives.move_into(temporary, real)


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0
