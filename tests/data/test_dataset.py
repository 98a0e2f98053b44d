import re

import numpy as np
import pytest
from PIL import Image

from carvana import dataset, pipeline
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe
from conftest import TINY

SETTINGS = load_recipe("blog", TINY).input


def refused(tiny, *says):
    """Loading the training pairs fails, and the message says all of `says`."""
    with pytest.raises(CarvanaError) as error:
        pipeline.prepare(dataset.find_pairs(tiny), tiny, SETTINGS)
    for text in says:
        assert re.search(text, str(error.value)), str(error.value)


def test_pairs_are_matched_by_whole_names(tiny):
    names = dataset.find_pairs(tiny)
    assert len(names) == 20
    assert names == sorted(names)
    (tiny.train / ".DS_Store").touch()
    (tiny.train / ".car0_01.jpg").touch()  # as macOS leaves behind
    (tiny.train / "notes.txt").touch()
    assert dataset.find_pairs(tiny) == names


def test_empty_and_absent_folders(tiny):
    for path in tiny.train.iterdir():
        path.unlink()
    refused(tiny, "train: holds no photograph .*make download")
    tiny.train.rmdir()
    refused(tiny, "train: no such folder; run `make download`")


def test_all_missing_partners_are_named_at_once(tiny):
    tiny.mask("car0_01.jpg").unlink()
    tiny.mask("car1_02.jpg").unlink()
    tiny.image("car3_03.jpg").unlink()
    refused(
        tiny,
        "3 without a partner",
        r"car0_01\.jpg: no mask car0_01_mask\.gif",
        r"car1_02\.jpg: no mask",
        r"car3_03_mask\.gif: no photograph",
    )


def test_all_broken_files_are_named_at_once(tiny):
    good = tiny.image("car0_01.jpg").read_bytes()
    tiny.image("car0_01.jpg").write_bytes(good[: len(good) // 2])
    tiny.image("car0_02.jpg").write_bytes(b"not an image")
    picture = Image.open(tiny.image("car0_03.jpg"))
    picture.load()
    picture.convert("L").save(tiny.image("car0_03.jpg"))
    picture.convert("CMYK").save(tiny.image("car0_04.jpg"))
    picture.save(tiny.image("car1_01.jpg"), format="PNG")
    mask = Image.open(tiny.mask("car1_02.jpg"))
    mask.resize((75, 50)).save(tiny.mask("car1_02.jpg"))
    shades = Image.fromarray(np.arange(15_000, dtype=np.uint8).reshape(100, 150))
    shades.save(tiny.mask("car1_03.jpg"))
    mask.save(tiny.mask("car1_04.jpg"), save_all=True, append_images=[Image.new("P", mask.size, 1)])
    tiny.mask("car2_01.jpg").write_bytes(tiny.mask("car2_01.jpg").read_bytes()[:60])
    refused(
        tiny,
        "9 of 20 pairs are at fault",
        r"car0_01\.jpg: is cut short or broken; fetch it again",
        r"car0_02\.jpg: is not a readable image",
        r"car0_03\.jpg: is L, not RGB; convert",
        r"car0_04\.jpg: is CMYK, not RGB; convert",
        r"car1_01\.jpg: is a PNG under another name",
        r"car1_02_mask\.gif: is 75x50, its photograph 150x100",
        r"car1_03_mask\.gif: has \d+ values besides black and white",
        r"car1_04_mask\.gif: has 2 frames; a mask has one",
        r"car2_01_mask\.gif: is ",
    )


def test_many_faults_are_counted_and_the_first_shown(tiny):
    for name in dataset.find_pairs(tiny):
        tiny.mask(name).unlink()
    (tiny.train / "one_more.jpg").write_bytes(tiny.image("car0_01.jpg").read_bytes())
    refused(tiny, "21 without a partner", "and 1 more")


NAMES = [f"car{car}_{view:02}.jpg" for car in range(20) for view in range(1, 17)]


def test_split_by_image_is_seeded_and_whole():
    split = dataset.draw_split(NAMES, "image", 0.2, seed=3)
    assert (len(split.train), len(split.validation)) == (256, 64)
    assert sorted(split.train + split.validation) == sorted(NAMES)
    assert dataset.draw_split(NAMES[::-1], "image", 0.2, seed=3) == split
    assert dataset.draw_split(NAMES, "image", 0.2, seed=4) != split


def test_split_by_car_keeps_a_car_on_one_side():
    split = dataset.draw_split(NAMES, "car", 0.2, seed=3)
    cars = [{dataset.car_of(name) for name in side} for side in (split.train, split.validation)]
    assert not cars[0] & cars[1]
    assert (len(cars[0]), len(cars[1])) == (16, 4)


def test_split_of_too_few_is_refused():
    with pytest.raises(CarvanaError, match=r"1 car\(s\) cannot be split"):
        dataset.draw_split(NAMES[:16], "car", 0.2, seed=0)


def test_split_is_read_back_and_checked_against_the_data(tmp_path):
    path = tmp_path / "split.csv"
    split = dataset.draw_split(NAMES, "image", 0.2, seed=3)
    dataset.write_split(path, split)
    assert path.read_text().splitlines()[0] == "img,subset"
    assert dataset.read_split(path, NAMES) == split
    with pytest.raises(CarvanaError, match="1 of its images are not in the data"):
        dataset.read_split(path, NAMES[1:])
    with pytest.raises(CarvanaError, match=r"1 of the data's not in it \(first: new_01.jpg\)"):
        dataset.read_split(path, [*NAMES, "new_01.jpg"])
    path.write_text("nonsense\n")
    with pytest.raises(CarvanaError, match="split.csv"):
        dataset.read_split(path, NAMES)
