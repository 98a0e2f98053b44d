import numpy as np
import pytest
from PIL import Image, ImageDraw

from carvana.data.provenance import png_mark
from carvana.errors import CarvanaError, UsageError
from carvana.prediction.cutout import Style, cut_out, estimate_alpha, estimate_foreground
from carvana.prediction.model import Prediction


class Disc:
    """Predicts a disc in the middle of any photograph, so that its alpha is `disc`."""

    background, usual, white, share = 0, None, 0, 1

    def map(self, photographs, work, *, keep_going):
        for path in photographs:
            with Image.open(path) as picture:
                width, height = picture.size
            share = self.share * disc(width, height)[..., None]
            probability = np.where((share > 0) & (share < 1), 0.25 + share / 2, share)
            yield work(path, Prediction([probability], (height, width), 0.5, 0))


def disc(width, height):
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(x - width / 2, y - height / 2)
    return np.clip((min(width, height) / 4 - distance) / 4 + 0.5, 0, 1).astype(np.float32)


@pytest.fixture
def red_on_grey(tmp_path):
    """A red disc in front of grey, its edge a mixture of both; and the share of red."""
    share = disc(120, 80)[..., None]
    picture = share * np.array([200, 30, 40]) + (1 - share) * np.array([180, 180, 185])
    path = tmp_path / "red.png"
    Image.fromarray(np.rint(picture).astype(np.uint8)).save(path)
    return path, share[..., 0]


def test_the_edge_loses_the_backgrounds_colour(red_on_grey, tmp_path):
    path, share = red_on_grey
    picture = np.asarray(Image.open(path))
    (out,) = cut_out(Disc(), [path], tmp_path / "out")
    cut = np.asarray(Image.open(out))
    edge = (share > 0.1) & (share < 0.9)
    before, after = (abs(each[edge, :3] - [200.0, 30, 40]).mean() for each in (picture, cut))
    assert before > 30 and after < 6
    whole = (cut[..., 3] == 0) | (cut[..., 3] == 255)
    np.testing.assert_array_equal(cut[whole, :3], picture[whole])
    np.testing.assert_allclose(cut[..., 3], 255 * share, atol=0.51)
    opaque = np.full(share.shape, 255, np.uint8)
    assert estimate_foreground(picture, opaque) is picture


def test_backgrounds(red_on_grey, tmp_path):
    path, share = red_on_grey
    picture = tmp_path / "behind.jpg"
    Image.new("RGB", (30, 80), (10, 200, 60)).save(picture, quality=100, subsampling=0)
    colours = {"white": (255, 255, 255), "#0000ff": (0, 0, 255), str(picture): (10, 200, 60)}
    for background, colour in colours.items():
        (out,) = cut_out(Disc(), [path], tmp_path / "out", Style(background))
        cut = Image.open(out)
        assert (cut.mode, cut.size) == ("RGB", (120, 80))
        want = share[..., None] * [200, 30, 40] + (1 - share[..., None]) * colour
        assert abs(np.asarray(cut) - want).mean() < 1
        assert abs(np.asarray(cut) - want).max() < 25


def test_crops_and_masks(red_on_grey, tmp_path):
    path, share = red_on_grey
    (out,) = cut_out(Disc(), [path], tmp_path / "out", Style(crop=True))
    assert Image.open(out).size == (42, 42)  # the disc, 40 wide, and a margin
    (out,) = cut_out(Disc(), [path], tmp_path / "masks", Style(mask_only=True))
    mask = Image.open(out)
    assert mask.mode == "L"
    np.testing.assert_allclose(np.asarray(mask), 255 * share, atol=0.51)

    nothing = Disc()
    nothing.share = 0
    (out,) = cut_out(nothing, [path], tmp_path / "none", Style(crop=True))
    assert Image.open(out).size == (120, 80)


