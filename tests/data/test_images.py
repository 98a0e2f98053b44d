import dataclasses
import os
import zipfile

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageCms, features

from carvana.data import folders, images
from carvana.data.resize import resize
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe
from conftest import run_out_of_memory

BLOG = load_recipe("blog")
SMALL = dataclasses.replace(load_recipe("sharp").input, height=32, width=48)
FORMATS = {  # how each is saved; lossless where it can be
    "JPEG": {"quality": 95, "subsampling": 0},
    "progressive JPEG": {"format": "JPEG", "quality": 95, "subsampling": 0, "progressive": True},
    "MPO": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "interlaced PNG": {"format": "PNG"},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95},
    "BMP": {},
    "TIFF": {},
    "GIF": {},
}
ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}


def picture(height=80, width=120):
    """A smooth picture whose corners all differ."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height))
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def exif(orientation):
    tags = Image.Exif()
    tags[images.ORIENTATION] = orientation
    return tags


def stored(upright, orientation):
    """How a camera stores a picture that is upright under this orientation."""
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    return Image.fromarray(images._turn(np.asarray(upright), inverse))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_and_orientation_comes_out_upright(kind, orientation, tmp_path):
    options = {"format": kind} | FORMATS[kind]
    if options["format"] == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    upright = picture()
    path = tmp_path / f"a{ENDINGS.get(options['format'], '.' + options['format'].lower())}"
    if options["format"] in ("BMP", "GIF"):  # which have no orientation
        upright.save(path, **options)
    else:
        stored(upright, orientation).save(path, exif=exif(orientation), **options)
    whole, size = images.read_photograph(path)
    assert size == (80, 120)
    assert images.photograph_size(path)[:2] == (80, 120)
    assert np.abs(whole.astype(int) - np.asarray(upright)).mean() < (6 if kind == "GIF" else 2)
    opened = images.open_photograph(path)
    assert (opened.mode, opened.size) == ("RGB", (120, 80))
    assert np.abs(np.asarray(opened).astype(int) - whole).mean() < 2  # two decoders
    small, size = images.read_photograph(path, SMALL)
    assert size == (80, 120)
    assert small.shape[0] <= small.shape[1] * 80 / 120 + 1
    if kind == "JPEG":
        assert small.shape == (40, 60, 3)  # decoded at half its size
    assert np.abs(resize(small, SMALL) - resize(whole, SMALL)).mean() < 0.01


def test_greys_of_more_bits_are_scaled(tmp_path):
    grey = np.asarray(picture().convert("L"))
    share = grey.astype(np.float32) / 255
    for kind in ("png", "tif"):
        path = tmp_path / f"a.{kind}"
        for stored in (grey.astype(np.uint16) * 257, grey.astype(np.int32) * 257, share):
            if kind == "png" and stored.dtype != np.uint16:
                continue
            Image.fromarray(stored).save(path)
            found, _ = images.read_photograph(path)
            np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=-1))
        Image.fromarray(np.zeros((8, 9), np.uint16)).save(path)
        assert not images.read_photograph(path)[0].any()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_transparency_is_white_to_the_network_and_kept_in_a_picture(mode, tmp_path):
    base = Image.new("RGB", (40, 30), (0, 0, 0))
    path = tmp_path / "a.png"
    if mode == "P":
        paletted = Image.new("P", base.size, 0)
        paletted.putpalette((0, 0, 0, 9, 9, 9))
        paletted.paste(1, (0, 0, 20, 30))
        paletted.save(path, transparency=0)
    else:
        alpha = Image.new("L", base.size, 0)
        alpha.paste(255, (0, 0, 20, 30))
        base.putalpha(alpha)
        path = path.with_suffix(".tif") if mode == "PA" else path
        (base if mode == "PA" else base.convert(mode)).save(path)
    found, _ = images.read_photograph(path)
    assert found[:, 20:].min() == 255
    assert found[:, :20].max() <= 9
    opened = images.open_photograph(path)
    assert opened.mode == "RGBA"
    assert np.asarray(opened)[..., 3].tolist() == [[255] * 20 + [0] * 20] * 30


def test_cmyk_and_foreign_profiles_become_srgb(tmp_path):
    path = tmp_path / "a.jpg"
    picture().convert("CMYK").save(path, quality=95)
    found, _ = images.read_photograph(path)
    assert np.abs(found.astype(int) - np.asarray(picture())).mean() < 3
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (lab, srgb, b"no profile at all"):  # of another space, usual, broken
        picture().save(path, quality=95, icc_profile=profile)
        found, _ = images.read_photograph(path)
        assert np.abs(found.astype(int) - np.asarray(picture())).mean() < 3
        assert "icc_profile" not in images.open_photograph(path).info


def test_pictures_that_cannot_be_read_are_named_in_one_line(tmp_path, monkeypatch):
    good = tmp_path / "good.jpg"
    picture().save(good)
    whole = good.read_bytes()
    for content in (b"", b"text", whole[:100], whole[: len(whole) // 2]):
        for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
            path = tmp_path / name
            path.write_bytes(content)
            for read in (images.read_photograph, images.open_photograph):
                with pytest.raises(CarvanaError, match=r"a\.\w+: is not a readable") as error:
                    read(path)
                assert "\n" not in str(error.value)
    with pytest.raises(CarvanaError, match=r"gone\.jpg: no such photograph"):
        images.read_photograph(tmp_path / "gone.jpg")
    with pytest.raises(CarvanaError, match="is not a readable photograph .Is a directory"):
        images.read_photograph(tmp_path)
    Image.new("F", (8, 8), 300).save(tmp_path / "f.tif")
    with pytest.raises(CarvanaError, match=r"f\.tif: has grey values from 300 to 300; save"):
        images.read_photograph(tmp_path / "f.tif")
    Image.new("LAB", (8, 8)).save(tmp_path / "lab.tif")
    with pytest.raises(CarvanaError, match=r"lab\.tif: has pixels of the kind LAB, which is not"):
        images.read_photograph(tmp_path / "lab.tif")
    for content, what in (
        (b"", r"it is empty"),
        (b"8BPS a whole Photoshop file", r"of no format that is read.; convert it to PNG or JPEG"),
        (b"II*\0a TIFF of five channels", r"a TIFF that is broken, or has channels or bits that"),
        (whole[:100], "a JPEG that is broken|cut short or broken"),
    ):
        good.write_bytes(content)
        with pytest.raises(CarvanaError, match=rf"good\.jpg: is not a readable .*{what}"):
            images.read_photograph(good)
    for bug in (ZeroDivisionError, KeyError, TypeError, AttributeError):
        with pytest.raises(bug), images.readable(good):
            raise bug
    for content, what in ((b"<!DOCTYPE html>", "a web page"), (b"    ftypheic" * 9, "HEIC under")):
        good.write_bytes(content)
        with pytest.raises(CarvanaError, match=rf"good\.jpg: is not a photograph but {what}"):
            images.read_photograph(good)
    picture().save(good)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(CarvanaError, match=r"good\.jpg: is too large .*9600 pixels.*make it small"):
        images.read_photograph(good)


def test_heic_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(images.sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"some")
    with pytest.raises(CarvanaError, match=r"a\.heic: HEIC needs the package pillow-heif"):
        images.read_photograph(tmp_path / "a.heic")


def test_real_photographs_decode_as_the_article_decodes_them(real, tmp_path):
    with zipfile.ZipFile(real / "train.zip") as archive:
        name = sorted(n for n in archive.namelist() if n.endswith(".jpg"))[0]
        jpeg = archive.read(name)
    found, size = images.decode_photograph(jpeg, tmp_path / "a.jpg")
    np.testing.assert_array_equal(found, tf.image.decode_jpeg(jpeg))
    assert size == (1280, 1918)


def test_out_of_memory_is_not_taken_for_a_broken_file(tmp_path, monkeypatch):
    picture().save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_upright", run_out_of_memory)
    with pytest.raises(MemoryError):
        images.read_photograph(tmp_path / "a.png")


def test_area_recipes_decode_jpegs_no_larger_than_they_need(tmp_path):
    rng = np.random.default_rng(5)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).resize((480, 320))
    path = tmp_path / "a.jpg"
    smooth.save(path, "JPEG", quality=95)
    for method, size, decoded in (
        ("area", (80, 120), (80, 120)),
        ("area", (79, 119), (80, 120)),
        ("area", (81, 120), (160, 240)),
        ("area", (200, 300), (320, 480)),
        ("area", (60, 60), (80, 120)),
        ("bilinear", (80, 120), (320, 480)),  # as published: every pixel, then a few of them
    ):
        settings = dataclasses.replace(BLOG.input, height=size[0], width=size[1], method=method)
        found, whole_size = images.read_photograph(path, settings)
        assert found.shape == (*decoded, 3)
        assert whole_size == (320, 480)
        whole, _ = images.read_photograph(path)
        found, want = (resize(part, settings) for part in (found, whole))
        np.testing.assert_allclose(found, want, atol=0.02)


def test_broken_exif_data_is_no_reason_to_refuse(tmp_path):
    path = tmp_path / "a.png"
    picture().save(path, exif=b"Exif\0\0broken")
    assert images.read_photograph(path)[1] == (80, 120)
    assert images.open_photograph(path).size == (120, 80)


@pytest.mark.parametrize("most", [255, 1023, 4095, 16383])
def test_a_few_bits_in_sixteen_are_not_read_nearly_black(most, tmp_path):
    ramp = np.tile(np.linspace(0, 1, 16), (8, 1))
    path = tmp_path / "scan.png"
    Image.fromarray((ramp * most).astype(np.uint16)).save(path)
    says = rf"up to {most} of 65535, and would be read nearly black; set input\.white = {most} "
    for read in (images.read_photograph, images.open_photograph):
        with pytest.raises(CarvanaError, match=says):
            read(path)
    settings = dataclasses.replace(SMALL, white=most)
    for found in (
        images.read_photograph(path, settings)[0],
        np.asarray(images.open_photograph(path, white=most)),
    ):
        np.testing.assert_allclose(found[..., 0], ramp * 255, atol=1)
    np.testing.assert_allclose(
        images.read_photograph(path, white=65535)[0][..., 0], ramp * most / 257, atol=1
    )
    with pytest.raises(CarvanaError, match=rf"values from 0 to {most} and input\.white is 200"):
        images.read_photograph(path, white=200)
    colours = np.repeat((ramp * most)[..., None], 3, axis=-1).astype(np.uint16)
    path.write_bytes(cv2.imencode(".png", colours)[1].tobytes())
    with pytest.raises(CarvanaError, match="has colours of 16 bits, none above"):
        images.read_photograph(path)
    bright = np.clip(colours.astype(int) * 65535 // most, 0, 65535).astype(np.uint16)
    path.write_bytes(cv2.imencode(".png", bright)[1].tobytes())
    np.testing.assert_allclose(images.read_photograph(path)[0][..., 0], ramp * 255, atol=1)


def test_the_first_frame_of_an_animation_is_used_and_said_so(tmp_path, capsys):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    found, _ = images.read_photograph(tmp_path / "a.gif")
    assert found[0, 0].tolist() == [255, 0, 0]
    assert "has 2 frames; the first is used" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_no_photograph(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.png")
    picture().save(tmp_path / "a.png")
    assert folders.list_images(tmp_path) == ["a.png"]
    assert "1 .png" in capsys.readouterr().err
