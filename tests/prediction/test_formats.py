"""Pictures as cameras store them, through `predict` and `cutout`; data/ tests how each is read."""

import csv

import numpy as np
from PIL import Image, ImageDraw

from carvana.competition import rle
from carvana.prediction.cutout import cut_out
from carvana.prediction.submission import write_submission


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_masks_and_cutouts_are_of_the_upright_picture(model, tmp_path):
    upright = Image.new("RGB", (150, 100), (215, 215, 215))
    ImageDraw.Draw(upright).ellipse((20, 15, 115, 70), fill=(30, 45, 60))
    folder, exif = tmp_path / "images", Image.Exif()
    folder.mkdir()
    exif[0x0112] = 6  # to be turned a quarter to the right
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    for name, mode in (("a.jpg", "RGB"), ("cmyk.jpg", "CMYK"), ("a.png", "RGBA")):
        turned.convert(mode).save(folder / name, exif=exif, quality=97)
    write_submission(model, folder, tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = dict(list(csv.reader(file))[1:])
    want = model.mask(upright)
    assert 0.2 < want.mean() < 0.5
    for photo in sorted(folder.iterdir()):
        assert dice(rle.decode(rows[photo.name], 100, 150), want) > 0.99, photo.name
        (out,) = cut_out(model, [photo], tmp_path / photo.name)
        cut = Image.open(out)
        assert (cut.mode, cut.size) == ("RGBA", (150, 100)), photo.name
        array = np.asarray(cut).astype(int)
        kept = np.isin(array[..., 3], (0, 255))  # along the soft edge, colours are estimated
        assert kept.any()
        assert np.abs(array[..., :3] - np.asarray(upright))[kept].mean() < 6, photo.name
        assert dice(array[..., 3] > 127, want) > 0.99, photo.name
        assert not {"icc_profile", "exif"} & set(cut.info), photo.name
