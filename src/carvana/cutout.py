"""Cut cars out of photographs: PNGs whose background is transparent."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from carvana.errors import UsageError
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
    targets: dict[Path, Path] = {}
    for photo in photos:
        target = out / f"{photo.stem}.png"
        other = targets.setdefault(target, photo)
        if other != photo:
            raise UsageError(f"{other} and {photo} would both write {target}; rename one")
        if target.exists() and photo.exists() and target.samefile(photo):
            raise UsageError(f"{photo}: would be replaced by its cutout; choose another --out")

    def write(photo: Path, probability: np.ndarray) -> Path:
        target = out / f"{photo.stem}.png"
        with Image.open(photo) as opened:
            picture = opened.convert("RGB")
            picture.putalpha(Image.fromarray(np.rint(probability * 255).astype(np.uint8)))
            picture.info["exif"] = opened.info.get("exif", b"")
            upright = ImageOps.exif_transpose(picture)
        with replacing(target) as temporary:
            upright.save(temporary)
        return target

    unique = list(dict.fromkeys(photos))
    return list(progress(predict_each(run, unique, write), "cutting out", len(unique)))
