import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, features

from carvana.data import images
from carvana.data.resize import resize
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe

SMALL = load_recipe("sharp").input


def picture(height=80, width=120):
    """A smooth picture whose corners all differ."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height))
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_come_out_upright(ending, orientation, tmp_path):
    path = tmp_path / f"a.{ending}"
    tags = Image.Exif()
    tags[images.ORIENTATION] = orientation
    picture().save(path, exif=tags, quality=95)
    want = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert images.photograph_size(path) == (want.height, want.width, orientation)
    whole, size = images.read_photograph(path)
    assert size == (want.height, want.width)
    assert np.abs(whole.astype(int) - want).mean() < 2  # two decoders
    np.testing.assert_array_equal(images.open_photograph(path), want)
    settings = dataclasses.replace(SMALL, height=want.height // 2, width=want.width // 2)
    small, size = images.read_photograph(path, settings)
    assert size == (want.height, want.width)
    if ending == "jpg":  # decoded at half its size
        assert small.shape == (settings.height, settings.width, 3)
    assert np.abs(resize(small, settings) - resize(whole, settings)).mean() < 0.01


@pytest.mark.parametrize("kind", ["MPO", "TIFF", "AVIF", "progressive JPEG"])
def test_other_formats_of_cameras_come_out_upright(kind, tmp_path, capsys):
    *progressive, kind = kind.split()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    path = tmp_path / {"TIFF": "a.tif", "AVIF": "a.avif"}.get(kind, "a.jpg")
    tags = Image.Exif()
    tags[images.ORIENTATION] = 6  # to be turned a quarter to the right
    options = {"quality": 95, "progressive": bool(progressive)}
    if kind == "MPO":  # of phones: beside the photograph lies another picture
        options |= {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}
    picture().transpose(Image.Transpose.ROTATE_90).save(path, kind, exif=tags, **options)
    assert Image.open(path).format == kind
    assert images.photograph_size(path)[:2] == (80, 120)
    found, size = images.read_photograph(path)
    assert size == (80, 120)
    for each in (found, np.asarray(images.open_photograph(path))):
        assert np.abs(each.astype(int) - np.asarray(picture())).mean() < 2
    assert capsys.readouterr().err == ""  # an MPO is no animation


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_greys_of_more_bits_are_scaled(ending, dtype, tmp_path):
    grey = np.asarray(picture().convert("L"))
    wide = grey.astype(dtype) * (257 if dtype != np.float32 else 1 / np.float32(255))
    if ending == "png" and dtype != np.uint16:
        pytest.skip("PNG has no such pixels")
    Image.fromarray(wide).save(tmp_path / f"a.{ending}")
    found, _ = images.read_photograph(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=-1))
    Image.fromarray(wide * 0).save(tmp_path / f"a.{ending}")
    assert not images.read_photograph(tmp_path / f"a.{ending}")[0].any()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_transparency_is_white_to_the_network_and_kept_in_a_picture(mode, tmp_path):
    path = tmp_path / ("a.tif" if mode == "PA" else "a.png")
    alpha = Image.new("L", (40, 30), 0)
    alpha.paste(255, (0, 0, 20, 30))
    if mode == "P":
        paletted = alpha.point(lambda value: value // 255).convert("P")
        paletted.putpalette((0, 0, 0, 9, 9, 9))
        paletted.save(path, transparency=0)
    else:
        base = Image.new("RGB", alpha.size, (0, 0, 0))
        base.putalpha(alpha)
        (base if mode == "PA" else base.convert(mode)).save(path)
    found, _ = images.read_photograph(path)
    assert found[:, 20:].min() == 255
    assert found[:, :20].max() <= 9
    opened = images.open_photograph(path)
    assert opened.mode == "RGBA"
    np.testing.assert_array_equal(opened.getchannel("A"), alpha)


LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("mode", "extras"),
    [
        ("CMYK", {}),
        ("RGB", {"icc_profile": LAB}),  # of another space
        ("RGB", {"icc_profile": SRGB}),
        ("RGB", {"icc_profile": b"no profile at all"}),
        ("RGB", {"exif": b"Exif\0\0broken"}),
    ],
)
def test_cmyk_foreign_profiles_and_broken_extras_become_srgb(mode, extras, tmp_path):
    path = tmp_path / "a.jpg"
    picture().convert(mode).save(path, quality=95, **extras)
    found, size = images.read_photograph(path)
    assert size == (80, 120)
    assert np.abs(found.astype(int) - np.asarray(picture())).mean() < 3
    opened = images.open_photograph(path)
    assert (opened.mode, opened.size) == ("RGB", (120, 80))
    assert "icc_profile" not in opened.info


JPEG = cv2.imencode(".jpg", np.asarray(picture()))[1].tobytes()


@pytest.mark.parametrize("read", [images.read_photograph, images.open_photograph])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "a readable photograph .it is empty"),
        (b"text", "a readable photograph .broken, or of a format.*; save it as PNG"),
        (JPEG[:100], "a readable photograph .(broken, or of|cut short or broken)"),
        (JPEG[: len(JPEG) // 2], "a readable photograph .cut short or broken"),
        (b"<!DOCTYPE html>", "a photograph but a web page"),
        (b"    ftypheic" * 9, "a photograph but HEIC under another name"),
    ],
)
def test_pictures_that_cannot_be_read_are_named_in_one_line(read, content, says, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(CarvanaError, match=rf"a\.jpg: is not .*{says}") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_what_is_no_photograph_is_named(tmp_path, monkeypatch):
    def refuse(path, says):
        with pytest.raises(CarvanaError, match=rf"{path.name}: {says}"):
            images.read_photograph(path)

    refuse(tmp_path / "gone.jpg", "no such photograph")
    refuse(tmp_path, "is not a readable photograph .Is a directory")
    path = tmp_path / "a.tif"
    Image.new("F", (8, 8), 300).save(path)
    refuse(path, "has grey values from 300 to 300; save")
    Image.new("LAB", (8, 8)).save(path)
    refuse(path, "has pixels of the kind LAB, which is not")
    picture().save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refuse(path, "is too large .*9600 pixels.*make it small")
    monkeypatch.setitem(images.sys.modules, "pillow_heif", None)
    refuse(path.rename(tmp_path / "a.heic"), "HEIC needs the package pillow-heif")


@pytest.mark.parametrize("most", [255, 1023, 4095, 16383])
def test_a_few_bits_in_sixteen_are_not_read_nearly_black(most, tmp_path):
    ramp = np.tile(np.linspace(0, 1, 16), (8, 1))
    path = tmp_path / "scan.png"
    Image.fromarray((ramp * most).astype(np.uint16)).save(path)
    says = rf"up to {most} of 65535, and would be read nearly black; set input\.white = {most} "
    for read in (images.read_photograph, images.open_photograph):
        with pytest.raises(CarvanaError, match=says):
            read(path)
        with pytest.raises(CarvanaError, match=f"from 0 to {most} and input.white is 200"):
            read(path, white=200)
    for white in (most, 65535):
        found, _ = images.read_photograph(path, dataclasses.replace(SMALL, white=white))
        np.testing.assert_allclose(found[..., 0], ramp * most * 255 / white, atol=1)
        np.testing.assert_array_equal(images.open_photograph(path, white=white), found)
    for brightest in (most, 65535):
        colours = np.repeat((ramp * brightest)[..., None], 3, axis=-1).astype(np.uint16)
        path.write_bytes(cv2.imencode(".png", colours)[1].tobytes())
        if brightest == most:
            with pytest.raises(CarvanaError, match="has colours of 16 bits, none above"):
                images.read_photograph(path)
    np.testing.assert_allclose(images.read_photograph(path)[0][..., 0], ramp * 255, atol=1)


def test_the_first_frame_of_an_animation_is_used_and_said_so(tmp_path, capsys):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    found, _ = images.read_photograph(tmp_path / "a.gif")
    assert found[0, 0].tolist() == [255, 0, 0]
    assert "has 2 frames; the first is used" in capsys.readouterr().err
