"""Where pictures come from: a mark in those we write, so that they and no others are replaced."""

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


def check_sheet(path: Path) -> None:
    """Make sure that a sheet of pictures may be written.

    Raises:
        UsageError: its name does not end in .png, or it would replace another picture.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: is drawn as PNG; choose a name that ends in .png")
    if path.exists() and not is_ours(path, "sheet"):
        raise UsageError(f"{path}: would be replaced, and was not drawn by the kit; choose another")
