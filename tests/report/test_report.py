import base64
import dataclasses
import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carvana.cli import main
from carvana.data.pairs import Pair
from carvana.errors import CarvanaError, UsageError
from carvana.prediction.model import Model
from carvana.recipe import load_recipe
from carvana.report import pictures, sections
from carvana.report.charts import histogram, limits
from carvana.report.compare import compare_runs
from carvana.report.examine import Examined
from carvana.report.report import write_report
from carvana.report.words import describe, duration, is_the_articles

ONE_CLASS = load_recipe("blog").data


def examined(name, dice):
    return Examined(Pair(name, None, None), dice, [dice], dice, None, None, None, b"")


def test_a_report_holds_all_in_one_file(trained, tmp_path, monkeypatch):
    paths, folder = trained
    run = shutil.copytree(folder, tmp_path / "a & <b>")
    predicted = []
    once = Model._load

    def counted(self, photograph, *rest):
        predicted.append(photograph)
        return once(self, photograph, *rest)

    monkeypatch.setattr(Model, "_load", counted)
    assert main(["report", "--run", str(run), "--data", str(paths.root)]) == 0
    assert len(predicted) == len(set(predicted)) == 4  # each validation photograph once
    page = (run / "report.html").read_text()
    assert "<h1>a &amp; &lt;b&gt;</h1>" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    for said in (
        *("Dice of the validation photographs", "The worst", "A fair sample"),
        *("Mean Dice by threshold", "Wrong pixels by distance from the true edge"),
        *("RMSprop with a learning rate of 4e-3", "learning_rate = 0.004", "CPU, "),
    ):
        assert said in page, said
    assert "reported in the article" not in page  # this is another recipe
    assert page.count("data-picture=") == 8  # the worst, and a fair sample, of four
    assert '"full_resolution_dice"' in (run / "metrics.json").read_text()


def test_a_report_without_the_data_says_so(trained, tmp_path):
    run = shutil.copytree(trained[1], tmp_path / "run")
    assert main(["report", "--run", str(run), "--data", str(tmp_path / "gone")]) == 0
    page = (run / "report.html").read_text()
    assert "gone does not exist" in page
    assert "data-picture=" not in page


def test_what_cannot_be_reported_on_is_named(trained, tmp_path):
    paths, folder = trained
    with pytest.raises(CarvanaError, match="training is not finished; run `carvana train`"):
        write_report(tmp_path, paths)
    run = shutil.copytree(folder, tmp_path / "run")
    (run / "history.csv").write_text("epoch,steps\n")
    with pytest.raises(CarvanaError, match=r"history\.csv: is not a training history"):
        write_report(run, paths)


