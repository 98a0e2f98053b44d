"""The competition's files on this machine: what is in place, and taking it from a folder."""

import contextlib
import hashlib
import json
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
    origins = [root / name if (root / name).exists() else None]
    if source not in (None, root):
        origins.append(_in_source(name, source))
    for origin in filter(None, origins):
        with contextlib.suppress(BrokenArchive), archives.members(origin, target.name) as files:
            return all(size_of(target / file) == member.size for file, member in files.items())
    noted = _noted(root).get(target.name)
    if noted:
        return noted == _digest(target)
    return len(_photographs(target)) == COUNTS.get(target.name)


def _photographs(folder: Path) -> list[str]:
    """Return the names of a folder's photographs or masks, sorted."""
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".gif"))


def _digest(folder: Path) -> str:
    names = "\n".join(_photographs(folder)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(names).hexdigest()[:16]


def note_files(names: list[str], root: Path) -> None:
    """Write down which files were unpacked, so that archives may be deleted."""
    targets = [target_of(name, root) for name in names]
    new = {target.name: _digest(target) for target in targets if not target.suffix}
    write_text(root / NOTE, json.dumps(_noted(root) | new) + "\n")


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
        if not whole.is_file() or all(_in_source(name, folder) for name in names):
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
    needed = 0
    for origin in origins.values():
        needed += sum(size_of(file) for file in (origin, *origin.rglob("*")))
    free = archives.require_room(root, needed, ", ".join(names))
    say(f"{root}: takes about {size_text(needed)} of {size_text(free)} free")
    for name, origin in origins.items():
        if origin.name == name:
            archives.check(origin)
        archives.unpack(origin, target_of(name, root))
        say(f"{target_of(name, root)}: taken from {origin}")


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
    return next((place for place in places if place.is_dir() and _photographs(place)), None)


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0
