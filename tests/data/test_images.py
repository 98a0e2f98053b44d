import dataclasses
import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from carvana.data import images
from carvana.recipe import load_recipe
from conftest import run_out_of_memory

BLOG = load_recipe("blog")


def test_load_pair_is_the_published_preprocessing_bit_for_bit(tiny):
    image_path, mask_path = tiny.image("car0_01.jpg"), tiny.mask("car0_01.jpg")
    image, mask = images.load_pair(image_path, mask_path, BLOG.input)
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
    with zipfile.ZipFile(real / "train.zip") as archive:
        name = sorted(n for n in archive.namelist() if n.endswith(".jpg"))[0]
        jpeg = archive.read(name)
    with zipfile.ZipFile(real / "train_masks.zip") as archive:
        stem = name.split("/")[-1][:-4]
        gif = archive.read(f"train_masks/{stem}_mask.gif")
    np.testing.assert_array_equal(images.decode_image(jpeg), tf.image.decode_jpeg(jpeg))
    mask = images.decode_mask(gif)
    assert mask.shape == (1280, 1918, 1)
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(mask[..., 0] > 0, np.asarray(Image.open(io.BytesIO(gif))) > 0)


def test_out_of_memory_is_not_taken_for_a_broken_file(tiny, monkeypatch):
    monkeypatch.setattr(images, "decode_image", run_out_of_memory)
    name = "car0_01.jpg"
    with pytest.raises(MemoryError):
        images.load_pair(tiny.image(name), tiny.mask(name), BLOG.input)


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
        picture = images.decode_image(file.getvalue(), settings)
        assert picture.shape == (*decoded, 3)
        whole = images.decode_image(file.getvalue())
        found, want = (images.resize(part, settings) for part in (picture, whole))
        np.testing.assert_allclose(found, want, atol=0.02)


def test_area_recipes_enlarge_smoothly_instead_of_repeating_pixels():
    ramp = np.tile(np.arange(0, 240, 16, dtype=np.uint8)[None, :, None], (10, 1, 3))
    settings = dataclasses.replace(load_recipe("sharp").input, height=20, width=30)
    enlarged = images.resize(ramp, settings)
    assert enlarged.shape == (20, 30, 3)
    assert enlarged.dtype == np.float32
    assert (np.diff(enlarged[5, 2:-2, 0]) > 0).all()
    assert enlarged.min() >= 0
    assert enlarged.max() <= 1
    bilinear = dataclasses.replace(settings, method="bilinear", antialias=True)
    want = tf.image.resize(ramp, (20, 30), antialias=True) / 255
    np.testing.assert_allclose(images.resize(ramp, bilinear), want, atol=1e-4)
