"""Cut cars out of photographs: PNGs whose background is transparent."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from carvana.data.images import is_ours, open_photograph, our_mark
from carvana.errors import UsageError
from carvana.files import replacing
from carvana.prediction.certainty import expected_dice, is_unsure
from carvana.prediction.predict import Model
from carvana.progress import progress


def cut_out(model: Model, photos: Sequence[Path], out: Path) -> list[Path]:
    """Write each photograph as `out/<name>.png`, with the predicted probability as its alpha.

    Args:
        model: the model.
        photos: files of any format and size.
        out: the folder; cutouts of the same names in it are replaced.

    Returns:
        The files written.

    Raises:
        UsageError: two photographs would write the same file, or a picture that is not one of
            our cutouts would be replaced.
        CarvanaError: a photograph cannot be read, or a file cannot be written. Those before it
            are written.
    """
    background = model.recipe.data.background
    if background is None:
        raise UsageError(
            'the model has no class called "background", so nothing can be cut out; use '
            "`carvana predict --masks`"
        )
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
        if target.exists() and not is_ours(target, "cutout"):
            raise UsageError(
                f"{target}: would be replaced, and is not a cutout of ours; choose another --out"
            )

    def write(photo: Path, probability: np.ndarray) -> Path:
        target = out / f"{photo.stem}.png"
        if is_unsure(expected_dice(probability), model.run.val_dice):
            print(
                f"{photo}: its mask is unsure; the photograph is unlike those the model was "
                "trained on",
                file=sys.stderr,
            )
        picture = open_photograph(photo)
        if probability.ndim == 3:
            probability = 1 - probability[..., background]  # of several classes, the others
        alpha = Image.fromarray(np.rint(probability * 255).astype(np.uint8))
        if picture.mode == "RGBA":  # what was transparent stays so
            alpha = ImageChops.multiply(alpha, picture.getchannel("A"))
        picture.putalpha(alpha)
        with replacing(target) as temporary:
            picture.save(temporary, pnginfo=our_mark("cutout"))
        return target

    unique = list(dict.fromkeys(photos))
    return list(progress(model.predict(unique, write), "cutting out", len(unique)))
