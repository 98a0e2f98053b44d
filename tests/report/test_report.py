import shutil

import numpy as np
import pytest
from PIL import Image

from carvana.cli import main
from carvana.errors import CarvanaError, UsageError
from carvana.recipe import load_recipe
from carvana.report.report import draw_samples, write_report
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


def test_a_report_holds_all_in_one_file(trained, tmp_path):
    paths, folder = trained
    run = shutil.copytree(folder, tmp_path / "run")
    assert main(["report", "--run", str(run), "--data", str(paths.root)]) == 0
    page = (run / "report.html").read_text()
    assert page.count("data:image/jpeg") == 4  # a picture for each validation photograph
    assert page.count("data:image/png") == 1
    assert "val_dice" in page
    assert "learning_rate" in page
    assert 'src="http' not in page
    assert main(["report", "--run", str(run), "--data", str(tmp_path / "gone")]) == 0
    assert "gone does not exist" in (run / "report.html").read_text()


def test_what_cannot_be_reported_on_is_named(trained, tmp_path):
    paths, folder = trained
    with pytest.raises(CarvanaError, match="no finished training; run `carvana train` first"):
        write_report(tmp_path, paths)
    run = shutil.copytree(folder, tmp_path / "run")
    (run / "history.csv").write_text("epoch,steps\n")
    with pytest.raises(CarvanaError, match=r"history\.csv: is not a training history"):
        write_report(run, paths)
