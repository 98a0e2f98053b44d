import numpy as np
import pytest
from PIL import Image

from carvana.errors import CarvanaError, UsageError
from carvana.prediction.cutout import cut_out
from carvana.prediction.predict import Model
from carvana.recipe import load_recipe
from carvana.run import Run, build_network
from conftest import TINY


@pytest.fixture(scope="module")
def fresh():
    """A model whose network is not trained."""
    recipe = load_recipe("blog", TINY)
    return Model(Run(recipe, (build_network(recipe, "float32"),), ()))


def test_background_is_transparent_and_the_photograph_untouched(fresh, tmp_path):
    photo = tmp_path / "a.b.png"
    picture = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(picture).save(photo)
    assert cut_out(fresh, [photo, photo], tmp_path / "out") == [tmp_path / "out" / "a.b.png"]
    cut = np.asarray(Image.open(tmp_path / "out" / "a.b.png"))
    assert cut.shape == (40, 60, 4)
    np.testing.assert_array_equal(cut[..., :3], picture)
    small = fresh.run.networks[0](
        np.asarray(Image.open(photo).resize((32, 32), Image.BILINEAR))[None] / np.float32(255)
    )
    assert np.ptp(cut[..., 3]) > 0
    assert abs(cut[..., 3].mean() / 255 - float(np.mean(small))) < 0.1


def test_a_photograph_that_lies_on_its_side_is_put_upright(fresh, tmp_path):
    photo = tmp_path / "side.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right
    Image.new("RGB", (60, 40)).save(photo, exif=exif)
    (out,) = cut_out(fresh, [photo], tmp_path / "out")
    assert Image.open(out).size == (40, 60)


def test_what_cannot_be_cut_out(fresh, tmp_path):
    good, other = tmp_path / "a.jpg", tmp_path / "sub" / "a.jpg"
    other.parent.mkdir()
    for path in (good, other):
        Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(UsageError, match=r"would both write .*a\.png; rename one"):
        cut_out(fresh, [good, other], tmp_path / "out")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good.read_bytes()[:100])
    with pytest.raises(CarvanaError, match=r"broken\.jpg: is not a readable photograph"):
        cut_out(fresh, [good, broken], tmp_path / "out")
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["a.png"]  # what came before is kept
    own = tmp_path / "own.png"
    Image.new("RGB", (8, 8)).save(own)
    with pytest.raises(UsageError, match=r"own\.png: would be replaced, and is not a"):
        cut_out(fresh, [own], tmp_path)
    assert Image.open(own).mode == "RGB"
    for photo in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(UsageError, match="no such file; give photographs"):
            cut_out(fresh, [photo], tmp_path / "out")
    with pytest.raises(UsageError, match="is not a folder"):
        cut_out(fresh, [good], broken)


def test_cutouts_of_ours_are_replaced_and_the_users_pictures_are_not(fresh, tmp_path):
    photo, drawing = tmp_path / "a.jpg", tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(photo)
    Image.new("RGB", (3, 3), "red").save(drawing)
    with pytest.raises(UsageError, match=r"a\.png: would be replaced, and is not a cutout"):
        cut_out(fresh, [photo], tmp_path)
    assert Image.open(drawing).size == (3, 3)
    drawing.unlink()
    for _ in range(2):
        cut_out(fresh, [photo], tmp_path)
    assert Image.open(drawing).size == (8, 8)
