import dataclasses
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from carvana.data import masks
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe
from conftest import DATA

CLASSES = dataclasses.replace(DATA, classes={"background": 0, "circle": 1, "square": 7}, ignore=255)
COLOURED = dataclasses.replace(
    DATA, classes={"background": "#000000", "circle": "#ff0000", "square": "#0000ff"}
)
CAR = np.zeros((20, 30), bool)
CAR[5:12, 8:20] = True


def palette(colours, labels=CAR, **info):
    """A palette picture of labels in these colours."""
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(bytes(sum(colours, ())))
    picture.info.update(info)
    return picture


def read(picture, tmp_path, settings=DATA, kind="PNG", **options):
    path = tmp_path / f"m.{kind.lower()}"
    picture.save(path, kind, **options)
    return masks.read_mask(path, settings)


BLACK, WHITE, BLUE, GREY = (0, 0, 0), (255, 255, 255), (0, 0, 255), (90, 90, 90)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    "picture",
    [
        palette((BLACK, WHITE)),
        Image.fromarray(CAR.astype(np.uint8)),  # 0 and 1
        Image.fromarray(CAR.astype(np.uint8) * 255),
        Image.fromarray(CAR),  # one bit
        *(Image.fromarray(CAR.astype(np.uint16) * value) for value in (1, 255, 65535)),
        Image.fromarray(np.repeat(CAR[..., None].astype(np.uint8) * 255, 3, axis=-1)),
    ],
)
def test_black_and_white_or_one(picture, kind, tmp_path):
    if picture.mode == "I;16" and kind not in ("PNG", "TIFF"):
        pytest.skip("this format has no 16 bits")
    if kind == "WEBP" or (kind == "BMP" and picture.mode == "P"):  # Pillow writes those wrong
        picture = picture.convert("RGB")
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(read(picture, tmp_path, kind=kind, **options), CAR)
    for colour, label in ((BLACK, 0), (WHITE, 1)):
        assert (read(Image.new("RGB", (5, 4), colour), tmp_path) == label).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_numbers_of_more_bits_are_never_taken_for_greys(dtype, tmp_path):
    """What Cellpose, StarDist and ImageJ write: 0 background, 1 to 300 a cell each."""
    cells = np.zeros((20, 30), dtype)
    cells[5:15, :] = np.arange(1, 301).reshape(10, 30)
    picture = Image.fromarray(cells)
    with pytest.raises(CarvanaError, match=r"values 0 to 300.*data\.foreground = .any"):
        read(picture, tmp_path, kind="TIFF")
    found = read(picture, tmp_path, dataclasses.replace(DATA, foreground="any"), "TIFF")
    np.testing.assert_array_equal(found, cells > 0)
    one = Image.fromarray((cells > 0) * dtype(300))
    with pytest.raises(CarvanaError, match=r"the value 300 beside 0.*foreground = .any"):
        read(one, tmp_path, kind="TIFF")
    seven = Image.fromarray((cells == 7) * dtype(7))
    np.testing.assert_array_equal(read(seven, tmp_path, CLASSES, "TIFF"), 2 * (cells == 7))


def test_fractions_and_values_below_zero_are_refused(tmp_path):
    soft = Image.fromarray(CAR * np.float32(0.75) + np.eye(20, 30, dtype=np.float32) / 4)
    with pytest.raises(CarvanaError, match=r"values 0 to 1.*data\.soft = .threshold"):
        read(soft, tmp_path, kind="TIFF")
    threshold = dataclasses.replace(DATA, soft="threshold")
    np.testing.assert_array_equal(read(soft, tmp_path, threshold, "TIFF"), CAR)
    below = Image.fromarray(CAR.astype(np.int32) * -1)
    with pytest.raises(CarvanaError, match="the value -1 beside 0"):
        read(below, tmp_path, kind="TIFF")
    with pytest.raises(CarvanaError, match="has values below 0"):
        read(below, tmp_path, dataclasses.replace(DATA, foreground="any"), "TIFF")


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_greys_of_two_and_four_bits_keep_their_numbers(tmp_path):
    labels = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
    settings = dataclasses.replace(DATA, classes={"background": 0, "a": 1, "b": 2, "c": 3})
    for bits, rows in ((2, (b"\x1b", b"\xe4")), (4, (b"\x01\x23", b"\x32\x10"))):
        path = tmp_path / f"{bits}.png"
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
            + chunk(b"IEND", b"")
        )
        np.testing.assert_array_equal(masks.read_mask(path, settings), labels)


