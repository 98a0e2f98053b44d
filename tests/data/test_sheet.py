import numpy as np
from PIL import Image

from carvana.data import sheet


def test_pictures_of_any_size_lie_in_a_grid(tmp_path):
    shades = [(100, 250), (300, 240), (50, 260)]  # heights and widths
    groups = [[sheet.make_tile(np.full((*size, 3), 9, np.uint8), "name" * 90)] for size in shades]
    sheet.draw_sheet(groups, 2, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert 350 < pixels.shape[0] < 2 * 300
    assert 2 * 260 < pixels.shape[1] < 3 * 260
    assert (pixels == 9).all(axis=-1).sum() >= sum(height * width for height, width in shades)