@pytest.mark.parametrize(("format", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_formats_are_written_and_replaced(format, kind, red_on_grey, tmp_path):
    path, _ = red_on_grey
    for style in (Style("white", format=format), Style(mask_only=True, format=format)):
        for _ in range(2):  # ours are replaced
            (out,) = cut_out(Disc(), [path], tmp_path / "out", style)
        assert out.name == f"red.{format}"
        assert Image.open(out).format == kind
        out.unlink()
    Image.new("RGB", (8, 8)).save(out)
    with pytest.raises(UsageError, match="would be replaced, and is not a cutout of ours"):
        cut_out(Disc(), [path], tmp_path / "out", style)


def test_alpha_is_steep_and_has_no_ghosts():
    """Haze beside the car goes, and what is certain nowhere; an aerial and the soft edge stay."""
    probability = np.zeros((40, 60), np.float32)
    probability[10:30, 10:40] = 0.98
    probability[9, 10:40] = 0.45  # the soft edge
    probability[2:9, 20] = 0.65  # an aerial
    probability[30:34, 10:40] = 0.2  # haze under the sill
    probability[10:20, 50:55] = 0.8  # a smudge that touches nothing
    alpha = estimate_alpha(probability)
    assert (alpha[10:30, 10:40] == 255).all()
    assert set(alpha[9, 10:40]) == {102}  # 255 (0.45 - 0.25) / 0.5
    assert set(alpha[2:9, 20]) == {204}
    assert not alpha[30:].any() and not alpha[:, 50:].any()
    assert estimate_alpha(probability, threshold=0.3)[9, 15] == 204
    assert not estimate_alpha(np.full((4, 5), 0.7, np.float32)).any()


def test_styles_that_cannot_be():
    for settings, message in (
        ({"format": "jpg"}, "--format jpg has no transparency; give --background"),
        ({"format": "bmp"}, "--format bmp: use png, jpg, webp"),
        ({"background": "white", "mask_only": True}, "leave one of them out"),
        ({"background": "gone.png"}, "gone.png: is neither a picture nor a colour"),
    ):
        with pytest.raises(UsageError, match=message):
            Style(**settings)


def test_a_photograph_is_cut_out_once_and_keeps_its_name(red_on_grey, tmp_path):
    photo = red_on_grey[0].rename(tmp_path / "a.b.png")
    assert cut_out(Disc(), [photo, photo], tmp_path / "out") == [tmp_path / "out" / "a.b.png"]
    assert Image.open(tmp_path / "out" / "a.b.png").mode == "RGBA"


def test_what_cannot_be_cut_out(model, tmp_path):
    good, other = tmp_path / "a.jpg", tmp_path / "sub" / "a.jpg"
    other.parent.mkdir()
    for path in (good, other):
        Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(UsageError, match=r"would both write .*a\.png; rename one"):
        cut_out(model, [good, other], tmp_path / "out")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good.read_bytes()[:100])
    with pytest.raises(CarvanaError, match=r"broken\.jpg: is not a readable photograph"):
        cut_out(model, [broken, good], tmp_path / "out")
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["a.png"]  # the others are written
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(CarvanaError, match=r"2 photographs .*written: 1.*\n.*\n.*em"):
        cut_out(model, [broken, good, empty], tmp_path / "out")
    own = tmp_path / "own.png"
    Image.new("P", (8, 8)).save(own, pnginfo=png_mark("label map"))  # ours, but not a cutout
    with pytest.raises(UsageError, match=r"own\.png: would be replaced, and is not a"):
        cut_out(model, [own], tmp_path)
    assert Image.open(own).mode == "P"
    for photo in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(UsageError, match="is not a file; give photographs"):
            cut_out(model, [photo], tmp_path / "out")
    with pytest.raises(UsageError, match="is not a folder"):
        cut_out(model, [good], broken)


def test_cutouts_are_of_the_upright_picture(model, tmp_path):
    upright = Image.new("RGB", (150, 100), (215, 215, 215))
    ImageDraw.Draw(upright).ellipse((20, 15, 115, 70), fill=(30, 45, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    want = model.mask(upright)
    assert 0.2 < want.mean() < 0.5
    for name, mode in (("a.jpg", "RGB"), ("cmyk.jpg", "CMYK"), ("a.png", "RGBA")):
        turned.convert(mode).save(tmp_path / name, exif=exif, quality=97)
        (out,) = cut_out(model, [tmp_path / name], tmp_path / "out")
        cut = Image.open(out)
        assert (cut.mode, cut.size) == ("RGBA", (150, 100)), name
        array = np.asarray(cut).astype(int)
        found, kept = array[..., 3] > 127, np.isin(array[..., 3], (0, 255))
        assert kept.any()  # along the soft edge, colours are estimated
        assert np.abs(array[..., :3] - np.asarray(upright))[kept].mean() < 6, name
        assert (found != want).sum() < 0.01 * (found.sum() + want.sum()), name  # Dice above 0.99
        assert not {"icc_profile", "exif"} & set(cut.info), name
