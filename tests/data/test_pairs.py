import dataclasses
import re
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from carvana.data.pairs import Pair, evenly, find_pairs, match_pairs, open_truth
from carvana.data.split import draw_split
from carvana.errors import CarvanaError
from carvana.files import stamp
from carvana.recipe import load_recipe
from conftest import DATA


def settings(**changes):
    return dataclasses.replace(DATA, **changes)


def refused(tiny, *says):
    """Finding the training pairs fails, and the message says all of `says`."""
    with pytest.raises(CarvanaError) as error:
        find_pairs(tiny.root, DATA)
    for text in says:
        assert re.search(text, str(error.value)), str(error.value)


def test_pairs_are_matched_by_whole_names(tiny):
    pairs = find_pairs(tiny.root, DATA)
    assert len(pairs) == 20
    assert pairs == sorted(pairs)
    assert pairs[0] == Pair("car0_01.jpg", tiny.image("car0_01.jpg"), tiny.mask("car0_01.jpg"))
    (tiny.train / ".DS_Store").touch()
    (tiny.train / ".car0_01.jpg").touch()  # as macOS leaves behind
    (tiny.train / "notes.txt").touch()
    assert find_pairs(tiny.root, DATA) == pairs


def test_photographs_without_a_mask_are_skipped_or_empty(tiny, capsys):
    tiny.mask("car0_01.jpg").unlink()
    without = tiny.image("car0_01.jpg")
    assert without not in [pair.image for pair in find_pairs(tiny.root, settings(unmasked="skip"))]
    assert "1 photograph without a mask: left out" in capsys.readouterr().err
    empty = settings(unmasked="empty")
    first = find_pairs(tiny.root, empty)[0]
    assert first == Pair("car0_01.jpg", without, None)
    labels = open_truth(first, empty, (100, 150)).labels
    assert labels.shape == (100, 150)
    assert not labels.any()
    for mask in tiny.train_masks.iterdir():
        mask.unlink()
    with pytest.raises(CarvanaError, match="no photograph has a mask"):
        find_pairs(tiny.root, empty)


def test_a_mask_may_be_a_folder_and_photographs_in_many(tmp_path):
    own = load_recipe("own").data
    nested = dataclasses.replace(own, images="*/images", masks=".", mask_names="{name}/masks")
    for name in "ab":
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "masks").mkdir()
        Image.new("RGB", (8, 6)).save(tmp_path / name / f"images/{name}.png")
        for place in (1, 4):
            mask = np.zeros((6, 8), np.uint8)
            mask[place, : 2 * place] = 255
            Image.fromarray(mask).save(tmp_path / name / f"masks/{place}.png")
    pairs = find_pairs(tmp_path, nested)
    assert [pair.mask for pair in pairs] == [tmp_path / name / "masks" for name in "ab"]
    assert open_truth(pairs[0], nested, (6, 8)).labels.sum(axis=1).tolist() == [0, 2, 0, 0, 8, 0]
    spelt = unicodedata.normalize("NFD", "\u00e4")  # as a zip made on a Mac has it
    for folder in ("images", "masks"):
        (tmp_path / "mac" / spelt / folder).mkdir(parents=True)
        Image.new("L", (8, 6)).save(tmp_path / "mac" / spelt / folder / f"{spelt}.png")
    assert len(find_pairs(tmp_path / "mac", nested)) == 1
    shutil.rmtree(tmp_path / "mac")
    before = stamp(pairs[0].mask)
    Image.new("L", (8, 6)).save(pairs[0].mask / "4.png")
    assert stamp(pairs[0].mask) != before
    Image.new("L", (6, 8)).save(pairs[0].mask / "5.png")
    with pytest.raises(CarvanaError, match="a/masks: its masks differ in size"):
        open_truth(pairs[0], nested, (6, 8))
    for path in pairs[1].mask.iterdir():
        path.unlink()
    with pytest.raises(CarvanaError, match="b/masks: holds no mask"):
        open_truth(pairs[1], nested, (6, 8))
    (tmp_path / "b/images/a.png").write_bytes((tmp_path / "b/images/b.png").read_bytes())
    with pytest.raises(CarvanaError, match=r"b/images/a\.png: has the name of .*a/images/a\.png"):
        find_pairs(tmp_path, nested)


