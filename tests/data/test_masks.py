import dataclasses
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from carvana.data import masks
from carvana.errors import CarvanaError
from conftest import DATA

BLACK, WHITE, RED, BLUE, GREY = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255), (90, 90, 90)
CAR = np.zeros((20, 30), bool)
CAR[5:12, 8:20] = True
SOFT = CAR * 0.75 + np.eye(20, 30) / 4
LINE = np.eye(20, 30, dtype=np.uint8) * ~CAR
CELLS = np.zeros((20, 30), int)  # as Cellpose, StarDist and ImageJ write them: a number for each
CELLS[5:15] = np.arange(1, 301).reshape(10, 30)

THRESHOLD, ANY = {"soft": "threshold"}, {"foreground": "any"}
NEITHER = {"foreground": "#123456"}
CLASSES = {"classes": {"background": 0, "circle": 1, "square": 7}, "ignore": 255}
COLOURED = {"classes": {"background": "#000000", "circle": "#ff0000", "square": "#0000ff"}}
SKY = {"classes": {"sky": "#00ff00", "car": "#ff0000"}}  # no background


def image(values, dtype=np.uint8):
    """A picture of one number a pixel."""
    return Image.fromarray(values.astype(dtype))


def palette(colours, labels=CAR):
    """A palette picture of labels in these colours."""
    picture = image(labels)
    picture.putpalette(bytes(sum(colours, ())))
    return picture


def on_nothing(colour):
    """A car of a colour, all else transparent."""
    rgba = np.zeros((20, 30, 4), np.uint8)
    rgba[CAR] = (*colour, 255)
    return Image.fromarray(rgba)


BLUE_CAR = palette((BLACK, BLUE))
THREE = palette((BLACK, RED, BLUE), CAR + 2 * LINE)
SMOOTH_BLUE = BLUE_CAR.convert("RGB").resize((47, 33), Image.Resampling.BILINEAR)


@pytest.fixture
def read(tmp_path):
    """Save a picture and read it as a mask, by settings that are changed."""

    def read(picture, changes=None, kind=None, **options):
        is_wide = picture.mode[0] in "IF" or picture.mode == "LAB"
        kind = kind or ("TIFF" if is_wide else "PNG")
        path = tmp_path / f"m.{kind.lower()}"
        picture.save(path, kind, **options)
        return masks.read_mask(path, dataclasses.replace(DATA, **changes or {}))

    return read


