"""Cut cars out of photographs: PNGs whose background is transparent."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from carvana.data.images import read_upright
from carvana.errors import UsageError
from carvana.files import replacing
from carvana.prediction.predict import Model
from carvana.progress import progress
from carvana.recipe import Input


def cut_out(model: Model, photos: Sequence[Path], out: Path) -> list[Path]:
    """Write each photograph as `out/<name>.png`, as opaque as the network is sure of the car.

    Args:
        model: the model.
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
        picture = read_upright(photo)
        picture.putalpha(Image.fromarray(np.rint(probability * 255).astype(np.uint8)))
        with replacing(target) as temporary:
            picture.save(temporary)
        return target

    def read(photo: Path, _: Input) -> tuple[np.ndarray, tuple[int, int]]:
        picture = np.asarray(read_upright(photo))
        return picture, picture.shape[:2]

    unique = list(dict.fromkeys(photos))
    return list(progress(model.predict(unique, write, read), "cutting out", len(unique)))
