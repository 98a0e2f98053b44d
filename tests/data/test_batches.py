import dataclasses
import errno
import io
import itertools
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from carvana.augment import augment
from PIL import Image

from carvana import dataset, pipeline
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe
from conftest import TINY, TINY_PYRAMID, prepared

BLOG = load_recipe("blog")
SMALL = load_recipe("blog", TINY).input


def test_load_pair_is_the_published_preprocessing_bit_for_bit(tiny):
    image_path, mask_path = tiny.image("car0_01.jpg"), tiny.mask("car0_01.jpg")
    image, mask = pipeline.load_pair(image_path, mask_path, BLOG.input)
    # The article's own calls, in its order.
    read = tf.io.read_file
    want = tf.image.decode_jpeg(read(str(image_path)))
    want = tf.image.resize(tf.image.convert_image_dtype(want, tf.float32), (128, 128))
    np.testing.assert_array_equal(image, want)
    want = tf.image.decode_gif(read(str(mask_path)))[0][:, :, :1]
    want = tf.image.resize(tf.image.convert_image_dtype(want, tf.float32), (128, 128))
    np.testing.assert_array_equal(mask, want)
    assert image.dtype == mask.dtype == np.float32


def test_real_photographs_decode_as_the_article_decodes_them(real):
    with zipfile.ZipFile(real / "train.zip") as images:
        name = sorted(n for n in images.namelist() if n.endswith(".jpg"))[0]
        jpeg = images.read(name)
    with zipfile.ZipFile(real / "train_masks.zip") as masks:
        stem = name.split("/")[-1][:-4]
        gif = masks.read(f"train_masks/{stem}_mask.gif")
    np.testing.assert_array_equal(pipeline.decode_image(jpeg), tf.image.decode_jpeg(jpeg))
    mask = pipeline.decode_mask(gif)
    assert mask.shape == (1280, 1918, 1)
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(mask[..., 0] > 0, np.asarray(Image.open(io.BytesIO(gif))) > 0)


def test_each_pass_has_every_image_once_and_no_two_passes_are_alike():
    batches = [pipeline.training_batch(number, 10, 4, seed=5) for number in range(6)]
    assert [len(indices) for indices, _ in batches] == [4, 4, 2, 4, 4, 2]
    passes = [np.concatenate([i for i, _ in batches[k : k + 3]]) for k in (0, 3)]
    assert all(sorted(p) == list(range(10)) for p in passes)
    assert passes[0].tolist() != passes[1].tolist()
    seeds = np.concatenate([s for _, s in batches])
    assert len(np.unique(seeds, axis=0)) == 20


@pytest.mark.parametrize("first", [1, 2, 3, 5])
def test_a_resumed_run_goes_on_with_the_batches_it_would_have_had(first, tiny):
    recipe = load_recipe("blog", TINY)  # 20 photographs, 8 a batch
    files = pipeline.prepare(dataset.find_pairs(tiny), tiny, recipe.input)
    whole = list(pipeline.training_dataset(files, recipe).take(6))
    rest = list(pipeline.training_dataset(files, recipe, first).take(6 - first))
    for got, want in zip(rest, whole[first:], strict=True):
        for got_part, want_part in zip(got, want, strict=True):
            np.testing.assert_array_equal(got_part, want_part)


def test_datasets_keep_image_and_mask_together_and_augment_training_alone(tiny):
    recipe = load_recipe("blog", TINY)
    names = dataset.find_pairs(tiny)
    images, masks = prepared(names, tiny, recipe.input)
    files = pipeline.prepare(names, tiny, recipe.input)
    order = pipeline.training_batch(0, 20, 8, recipe.training.seed)
    batch, truth = next(iter(pipeline.training_dataset(files, recipe)))
    np.testing.assert_array_equal(truth, masks[order[0]])
    for got, index, seed in zip(batch, *order, strict=True):
        pair = np.concatenate((images[index], masks[index]), axis=-1)
        want, _ = augment(pair, seed, recipe.augment)
        np.testing.assert_allclose(got, want, atol=1e-6)
    plain = list(pipeline.validation_dataset(files, recipe))
    assert [len(batch) for batch, _ in plain] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate([b for b, _ in plain]), images)


def test_pairs_are_decoded_once_and_again_where_they_changed(tiny, monkeypatch):
    names = dataset.find_pairs(tiny)
    decoded = []
    load_pair = pipeline.load_pair
    monkeypatch.setattr(
        pipeline, "load_pair", lambda image, *rest: decoded.append(image) or load_pair(image, *rest)
    )
    first = pipeline.prepare(names, tiny, SMALL)
    assert len(decoded) == 20
    assert pipeline.prepare(names[:5], tiny, SMALL) == first[:5]
    assert len(decoded) == 20

    # Another photograph under the same name, a mask drawn anew, a cache file cut short.
    Image.open(tiny.image(names[1])).save(tiny.image(names[0]))
    os.utime(tiny.mask(names[2]), (1, 1))
    whole = first[4].read_bytes()
    first[4].write_bytes(whole[:-1])
    decoded.clear()
    again = pipeline.prepare(names, tiny, SMALL)
    assert sorted(decoded) == [tiny.image(names[i]) for i in (0, 2, 4)]
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
    other = pipeline.prepare(names[:1], tiny, dataclasses.replace(SMALL, width=40))
    assert other[0].parent != first[0].parent