@pytest.mark.parametrize("kind", ["GIF", "PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    "picture",
    [
        palette((BLACK, WHITE)),
        image(CAR),  # 0 and 1
        image(CAR * 255),
        Image.fromarray(CAR),  # one bit
        *(image(CAR * value, np.uint16) for value in (1, 255, 65535)),
        palette((BLACK, WHITE)).convert("RGB"),
    ],
)
def test_black_and_white_or_one(picture, kind, read):
    if picture.mode == "I;16" and kind not in ("PNG", "TIFF"):
        pytest.skip("this format has no 16 bits")
    if kind == "WEBP" or (kind == "BMP" and picture.mode == "P"):  # Pillow writes those wrong
        picture = picture.convert("RGB")
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(read(picture, kind=kind, **options), CAR)


@pytest.mark.parametrize(
    ("picture", "changes", "want"),
    [
        (Image.new("RGB", (30, 20), BLACK), {}, CAR & ~CAR),
        (Image.new("RGB", (30, 20), WHITE), {}, CAR | ~CAR),
        # Which of two colours is the car.
        (palette((GREY, BLUE)), {"foreground": "#0000ff"}, CAR),
        (palette((GREY, BLUE)), {"foreground": "#5a5a5a"}, ~CAR),
        (BLUE_CAR, ANY, CAR),
        (palette((BLACK, BLUE, GREY), CAR + 2 * LINE), ANY, CAR | LINE),
        # One bit and sixteen have the colours people see.
        (Image.fromarray(CAR), {"foreground": "#ffffff"}, CAR),
        (Image.fromarray(CAR), {"classes": {"background": "#000000", "car": "#ffffff"}}, CAR),
        (image(CAR * 65535, np.uint16), {"foreground": "#ffffff"}, CAR),
        # What is transparent is background, or ignored where no class is called that.
        (on_nothing(BLACK), {"foreground": "#000000"}, CAR),
        (on_nothing(BLACK), {"foreground": "#ffffff"}, CAR & ~CAR),
        (on_nothing(RED), COLOURED, CAR),
        (on_nothing(RED), SKY | {"ignore": "#0000ff"}, np.where(CAR, 1, 255)),
        # Soft masks; 0 and 1 are not cut at 128.
        (image(SOFT, np.float32), THRESHOLD, CAR),
        (image(CAR * 65535 + LINE * 9, np.uint16), THRESHOLD, CAR),
        (image(CAR), THRESHOLD, CAR),
        # Numbers of more bits are never taken for greys.
        (image(CELLS, np.uint16), ANY, CELLS > 0),
        (image(CELLS, np.int32), ANY, CELLS > 0),
        (image(CELLS, np.float32), ANY, CELLS > 0),
        (image(CAR * 7, np.uint16), CLASSES, CAR * 2),
        (image(CAR * 7, np.float32), CLASSES, CAR * 2),
        # Classes by number and by colour.
        (image(CAR + 7 * LINE), CLASSES, CAR + 2 * LINE),
        (image(CAR * 255), CLASSES, CAR * masks.IGNORED),
        (palette([GREY] * 256, CAR + 7 * LINE), CLASSES, CAR + 2 * LINE),
        (image(CAR + 7 * LINE).convert("RGB"), CLASSES, CAR + 2 * LINE),
        (THREE, COLOURED, CAR + 2 * LINE),
        (THREE.convert("RGB"), COLOURED, CAR + 2 * LINE),
        (THREE.convert("RGBA"), COLOURED, CAR + 2 * LINE),
    ],
)
def test_masks_are_read_as_the_recipe_says(picture, changes, want, read):
    np.testing.assert_array_equal(read(picture, changes), want)


@pytest.mark.parametrize(
    ("picture", "changes", "says"),
    [
        (image(CELLS, np.uint16), {}, r"has 301 colours \(0 .*data\.foreground = .any"),
        (image(CAR * 300, np.uint16), {}, r"colours 0 \(#000000\), 300, not black.*\.foreground"),
        (image(SOFT, np.float32), {}, r"colours \(.*, 1.0 \(#010101.*data\.soft = .thresh"),
        (SMOOTH_BLUE, THRESHOLD, "no pixel near #ffffff, and some of #....ff; name"),
        (image(CAR * -1, np.int32), {}, r"has the colours -1, 0 \(#000000\), not"),
        (image(CAR * -1, np.int32), ANY, "has values below 0"),
        (Image.new("LAB", (30, 20)), {}, "pixels of the kind LAB, which is not read"),
        (on_nothing(BLACK), {}, r"black and transparent pixels alone.*data\.foreground"),
        (on_nothing(RED), SKY, 'transparent pixels, and no class is called "b'),
        (Image.new("RGBA", (4, 4), (100,) * 4), {}, "has half-transparent pixels"),
        # One class a file, `classes` left out: three kinds must not become one.
        (image(CAR * 2), {}, r"2 .#020202.*data\.foreground to .*data\.classes"),
        (image(CAR * 200), {}, r"200 .#c8c8c8..*data\.foreground to .*data\.classes"),
        # Palettes that differ give number 1 any colour.
        (BLUE_CAR, {}, r"has the colours .*1 \(#0000ff\), not black and white"),
        (palette((GREY, BLUE)), {}, "has the colours .*#5a5a5a.*#0000ff.*, not black and white"),
        (palette((GREY, BLUE)), NEITHER, r"data\.foreground = #123456 is neither"),
        (SMOOTH_BLUE, {}, r"has \d+ colours \(.*, \.\.\.\), and a mask has two"),
        (palette((BLACK, WHITE, BLUE), CAR + 2 * LINE), {}, "has 3 colours"),
        (image(CAR * 3), CLASSES, r"has 84 pixels of values that data\.classes .*\(3\)"),
        (BLUE_CAR.convert("RGB"), CLASSES, "is in colours, but data.classes"),
        (palette((BLACK, GREY)), COLOURED, r"that data\.classes does not name \(#5a5a5a\)"),
    ],
)
def test_what_is_not_such_a_mask_is_named(picture, changes, says, read):
    with pytest.raises(CarvanaError, match=says) as error:
        read(picture, changes)
    assert "\n" not in str(error.value)


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


def test_files_that_are_no_masks_are_named(read, tmp_path):
    car = image(CAR * 255)
    for changes, says in (({}, r"data\.soft = .threshold"), (CLASSES, "get the masks it was made")):
        with pytest.raises(CarvanaError, match=rf"m\.jpeg: is a JPEG, .*{says}"):
            read(car, changes, "JPEG")
    with pytest.raises(CarvanaError, match="has 2 frames; a mask has one"):
        read(car, kind="GIF", save_all=True, append_images=[Image.new("L", (30, 20), 9)])
    path = tmp_path / "m.png"
    car.save(path)
    for content in (b"", b"text", path.read_bytes()[:60]):
        path.write_bytes(content)
        with pytest.raises(CarvanaError, match=r"m\.png: is not a readable mask"):
            masks.read_mask(path, DATA)
    colours = np.repeat(CAR[..., None], 3, axis=-1).astype(np.uint16)
    path.write_bytes(cv2.imencode(".png", colours)[1].tobytes())  # Pillow keeps the upper 8 bits
    with pytest.raises(CarvanaError, match=r"m\.png: has colours of 16 bits, which are not read"):
        masks.read_mask(path, DATA)
    with pytest.raises(CarvanaError, match=r"gone\.png: no such mask"):
        masks.read_mask(tmp_path / "gone.png", DATA)


def test_transparent_pixels_and_the_outside_of_a_gifs_frame_are_background(read, tmp_path):
    white = palette((WHITE, WHITE))
    np.testing.assert_array_equal(read(white, kind="GIF", transparency=0), CAR)
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


@pytest.mark.parametrize(
    ("colour", "changes"), [(WHITE, THRESHOLD), (BLUE, THRESHOLD | {"foreground": "#0000ff"})]
)
def test_soft_masks_are_cut_at_half_grey(colour, changes, read):
    """Kvasir-SEG's exist as JPEG alone; others were smoothed."""
    want = CAR.repeat(4, axis=0).repeat(4, axis=1)
    picture = palette((BLACK, colour), want).convert("RGB")
    found = read(picture, changes, "JPEG", quality=90, subsampling=0)
    np.testing.assert_array_equal(found, want)
    smooth = picture.resize((30, 20), Image.Resampling.BILINEAR)
    assert (read(smooth, changes) != CAR).sum() < 10
    assert not read(Image.new("RGB", (9, 9)), changes, "JPEG").any()


GREYS = np.array([[0, 64, 127, 128, 200, 255]], np.uint8)
FAINT_BLUE = np.stack((GREYS * 0, GREYS * 0, GREYS | 255, GREYS), axis=-1)  # transparent


@pytest.mark.parametrize(
    ("pixels", "foreground", "want"),
    [
        (GREYS, "", GREYS),
        (255 - GREYS, "#000000", GREYS),
        (FAINT_BLUE, "#0000ff", GREYS),
        ([[RED, BLUE, BLACK]], "#0000ff", [[0, 255, 0]]),  # a third colour has no share of either
        ([[(255, 0, 255), BLUE, BLACK]], "#0000ff", [[0, 255, 0]]),
        (GREYS[:, ::5], "", None),  # two colours have no shares between them
    ],
)
def test_soft_masks_as_shares_of_a_pixel(pixels, foreground, want, tmp_path):
    Image.fromarray(np.array(pixels, np.uint8)).save(tmp_path / "m.png")
    share = dataclasses.replace(DATA, soft="share", foreground=foreground)
    mask = masks.open_mask(tmp_path / "m.png", share)
    np.testing.assert_array_equal(mask.shares, want)
    if want is GREYS:
        np.testing.assert_array_equal(mask.labels, GREYS > 127)


@pytest.mark.parametrize(
    ("changes", "labels"), [({}, [0, 1]), (CLASSES, [0, 1, 2, 255]), (COLOURED, [0, 1, 2])]
)
def test_label_maps_are_read_back(changes, labels, read):
    settings = dataclasses.replace(DATA, **changes)
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 7), (9, 4), (20, 30)):
        drawn = rng.choice(labels, shape).astype(np.uint8)
        drawn[0, 0] = 0  # a map of white alone would be all car, whatever the palette says
        np.testing.assert_array_equal(read(masks.to_picture(drawn, settings), changes), drawn)
