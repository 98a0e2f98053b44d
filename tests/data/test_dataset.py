import re
from pathlib import Path

import pytest

from carvana.competition.facts import car_of
from carvana.data import dataset
from carvana.data.dataset import Pair
from carvana.errors import CarvanaError


def refused(tiny, *says):
    """Finding the training pairs fails, and the message says all of `says`."""
    with pytest.raises(CarvanaError) as error:
        dataset.find_pairs(tiny)
    for text in says:
        assert re.search(text, str(error.value)), str(error.value)


def test_pairs_are_matched_by_whole_names(tiny):
    pairs = dataset.find_pairs(tiny)
    assert len(pairs) == 20
    assert pairs == sorted(pairs)
    assert pairs[0] == Pair("car0_01.jpg", tiny.image("car0_01.jpg"), tiny.mask("car0_01.jpg"))
    (tiny.train / ".DS_Store").touch()
    (tiny.train / ".car0_01.jpg").touch()  # as macOS leaves behind
    (tiny.train / "notes.txt").touch()
    assert dataset.find_pairs(tiny) == pairs


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


def test_many_faults_are_counted_and_the_first_shown(tiny):
    for pair in dataset.find_pairs(tiny):
        pair.mask.unlink()
    (tiny.train / "one_more.jpg").write_bytes(tiny.image("car0_01.jpg").read_bytes())
    refused(tiny, "21 without a partner", "and 1 more")


def named(name):
    return Pair(name, Path(name), Path(f"{name}_mask.gif"))


PAIRS = [named(f"car{car}_{view:02}.jpg") for car in range(20) for view in range(1, 17)]


def test_split_by_image_is_seeded_and_whole():
    split = dataset.draw_split(PAIRS, "image", 0.2, seed=3)
    assert (len(split.train), len(split.validation)) == (256, 64)
    assert sorted(split.train + split.validation) == sorted(PAIRS)
    assert dataset.draw_split(PAIRS[::-1], "image", 0.2, seed=3) == split
    assert dataset.draw_split(PAIRS, "image", 0.2, seed=4) != split


def test_split_by_car_keeps_a_car_on_one_side():
    split = dataset.draw_split(PAIRS, "car", 0.2, seed=3)
    cars = [{car_of(pair.name) for pair in side} for side in (split.train, split.validation)]
    assert not cars[0] & cars[1]
    assert (len(cars[0]), len(cars[1])) == (16, 4)


def test_split_of_too_few_is_refused():
    with pytest.raises(CarvanaError, match=r"1 car\(s\) cannot be split"):
        dataset.draw_split(PAIRS[:16], "car", 0.2, seed=0)


def test_split_is_read_back_and_checked_against_the_data(tmp_path):
    path = tmp_path / "split.csv"
    split = dataset.draw_split(PAIRS, "image", 0.2, seed=3)
    dataset.write_split(path, split)
    assert path.read_text().splitlines()[0] == "img,subset"
    assert dataset.read_split(path, PAIRS) == split
    with pytest.raises(CarvanaError, match="1 of its images are not in the data"):
        dataset.read_split(path, PAIRS[1:])
    with pytest.raises(CarvanaError, match=r"1 of the data's are not in it \(first: new_01.jpg\)"):
        dataset.read_split(path, [*PAIRS, named("new_01.jpg")])
    path.write_text("nonsense\n")
    with pytest.raises(CarvanaError, match="split.csv"):
        dataset.read_split(path, PAIRS)
