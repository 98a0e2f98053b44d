"""Ten formats, stored in eight orientations, through `predict` and `cutout`."""

import csv

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from carvana.competition import rle
from carvana.prediction.cutout import cut_out
from carvana.prediction.submission import write_submission

SIZE = (150, 100)
KINDS = {
    "baseline.jpg": {"quality": 97, "subsampling": 0},
    "progressive.jpg": {"quality": 97, "subsampling": 0, "progressive": True},
    "cmyk.jpg": {"quality": 97},
    "mpo.jpg": {"format": "MPO", "quality": 97, "subsampling": 0},
    "rgb.png": {},
    "alpha.png": {},
    "a.webp": {"lossless": True},
    "a.avif": {"quality": 97},
    "a.tif": {},
    "a.bmp": {},
}


def stored(upright, orientation):
    """How a camera stores a picture that is upright under this orientation (EXIF 2.3)."""
    operations = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return upright.transpose(operations[orientation]) if orientation > 1 else upright


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of one picture in every format and orientation, and the same as plain PNG."""
    folder = tmp_path_factory.mktemp("formats")
    upright = Image.new("RGB", SIZE, (215, 215, 215))
    ImageDraw.Draw(upright).ellipse((20, 15, 115, 70), fill=(30, 45, 60))
    upright.save(folder / "upright.png")
    for name, options in KINDS.items():
        if name.endswith("avif") and not features.check("avif"):
            continue
        for orientation in range(1, 9):
            if name.endswith("bmp") and orientation > 1:
                continue  # which has no tags
            picture = stored(upright, orientation)
            picture = picture.convert({"cmyk": "CMYK", "alpha": "RGBA"}.get(name[:-4], "RGB"))
            exif = Image.Exif()
            exif[0x0112] = orientation
            if orientation > 1:
                options = options | {"exif": exif}
            picture.save(folder / f"{orientation}-{name}", **options)
    return folder


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_predictions_are_of_the_upright_picture(photographs, model, tmp_path):
    write_submission(model, photographs, tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = dict(list(csv.reader(file))[1:])
    assert len(rows) > 60
    masks = {name: rle.decode(runs, *SIZE[::-1]) for name, runs in rows.items()}
    want = masks.pop("upright.png")
    assert 0.2 < want.mean() < 0.5
    assert {name: d for name, m in masks.items() if (d := dice(m, want)) < 0.99} == {}


def test_cutouts_are_of_the_upright_picture(photographs, model, tmp_path):
    want = Image.open(photographs / "upright.png")
    for photo in sorted(photographs.iterdir()):
        (out,) = cut_out(model, [photo], tmp_path / photo.name)
        cut = Image.open(out)
        assert (cut.mode, cut.size) == ("RGBA", want.size), photo.name
        array = np.asarray(cut).astype(int)
        kept = np.isin(array[..., 3], (0, 255))  # along the soft edge, colours are estimated
        assert kept.any()
        assert np.abs(array[..., :3] - np.asarray(want))[kept].mean() < 6, photo.name
        assert dice(array[..., 3] > 127, model.mask(want)) > 0.99, photo.name
        assert not {"icc_profile", "exif"} & set(cut.info), photo.name
