"""Cut cars out of photographs: onto transparency, a colour or another picture."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageColor, ImageOps

from carvana.data.images import open_photograph
from carvana.data.provenance import check_targets, exif_mark, png_mark
from carvana.errors import CarvanaError, UsageError, raise_faults
from carvana.files import replacing
from carvana.prediction.certainty import expected_dice, is_unsure
from carvana.prediction.model import Model, Prediction
from carvana.progress import progress

FORMATS = ("png", "jpg", "webp")
RADII = (90, 6)  # of the blurs that estimate the foreground's colours, in pixels
BAND = 2**22  # pixels whose colours are estimated at a time
SOFT = 0.5  # of the probability: the range around the threshold in which alpha rises from 0 to 1
CERTAIN = 0.9  # a probability; parts that reach it nowhere are not of the car
MARGIN = 0.02  # around what is cropped, of its longer side


@dataclass(frozen=True)
class Style:
    """What a cutout looks like. UsageError: its fields do not go together."""

    background: str | None = None  # a colour ("white", "#ff0000") or a picture's path
    crop: bool = False  # to the car and a small margin
    mask_only: bool = False  # the mask in grey instead: the cutout's alpha
    format: str = "png"  # or "jpg", "webp", where nothing is transparent

    def __post_init__(self):
        if self.format not in FORMATS:
            raise UsageError(f"--format {self.format}: use {', '.join(FORMATS)}")
        if self.mask_only and self.background is not None:
            raise UsageError("--mask-only has no --background; leave one of them out")
        if self.format != "png" and not self.mask_only and self.background is None:
            raise UsageError(f"--format {self.format} has no transparency; give --background")
        if self.background is not None and not Path(self.background).is_file():
            try:
                ImageColor.getrgb(self.background)
            except ValueError as error:
                raise UsageError(
                    f"--background {self.background}: is neither a picture nor a colour; use a "
                    "path, a name such as white, or #rrggbb"
                ) from error

    def behind(self, size: tuple[int, int]) -> Image.Image:
        """Return the background at a photograph's (width, height), RGB."""
        if Path(self.background).is_file():
            return ImageOps.fit(open_photograph(Path(self.background)).convert("RGB"), size)
        return Image.new("RGB", size, ImageColor.getrgb(self.background)[:3])


def cut_out(
    model: Model, photos: Sequence[Path], out: Path, style: Style | None = None
) -> list[Path]:
    """Write each photograph's car as `out/<name>.png`; return the files written.

    Alpha is steeper than the probability, see `estimate_alpha`; along the soft edge, colours are
    those of the car alone, see `estimate_foreground`.

    Cutouts of the same names in the folder are replaced. Without a style they are on transparency.

    Raises:
        UsageError: two photographs would write the same file, a picture that is not one of our
            cutouts would be replaced, or the model knows no background.
        CarvanaError: photographs cannot be read, after the others are written; or a file cannot
            be written.
    """
    if model.background is None:
        raise UsageError(
            'the model has no class called "background", so nothing can be cut out; use '
            "`carvana predict --masks`"
        )
    style = style or Style()
    for photo in photos:
        if not photo.is_file():
            raise UsageError(f"{photo}: is not a file; give photographs, one or more")
    targets = {photo: out / f"{photo.stem}.{style.format}" for photo in photos}
    check_targets(targets, out, "cutout", "--out")

    def write(photo: Path, found: Prediction) -> Path:
        shown = found.foreground()
        expected = expected_dice(shown) if found.outputs == 1 else found.decide()[1]
        if is_unsure(expected, model.usual):
            print(
                f"{photo}: the mask looks unreliable; the photograph may differ from the training "
                "data",
                file=sys.stderr,
            )
        picture = open_photograph(photo, model.white)
        threshold = found.threshold if found.outputs == 1 else 0.5
        alpha = Image.fromarray(estimate_alpha(shown, threshold))
        if picture.mode == "RGBA":  # what was transparent stays so
            alpha = ImageChops.multiply(alpha, picture.getchannel("A"))
        cut = _draw(picture.convert("RGB"), alpha, style)
        if style.crop:
            cut = cut.crop(_around(alpha))
        with replacing(targets[photo]) as temporary:
            if style.format == "png":
                cut.save(temporary, pnginfo=png_mark("cutout"))
            else:
                cut.save(temporary, quality=95, exif=exif_mark("cutout"))
        return targets[photo]

    written, faults = [], []
    made = model.map(list(targets), write, keep_going=True)
    for each in progress(made, "cutting out", len(targets)):
        (faults if isinstance(each, CarvanaError) else written).append(each)
    summary = f"{len(faults)} photographs cannot be read (cutouts written: {len(written)}):"
    raise_faults(summary, faults)
    return written