def test_kinds_of_pixels_that_tell_no_class_are_named(tmp_path):
    colours = np.repeat(CAR[..., None], 3, axis=-1).astype(np.uint16)
    path = tmp_path / "m.png"
    path.write_bytes(cv2.imencode(".png", colours)[1].tobytes())  # Pillow keeps the upper 8 bits
    with pytest.raises(CarvanaError, match=r"m\.png: has colours of 16 bits, which are not read"):
        masks.read_mask(path, DATA)
    with pytest.raises(CarvanaError, match="pixels of the kind LAB, which is not read"):
        read(Image.new("LAB", (30, 20)), tmp_path, kind="TIFF")


def test_what_is_transparent_is_background(tmp_path):
    white = palette((WHITE, WHITE))
    np.testing.assert_array_equal(read(white, tmp_path, kind="GIF", transparency=0), CAR)
    black_car = np.zeros((20, 30, 4), np.uint8)
    black_car[..., 3] = CAR * 255
    for colour, want in (("#000000", CAR), ("#ffffff", ~CAR & CAR)):
        settings = dataclasses.replace(DATA, foreground=colour)
        np.testing.assert_array_equal(read(Image.fromarray(black_car), tmp_path, settings), want)
    with pytest.raises(CarvanaError, match=r"black and transparent pixels alone.*data\.foreground"):
        read(Image.fromarray(black_car), tmp_path)
    half = Image.fromarray(np.full((4, 4, 4), 100, np.uint8))
    with pytest.raises(CarvanaError, match="has half-transparent pixels"):
        read(half, tmp_path)


def test_outside_of_a_gifs_frame_is_background(tmp_path):
    path = tmp_path / "m.gif"
    frame = palette((WHITE, BLACK), ~CAR[4:13, 6:22])  # within it, 0 is the car, 1 the background
    frame.save(path)
    data = bytearray(path.read_bytes())
    data[6:10] = (30).to_bytes(2, "little") + (20).to_bytes(2, "little")  # the canvas
    place = data.index(b"\x2c", 13)
    data[place + 1 : place + 5] = (6).to_bytes(2, "little") + (4).to_bytes(2, "little")
    path.write_bytes(data)
    np.testing.assert_array_equal(masks.read_mask(path, DATA), CAR)
    black = data.replace(bytes(WHITE), bytes(BLACK), 1)  # the whole frame: no car in it
    path.write_bytes(black)
    assert not masks.read_mask(path, DATA).any()


def test_a_colour_that_is_neither_white_nor_one_has_to_be_named(tmp_path):
    """One class a file, `classes` left out: three kinds must not become one."""
    for value, says in ((2, r"the value 2 .#020202. beside 0"), (200, "the value 200 .#c8c8c8.")):
        with pytest.raises(CarvanaError, match=rf"{says}.*data\.foreground = .*data\.classes"):
            read(Image.fromarray(CAR.astype(np.uint8) * value), tmp_path)
    # Palettes that differ give number 1 any colour.
    with pytest.raises(CarvanaError, match=r"the colour #0000ff beside black, not white"):
        read(palette((BLACK, BLUE)), tmp_path)
    for foreground in ("#0000ff", "any"):
        settings = dataclasses.replace(DATA, foreground=foreground)
        np.testing.assert_array_equal(read(palette((BLACK, BLUE)), tmp_path, settings), CAR)
    three = palette((BLACK, BLUE, GREY), CAR + np.eye(20, 30))
    any_colour = dataclasses.replace(DATA, foreground="any")
    want = CAR | np.eye(20, 30, dtype=bool)
    np.testing.assert_array_equal(read(three, tmp_path, any_colour), want)


def test_soft_masks_are_cut_at_half_grey(tmp_path):
    """Kvasir-SEG's exist as JPEG alone; others were smoothed."""
    threshold = dataclasses.replace(DATA, soft="threshold")
    blue = dataclasses.replace(threshold, foreground="#0000ff")
    for colour, settings in ((WHITE, threshold), (BLUE, blue)):
        want = CAR.repeat(4, axis=0).repeat(4, axis=1)
        picture = palette((BLACK, colour), want).convert("RGB")
        found = read(picture, tmp_path, settings, "JPEG", quality=90, subsampling=0)
        np.testing.assert_array_equal(found, want)
        smooth = picture.resize((30, 20), Image.Resampling.BILINEAR)
        assert (read(smooth, tmp_path, settings) != CAR).sum() < 10
    with pytest.raises(CarvanaError, match=r"no pixel near #ffffff, and some of #....ff; name"):
        read(palette((BLACK, BLUE)).convert("RGB"), tmp_path, threshold, "JPEG", quality=95)
    assert not read(Image.new("RGB", (9, 9)), tmp_path, threshold, "JPEG").any()
    exact = Image.fromarray(CAR.astype(np.uint8))  # 0 and 1: not cut at 128
    np.testing.assert_array_equal(read(exact, tmp_path, threshold), CAR)
    wide = Image.fromarray(CAR * np.uint16(65535) + np.eye(20, 30, dtype=np.uint16) * 9 * ~CAR)
    np.testing.assert_array_equal(read(wide, tmp_path, threshold), CAR)


