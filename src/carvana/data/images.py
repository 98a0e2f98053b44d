"""Read photographs, whatever their format, and bring them to the network's size and back.

With `masks.py` this is the only code that opens pictures. A photograph comes out as people see it:
upright by its EXIF orientation, 8-bit sRGB, what is transparent on white.
"""

import contextlib
import io
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from carvana.backend import tf
from carvana.errors import CarvanaError, UsageError
from carvana.recipe import Input

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff"),
    *(".gif", ".heic", ".heif"),
)
ORIENTATION = 0x0112  # the EXIF tag
SOFTWARE_TAG = 0x0131  # the EXIF tag
SOFTWARE = "carvana"  # what the pictures we write name as their maker


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn OpenCV's out-of-memory error into MemoryError; also a decorator.

    Raises:
        MemoryError: OpenCV could not allocate.
    """
    try:
        yield
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        raise


def list_images(folder: Path) -> list[str]:
    """Return the sorted names of the pictures in a folder; say what else is in it.

    Hidden files are passed over silently, other files and folders in one line on standard error.

    Raises:
        CarvanaError: the folder is absent, not a folder, or holds no picture; a name cannot be
            written to a CSV.
    """
    if folder.is_file():
        raise CarvanaError(f"{folder}: is a file; give the folder that holds it")
    if not folder.is_dir():
        raise CarvanaError(f"{folder}: no such folder; run `make download` or unzip it there")
    names, others = [], Counter()
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            others["folder"] += 1
        elif path.suffix.lower() in ENDINGS:
            names.append(path.name)
        else:
            others[path.suffix.lower() or "no ending"] += 1
    passed_over = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
    if not names:
        raise CarvanaError(
            f"{folder}: holds no photograph ({', '.join(ENDINGS)}); run `make download` or put "
            f"the photographs straight into it{f' (there: {passed_over})' if others else ''}"
        )
    for name in names:
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise CarvanaError(f"{folder}/{name!a}: has an unreadable name; rename it")
    if others:
        print(f"{folder}: passing over what is no picture: {passed_over}", file=sys.stderr)
    return sorted(names)


def read_bytes(path: Path) -> bytes:
    """Read a photograph's file.

    Raises:
        CarvanaError: it cannot be read.
    """
    with readable(path):
        return path.read_bytes()


def read_photograph(
    path: Path, settings: Input | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a photograph for the network; see `decode_photograph`."""
    return decode_photograph(read_bytes(path), path, settings)


