import errno
import itertools
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from carvana.data import prepared
from carvana.data.pairs import Pair, find_pairs
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe
from conftest import DATA, TINY

SMALL = load_recipe("blog", TINY)


def dates(files):
    return {file: file.stat().st_mtime_ns for file in files}


def test_pairs_are_decoded_once_and_again_where_they_changed(tiny):
    pairs = find_pairs(tiny.root, DATA)
    first = prepared.prepare(pairs, tiny.cache, SMALL)
    before = dates(first)
    assert prepared.prepare(pairs[:5], tiny.cache, SMALL) == first[:5]
    assert dates(first) == before

    # Another photograph under the same name, a mask drawn anew, a cache file cut short.
    Image.open(pairs[1].image).save(pairs[0].image)
    os.utime(pairs[2].mask, (1, 1))
    whole = first[4].read_bytes()
    first[4].write_bytes(whole[:-1])
    again = prepared.prepare(pairs, tiny.cache, SMALL)
    assert [index for index in range(20) if again[index] != first[index]] == [0, 2]
    assert [file for file, date in dates(again).items() if date != before.get(file)] == [
        again[index] for index in (0, 2, 4)
    ]
    assert again[4].read_bytes() == whole
    assert sorted(first[0].parent.glob("car*")) == sorted(again)  # nothing is left of the old ones
    # Other settings have files of their own.
    for change in ("input.width=40", "data.foreground=#ffffff"):
        other = prepared.prepare(pairs[:1], tiny.cache, load_recipe("blog", [*TINY, change]))
        assert other[0].parent != first[0].parent


def test_prepared_pairs_are_the_published_preprocessing_bit_for_bit(tiny):
    recipe = load_recipe("blog", ["input.height=32", "input.width=32"])
    pair = find_pairs(tiny.root, DATA)[0]
    (file,) = prepared.prepare([pair], tiny.cache, recipe)
    found = prepared.read_prepared(file, recipe)
    # The article's own calls, in its order.
    image = tf.image.decode_jpeg(tf.io.read_file(str(pair.image)))
    mask = tf.image.decode_gif(tf.io.read_file(str(pair.mask)))[0][:, :, :1]
    for part, want in ((found[..., :3], image), (found[..., 3:], mask)):
        want = tf.image.resize(tf.image.convert_image_dtype(want, tf.float32), (32, 32))
        np.testing.assert_array_equal(part, want)
    assert found.dtype == np.float32


def test_two_may_prepare_the_same_pairs_at_once_after_a_killed_process(tiny):
    pairs = find_pairs(tiny.root, DATA)
    (first,) = prepared.prepare(pairs[:1], tiny.cache, SMALL)
    first.with_name(f".{first.name}.tmp0123abcd").write_bytes(b"half")
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: prepared.prepare(pairs, tiny.cache, SMALL), range(2))
    assert one == two
    assert sorted(one[0].parent.glob("*car*")) == sorted(one)  # none is half-written
    for pair, file in zip(pairs[::7], one[::7], strict=True):
        found = prepared.read_prepared(file, SMALL)
        again = prepared.resize_pair(*prepared.read_pair(pair, SMALL), SMALL)
        np.testing.assert_array_equal(found, again)


