import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

import carvana
from carvana.prediction.certainty import expected_dice, is_unsure, review_of, write_review
from carvana.prediction.cutout import cut_out
from carvana.prediction.model import Model, Prediction
from carvana.prediction.submission import write_submission
from carvana_sandbox.cars.studio import render


def expected_of(probability, background=None):
    """The Dice to expect of several classes."""
    return Prediction([probability], probability.shape[:2], 0.5, background).decide()[1]


def test_expected_dice_by_hand():
    sure = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    assert expected_dice(sure) == 1
    assert expected_dice(sure / 2) == pytest.approx(0.5)  # (3 / 4) / (3 / 2)
    assert expected_dice(np.zeros((4, 5), np.float32)) == 1
    classes = np.stack([sure / 2, 1 - sure / 2, np.zeros_like(sure)], axis=-1)
    assert expected_of(classes) == pytest.approx((0.5 + (3 * 0.25 + 3) / 4.5) / 2)
    assert expected_of(classes, background=1) == pytest.approx(0.5)


def test_an_object_the_model_is_blind_in_makes_a_mask_unsure():
    usual = np.zeros((100, 100, 3), np.float32)
    usual[:, :50, 1], usual[:, 50:, 0] = 1, 1  # road and background, both sure
    blind = usual.copy()
    blind[:20, 50:70] = (0.6, 0.02, 0.38)  # something the model takes for background
    assert (blind.argmax(-1) == usual.argmax(-1)).all()
    assert not is_unsure(expected_of(usual, 0), usual=0.9)
    assert is_unsure(expected_of(blind, 0), usual=0.9)
    assert is_unsure(0.3, usual=0.6)  # also where masks are usually far from sure
    assert not is_unsure(0.5, usual=0.6)
    assert is_unsure(0.97, usual=0.99)
    assert not is_unsure(0.97, usual=0.95)
    assert not is_unsure(0.1, usual=None)


def test_the_review_names_the_least_sure_first(tmp_path, capsys):
    path = review_of(tmp_path / "s.csv.gz")
    write_review(path, [("a.jpg", 0.99), ("b.jpg", 0.5), ("c.jpg", 0.98)], usual=0.99)
    assert path.name == "s.csv.gz.review.csv"
    rows = list(csv.reader(path.open()))
    assert rows == [
        *(["img", "expected_dice"], ["b.jpg", "0.500000"]),
        *(["c.jpg", "0.980000"], ["a.jpg", "0.990000"]),
    ]
    assert "1 of 3 masks look unreliable" in capsys.readouterr().err


def test_pictures_unlike_the_studio_are_named(trained, model, tmp_path, capsys):
    car, blocks = tmp_path / "car.png", tmp_path / "blocks.png"
    Image.fromarray(render(52, 4)[0]).resize((480, 320)).save(car)
    colours = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(colours).resize((480, 320), Image.Resampling.NEAREST).save(blocks)
    cut_out(carvana.load("quick"), [blocks, car], tmp_path / "cutouts")
    said = [line for line in capsys.readouterr().err.splitlines() if "unreliable" in line]
    assert [line.split(":")[0] for line in said] == [str(blocks)]
    usually_sure = Model(dataclasses.replace(model.run, usual=1.0))
    write_submission(usually_sure, trained[0].test, tmp_path / "s.csv")
    assert "8 of 8 masks look unreliable" in capsys.readouterr().err
