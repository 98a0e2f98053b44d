import dataclasses
import os
import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from carvana.data.pairs import Pair, find_pairs, match_pairs, open_truth
from carvana.data.split import draw_split
from carvana.errors import CarvanaError
from carvana.files import stamp
from carvana.recipe import load_recipe
from conftest import DATA

OWN = load_recipe("own").data


def refused(root, settings, *says):
    """Finding the training pairs fails, and the message says all of `says`."""
    with pytest.raises(CarvanaError) as error:
        find_pairs(root, settings)
    for text in says:
        assert re.search(text, str(error.value)), str(error.value)


def write(root, *names, size=(8, 6)):
    """Write black pictures."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(root / name)


def touch(root, *names):
    """Write empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_of(pairs):
    return [(pair.name, pair.mask.name) for pair in pairs]


def test_pairs_are_matched_by_whole_names_and_what_is_passed_over_is_counted(tiny, capsys):
    pairs = find_pairs(tiny.root, DATA)
    assert len(pairs) == 20
    assert pairs == sorted(pairs)
    assert pairs[0] == Pair("car0_01.jpg", tiny.image("car0_01.jpg"), tiny.mask("car0_01.jpg"))
    assert capsys.readouterr().err == ""
    touch(tiny.train, "a.txt", "b.txt", "c.raw", "noending", "more/inside.jpg")
    touch(tiny.train, ".DS_Store", ".car0_01.jpg")  # as macOS leaves behind
    touch(tiny.train_masks, "notes.txt")
    os.mkfifo(tiny.train / "pipe.jpg")
    assert find_pairs(tiny.root, DATA) == pairs
    pictures, masks = capsys.readouterr().err.splitlines()
    ignored = "1 .jpg, 1 .raw, 2 .txt, 1 folder, 1 no ending"
    assert pictures.endswith(f"ignoring files that are not images: {ignored}")
    assert masks.endswith("ignoring files that are not masks: 1 .txt")


def test_photographs_without_a_mask_are_skipped_or_empty(tiny, capsys):
    tiny.mask("car0_01.jpg").unlink()
    skip, empty = (dataclasses.replace(DATA, unmasked=way) for way in ("skip", "empty"))
    assert "car0_01.jpg" not in [pair.name for pair in find_pairs(tiny.root, skip)]
    assert "1 photograph without a mask: left out" in capsys.readouterr().err
    first = find_pairs(tiny.root, empty)[0]
    assert first == Pair("car0_01.jpg", tiny.image("car0_01.jpg"), None)
    labels = open_truth(first, empty, (100, 150)).labels
    assert labels.shape == (100, 150)
    assert not labels.any()
    for mask in tiny.train_masks.iterdir():
        mask.unlink()
    refused(tiny.root, empty, "no photograph has a mask")


def test_a_mask_may_be_a_folder_and_photographs_in_many(tmp_path):
    nested = dataclasses.replace(OWN, images="*/images", masks=".", mask_names="{name}/masks")
    write(tmp_path, "a/images/a.png", "b/images/b.png", "b/masks/1.png")
    (tmp_path / "a/masks").mkdir()
    for place in (1, 4):
        mask = np.zeros((6, 8), np.uint8)
        mask[place, : 2 * place] = 255
        Image.fromarray(mask).save(tmp_path / f"a/masks/{place}.png")
    spelt = unicodedata.normalize("NFD", "\u00e4")  # as a zip made on a Mac has it
    write(tmp_path, f"c{spelt}/images/c{spelt}.png", f"c{spelt}/masks/1.png")
    first, second, _ = find_pairs(tmp_path, nested)
    assert [pair.mask for pair in (first, second)] == [tmp_path / "a/masks", tmp_path / "b/masks"]
    assert open_truth(first, nested, (6, 8)).labels.sum(axis=1).tolist() == [0, 2, 0, 0, 8, 0]
    before = stamp(first.mask)
    write(first.mask, "4.png")
    assert stamp(first.mask) != before
    write(first.mask, "5.png", size=(6, 8))
    with pytest.raises(CarvanaError, match="a/masks: its masks differ in size"):
        open_truth(first, nested, (6, 8))
    (second.mask / "1.png").unlink()
    with pytest.raises(CarvanaError, match="b/masks: holds no mask"):
        open_truth(second, nested, (6, 8))
    write(tmp_path, "b/images/a.png")
    refused(tmp_path, nested, r"b/images/a\.png: has the name of .*a/images/a\.png")


