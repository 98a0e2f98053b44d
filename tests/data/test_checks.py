"""What masks tell only together, while a folder is inspected and when it is trained on."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from carvana.data import prepared
from carvana.data.inspect import inspect
from carvana.data.pairs import find_pairs, match_pairs
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe

OWN = load_recipe("own", ["input.height=32", "input.width=32", "model.filters=[8]"])
CLASSES = dataclasses.replace(
    OWN, data=dataclasses.replace(OWN.data, classes={"background": 0, "cat": 1, "dog": 2})
)


def write(root, masks):
    """A data folder of masks, PIL images, and grey photographs of their size."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        Image.new("RGB", mask.size, "grey").save(root / "images" / f"{name}.png")
        mask.save(root / "masks" / f"{name}.png")
    return root


def look(root, recipe):
    return inspect(*match_pairs(root, recipe.data), recipe)


def spot(side, size=400):
    labels = np.zeros((size, size), np.uint8)
    labels[100 : 100 + side, 50 : 50 + side] = 255
    return Image.fromarray(labels)


def test_objects_that_vanish_at_the_inputs_size_are_named(tmp_path, capsys):
    root = write(tmp_path, {f"sky{number}": spot(12) for number in range(3)})
    result = look(root, OWN)
    says = "3 masks with less car than 4 pixels of the network's 32x32 (first: "
    assert [warning.startswith(says) for warning in result.warnings] == [True]
    assert result.classes["car"] == pytest.approx(12**2 / 400**2)
    prepared.prepare(find_pairs(root, OWN.data), tmp_path / "cache", OWN)
    assert says in capsys.readouterr().err
    large = write(tmp_path / "large", {f"sky{number}": spot(60) for number in range(3)})
    assert look(large, OWN).warnings == []


def palette(labels, *colours):
    picture = Image.fromarray(np.array(labels, np.uint8))
    picture.putpalette(bytes(sum(colours, ())))
    return picture


RED, GREEN, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 0)
CAT = [[0, 1, 1], [0, 0, 2]]


def test_one_number_with_two_colours_is_named(tmp_path, monkeypatch):
    """Palettes made for each file: number 1 is a cat in one, a dog in the other."""
    monkeypatch.setattr(prepared, "cores", lambda: 1)  # one after the other
    cat = palette(CAT, BLACK, RED, GREEN)
    greys = Image.fromarray(np.array(CAT, np.uint8))  # without colours, as any grey palette
    ramp = palette(CAT, *((value, value, value) for value in range(3)))
    root = write(tmp_path, {"a": cat, "b": cat, "greys": greys, "ramp": ramp})
    assert look(root, CLASSES).faults == []
    prepared.prepare(find_pairs(root, CLASSES.data), tmp_path / "cache", CLASSES)
    write(root, {"c": palette(CAT, BLACK, GREEN, RED)})
    (fault,) = look(root, CLASSES).faults
    assert "c.png: its number 1 is #00ff00, that of a.png #ff0000; give the colours" in fault
    for cache in ("cache", "fresh", "fresh"):  # after the others, beside them, and again
        with pytest.raises(CarvanaError, match=r"c\.png: its number 1 is #00ff00, that of a\.png"):
            prepared.prepare(find_pairs(root, CLASSES.data), tmp_path / cache, CLASSES)
    write(root, dict.fromkeys("ab", palette(CAT, BLACK, GREEN, RED)))
    prepared.prepare(find_pairs(root, CLASSES.data), tmp_path / "fresh", CLASSES)  # mended