def decode_photograph(
    data: bytes,
    path: Path,
    settings: Input | None = None,
    decode_jpeg: Callable[[bytes, int], np.ndarray] | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode the bytes of a photograph for the network.

    Args:
        data: the bytes.
        path: what errors name.
        settings: the network's input. Where it averages areas, a JPEG is decoded at 1/2, 1/4 or
            1/8 of its size if that is whole and no smaller: the decoder computes fewer pixels.
        decode_jpeg: decodes plain JPEGs, at one part in so many; TensorFlow when None.

    Returns:
        The picture, (height, width, 3) uint8, and the (height, width) of the whole photograph.

    Raises:
        CarvanaError: it cannot be read, or is too large.
    """
    with readable(path):
        with _open(data, path) as picture:
            if not _is_plain_jpeg(picture):
                whole = np.asarray(_on_white(_upright(picture)))
                return whole, whole.shape[:2]
            orientation, (width, height) = _orientation(picture), picture.size
        turned = orientation in (5, 6, 7, 8)
        ratio = 1
        if settings and settings.method == "area":
            wanted = settings.height, settings.width
            ratio = _jpeg_ratio((height, width), wanted[::-1] if turned else wanted)
        decoded = (decode_jpeg or _decode_jpeg)(data, ratio)
        return _turn(decoded, orientation), (width, height) if turned else (height, width)


def _decode_jpeg(data: bytes, ratio: int) -> np.ndarray:
    return tf.io.decode_jpeg(data, channels=3, ratio=ratio).numpy()


def open_photograph(path: Path) -> Image.Image:
    """Read a photograph at full size: a PIL image, RGB, or RGBA where it has transparency.

    Raises:
        CarvanaError: it cannot be read, or is too large.
    """
    with readable(path), _open(path.read_bytes(), path) as picture:
        return _upright(picture)


def as_photograph(picture: object) -> np.ndarray:
    """Take a PIL image or an array as a photograph: (height, width, 3) uint8.

    An image counts as its file would: it is turned upright if it has an EXIF orientation. Pillow
    decodes it, so its pixels can differ by some grey levels from those of a JPEG's path.

    Raises:
        UsageError: it is neither, or an array that is not three channels of 8 bits, or an image
            that cannot be read.
    """
    if isinstance(picture, Image.Image):
        try:
            pixels = np.asarray(_on_white(_upright(picture)))
        except Exception as error:  # Pillow raises whatever the broken part raised
            raise UsageError(f"the PIL image cannot be read ({error}); open it again") from error
        if pixels.size:
            return pixels
        raise UsageError(f"a PIL image of size {picture.size} is not a photograph")
    if not isinstance(picture, np.ndarray):
        raise UsageError(
            f"a {type(picture).__name__} is not a photograph; give a path, a PIL image or an "
            "array (height, width, 3) of uint8"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise UsageError(
            f"an array {picture.shape} of {picture.dtype} is not a photograph; give (height, "
            "width, 3) of uint8, RGB, values 0 to 255"
        )
    return picture


def photograph_size(path: Path) -> tuple[int, int, int]:
    """Return a photograph's height and width as people see it, and its EXIF orientation.

    Raises:
        CarvanaError: it cannot be read, or is too large.
    """
    with readable(path), _open(path, path) as picture:
        orientation, (width, height) = _orientation(picture), picture.size
    return (width, height, orientation) if orientation > 4 else (height, width, orientation)


@contextlib.contextmanager
def readable(path: Path, kind: str = "photograph") -> Iterator[None]:
    """Turn whatever a decoder raises into one line that names the file.

    Raises:
        CarvanaError: it cannot be read, or is too large.
    """
    try:
        with memory_errors():
            yield
    except (CarvanaError, MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except FileNotFoundError as error:
        raise CarvanaError(f"{path}: no such {kind}; check the name") from error
    except Image.DecompressionBombError as error:
        raise CarvanaError(
            f"{path}: is too large ({str(error).split(',')[0].lower()}); make it smaller"
        ) from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or "cut short or broken"
        raise CarvanaError(
            f"{path}: is not a readable {kind} ({reason}); replace or remove it and run the same "
            "command again: what was made so far is kept"
        ) from error


def _open(source: bytes | Path, path: Path) -> Image.Image:
    """Open a picture of any format; `path` is what errors name."""
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


def our_mark() -> PngInfo:
    """Return what marks a PNG as ours, so that it may be replaced."""
    mark = PngInfo()
    mark.add_text("Software", SOFTWARE)
    return mark


def our_exif() -> Image.Exif:
    """Return what marks a JPEG or WebP as ours."""
    mark = Image.Exif()
    mark[SOFTWARE_TAG] = SOFTWARE
    return mark


def is_ours(path: Path) -> bool:
    """Tell whether a picture carries our mark."""
    try:
        with Image.open(path) as picture:
            return SOFTWARE in (picture.info.get("Software"), picture.getexif().get(SOFTWARE_TAG))
    except (OSError, ValueError):
        return False


def _is_plain_jpeg(picture: Image.Image) -> bool:
    """Tell whether TensorFlow's decoder, the article's, gives what people see."""
    return picture.format in ("JPEG", "MPO") and picture.mode == "RGB" and _profile(picture) is None


def _jpeg_ratio(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """Return the largest part, 1/8 to 1/1, that is whole and no smaller than what is wanted."""
    shrink = min(size[0] // wanted[0], size[1] // wanted[1])
    fits = (r for r in (8, 4, 2) if r <= shrink and size[0] % r == 0 and size[1] % r == 0)
    return next(fits, 1)


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none.

    Decoders of TIFF and HEIC turn pictures themselves.
    """
    if picture.format not in ("JPEG", "MPO", "PNG", "WEBP", "AVIF"):
        return 1
    orientation = picture.getexif().get(ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _turn(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array upright, as `ImageOps.exif_transpose` turns a PIL image."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


def _upright(picture: Image.Image) -> Image.Image:
    """Bring a picture to 8-bit sRGB, upright: RGB, or RGBA where it has transparency."""
    profile = _profile(picture)
    picture = _eight_bits(ImageOps.exif_transpose(picture))
    transparent = picture.has_transparency_data
    alpha = picture.convert("RGBA").getchannel("A") if transparent else None
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
    if not profile:
        return None
    with contextlib.suppress(ImageCms.PyCMSError, OSError):
        if "sRGB" in ImageCms.getProfileDescription(io.BytesIO(profile)):
            return None
    return io.BytesIO(profile)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale grey values of 16 bits to 8; Pillow itself scales colours."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError("neither 8 nor 16 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def _on_white(picture: Image.Image) -> Image.Image:
    """Composite transparency on white."""
    if picture.mode != "RGBA":
        return picture
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def resize(picture: np.ndarray, settings: Input) -> np.ndarray:
    """Resize to the recipe's size, aspect ratio not kept, and scale to [0, 1].

    Args:
        picture: (height, width, channels) uint8.
        settings: the recipe's size, and how pixels are averaged.

    Returns:
        (settings.height, settings.width, channels) float32.
    """
    size, white = (settings.height, settings.width), np.float32(255)
    if settings.method == "bilinear" and not settings.antialias:
        return _bilinear(picture, size)
    grows = picture.shape[0] < size[0] and picture.shape[1] < size[1]
    if settings.method == "area" and grows:  # areas would repeat pixels
        larger = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC)
        return larger.reshape(*size, -1) / white
    resized = tf.image.resize(picture, size, settings.method, antialias=settings.antialias)
    # Sums of many shares miss 1 by a rounding error, which accuracy would count as an error.
    return np.round(resized.numpy() / white * 2**16) / np.float32(2**16)


def _bilinear(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Do what `tf.image.resize` does after `convert_image_dtype`, bit for bit.

    TensorFlow converts every pixel; without antialiasing, most of them are never used.
    """

    def neighbours(count: int, wanted: int):
        step = np.float32(count) / np.float32(wanted)
        at = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * step - np.float32(0.5)
        low = np.floor(at)
        high = np.minimum(np.ceil(at), count - 1)
        return np.maximum(low, 0).astype(int), high.astype(int), (at - low)[:, None]

    top, bottom, down = neighbours(picture.shape[0], size[0])
    left, right, across = neighbours(picture.shape[1], size[1])

    def row(chosen: np.ndarray) -> np.ndarray:
        pixels = picture[chosen]
        a, b = (pixels[:, at] * np.float32(1 / 255) for at in (left, right))
        return a + (b - a) * across

    upper, lower = row(top), row(bottom)
    return upper + (lower - upper) * down[:, None]


@memory_errors()
def upsample(probability: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring probabilities to a photograph's size, bilinearly.

    Args:
        probability: (h, w, outputs) float32 in [0, 1].

    Returns:
        (height, width) float32 for one output, else (height, width, outputs).
    """
    if probability.shape[-1] == 1:
        probability = probability[..., 0]
    return cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