def test_a_folder_of_its_own_validates(tmp_path):
    for folder in ("train", "train_masks", "val", "val_masks"):
        write(tmp_path / folder, "a.png", "b.png")
    own = dataclasses.replace(OWN, images="train", masks="train_masks")
    apart = dataclasses.replace(own, validation_folders=["val", "val_masks"])
    split = draw_split(find_pairs(tmp_path, apart), apart)
    assert [pair.name for pair in split.train] == ["a.png", "b.png"]
    assert [pair.name for pair in split.validation] == ["val/a.png", "val/b.png"]
    assert [pair.mask.parent.name for pair in split.validation] == ["val_masks", "val_masks"]
    with pytest.raises(CarvanaError, match="and folds draw it; leave one out"):
        draw_split(find_pairs(tmp_path, apart), apart, (1, 2))
    both = dataclasses.replace(own, validation_folders=["train", "train_masks"])
    refused(tmp_path, both, "train: holds photographs that are trained on, too")


def test_empty_and_absent_folders(tmp_path):
    refused(tmp_path, DATA, "train: no such folder; run `make download`")
    (tmp_path / "train").mkdir()
    refused(tmp_path, DATA, "train: holds no photograph .*make download")


def test_all_missing_partners_are_named_at_once(tiny):
    tiny.mask("car0_01.jpg").unlink()
    tiny.image("car3_03.jpg").unlink()
    refused(
        tiny.root,
        DATA,
        "2 without a partner",
        r"car0_01\.jpg: no mask car0_01_mask\.png \(or \.gif, \.\.\.\) in .*train_masks",
        r"car3_03_mask\.gif: no photograph",
    )
    touch(tiny.train, *(f"{number}.jpg" for number in range(19)))
    refused(tiny.root, DATA, "21 without a partner", "and 1 more")


def test_own_folders_and_names(tmp_path):
    touch(tmp_path / "pictures", "a.JPG", "b.webp", "c.d.png")
    touch(tmp_path / "labels", "mask-a.PNG", "mask-b.tif", "mask-c.d.bmp")
    own = dataclasses.replace(DATA, images="pictures", masks="labels", mask_names="mask-{name}")
    pairs = [("a.JPG", "mask-a.PNG"), ("b.webp", "mask-b.tif"), ("c.d.png", "mask-c.d.bmp")]
    assert names_of(find_pairs(tmp_path, own)) == pairs
    touch(tmp_path, "labels/mask-a.gif", "pictures/b.bmp")
    refused(
        tmp_path,
        own,
        r"has several masks \(mask-a.PNG and mask-a.gif\); leave one",
        "b.webp: has the mask of b.bmp; rename or remove one",
    )


def test_masks_may_lie_beside_their_photographs(tmp_path):
    touch(tmp_path, "a.jpg", "a_mask.png", "b.png", "b_mask.png")
    beside = dataclasses.replace(DATA, images=".", masks=".")
    pairs = [("a.jpg", "a_mask.png"), ("b.png", "b_mask.png")]
    assert names_of(find_pairs(tmp_path, beside)) == pairs
    with pytest.raises(CarvanaError, match="move the masks to a folder of their own"):
        match_pairs(tmp_path, dataclasses.replace(beside, mask_names="{name}"))


def test_names_match_in_either_unicode_form_and_case_of_ending(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Citroën_01") for form in ("NFC", "NFD"))
    odd = "Screenshot at 8.00\u202fAM 🚗"
    touch(tmp_path / "train", f"{decomposed}.jpg", f"{odd}.png")
    touch(tmp_path / "train_masks", f"{composed}_mask.GIF", f"{odd}_mask.gif")
    assert len(find_pairs(tmp_path, DATA)) == 2
