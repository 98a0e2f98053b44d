import numpy as np
import pytest
from PIL import Image

from carvana.cli import main
from carvana.data.sheet import GUTTER, MARGIN, ORANGE
from carvana.errors import UsageError
from carvana.recipe import load_recipe
from carvana.report.samples import draw_samples
from conftest import TINY

SIDE = 8 * 32  # of the sheet's pictures: TINY's input, enlarged


def pictures(sheet):
    """The image, the augmented image and the mask in a sheet's first row."""
    pixels = np.asarray(Image.open(sheet).convert("RGB"))[MARGIN : MARGIN + SIDE]
    lefts = [MARGIN + column * (SIDE + GUTTER) for column in range(3)]
    return [pixels[:, left : left + SIDE] for left in lefts]


def test_look_draws_a_row_a_photograph(tmp_path, tiny, capsys):
    out = str(tmp_path / "look.png")
    settings = [part for setting in TINY for part in ("--set", setting)]
    assert main(["look", "--data", str(tiny.root), "--out", out, "--count", "3", *settings]) == 0
    assert f"{out}: image | augmented image | mask" in capsys.readouterr().out
    assert 3 < Image.open(out).height / SIDE < 4


def test_samples_show_what_augmentation_changes(tmp_path, tiny):
    still = ["contrast=[1.0, 1.0]", "saturation=[1.0, 1.0]", "brightness=0.0"]
    recipe = load_recipe("blog", [*TINY, *(f"augment.{setting}" for setting in still)])
    draw_samples(recipe, tiny, 2, tmp_path / "look.png")
    image, augmented, mask = pictures(tmp_path / "look.png")
    np.testing.assert_array_equal(image, augmented)
    assert np.ptp(mask, axis=2).max() == 0
    assert {0, 255} <= set(np.unique(mask))
    outline = (image == ORANGE).all(axis=-1)
    assert 0.01 < outline.mean() < 0.1
    draw_samples(load_recipe("blog", TINY), tiny, 2, tmp_path / "look.png")
    image, augmented, again = pictures(tmp_path / "look.png")
    assert np.abs(image.astype(int) - augmented).mean() > 5
    np.testing.assert_array_equal((augmented == ORANGE).all(axis=-1), outline)
    np.testing.assert_array_equal(mask, again)
    with pytest.raises(UsageError, match=r"look\.jpg: is drawn as PNG"):
        draw_samples(recipe, tiny, 2, tmp_path / "look.jpg")


def test_a_sheet_never_replaces_another_picture(tmp_path, tiny):
    out = tmp_path / "photograph.png"
    Image.new("RGB", (8, 8)).save(out)
    for command in ("look", "--data", str(tiny.root)), ("inspect", str(tiny.root)):
        with pytest.raises(UsageError, match="would be replaced, and was not drawn by the kit"):
            main([*command, "--out", str(out), "--debug"])
    assert Image.open(out).size == (8, 8)