def test_runs_are_compared_on_the_same_photographs(trained, tmp_path, capsys):
    paths, folder = trained
    one, two = (shutil.copytree(folder, tmp_path / name) for name in ("one", "two"))
    recipe = (two / "recipe.toml").read_text()
    (two / "recipe.toml").write_text(recipe.replace("threshold = 0.5", "threshold = 0.95"))
    command = ["report", "--run", str(one), "--run", str(two), "--data", str(paths.root)]
    assert main(command) == 0
    assert str(one / "compare-two.html") in capsys.readouterr().out
    page = (one / "compare-two.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert "prediction.threshold (0.95, in one 0.5)" in page
    counts = re.search(r"better on (\d) photographs and worse on (\d)", page).groups()
    assert 1 <= sum(map(int, counts)) <= 4
    assert "data-picture=" in page
    assert not (one / "report.html").exists()

    (two / "split.csv").write_text(
        (two / "split.csv").read_text().replace("validation", "x").replace("train", "validation")
    )
    with pytest.raises(UsageError, match="no photograph is in the validation split of all"):
        compare_runs([one, two], paths)
    (two / "recipe.toml").write_text(
        recipe.replace("[data.classes]", "[data.classes]\nbackground = 0\ncat = 1\n")
    )
    with pytest.raises(UsageError, match="two: has other classes than"):
        compare_runs([one, two], paths)


def test_certainty_is_ranked_against_the_true_dice_by_hand():
    true = np.linspace(0.9, 0.999, 40)
    assert sections.ranking(true, true) == (pytest.approx(1), 1)
    assert sections.ranking(true[::-1], true) == (pytest.approx(-1), 0)
    expected = true.copy()
    expected[[0, 39]] = true[[39, 0]]  # of the two worst, one is told to be the best
    correlation, share = sections.ranking(expected, true)
    assert correlation == pytest.approx(1 - 6 * 2 * 39**2 / (40 * (40**2 - 1)))  # Spearman's
    assert share == 0.5
    expected = true.copy()
    expected[:6] = true[[3, 4, 0, 1, 2, 5]]  # of 40, the worst 2 and the least certain 4 count
    assert sections.ranking(expected, true)[1] == 0.5
    expected[:2] = true[20:22]
    assert sections.ranking(expected, true)[1] == 0


def test_certainty_is_drawn_of_enough_photographs():
    few, many = ([examined(f"{n}.jpg", 0.9 + n / 1000) for n in range(count)] for count in (19, 20))
    assert sections._certainty(few, ONE_CLASS) == (None, (0, 0))
    chart, (correlation, share) = sections._certainty(many, ONE_CLASS)
    assert len(chart.marks) == 20
    assert (round(correlation, 6), share) == (1, 1)
    assert sections._certainty([examined("a.jpg", 1.0)] * 20, ONE_CLASS)[0] is None
    classes = dataclasses.replace(ONE_CLASS, classes={"background": 0, "cat": 1})
    assert sections._certainty(many, classes)[0] is None


def test_the_articles_values_are_drawn_for_its_recipe_alone():
    blog = load_recipe("blog", ["training.epochs=3", "training.seed=7", "data.seed=8"])
    assert is_the_articles(blog)
    assert not is_the_articles(load_recipe("blog", ["training.learning_rate=1e-4"]))
    assert not is_the_articles(load_recipe("sharp"))
    history = pd.DataFrame({"epoch": [1, 2, 3]})
    for name in ("accuracy", "dice", "loss", "val_accuracy", "val_dice", "val_loss"):
        history[name] = [np.nan, 0.5, 0.6]  # the first epoch was cut short
    levels = [
        [mark["text"] for mark in chart.marks if mark["shape"] == "level"]
        for chart in sections.curves(history, blog, True)
    ]
    assert levels == [["reported 0.87"], ["reported 0.95"], []]
    for chart in sections.curves(history, blog, False):
        assert not [mark for mark in chart.marks if mark["shape"] == "level"]
        assert not [mark for mark in chart.marks if "nan" in str(mark)]


def test_a_recipe_is_told_in_words():
    words = dict(describe(load_recipe("blog"), 4070, 1018, 31_031_745))
    assert words["Data"].startswith("4,070 photographs to train on and 1,018 held out")
    assert "may be among those trained on" in words["Data"]
    assert "128 by 128 pixels, resized bilinearly, without antialiasing" in words["Input"]
    assert "brightness by up to ±0.3, contrast by 0.5 to 0.7 and saturation" in words["Input"]
    assert "31,031,745 parameters" in words["Network"]
    assert "5 epochs of 128 steps, 32 photographs each, by RMSprop" in words["Training"]
    assert "learning rate of 1e-5" in words["Training"]
    assert words["Prediction"].endswith("a pixel above 0.5 is in the mask.")
    words = dict(describe(load_recipe("sharper"), 688, 72, 1))
    assert "7 epochs at a quarter of the size and 7 epochs at half the size" in words["Training"]
    assert "mirror image are averaged" in words["Prediction"]
    assert "It sees" not in words["Training"]
    assert "starts from" not in words["Training"]
    further = load_recipe("quick", ["training.initial_weights=sharp"])
    words = dict(describe(further, 3904, 160, 1))
    assert "It sees 2,000 of the photographs, each once." in words["Training"]
    assert words["Training"].endswith("It starts from the weights of sharp.")
    assert [duration(s) for s in (48, 2222, 7500)] == ["48 s", "37 min", "2 h 5 min"]


def test_a_fair_sample_is_spread_evenly_over_the_ranks():
    ranked = [examined(f"{number}.jpg", number / 100) for number in range(100)]
    dices = [one.dice for one in sections.evenly(ranked, 10)]
    assert dices[0] == 0
    assert dices[-1] == 0.99
    assert np.ptp(np.diff(dices)) < 0.011
    assert len(sections.evenly(ranked[:3], 10)) == 3


def test_views_and_cars_are_shown_where_the_names_tell_them():
    data = load_recipe("blog").data
    cars = [examined(f"{car}_{view:02}.jpg", 0.9) for car in "abc" for view in range(1, 17)]
    assert list(sections._by_view(cars)) == [f"{view:02}" for view in range(1, 17)]
    assert list(sections._by_subject(cars, data)) == ["a", "b", "c"]
    own = [examined(f"holiday {number}.jpg", 0.9) for number in range(20)]
    assert sections._by_view(own) == {}
    assert sections._by_subject(own, data) == {}


def test_charts_show_every_value():
    dices = [0.2, *np.linspace(0.98, 1, 299)]
    (chart,) = histogram("Dice", {"": dices})
    counts = [int(mark["says"].split(": ")[1]) for mark in chart.marks if mark["shape"] == "bar"]
    assert sum(counts) == 300  # the low one is in the first bar
    assert chart.x[0] > 0.9
    two = histogram("Dice", {"a": [0.5, 0.6], "b": [0.9]})
    assert two[0].x == two[1].x
    assert two[0].y == two[1].y
    for values in ([1.0], [0.0, 0.0], [np.nan]):
        low, high = limits(values)
        assert low < high


def test_photographs_fit_the_page():
    noise = np.random.default_rng(1).integers(0, 256, (2400, 3000, 3), np.uint8)
    data = base64.b64decode(pictures._jpeg(noise).partition(",")[2])
    assert len(data) <= 400_000
    assert Image.open(io.BytesIO(data)).width in (1024, 512)
    smooth = np.zeros((1280, 1918, 3), np.uint8)
    data = base64.b64decode(pictures._jpeg(smooth).partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (1918, 1280)


def test_the_worst_errors_are_visited_first():
    wrong = np.zeros((300, 400), bool)
    wrong[10:12, 100:102] = True
    wrong[200:210, 300:310] = True
    assert pictures._places(wrong) == [[304, 204], [100, 10]]
    assert pictures._places(wrong & False) == []
