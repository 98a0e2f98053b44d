import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from carvana.competition.facts import car_of
from carvana.data.pairs import Pair
from carvana.data.split import draw_split, read_split, write_split
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe
from carvana.runs.weights import SHIPPED
from conftest import DATA


def settings(**changes):
    return dataclasses.replace(DATA, **changes)


def named(name):
    return Pair(name, Path(name), Path(f"{name}_mask.gif"))


PAIRS = [named(f"car{car}_{view:02}.jpg") for car in range(20) for view in range(1, 17)]


def test_split_by_image_is_seeded_and_whole():
    split = draw_split(PAIRS, settings(split="image"))
    assert (len(split.train), len(split.validation)) == (256, 64)
    assert sorted(split.train + split.validation) == sorted(PAIRS)
    assert draw_split(PAIRS[::-1], settings(split="image")) == split
    assert draw_split(PAIRS, settings(split="image", seed=99)) != split
    with pytest.raises(CarvanaError, match="cannot be split in 400 folds; use fewer"):
        draw_split(PAIRS, settings(split="image"), (1, 400))


@pytest.mark.parametrize("name", ["quick", "sharp", "sharper"])
def test_the_shipped_weights_cars_are_those_that_their_recipes_split_draws(name):
    cars = pd.read_csv(SHIPPED / "cars.csv", index_col="car")[name]
    assert cars.value_counts()["test"] == 32
    known = cars[cars != "test"]
    pairs = [named(f"{car}_{view:02}.jpg") for car in known.index for view in (1, 2)]
    split = draw_split(pairs, load_recipe(name).data)
    for part in ("train", "validation"):
        drawn = {car_of(pair.name) for pair in getattr(split, part)}
        assert drawn == set(known.index[known == part])


@pytest.mark.parametrize(
    ("count", "changes", "says"),
    [
        (32, {"split": "car"}, "2 subjects cannot be split"),
        (2, {"split": "image"}, "2 photographs cannot be split"),
        (320, {"split": "car", "group": r"(dog\d)"}, "320 names do not match data.group"),
    ],
)
def test_what_cannot_be_split_is_refused(count, changes, says):
    with pytest.raises(CarvanaError, match=says):
        draw_split(PAIRS[:count], settings(**changes))


def test_names_that_tell_no_cars_apart_are_split_one_by_one(capsys):
    pairs = [named(f"IMG_{number:04}.jpg") for number in range(10)]
    split = draw_split(pairs, settings(split="car"))
    assert (len(split.train), len(split.validation)) == (8, 2)
    assert "do not tell subjects apart" in capsys.readouterr().out
    pairs = [named(name) for name in ("cow_1.jpg", "cow_2.jpg")]  # the others have no view
    pairs += [named(f"sheep{number}.jpg") for number in range(8)]
    split = draw_split(pairs, settings(split="car"))
    assert sum(pair.name.startswith("cow") for pair in split.train) in (0, 2)


def test_a_pattern_says_what_belongs_together():
    pairs = [named(f"{day}-cat{cat}.jpg") for day in range(4) for cat in range(10)]
    split = draw_split(pairs, settings(split="car", group=r"-(cat\d+)"))
    cats = [{pair.name[2:6] for pair in side} for side in (split.train, split.validation)]
    assert not cats[0] & cats[1]
    assert (len(cats[0]), len(cats[1])) == (8, 2)


def test_split_is_read_back_and_checked_against_the_data(tmp_path):
    path = tmp_path / "split.csv"
    split = draw_split(PAIRS, settings(split="image"))
    write_split(path, split)
    assert path.read_text().splitlines()[0] == "img,subset"
    assert read_split(path, PAIRS) == split
    with pytest.raises(CarvanaError, match=r"1 of the data's are not in it \(first: new_01.jpg\)"):
        read_split(path, [*PAIRS, named("new_01.jpg")])
    path.write_text("nonsense\n")
    with pytest.raises(CarvanaError, match="split.csv"):
        read_split(path, PAIRS)
