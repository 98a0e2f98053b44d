"""Read photographs and masks: the one place that opens pictures; and bring them to other sizes."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from carvana.backend import tf
from carvana.errors import CarvanaError, UsageError
from carvana.recipe import Input

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


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
    """Return the sorted names of the photographs in a folder; hidden files are passed over.

    Raises:
        CarvanaError: the folder is absent, not a folder, or holds no photograph; a name is not
            UTF-8.
    """
    if folder.is_file():
        raise CarvanaError(f"{folder}: is a file; give the folder that holds it")
    if not folder.is_dir():
        raise CarvanaError(f"{folder}: no such folder; run `make download` or unzip it there")
    names = sorted(
        f.name
        for f in folder.iterdir()
        if f.suffix.lower() in IMAGE_ENDINGS and not f.name.startswith(".") and not f.is_dir()
    )
    if not names:
        raise CarvanaError(
            f"{folder}: holds no photograph ({', '.join(IMAGE_ENDINGS)}); run `make download` or "
            "unzip the images straight into it"
        )
    for name in names:
        if not name.isprintable():
            raise CarvanaError(f"{folder}/{name!a}: has an unreadable name; rename it")
    return names


def decode_image(data: bytes, settings: Input | None = None) -> np.ndarray:
    """Decode the bytes of a JPEG (or PNG): (height, width, 3) uint8.

    Where `settings` average areas, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that is
    whole and no smaller than theirs: the decoder then computes fewer pixels.
    """
    if settings and settings.method == "area" and tf.io.is_jpeg(data):
        height, width, _ = tf.io.extract_jpeg_shape(data).numpy()
        shrink = min(height // settings.height, width // settings.width)
        for ratio in (8, 4, 2):
            if ratio <= shrink and height % ratio == 0 and width % ratio == 0:
                return tf.io.decode_jpeg(data, channels=3, ratio=ratio).numpy()
    return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def decode_mask(data: bytes) -> np.ndarray:
    """Decode the bytes of a GIF, frame 0, channel 0: (height, width, 1) uint8 in {0, 255}.

    By Pillow: `tf.io.decode_gif`, the article's, gives the same of opaque masks that fill their
    picture, and takes three times as long.
    """
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode != "P":
            return np.asarray(picture.convert("RGB"))[..., :1]
        red = np.zeros(256, np.uint8)
        levels = picture.getpalette("RGB")[::3]
        red[: len(levels)] = levels
        return cv2.LUT(np.asarray(picture), red)[..., None]


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
        probability: (h, w, 1) float32 in [0, 1].

    Returns:
        (height, width) float32.
    """
    return cv2.resize(probability[..., 0], (width, height), interpolation=cv2.INTER_LINEAR)


def read_photograph(path: Path, settings: Input) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a photograph as it is stored; see `decode_photograph`."""
    return decode_photograph(read_bytes(path), path, settings)


def read_bytes(path: Path) -> bytes:
    """Read a photograph's file.

    Raises:
        CarvanaError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CarvanaError(
            f"{path}: is not a readable photograph ({error.strerror or error}); replace or remove "
            "it, and run the same command again: masks made so far are kept"
        ) from error


