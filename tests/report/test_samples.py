import numpy as np
import pytest
from PIL import Image

from carvana.cli import main
from carvana.errors import UsageError
from carvana.recipe import load_recipe
from carvana.report.samples import draw_samples
from conftest import TINY


def test_look_draws_image_augmented_image_and_mask(tmp_path, tiny):
    out = tmp_path / "look.png"
    settings = [part for setting in TINY for part in ("--set", setting)]
    arguments = ["look", "--data", str(tiny.root), "--out", str(out), "--count", "3", *settings]
    assert main(arguments) == 0
    assert Image.open(out).size == (3 * 32, 3 * 32)


def test_samples_show_what_augmentation_changes(tmp_path, tiny):
    still = ["contrast=[1.0, 1.0]", "saturation=[1.0, 1.0]", "brightness=0.0"]
    recipe = load_recipe("blog", [*TINY, *(f"augment.{setting}" for setting in still)])
    draw_samples(recipe, tiny, 2, tmp_path / "look.png")
    image, augmented, mask = np.split(np.asarray(Image.open(tmp_path / "look.png")), 3, axis=1)
    np.testing.assert_array_equal(image, augmented)
    assert np.ptp(mask, axis=2).max() == 0
    assert {0, 255} <= set(np.unique(mask))
    draw_samples(load_recipe("blog", TINY), tiny, 2, tmp_path / "look.png")
    image, augmented, again = np.split(np.asarray(Image.open(tmp_path / "look.png")), 3, axis=1)
    assert np.abs(image.astype(int) - augmented).mean() > 5
    np.testing.assert_array_equal(mask, again)
    with pytest.raises(UsageError, match=r"look\.jpg: is drawn as PNG"):
        draw_samples(recipe, tiny, 2, tmp_path / "look.jpg")


def test_a_sheet_never_replaces_another_picture(tmp_path, tiny):
    out = tmp_path / "photograph.png"
    Image.new("RGB", (8, 8)).save(out)
    with pytest.raises(UsageError, match="would be replaced, and was not drawn by the kit"):
        draw_samples(load_recipe("blog", TINY), tiny, 2, out)
    with pytest.raises(UsageError, match="would be replaced, and was not drawn by the kit"):
        main(["inspect", str(tiny.root), "--out", str(out), "--debug"])
    assert Image.open(out).size == (8, 8)
