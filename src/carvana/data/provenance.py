"""Where pictures come from: a mark in those we write, so that they and no others are replaced."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from carvana.errors import UsageError

SOFTWARE = "carvana"  # what the pictures name as their maker, before what they are
SOFTWARE_TAG = 0x0131  # of EXIF


def png_mark(kind: str) -> PngInfo:
    """Return what marks a PNG as ours and as of a kind."""
    mark = PngInfo()
    mark.add_text("Software", f"{SOFTWARE} {kind}")
    return mark


def exif_mark(kind: str) -> Image.Exif:
    """Return what marks a JPEG or WebP as ours and as of a kind."""
    mark = Image.Exif()
    mark[SOFTWARE_TAG] = f"{SOFTWARE} {kind}"
    return mark


def is_ours(path: Path, kind: str) -> bool:
    """Tell whether a picture carries our mark of a kind."""
    try:
        with Image.open(path) as picture:
            marks = picture.info.get("Software"), picture.getexif().get(SOFTWARE_TAG)
            return f"{SOFTWARE} {kind}" in marks
    except (OSError, ValueError, SyntaxError):
        return False


def check_targets(targets: Mapping[str | Path, Path], out: Path, kind: str, option: str) -> None:
    """Make sure that pictures of a kind may be written: what each photograph is made into.

    Raises:
        UsageError: `out`, which `option` names, is not a folder, two photographs would write the
            same file, or one would replace a picture that is not ours.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is not a folder; choose another {option}")
    owners: dict[Path, str | Path] = {}
    for photo, target in targets.items():
        if (owner := owners.setdefault(target, photo)) != photo:
            raise UsageError(f"{owner} and {photo} would both write {target}; rename one")
        if target.exists() and not is_ours(target, kind):
            raise UsageError(
                f"{target}: would be replaced, and is not a {kind} of ours; choose another {option}"
            )


def check_sheet(path: Path) -> None:
    """Make sure that a sheet of pictures may be written.

    Raises:
        UsageError: its name does not end in .png, or it would replace another picture.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: is drawn as PNG; choose a name that ends in .png")
    if path.exists() and not is_ours(path, "sheet"):
        raise UsageError(f"{path}: would be replaced, and was not drawn by the kit; choose another")
