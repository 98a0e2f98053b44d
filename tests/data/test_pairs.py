import dataclasses
import re
import unicodedata

import pytest
from PIL import Image

from carvana.data.pairs import Pair, evenly, find_pairs, match_pairs
from carvana.errors import CarvanaError
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
