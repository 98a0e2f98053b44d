"""What a folder of photographs or masks holds, by the names of its files."""

import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from carvana.errors import CarvanaError

PHOTOGRAPHS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff"),
    *(".gif", ".heic", ".heif"),
)
MASKS = (".gif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")  # JPEG: to refuse it


def list_images(folder: Path) -> list[str]:
    """Return the sorted names of the pictures in a folder; say what else is in it.

    Hidden files are ignored; other files and folders are counted in one line on standard error.

    Raises:
        CarvanaError: there is no such folder, it holds no picture, or a name cannot be written to a
            CSV.
    """
    if folder.is_file():
        raise CarvanaError(f"{folder}: is a file; give the folder that holds it")
    if not folder.is_dir():
        raise CarvanaError(f"{folder}: no such folder; run `make download` or unzip it there")
    names, others = list_files(folder, PHOTOGRAPHS)
    if not names:
        raise CarvanaError(
            f"{folder}: holds no photograph ({', '.join(PHOTOGRAPHS)}); run `make download` or put "
            f"the photographs straight into it{f' (there: {others})' if others else ''}"
        )
    if others:
        print(f"{folder}: ignoring files that are not images: {others}", file=sys.stderr)
    return names


def list_files(folder: Path, endings: Collection[str]) -> tuple[list[str], str]:
    """Return the sorted names of a folder's files with these endings, and what else is in it.

    Raises:
        CarvanaError: the folder cannot be read, or a name cannot be written to a CSV.
    """
    names, others = [], Counter()
    try:
        for entry in os.scandir(folder):
            suffix = Path(entry.name).suffix.lower()
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                others["folder"] += 1
            elif suffix in endings and (entry.is_file() or entry.is_symlink()):
                names.append(entry.name)
            else:
                others[suffix or "no ending"] += 1
    except OSError as error:
        raise CarvanaError(
            f"{folder}: cannot be read ({error.strerror}); change its permissions"
        ) from error
    for name in names:
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise CarvanaError(f"{folder}/{name!a}: has an unreadable name; rename it")
    return sorted(names), ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