def test_all_pairs_that_cannot_be_used_are_named_at_once(tiny):
    good = tiny.image("car0_01.jpg").read_bytes()
    tiny.image("car0_01.jpg").write_bytes(good[: len(good) // 2])
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(tiny.image("car0_03.jpg")).save(tiny.image("car0_03.jpg"), exif=turned)
    mask = Image.open(tiny.mask("car1_02.jpg"))
    mask.resize((75, 50)).save(tiny.mask("car1_02.jpg"))
    tiny.mask("car2_01.jpg").write_bytes(tiny.mask("car2_01.jpg").read_bytes()[:60])
    with pytest.raises(CarvanaError) as error:
        prepared.prepare(find_pairs(tiny.root, DATA), tiny.cache, SMALL)
    for says in (
        "4 of 20 pairs cannot be used:",
        r"car0_01\.jpg: is not a readable photograph \(cut short or broken\); replace",
        r"car0_03_mask\.gif: is 150x100, its photograph 100x150 when upright \(its EXIF orient",
        r"car1_02_mask\.gif: is 75x50, its photograph 150x100; make a mask of",
        r"car2_01_mask\.gif: is not a readable mask",
    ):
        assert re.search(says, str(error.value)), str(error.value)


def test_masks_of_one_class_alone_are_counted(tiny, capsys):
    for name, colour in (("car0_01.jpg", 0), ("car0_02.jpg", 255), ("car0_03.jpg", 255)):
        Image.new("L", (150, 100), colour).save(tiny.mask(name))
    prepared.prepare(find_pairs(tiny.root, DATA), tiny.cache, SMALL)
    told = capsys.readouterr().err.splitlines()
    assert f"1 mask with nothing but background (first: {tiny.mask('car0_01.jpg')})" in told
    assert f"2 masks with nothing but car (first: {tiny.mask('car0_02.jpg')})" in told


def network_mask(root, picture, *settings):
    """What a network sees of a mask: its part of a prepared pair."""
    picture.save(root / "m.png")
    Image.new("RGB", picture.size).save(root / "p.png")
    recipe = load_recipe("own", [*settings, "model.filters=[8]"])
    pair = prepared.read_pair(Pair("p.png", root / "p.png", root / "m.png"), recipe)
    return prepared.resize_pair(*pair, recipe)[..., 3:]


def test_shares_of_classes_keep_edges_in_place(tmp_path):
    labels = np.ones((100, 150), np.uint8)
    labels[:, 70:] = 2  # 5.6 of 12 pixels
    labels[:25] = 9
    own = ["data.classes={background=0, left=1, right=2}", "data.ignore=9"]
    size = ["input.height=8", "input.width=12"]
    mask = network_mask(tmp_path, Image.fromarray(labels), *own, *size) / 255
    assert mask.shape == (8, 12, 3)
    assert mask[:2].max() == 0  # ignored pixels are of no class
    np.testing.assert_allclose(mask[2:].sum(-1), 1, atol=1.1 / 255)
    np.testing.assert_allclose(mask[2:, :, 1].sum(1), 5.6, atol=1e-2)
    assert mask[..., 0].max() == 0
    noise = np.random.default_rng(1).choice([0, 1, 2], (24, 32)).astype(np.uint8)
    enlarged = network_mask(tmp_path, Image.fromarray(noise), *own) / 255
    np.testing.assert_allclose(enlarged.sum(axis=-1), 1, atol=0.01)


def test_soft_masks_are_trained_on_as_they_are(tmp_path):
    greys = np.tile(np.arange(0, 240, 10, np.uint8), (16, 1))  # 24 columns, 12 in the network
    size = ["input.height=8", "input.width=12"]
    share, cut = (
        network_mask(tmp_path, Image.fromarray(greys), *size, f"data.soft={soft}")[..., 0]
        for soft in ("share", "threshold")
    )
    np.testing.assert_array_equal(share, np.tile(np.arange(5, 240, 20, np.uint8), (8, 1)))
    assert np.unique(cut).tolist() == [0, 128, 255]  # 120 and 130 share a pixel


def test_names_at_the_limit_of_the_file_system(tiny):
    pair = find_pairs(tiny.root, DATA)[0]
    long = tiny.train / ("車" * 80 + "abcdef.jpg")
    pair.image.rename(long)
    (file,) = prepared.prepare([Pair(long.name, long, pair.mask)], tiny.cache, SMALL)
    assert file.is_file()


def test_a_cache_that_cannot_be_written_is_told(tiny):
    tiny.cache.write_text("in the way")
    with pytest.raises(CarvanaError, match=r"^[^ ]*cache/[^ ]*: cannot be written .*--cache"):
        prepared.prepare(find_pairs(tiny.root, DATA)[:1], tiny.cache, SMALL)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS])
def test_pairs_made_before_the_disk_was_full_are_kept(fault, tiny, monkeypatch):
    pairs = find_pairs(tiny.root, DATA)
    write, made = Path.write_bytes, itertools.count()

    def write_until_full(file, data):
        if next(made) >= 5:
            write(file, bytes(data)[:100])
            raise OSError(fault, os.strerror(fault))
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(CarvanaError) as told:
            prepared.prepare(pairs, tiny.cache, SMALL)
    assert f"({os.strerror(fault)}); name a cache folder elsewhere" in str(told.value)
    assert "\n" not in str(told.value)
    assert not list(tiny.cache.glob("*/.car*"))
    kept = dates(tiny.cache.glob("*/car*"))
    assert len(kept) == 5
    files = prepared.prepare(pairs, tiny.cache, SMALL)
    assert dates(kept) == kept

    def read_only(file):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(prepared.filelock, "FileLock", read_only)
    assert prepared.prepare(pairs, tiny.cache, SMALL) == files  # a whole cache is only read


def test_versions_and_data_folders_may_share_a_cache(tiny, tmp_path, monkeypatch):
    pair = find_pairs(tiny.root, DATA)[0]
    other = shutil.copy(pair.image, tmp_path / pair.name)
    mine, theirs = (
        prepared.prepare([each], tiny.cache, SMALL)[0]
        for each in (pair, Pair(pair.name, Path(other), pair.mask))
    )
    assert mine != theirs
    monkeypatch.setattr(tf, "__version__", "2.0.0")
    (later,) = prepared.prepare([pair], tiny.cache, SMALL)
    assert mine.parent != later.parent
    assert mine.read_bytes() == theirs.read_bytes() == later.read_bytes()