def test_soft_masks_as_shares_of_a_pixel(tmp_path):
    share = dataclasses.replace(DATA, soft="share")
    greys = np.array([[0, 64, 127, 128, 200, 255]], np.uint8)
    path = tmp_path / "m.png"
    Image.fromarray(greys).save(path)
    mask = masks.open_mask(path, share)
    np.testing.assert_array_equal(mask.shares, greys)
    np.testing.assert_array_equal(mask.labels, greys > 127)
    # Of the way from black to a colour, or from white to black; transparent pixels have none.
    blue = np.zeros((1, 6, 4), np.uint8)
    blue[..., 2], blue[..., 3] = 255, greys
    Image.fromarray(blue).save(path)
    blues = dataclasses.replace(share, foreground="#0000ff")
    np.testing.assert_array_equal(masks.open_mask(path, blues).shares, greys)
    Image.fromarray(255 - greys).save(path)
    black = dataclasses.replace(share, foreground="#000000")
    np.testing.assert_array_equal(masks.open_mask(path, black).shares, greys)
    # A third colour has no share of either.
    Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 0]]], np.uint8)).save(path)
    assert masks.open_mask(path, blues).shares.tolist() == [[0, 255, 0]]
    Image.fromarray(np.array([[[255, 0, 255], [0, 0, 255], [0, 0, 0]]], np.uint8)).save(path)
    assert masks.open_mask(path, blues).shares.tolist() == [[0, 255, 0]]
    # Two colours have no shares between them.
    Image.fromarray(greys[:, ::5]).save(path)
    assert masks.open_mask(path, share).shares is None


def test_a_named_foreground(tmp_path):
    picture = palette((GREY, BLUE))
    with pytest.raises(CarvanaError, match=r"has the colours #5a5a5a and #0000ff, and neither is"):
        read(picture, tmp_path)
    for colour, want in (("#0000ff", CAR), ("#5a5a5a", ~CAR)):
        settings = dataclasses.replace(DATA, foreground=colour)
        np.testing.assert_array_equal(read(picture, tmp_path, settings), want)
    with pytest.raises(CarvanaError, match=r"data\.foreground = #123456 is neither"):
        read(picture, tmp_path, dataclasses.replace(DATA, foreground="#123456"))


def test_what_is_not_a_mask_is_named(tmp_path):
    car = Image.fromarray(CAR.astype(np.uint8) * 255)
    with pytest.raises(CarvanaError, match=r"m\.jpeg: is a JPEG, .*data\.soft = .threshold"):
        read(car, tmp_path, kind="JPEG")
    with pytest.raises(CarvanaError, match=r"m\.jpeg: is a JPEG, .*get the masks it was made from"):
        read(car, tmp_path, CLASSES, kind="JPEG")
    with pytest.raises(CarvanaError, match=r"has [\d,]+ pixels of \d+ more colours? than the two"):
        read(car.resize((47, 33), Image.Resampling.BILINEAR), tmp_path)
    with pytest.raises(CarvanaError, match=r"has [\d,]+ pixels of 1 more colour than the two"):
        read(palette((BLACK, WHITE, BLUE), CAR + np.eye(20, 30)), tmp_path)
    with pytest.raises(CarvanaError, match="has 2 frames; a mask has one"):
        read(car, tmp_path, kind="GIF", save_all=True, append_images=[Image.new("L", (30, 20), 9)])
    path = tmp_path / "m.png"
    car.save(path)
    for content in (b"", b"text", path.read_bytes()[:60]):
        path.write_bytes(content)
        with pytest.raises(CarvanaError, match=r"m\.png: is not a readable mask") as error:
            masks.read_mask(path, DATA)
        assert "\n" not in str(error.value)
    with pytest.raises(CarvanaError, match=r"gone\.png: no such mask"):
        masks.read_mask(tmp_path / "gone.png", DATA)