def decode_photograph(
    data: bytes, path: Path, settings: Input
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode the bytes of a photograph; `path` is what errors name.

    Returns:
        The picture, (height, width, 3) uint8, maybe decoded at a fraction of its size; and the
        full (height, width).

    Raises:
        CarvanaError: it cannot be read.
    """
    try:
        picture = decode_image(data, settings)
        size = picture.shape[:2]
        if tf.io.is_jpeg(data):
            size = tf.io.extract_jpeg_shape(data)[:2].numpy()
    except tf.errors.ResourceExhaustedError:
        raise
    except tf.errors.OpError as error:
        raise CarvanaError(
            f"{path}: is not a readable photograph (cut short?); replace or remove it, and run "
            "the same command again: masks made so far are kept"
        ) from error
    return picture, tuple(int(side) for side in size)


def read_upright(path: Path) -> Image.Image:
    """Read a photograph as RGB, rotated the way its camera says it was held.

    Raises:
        CarvanaError: it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # Pillow raises whatever the broken part raised
        raise CarvanaError(f"{path}: is not a readable photograph; leave it out") from error


def as_photograph(picture: object) -> np.ndarray:
    """Take a PIL image or an array as a photograph: (height, width, 3) uint8.

    Raises:
        UsageError: it is neither, or not three channels of 8 bits.
    """
    if isinstance(picture, Image.Image):
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    if not isinstance(picture, np.ndarray):
        raise UsageError(
            f"a {type(picture).__name__} is not a photograph; give a path, a PIL image or an array "
            "(height, width, 3) of uint8"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise UsageError(
            f"an array {picture.shape} of {picture.dtype} is not a photograph; give (height, "
            "width, 3) of uint8, RGB, values 0 to 255"
        )
    return picture


def load_pair(image: Path, mask: Path, settings: Input) -> tuple[np.ndarray, np.ndarray]:
    """Load a photograph and its mask as the network sees them before augmentation.

    Returns:
        image (height, width, 3) and mask (height, width, 1), float32 in [0, 1].

    Raises:
        CarvanaError: the pair cannot be used; the message names the file.
    """
    fault = pair_fault(image, mask)
    if fault:
        raise CarvanaError(fault)
    pictures = []
    decoders = ((image, lambda data: decode_image(data, settings)), (mask, decode_mask))
    for path, decode in decoders:
        try:
            with memory_errors():
                pictures.append(decode(path.read_bytes()))
        except (MemoryError, tf.errors.ResourceExhaustedError):
            raise
        except Exception as error:  # Pillow raises whatever the broken part raised
            raise CarvanaError(f"{path}: is cut short or broken; fetch it again") from error
    fault = mask_fault(pictures[1])
    if fault:
        raise CarvanaError(f"{mask}: {fault}")
    photograph, truth = (resize(picture, settings) for picture in pictures)
    return photograph, truth


def pair_fault(image: Path, mask: Path) -> str | None:
    """Say what is wrong with a pair, judging by its files' headers; None if nothing is.

    A photograph is a JPEG of three channels, a mask a GIF of one frame and of the same size.
    """
    try:
        with Image.open(image) as photograph:
            if photograph.format != "JPEG":
                return f"{image}: is a {photograph.format} with another ending; convert it to JPEG"
            if photograph.mode != "RGB":
                return f"{image}: is {photograph.mode}, not RGB; convert it to an RGB JPEG"
            size = photograph.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return f"{image}: is not a readable image; fetch it again"
    try:
        with Image.open(mask) as picture:
            if picture.format != "GIF":
                return f"{mask}: is a {picture.format}, not a GIF; fetch it again"
            if getattr(picture, "n_frames", 1) != 1:
                return f"{mask}: has {picture.n_frames} frames; a mask has one"
            if picture.size != size:
                return (
                    f"{mask}: is {picture.size[0]}x{picture.size[1]}, its photograph "
                    f"{size[0]}x{size[1]}; fetch both again"
                )
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return f"{mask}: is not a readable image; fetch it again"
    return None


def read_mask(path: Path) -> np.ndarray:
    """Read a mask GIF at full size.

    Returns:
        (height, width) bool.

    Raises:
        CarvanaError: unreadable, or values other than two.
    """
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture.convert("L"))
    except (OSError, UnidentifiedImageError) as error:
        raise CarvanaError(f"{path}: is not a readable mask; fetch it again") from error
    fault = mask_fault(values)
    if fault:
        raise CarvanaError(f"{path}: {fault}")
    return values > 0


def mask_fault(values: np.ndarray) -> str | None:
    """Say what is wrong with a mask's values (uint8); None if they are black and white only."""
    grey = np.count_nonzero((values > 0) & (values < 255))
    if grey:
        return f"has {grey} values besides black and white; a mask has two values"
    return None
