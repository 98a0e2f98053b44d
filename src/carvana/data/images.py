"""Read photographs, whatever their format.

With `masks.py` this is the only code that opens pictures. A photograph comes out as people see it:
upright by its EXIF orientation, 8-bit sRGB, what is transparent on white.
"""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from carvana.backend import tf
from carvana.data.resize import memory_errors
from carvana.errors import CarvanaError, UsageError
from carvana.recipe import Input

ORIENTATION = 0x0112  # the EXIF tag
_DISGUISES = {  # in the first bytes of files that are often named like photographs; lower case
    b"<!doctype": "a web page; fetch the picture itself",
    b"<html": "a web page; fetch the picture itself",
    b"%pdf": "a PDF; export its pictures",
    b"version https://git-lfs": "a Git LFS pointer; run `git lfs pull`",
    b"ftyphei": "HEIC under another name; rename it to .heic, or convert it to JPEG",
    b"ftypmif1": "HEIC under another name; rename it to .heic, or convert it to JPEG",
}
READING = 12  # bytes a pixel: the decoded photograph, and copies of it on its way to the network
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")  # read


class Unsupported(ValueError):
    """A picture is whole, but of a kind that is not read; the message says what to do."""


def read_photograph(
    path: Path,
    settings: Input | None = None,
    decode_jpeg: Callable[[bytes, int], np.ndarray] | None = None,
    white: int = 0,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a photograph for the network.

    Args:
        path: the file.
        settings: the network's input. Where it averages areas, a JPEG is decoded at 1/2, 1/4 or
            1/8 of its size if that is whole and no smaller: the decoder computes fewer pixels.
        decode_jpeg: decodes plain JPEGs, at one part in so many; TensorFlow when None.
        white: the value of white in 16 bits, where `settings` does not give it; 0 for 65535.

    Returns:
        The picture, (height, width, 3) uint8, and the (height, width) of the whole photograph.

    Raises:
        CarvanaError: it cannot be read, or is too large.
    """
    with readable(path), _open(data := path.read_bytes(), path) as picture:
        is_jpeg = picture.format in ("JPEG", "MPO")
        # TensorFlow's decoder is the article's, but does not know other modes and profiles.
        if not (is_jpeg and picture.mode == "RGB" and _profile(picture) is None):
            frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            if frames > 1:
                print(f"{path}: has {frames} frames; the first is used", file=sys.stderr)
            whole = _on_white(_upright(picture, settings.white if settings else white))
            return whole, whole.shape[:2]
        orientation, (width, height) = _orientation(picture), picture.size
        turned, ratio = orientation > 4, 1
        if settings and settings.method == "area":
            sides = (settings.width, settings.height)
            least_width, least_height = sides[::-1] if turned else sides
            shrink = min(width // least_width, height // least_height)
            fits = (r for r in (8, 4, 2) if r <= shrink and width % r == height % r == 0)
            ratio = next(fits, 1)
        if decode_jpeg:
            pixels = decode_jpeg(data, ratio)
        else:
            pixels = tf.io.decode_jpeg(data, channels=3, ratio=ratio).numpy()
        return _turn(pixels, orientation), (width, height) if turned else (height, width)


def open_photograph(path: Path, white: int = 0) -> Image.Image:
    """Read a photograph at full size: a PIL image, RGB, or RGBA where it has transparency.

    Raises:
        CarvanaError: it cannot be read, or is too large.
    """
    with readable(path), _open(path.read_bytes(), path) as picture:
        return _upright(picture, white)


def as_photograph(picture: object, white: int = 0) -> np.ndarray:
    """Take a PIL image or an array as a photograph: (height, width, 3) uint8.

    An image is turned upright if it has an EXIF orientation. Pillow decodes it, so its pixels can
    differ by some grey levels from those of a JPEG's path.

    Raises:
        UsageError: it is neither, has other channels than three of 8 bits, or cannot be read.
    """
    if isinstance(picture, Image.Image):
        try:
            picture = _on_white(_upright(picture, white))
        except Exception as error:
            if not _is_decoders(error):
                raise
            raise UsageError(f"the PIL image cannot be read ({error}); open it again") from error
    is_array = isinstance(picture, np.ndarray)
    if is_array and picture.dtype == np.uint8 and picture.shape[2:] == (3,) and picture.size:
        return picture
    what = f"array {picture.shape} of {picture.dtype}" if is_array else type(picture).__name__
    raise UsageError(
        f"{what}: is not a photograph; give a path, a PIL image, or an array (height, width, 3) of "
        "uint8, RGB, values 0 to 255"
    )


def photograph_size(path: Path) -> tuple[int, int, int]:
    """Return a photograph's height and width as people see it, and its EXIF orientation."""
    with readable(path), _open(path, path) as picture:
        orientation, (width, height) = _orientation(picture), picture.size
    return (width, height, orientation) if orientation > 4 else (height, width, orientation)


def pixels_of(path: Path) -> int:
    """Return how many pixels a photograph has; 0 where that cannot be read."""
    with contextlib.suppress(Exception), Image.open(path) as picture:  # reading it will say why
        return picture.width * picture.height
    return 0


@contextlib.contextmanager
def readable(path: Path, kind: str = "photograph") -> Iterator[None]:
    """Turn what decoders raise into one line that names the file, a CarvanaError."""
    try:
        with memory_errors():
            yield
    except FileNotFoundError as error:
        raise CarvanaError(f"{path}: no such {kind}; check the name") from error
    except PermissionError as error:
        raise CarvanaError(f"{path}: cannot be read; change its permissions") from error
    except Unsupported as error:
        raise CarvanaError(f"{path}: {error}") from error
    except Image.DecompressionBombError as error:
        size = str(error).split(",")[0].lower()
        raise CarvanaError(f"{path}: is too large ({size}); make it smaller") from error
    except Exception as error:
        if not _is_decoders(error):
            raise
        raise CarvanaError(_explain_unreadable(path, kind, error)) from error


def _is_decoders(error: Exception) -> bool:
    """Tell whether an error is one that decoders raise of broken files; others are bugs."""
    of_pillow = isinstance(error, OSError | ValueError | SyntaxError | EOFError)
    of_its_avif = type(error) is RuntimeError
    of_tensorflow = type(error).__name__ == "InvalidArgumentError"  # which may not be installed
    return of_pillow or of_its_avif or of_tensorflow


def _explain_unreadable(path: Path, kind: str, error: Exception) -> str:
    start = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        start = file.read(64)
    for part, what in _DISGUISES.items():
        if part in start.lower():
            return f"{path}: is not a {kind} but {what}"
    reason = getattr(error, "strerror", None) or "cut short or broken"
    remedy = "replace or remove it"
    if not start and not path.is_dir():
        reason = "it is empty"
    elif isinstance(error, Image.UnidentifiedImageError):
        reason = "broken, or of a format, channels or bits that are not read"
        remedy = "save it as PNG with 8 bits, or remove it"
    return (
        f"{path}: is not a readable {kind} ({reason}); {remedy} and run the same command again: "
        "what was made so far is kept"
    )


def _open(source: bytes | Path, path: Path) -> Image.Image:
    if path.suffix.lower() in (".heic", ".heif"):
        try:
            import pillow_heif
        except ModuleNotFoundError as error:
            raise CarvanaError(
                f"{path}: HEIC needs the package pillow-heif; pip install pillow-heif, or convert "
                "it to JPEG"
            ) from error
        pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none."""
    if picture.format not in (None, "JPEG", "MPO", "PNG", "WEBP", "AVIF"):
        return 1  # decoders of TIFF and HEIC turn pictures themselves
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # of broken EXIF data; Pillow raises whatever the broken part raised
        return 1
    return orientation if orientation in range(1, 9) else 1


def turn_upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF orientation says."""
    return picture if _orientation(picture) == 1 else ImageOps.exif_transpose(picture)


def _turn(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array upright, as `ImageOps.exif_transpose` turns a PIL image."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


def raw_mode(picture: Image.Image) -> str:
    """Return how a file that is not decoded yet stores its pixels, as in "L;2" or "RGB;16B"."""
    if not getattr(picture, "tile", None):  # as of pictures that are from no file
        return ""
    arguments = picture.tile[0][3]
    return str(arguments if isinstance(arguments, str) else (arguments or [""])[0])


def check_mode(picture: Image.Image) -> None:
    """Refuse pixels of a kind that is not read."""
    if picture.mode not in _MODES:
        kind = f"has pixels of the kind {picture.mode}, which is not read"
        raise Unsupported(f"{kind}; save it as PNG")


def _upright(picture: Image.Image, white: int = 0) -> Image.Image:
    """Bring a picture to 8-bit sRGB, upright: RGB, or RGBA where it has transparency."""
    profile, is_wide = _profile(picture), ";16" in raw_mode(picture)
    picture = turn_upright(picture)
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bits(picture, white)
    elif is_wide and white != 65535:  # of whose colours Pillow keeps the upper 8 bits
        brightest = max(high for _, high in picture.convert("RGB").getextrema())
        if white or brightest < 64:
            raise Unsupported(
                f"has colours of 16 bits, none above {256 * brightest + 255} of 65535; save it "
                "with 8 bits (if it is as dark as that: input.white = 65535)"
            )
    check_mode(picture)
    alpha = None
    if picture.has_transparency_data:
        alpha = picture.convert("RGBA").getchannel("A")
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGB")
    elif picture.mode in ("LA", "RGBA"):
        picture = picture.convert(picture.mode.removesuffix("A"))
    if profile:
        # A broken profile, or one of another colour space than the pixels, says nothing.
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            source, target = ImageCms.ImageCmsProfile(profile), ImageCms.createProfile("sRGB")
            picture = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    picture = picture.convert("RGB")
    if alpha:
        picture.putalpha(alpha)
    for part in ("icc_profile", "exif", "transparency"):  # which no longer fit, if written
        picture.info.pop(part, None)
    return picture


def _profile(picture: Image.Image) -> io.BytesIO | None:
    """Return a picture's colour profile, None where it has none or sRGB's."""
    profile = picture.info.get("icc_profile")
    with contextlib.suppress(ImageCms.PyCMSError, OSError):
        if profile and "sRGB" in ImageCms.getProfileDescription(io.BytesIO(profile)):
            return None
    return io.BytesIO(profile) if profile else None


def _eight_bits(picture: Image.Image, white: int) -> Image.Image:
    """Scale grey values of 16 bits, or floats in [0, 1], to 8.

    Values that fill less than a quarter of their range are not scaled without a word: 12 bits in
    16 would come out nearly black.
    """
    values = np.asarray(picture)
    low, high = float(values.min()), float(values.max())
    most = 1 if picture.mode == "F" and high <= 1 else white or 65535
    if low < 0 or high > most or (picture.mode == "F" and most != 1):
        limit = f" and input.white is {white}" if white else ""
        raise Unsupported(
            f"has grey values from {low:g} to {high:g}{limit}; save it with 8 or 16 bits"
        )
    if not white and 0 < high < most / 4:
        remedy = "save it with 8 bits"
        if most > 1:
            guess = next(value for value in (255, 1023, 4095, 16383) if high <= value)
            remedy = f"set input.white = {guess} if that is white, or {remedy}"
        raise Unsupported(
            f"has grey values up to {high:g} of {most}, and would be read nearly black; {remedy}"
        )
    return Image.fromarray(np.rint(values * (255 / most)).astype(np.uint8))


def _on_white(picture: Image.Image) -> np.ndarray:
    """Composite transparency on white: (height, width, 3) uint8."""
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
    return np.asarray(picture)