LABELS = CAR + 2 * np.eye(20, 30, dtype=np.uint8) * ~CAR
VALUES = np.array([0, 1, 7, *[255] * 253], np.uint8)


def test_classes_by_number(tmp_path):
    numbers = VALUES[LABELS]
    numbers[0, 5] = 255
    want = LABELS.copy()
    want[0, 5] = masks.IGNORED
    for picture in (
        Image.fromarray(numbers),
        palette([GREY] * 256, numbers),
        Image.fromarray(numbers.astype(np.uint16)),
        Image.fromarray(np.repeat(numbers[..., None], 3, axis=-1)),
    ):
        np.testing.assert_array_equal(read(picture, tmp_path, CLASSES), want)
    numbers[0, 6] = 3
    with pytest.raises(CarvanaError, match=r"has 1 pixels of values that data\.classes .*\(3\)"):
        read(Image.fromarray(numbers), tmp_path, CLASSES)
    with pytest.raises(CarvanaError, match=r"is in colours, but data\.classes gives numbers"):
        read(palette((BLACK, BLUE)).convert("RGB"), tmp_path, CLASSES)


def test_classes_by_colour(tmp_path):
    picture = palette((BLACK, (255, 0, 0), BLUE), LABELS)
    for each in (picture, picture.convert("RGB"), picture.convert("RGBA")):
        np.testing.assert_array_equal(read(each, tmp_path, COLOURED), LABELS)
    with pytest.raises(CarvanaError, match=r"values that data\.classes does not name \(#5a5a5a\)"):
        read(palette((BLACK, GREY)), tmp_path, COLOURED)


@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_label_maps_are_read_back(tmp_path_factory, height, width, random):
    path = tmp_path_factory.getbasetemp() / "m.png"
    for settings, labels in ((DATA, (0, 1)), (CLASSES, (0, 1, 2, 255)), (COLOURED, (0, 1, 2))):
        drawn = np.array(random.choices(labels, k=height * width), np.uint8)
        drawn = drawn.reshape(height, width)
        if settings is DATA and len(np.unique(drawn)) == 1 and drawn.all():
            continue  # all white is all car, whatever the palette says
        masks.to_picture(drawn, settings).save(path)
        np.testing.assert_array_equal(masks.read_mask(path, settings), drawn)


def test_real_masks_are_read_as_pillow_reads_them(real, tmp_path):
    with zipfile.ZipFile(real / "train_masks.zip") as archive:
        name = sorted(n for n in archive.namelist() if n.endswith(".gif"))[0]
        (tmp_path / "m.gif").write_bytes(archive.read(name))
    labels = masks.read_mask(tmp_path / "m.gif", load_recipe("blog").data)
    assert labels.shape == (1280, 1918)
    np.testing.assert_array_equal(labels, np.asarray(Image.open(tmp_path / "m.gif")) > 0)


def test_one_bit_masks_have_the_colours_people_see(tmp_path):
    picture = Image.fromarray(CAR)
    assert picture.mode == "1"
    white = dataclasses.replace(DATA, foreground="#ffffff")
    np.testing.assert_array_equal(read(picture, tmp_path, white), CAR)
    colours = dataclasses.replace(DATA, classes={"background": "#000000", "car": "#ffffff"})
    np.testing.assert_array_equal(read(picture, tmp_path, colours), CAR)
    wide = Image.fromarray(CAR.astype(np.uint16) * 65535)
    np.testing.assert_array_equal(read(wide, tmp_path, white), CAR)


def test_transparent_pixels_need_a_background_class(tmp_path):
    rgba = np.zeros((20, 30, 4), np.uint8)
    rgba[CAR] = (255, 0, 0, 255)
    classes = {"background": "#00ff00", "car": "#ff0000"}
    with_background = dataclasses.replace(DATA, classes=classes)
    np.testing.assert_array_equal(read(Image.fromarray(rgba), tmp_path, with_background), CAR)
    without = dataclasses.replace(DATA, classes={"sky": "#00ff00", "car": "#ff0000"})
    with pytest.raises(CarvanaError, match='transparent pixels, and no class is called "backg'):
        read(Image.fromarray(rgba), tmp_path, without)
    ignoring = dataclasses.replace(without, ignore="#0000ff")
    assert (read(Image.fromarray(rgba), tmp_path, ignoring) == np.where(CAR, 1, 255)).all()
