"""Predict a folder of photographs into a folder of PNG label maps."""

import math
from pathlib import Path

from carvana.data.folders import list_images
from carvana.data.provenance import check_targets
from carvana.errors import UsageError
from carvana.files import beside, real_path
from carvana.prediction.certainty import review_of, write_review
from carvana.prediction.model import Model
from carvana.prediction.rows import Job, Make, Part, completed, info_of, map_of
from carvana.runs.trained import RunInfo


def write_masks(
    model: Model | RunInfo,
    images: Path,
    out: Path,
    threshold: float | None = None,
    workers: int | None = None,
    part: Part | None = None,
    minutes: float = math.inf,
    make: Make | None = None,
) -> None:
    """Predict a folder of photographs into a folder of PNG label maps, or resume.

    A map is a palette picture: the index of a pixel is its class as the recipe's masks number it
    (0 background, 1 car without classes), and its colour the class's. It is named after the
    photograph as the recipe's masks are. Arguments, errors and `<out>.review.csv` are those of
    `write_submission`.

    Args:
        threshold: for where there are no classes.
        out: the folder for the maps; earlier maps of the same names in it are replaced.

    Raises:
        UsageError: `out` is not a folder, or a picture that is not ours would be replaced.
    """
    if real_path(out) == real_path(images):
        raise UsageError(f"{out}: holds the photographs; choose another --masks")
    info = info_of(model)
    settings = info.recipe.data
    if threshold is not None and settings.classes:
        raise UsageError("--threshold goes with masks of two colours, this model has classes")
    names = list_images(images)
    targets = {name: map_of(out, name, settings) for name in names}
    check_targets(targets, out, "label map", "--masks")
    places = beside(out / "masks", "rows"), images
    job = Job.of(info, *places, threshold, workers=workers, masks=out.absolute())
    with completed(model, job, names, out, make, part, minutes) as rows:
        if rows:
            expected = [(row.name, row.expected) for row in rows]
            write_review(review_of(out), expected, info.usual)
