import dataclasses
import errno
import itertools
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from carvana.data import cache
from carvana.data.dataset import find_pairs
from carvana.data.images import load_pair
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe
from conftest import TINY

SMALL = load_recipe("blog", TINY).input


def test_pairs_are_decoded_once_and_again_where_they_changed(tiny, monkeypatch):
    pairs = find_pairs(tiny)
    decoded = []
    monkeypatch.setattr(
        cache, "load_pair", lambda image, *rest: decoded.append(image) or load_pair(image, *rest)
    )
    first = cache.prepare(pairs, tiny.cache, SMALL)
    assert len(decoded) == 20
    assert cache.prepare(pairs[:5], tiny.cache, SMALL) == first[:5]
    assert len(decoded) == 20

    # Another photograph under the same name, a mask drawn anew, a cache file cut short.
    Image.open(pairs[1].image).save(pairs[0].image)
    os.utime(pairs[2].mask, (1, 1))
    whole = first[4].read_bytes()
    first[4].write_bytes(whole[:-1])
    decoded.clear()
    again = cache.prepare(pairs, tiny.cache, SMALL)
    assert sorted(decoded) == [pairs[i].image for i in (0, 2, 4)]
    assert [a == b for a, b in zip(again, first, strict=True)][:5] == [
        False,
        True,
        False,
        True,
        True,
    ]
    assert again[4].read_bytes() == whole
    assert sorted(first[0].parent.glob("car*")) == sorted(again)  # nothing is left of the old ones
    # Other settings have files of their own.
    other = cache.prepare(pairs[:1], tiny.cache, dataclasses.replace(SMALL, width=40))
    assert other[0].parent != first[0].parent


@pytest.mark.parametrize(("method", "within"), [("bilinear", 0), ("area", 0.5 / 255 + 1e-6)])
def test_prepared_pairs_are_exact_or_a_grey_level_off(method, within, tiny):
    settings = dataclasses.replace(SMALL, method=method)
    pair = find_pairs(tiny)[0]
    want = np.concatenate(load_pair(pair.image, pair.mask, settings), axis=-1)
    (file,) = cache.prepare([pair], tiny.cache, settings)
    found = cache.read_prepared(file, settings)
    scale = 255 if found.dtype == np.uint8 else 1
    assert np.abs(found / np.float32(scale) - want).max() <= within


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
    with pytest.raises(CarvanaError) as error:
        cache.prepare(find_pairs(tiny), tiny.cache, SMALL)
    for says in (
        "9 of 20 pairs cannot be used:",
        r"car0_01\.jpg: is cut short or broken; fetch it again",
        r"car0_02\.jpg: is not a readable image",
        r"car0_03\.jpg: is L, not RGB; convert",
        r"car0_04\.jpg: is CMYK, not RGB; convert",
        r"car1_01\.jpg: is a PNG with another ending",
        r"car1_02_mask\.gif: is 75x50, its photograph 150x100",
        r"car1_03_mask\.gif: has \d+ values besides black and white",
        r"car1_04_mask\.gif: has 2 frames; a mask has one",
        r"car2_01_mask\.gif: is ",
    ):
        assert re.search(says, str(error.value)), str(error.value)


def test_a_cache_that_cannot_be_written_is_told(tiny):
    tiny.cache.write_text("in the way")
    with pytest.raises(CarvanaError, match=r"^[^ ]*cache/[^ ]*: prepared pairs cannot be .*a link"):
        cache.prepare(find_pairs(tiny)[:1], tiny.cache, SMALL)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS])
def test_pairs_made_before_the_disk_was_full_are_kept(fault, tiny, monkeypatch):
    pairs = find_pairs(tiny)
    write, made = Path.write_bytes, itertools.count()

    def write_until_full(file, data):
        if next(made) >= 5:
            write(file, bytes(data)[:100])
            raise OSError(fault, os.strerror(fault))
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(CarvanaError) as told:
            cache.prepare(pairs, tiny.cache, SMALL)
    assert f"({os.strerror(fault)}); free some space, or make {tiny.cache} a li" in str(told.value)
    assert "\n" not in str(told.value)
    assert not list(tiny.cache.glob("*/.car*"))
    kept = {file: file.stat().st_mtime_ns for file in tiny.cache.glob("*/car*")}
    assert len(kept) == 5
    files = cache.prepare(pairs, tiny.cache, SMALL)
    assert {file: file.stat().st_mtime_ns for file in files if file in kept} == kept

    def read_only(folder):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(cache, "in_turn", read_only)
    assert cache.prepare(pairs, tiny.cache, SMALL) == files  # a whole cache is only read


def test_a_cache_of_another_version_is_left_alone(tiny, monkeypatch):
    (mine,) = cache.prepare(find_pairs(tiny)[:1], tiny.cache, SMALL)
    monkeypatch.setattr(tf, "__version__", "2.0.0")
    (other,) = cache.prepare(find_pairs(tiny)[:1], tiny.cache, SMALL)
    assert mine.parent != other.parent
    assert mine.read_bytes() == other.read_bytes()
