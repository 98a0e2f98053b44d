import dataclasses

import numpy as np

from carvana.data.resize import resize
from carvana.recipe import load_recipe


def test_area_recipes_enlarge_smoothly_instead_of_repeating_pixels():
    ramp = np.tile(np.arange(0, 240, 16, dtype=np.uint8)[None, :, None], (10, 1, 3))
    settings = dataclasses.replace(load_recipe("sharp").input, height=20, width=30)
    enlarged = resize(ramp, settings)
    assert enlarged.shape == (20, 30, 3)
    assert enlarged.dtype == np.float32
    assert (np.diff(enlarged[5, 2:-2, 0]) > 0).all()
    assert enlarged.min() >= 0
    assert enlarged.max() <= 1
