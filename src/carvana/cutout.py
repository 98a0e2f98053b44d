"""Cut cars out of photographs: PNGs whose background is transparent."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing
from carvana.predict import Run, predict_each
from carvana.progress import progress


def cut_out(run: Run, photos: Sequence[Path], out: Path) -> list[Path]:
    """Write each photograph as `out/<name>.png`, as opaque as the network is sure of the car.

    Args:
        run: the model and its recipe.
        photos: JPEG or PNG files of any size.
        out: the folder; files of the same names in it are replaced.

    Returns:
        The files written.

    Raises:
        UsageError: two photographs would write the same file, or one would replace itself.
        CarvanaError: a photograph cannot be read, or a file cannot be written. Those before it
            are written.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is not a folder; choose another --out")
    targets: dict[Path, Path] = {}
    for photo in photos:
        if not photo.is_file():
            raise UsageError(f"{photo}: no such file; give photographs, one or more")
        target = out / f"{photo.stem}.png"
        other = targets.setdefault(target, photo)
        if other != photo:
            raise UsageError(f"{other} and {photo} would both write {target}; rename one")
        if target.exists() and target.samefile(photo):
            raise UsageError(f"{photo}: would be replaced by its cutout; choose another --out")

    def write(photo: Path, probability: np.ndarray) -> Path:
        target = out / f"{photo.stem}.png"
        picture = _upright(photo)
        picture.putalpha(Image.fromarray(np.rint(probability * 255).astype(np.uint8)))
        with replacing(target) as temporary:
            picture.save(temporary)
        return target

    def read(photo: Path, _) -> tuple[np.ndarray, tuple[int, int]]:
        picture = np.asarray(_upright(photo))
        return picture, picture.shape[:2]

    unique = list(dict.fromkeys(photos))
    return list(progress(predict_each(run, unique, write, read), "cutting out", len(unique)))


def _upright(photo: Path) -> Image.Image:
    """Read a photograph as RGB, turned the way its camera says it was held."""
    try:
        with Image.open(photo) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # Pillow raises whatever the broken part raised
        raise CarvanaError(f"{photo}: is not a readable photograph; leave it out") from error