@pytest.mark.parametrize(("method", "within"), [("bilinear", 0), ("area", 0.5 / 255 + 1e-6)])
def test_prepared_pairs_are_exact_or_a_grey_level_off(method, within, tiny):
    settings = dataclasses.replace(SMALL, method=method)
    name = "car0_01.jpg"
    want = np.concatenate(pipeline.load_pair(tiny.image(name), tiny.mask(name), settings), axis=-1)
    (file,) = pipeline.prepare([name], tiny, settings)
    pair = pipeline.read_prepared(file, settings)
    scale = 255 if pair.dtype == np.uint8 else 1
    assert np.abs(pair / np.float32(scale) - want).max() <= within


def test_a_cache_that_cannot_be_written_is_told(tiny):
    tiny.cache.write_text("in the way")
    with pytest.raises(CarvanaError, match=r"^[^ ]*cache/[^ ]*: prepared pairs cannot be .*a link"):
        pipeline.prepare(["car0_01.jpg"], tiny, SMALL)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS])
def test_pairs_made_before_the_disk_was_full_are_kept(fault, tiny, monkeypatch):
    names = dataset.find_pairs(tiny)
    write, made = Path.write_bytes, itertools.count()

    def write_until_full(file, data):
        if next(made) >= 5:
            write(file, bytes(data)[:100])
            raise OSError(fault, os.strerror(fault))
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(CarvanaError) as told:
            pipeline.prepare(names, tiny, SMALL)
    assert f"({os.strerror(fault)}); free some space, or make {tiny.cache} a li" in str(told.value)
    assert "\n" not in str(told.value)
    assert not list(tiny.cache.glob("*/.car*"))
    kept = {file: file.stat().st_mtime_ns for file in tiny.cache.glob("*/car*")}
    assert len(kept) == 5
    files = pipeline.prepare(names, tiny, SMALL)
    assert {file: file.stat().st_mtime_ns for file in files if file in kept} == kept

    def read_only(folder):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(pipeline, "in_turn", read_only)
    assert pipeline.prepare(names, tiny, SMALL) == files  # a whole cache is only read


def test_want_of_memory_is_not_taken_for_a_broken_file(tiny, monkeypatch):
    def fail(*_):
        return cv2.resize(np.zeros((1, 1), np.uint8), (2**30, 2**30))

    names = dataset.find_pairs(tiny)
    recipe = load_recipe("blog", TINY)
    files = pipeline.prepare(names, tiny, recipe.input)
    monkeypatch.setattr(pipeline, "augment", fail)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        next(iter(pipeline.training_dataset(files, recipe)))
    monkeypatch.setattr(pipeline, "decode_image", fail)
    with pytest.raises(MemoryError):
        pipeline.load_pair(tiny.image(names[0]), tiny.mask(names[0]), recipe.input)


def test_a_cache_of_another_version_is_left_alone(tiny, monkeypatch):
    (mine,) = pipeline.prepare(["car0_01.jpg"], tiny, SMALL)
    monkeypatch.setattr(tf, "__version__", "2.0.0")
    (other,) = pipeline.prepare(["car0_01.jpg"], tiny, SMALL)
    assert mine.parent != other.parent
    assert mine.read_bytes() == other.read_bytes()


def test_shrunk_pictures_are_means_of_their_pixels(tiny):
    recipe = load_recipe("sharp", TINY_PYRAMID)
    names = dataset.find_pairs(tiny)[:3]
    files = pipeline.prepare(names, tiny, recipe.input)
    (image, mask), *_ = pipeline.validation_dataset(files, recipe, shrink=2)
    images, masks = prepared(names, tiny, recipe.input)
    for got, whole in ((image, images), (mask, masks)):
        want = whole.reshape(3, 16, 2, 24, 2, -1).mean((2, 4)) / 255
        np.testing.assert_allclose(got, want, atol=0.51 / 255)


def test_area_recipes_decode_jpegs_no_larger_than_they_need():
    rng = np.random.default_rng(5)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).resize((480, 320))
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=95)
    for method, size, decoded in (
        ("area", (80, 120), (80, 120)),
        ("area", (79, 119), (80, 120)),
        ("area", (81, 120), (160, 240)),
        ("area", (200, 300), (320, 480)),
        ("area", (60, 60), (80, 120)),
        ("bilinear", (80, 120), (320, 480)),  # as published: every pixel, then a few of them
    ):
        settings = dataclasses.replace(BLOG.input, height=size[0], width=size[1], method=method)
        picture = pipeline.decode_image(file.getvalue(), settings)
        assert picture.shape == (*decoded, 3)
        whole = pipeline.decode_image(file.getvalue())
        found, want = (pipeline.resize(part, settings) for part in (picture, whole))
        np.testing.assert_allclose(found, want, atol=0.02)


def test_area_recipes_enlarge_smoothly_instead_of_repeating_pixels():
    ramp = np.tile(np.arange(0, 240, 16, dtype=np.uint8)[None, :, None], (10, 1, 3))
    settings = dataclasses.replace(load_recipe("sharp").input, height=20, width=30)
    enlarged = pipeline.resize(ramp, settings)
    assert enlarged.shape == (20, 30, 3)
    assert enlarged.dtype == np.float32
    assert (np.diff(enlarged[5, 2:-2, 0]) > 0).all()
    assert enlarged.min() >= 0
    assert enlarged.max() <= 1
    bilinear = dataclasses.replace(settings, method="bilinear", antialias=True)
    want = tf.image.resize(ramp, (20, 30), antialias=True) / 255
    np.testing.assert_allclose(pipeline.resize(ramp, bilinear), want, atol=1e-4)