def estimate_alpha(probability: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Estimate the share of each pixel that the car covers: (height, width) uint8, 255 for all.

    The probability, (height, width) float32, rises over more pixels than the car's edge is wide,
    so alpha is steeper around the threshold. Parts that are certain nowhere are dropped.
    """
    alpha = np.clip((probability - threshold) / SOFT + 0.5, 0, 1)
    alpha = np.rint(255 * alpha).astype(np.uint8)
    count, parts = cv2.connectedComponents((alpha > 0).astype(np.uint8))  # (height, width) int32
    is_car = np.zeros(count, bool)
    is_car[parts[probability > CERTAIN]] = True
    return alpha * is_car[parts]


def estimate_foreground(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the colours of what is in front, without the background mixed into its edge.

    Blur fusion in two passes: M. Forte, "Approximate Fast Foreground Colour Estimation", ICIP
    2021, with its radii.

    Args:
        picture: (height, width, 3) uint8.
        alpha: (height, width) uint8, the share of the foreground in each pixel.

    Returns:
        (height, width, 3) uint8; pixels of alpha 0 and 255 are the picture's.
    """
    edge = (alpha > 0) & (alpha < 255)
    if not edge.any():
        return picture
    rows, columns = (np.flatnonzero(edge.any(axis=axis)) for axis in (1, 0))
    reach = max(RADII)  # of what is blurred into the edge
    rows, columns = (slice(max(at[0] - reach, 0), at[-1] + reach + 1) for at in (rows, columns))
    estimated = picture.copy()
    step = max(BAND // (columns.stop - columns.start), 1)
    for top in range(rows.start, rows.stop, step):  # in bands, so that memory stays bounded
        end = min(top + step, rows.stop)
        first, last = max(top - sum(RADII), rows.start), min(end + sum(RADII), rows.stop)
        part = picture[first:last, columns] / np.float32(255)
        share = (alpha[first:last, columns] / np.float32(255))[..., None]
        front = behind = part
        for radius in RADII:
            front, behind = _fuse(part, front, behind, share, radius)
        front = np.rint(255 * front[top - first : end - first]).astype(np.uint8)
        at = edge[top:end, columns]
        estimated[top:end, columns][at] = front[at]
    return estimated


def _fuse(colours, front, behind, share, radius: int):
    """Blur foreground and background apart, then let both explain the picture's colours."""

    def blur(values):
        return cv2.blur(values, (radius, radius)).reshape(values.shape)

    shares = blur(share)
    front = blur(front * share) / (shares + 1e-5)
    behind = blur(behind * (1 - share)) / (1 - shares + 1e-5)
    front = front + share * (colours - share * front - (1 - share) * behind)
    return np.clip(front, 0, 1), behind


def _draw(picture: Image.Image, alpha: Image.Image, style: Style) -> Image.Image:
    if style.mask_only:
        return alpha
    front = Image.fromarray(estimate_foreground(np.asarray(picture), np.asarray(alpha)))
    if style.background is not None:
        return Image.composite(front, style.behind(front.size), alpha)
    front.putalpha(alpha)
    return front


def _around(alpha: Image.Image) -> tuple[int, int, int, int]:
    """Return the box of what is more than half opaque, with a margin; all of it if nothing is."""
    box = alpha.point(lambda value: value > 127).getbbox()
    left, top, right, bottom = box or (0, 0, *alpha.size)
    margin = round(MARGIN * max(right - left, bottom - top))
    right, bottom = min(right + margin, alpha.width), min(bottom + margin, alpha.height)
    return max(left - margin, 0), max(top - margin, 0), right, bottom