def test_a_folder_of_its_own_validates(tmp_path):
    for part in ("train", "val"):
        for name in "ab":  # of the same names
            for folder in (part, f"{part}_masks"):
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.new("RGB", (8, 6)).save(tmp_path / folder / f"{name}.png")
    own = dataclasses.replace(load_recipe("own").data, images="train", masks="train_masks")
    own = dataclasses.replace(own, validation_folders=["val", "val_masks"])
    split = draw_split(find_pairs(tmp_path, own), own)
    assert [pair.name for pair in split.train] == ["a.png", "b.png"]
    assert [pair.name for pair in split.validation] == ["val/a.png", "val/b.png"]
    assert [pair.mask.parent.name for pair in split.validation] == ["val_masks", "val_masks"]
    with pytest.raises(CarvanaError, match="and folds draw it; leave one out"):
        draw_split(find_pairs(tmp_path, own), own, (1, 2))
    both = dataclasses.replace(own, validation_folders=["train", "train_masks"])
    with pytest.raises(CarvanaError, match="train: holds photographs that are trained on, too"):
        find_pairs(tmp_path, both)


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
        r"car0_01\.jpg: no mask car0_01_mask\.png \(or \.gif, \.\.\.\) in .*train_masks",
        r"car1_02\.jpg: no mask",
        r"car3_03_mask\.gif: no photograph",
    )
    for mask in tiny.train_masks.iterdir():
        mask.unlink()
    (tiny.train / "one_more.jpg").write_bytes(tiny.image("car0_01.jpg").read_bytes())
    (tiny.train / "more.jpg").write_bytes(tiny.image("car0_01.jpg").read_bytes())
    refused(tiny, "21 without a partner", "and 1 more")


def test_own_folders_and_names(tmp_path):
    for folder in ("pictures", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a.JPG", "b.webp", "c.d.png"):
        (tmp_path / "pictures" / name).touch()
    for name in ("mask-a.PNG", "mask-b.tif", "mask-c.d.bmp"):
        (tmp_path / "labels" / name).touch()
    own = settings(images="pictures", masks="labels", mask_names="mask-{name}")
    found = find_pairs(tmp_path, own)
    assert [(pair.name, pair.mask.name) for pair in found] == [
        ("a.JPG", "mask-a.PNG"),
        ("b.webp", "mask-b.tif"),
        ("c.d.png", "mask-c.d.bmp"),
    ]
    (tmp_path / "labels" / "mask-a.gif").touch()
    (tmp_path / "pictures" / "b.bmp").touch()
    with pytest.raises(CarvanaError) as error:
        find_pairs(tmp_path, own)
    assert "has several masks (mask-a.PNG and mask-a.gif); leave one" in str(error.value)
    assert "b.webp: has the mask of b.bmp; rename or remove one" in str(error.value)


def test_masks_may_lie_beside_their_photographs(tmp_path):
    for name in ("a.jpg", "a_mask.png", "b.png", "b_mask.png"):
        (tmp_path / name).touch()
    found = find_pairs(tmp_path, settings(images=".", masks="."))
    assert [(pair.name, pair.mask.name) for pair in found] == [
        ("a.jpg", "a_mask.png"),
        ("b.png", "b_mask.png"),
    ]


def test_names_match_in_either_unicode_form_and_case_of_ending(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Citroën_01") for form in ("NFC", "NFD"))
    for folder in ("train", "train_masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "train" / f"{decomposed}.jpg").touch()
    (tmp_path / "train_masks" / f"{composed}_mask.GIF").touch()
    odd = "Screenshot at 8.00\u202fAM 🚗"
    (tmp_path / "train" / f"{odd}.png").touch()
    (tmp_path / "train_masks" / f"{odd}_mask.gif").touch()
    assert len(find_pairs(tmp_path, settings())) == 2


def test_what_is_passed_over_is_counted(tiny, capsys):
    for name in ("a.txt", "b.txt", "c.raw", "noending", ".hidden"):
        (tiny.train / name).touch()
    (tiny.train / "more").mkdir()
    (tiny.train_masks / "notes.txt").touch()
    find_pairs(tiny.root, DATA)
    pictures, masks = capsys.readouterr().err.splitlines()
    assert pictures.endswith(
        "ignoring files that are not images: 1 .raw, 2 .txt, 1 folder, 1 no ending"
    )
    assert masks.endswith("ignoring files that are not masks: 1 .txt")


def test_photographs_and_masks_of_one_name_need_two_folders(tmp_path):
    for name in ("a.jpg", "a.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    own = dataclasses.replace(DATA, images=".", masks=".", mask_names="{name}")
    with pytest.raises(CarvanaError, match="move the masks to a folder of their own"):
        match_pairs(tmp_path, own)


def test_items_from_all_over_a_sequence():
    assert evenly(range(100), 3) == [0, 50, 99]
    assert evenly("abc", 5) == ["a", "b", "c"]
    assert evenly([], 5) == []
