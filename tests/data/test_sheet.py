import numpy as np
from PIL import Image

from carvana.data import sheet


def test_borders_of_labels_are_drawn_and_small_pictures_enlarged():
    labels = np.zeros((20, 30), np.uint8)
    labels[5:12, 8:20] = 1
    picture = np.full((20, 30, 3), 9, np.uint8)
    drawn = sheet.make_tile(picture, "a.jpg", labels).pixels
    assert drawn.shape == (160, 240, 3)
    orange = (drawn == sheet.ORANGE).all(axis=-1)
    assert (drawn[~orange] == 9).all()
    want = np.zeros((160, 240), bool)  # a pixel on each side of the border
    want[39:97, 63:161] = True
    want[41:95, 65:159] = False
    np.testing.assert_array_equal(orange, want)
    plain = sheet.make_tile(picture, "b.jpg").pixels
    np.testing.assert_array_equal(plain, np.full_like(drawn, 9))


def test_pictures_of_any_size_lie_in_a_grid(tmp_path):
    shades = [(100, 250), (300, 240), (50, 260)]  # heights and widths
    groups = [[sheet.make_tile(np.full((*size, 3), 9, np.uint8), "name" * 90)] for size in shades]
    sheet.draw_sheet(groups, 2, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert 350 < pixels.shape[0] < 2 * 300
    assert 2 * 260 < pixels.shape[1] < 3 * 260
    assert (pixels == 9).all(axis=-1).sum() >= sum(height * width for height, width in shades)
