import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carvana.cli import main
from carvana.data.pairs import Pair
from carvana.errors import CarvanaError, UsageError
from carvana.recipe import load_recipe
from carvana.report import charts, pictures, sections
from carvana.report.compare import compare_runs
from carvana.report.examine import Examined
from carvana.report.report import duration, is_the_articles, nearest, settings_table, write_report

BLOG = load_recipe("blog")


def examined(name, dice):
    at = np.full(charts.THRESHOLDS.shape, dice)
    return Examined(Pair(name, Path(name), None), dice, [dice], dice, at, None, None, b"")


def texts(chart):
    """What a chart says, tick by tick."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)


def test_a_report_holds_all_in_one_file(trained, tmp_path, predicted):
    paths, folder = trained
    run = shutil.copytree(folder, tmp_path / "a & <b>")
    assert main(["report", "--run", str(run), "--data", str(paths.root)]) == 0
    assert len(predicted) == len(set(predicted)) == 4  # each validation photograph once
    page = (run / "report.html").read_text()
    assert "<h1>a &amp; &lt;b&gt;</h1>" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    for said in (
        *("A typical mask", "The worst", "All photographs", "Mean Dice by threshold"),
        *("Wrong pixels by distance from the true edge", "Recipe <strong>blog</strong> with"),
        *("training.learning_rate", "<td>1e-05</td><td>0.004</td>", "CPU, "),
        "4 photographs are too few: the distribution of Dice, Dice by certainty.",
    ):
        assert said in page, said
    assert re.search(r"trained on \d+ [A-Z][a-z]+ 20\d\d, judged on 4 photographs", page)
    assert "the article reported" not in page  # this is another recipe
    assert page.count("data-picture=") == 4
    assert '"full_resolution_dice"' in (run / "metrics.json").read_text()


def test_a_report_without_the_data_says_so(trained, tmp_path, capsys):
    run = shutil.copytree(trained[1], tmp_path / "run")
    rows = (run / "history.csv").read_text().splitlines(keepends=True)
    (run / "history.csv").write_text("".join(rows[:3]))
    assert main(["report", "--run", str(run), "--data", str(tmp_path / "gone")]) == 0
    page = (run / "report.html").read_text()
    assert "gone was not found, so only the training figures are shown" in page
    assert "gone: no such folder, so only the training figures are shown" in capsys.readouterr().err
    assert "2 epochs are too few: the curves" in page
    assert "<svg" not in page

    (run / "history.csv").write_text("epoch,steps\n")
    with pytest.raises(CarvanaError, match=r"history\.csv: is not a training history"):
        write_report(run, trained[0])
    with pytest.raises(CarvanaError, match="training is not finished; run `carvana train`"):
        write_report(tmp_path, trained[0])


def test_runs_are_compared_on_the_same_photographs(trained, tmp_path, capsys):
    paths, folder = trained
    one, two = (shutil.copytree(folder, tmp_path / name) for name in ("one", "two"))
    recipe = (two / "recipe.toml").read_text()
    (two / "recipe.toml").write_text(recipe.replace("threshold = 0.5", "threshold = 0.95"))
    command = ["report", "--run", str(one), str(two), "--data", str(paths.root)]
    assert main(command) == 0
    assert str(one / "compare-two.html") in capsys.readouterr().out
    page = (one / "compare-two.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    best, mean, other, less = re.search(
        r'lede">\s*<strong>(\w+)</strong> wins: its mean Dice is <strong>([\d.]+)</strong> '
        r"\((\w+): ([\d.]+)\), on the 4 photographs",
        page,
    ).groups()
    assert {best, other} == {"one", "two"}
    assert float(mean) > float(less)
    assert "<code>prediction.threshold</code></th><td>0.5</td><td>0.95</td>" in page
    assert '<tr class="same"><th scope="row">network</th>' in page
    assert '<tr><th scope="row">mean Dice</th>' in page
    better, worse = re.search(r"better on (\d) photographs? and worse on (\d)", page).groups()
    assert page.count("<h3>two is better</h3>") == (better > "0")
    assert page.count("<h3>one is better</h3>") == (worse > "0")
    assert "data-picture=" in page
    assert not (one / "report.html").exists()

    split = (two / "split.csv").read_text().replace("validation", "x")
    (two / "split.csv").write_text(split.replace("train", "validation"))
    with pytest.raises(UsageError, match="no photograph is in the validation split of all"):
        compare_runs([one, two], paths)
    classes = recipe.replace("[data.classes]", "[data.classes]\nbackground = 0\ncat = 1\n")
    (two / "recipe.toml").write_text(classes)
    with pytest.raises(UsageError, match="two: has other classes than"):
        compare_runs([one, two], paths)


def test_enough_photographs_fill_all_charts():
    many = [examined(f"{n}.jpg", 0.9 + n / 1000) for n in range(20)]
    drawn, left_out = sections._charts(many, BLOG)
    assert (len(drawn), left_out) == (3, [])
    assert "The rank correlation is 1.00: the 2 photographs" in drawn[-1].caption
    classes = replace(BLOG, data=replace(BLOG.data, classes={"background": 0, "cat": 1}))
    assert len(sections._charts(many, classes)[0]) == 1
    alike = [examined(f"{n}.jpg", 1.0) for n in range(20)]
    assert len(sections._charts(alike, BLOG)[0]) == 2  # nothing to rank


def test_the_articles_values_are_drawn_for_its_recipe_alone():
    blog = load_recipe("blog", ["training.epochs=3", "training.seed=7", "data.seed=8"])
    assert is_the_articles(blog)
    assert not is_the_articles(load_recipe("blog", ["training.learning_rate=1e-4"]))
    figures = ("accuracy", "dice", "loss", "val_accuracy", "val_dice", "val_loss")
    history = pd.DataFrame({key: [np.nan, 0.5, 0.6] for key in figures})  # resumed in epoch 1
    history["epoch"] = [1, 2, 3]
    for reported in (True, False):
        drawn = charts.curves(history, blog, reported)
        said = [[text for text in texts(chart) if "the article" in text] for chart in drawn]
        assert said == [["the article: 0.87"], ["the article: 0.95"], []] if reported else [[]] * 3


def test_a_recipe_is_named_and_its_changes_are_listed():
    recipe = load_recipe("sharp", ["training.epochs=3", "data.classes={background=0, cat=1}"])
    assert nearest(recipe) == "sharp"
    rows = settings_table(load_recipe("sharp"), recipe)
    assert rows[0] == ("data.classes", "[]", "[('background', 0), ('cat', 1)]")
    assert [duration(s) for s in (48, 2222, 7500)] == ["48 s", "37 min", "2 h 5 min"]


def test_views_and_cars_are_shown_where_the_names_tell_them():
    cars = [examined(f"{car}_{view:02}.jpg", 0.9) for car in "abc" for view in range(1, 17)]
    assert list(sections.by_view(cars)) == [f"{view:02}" for view in range(1, 17)]
    assert list(sections.by_subject(cars, BLOG.data)) == ["a", "b", "c"]
    own = [examined(f"holiday {number}.jpg", 0.9) for number in range(20)]
    assert sections.by_view(own) == sections.by_subject(own, BLOG.data) == {}
    chart = charts.spread("Dice by car", {f"car{n}": [0.9, 0.95] for n in range(20)}, "")
    assert "car15   0.9250" in texts(chart)
    assert "car16   0.9250" not in texts(chart)
    assert chart.caption == " The 16 worst of 20."


def test_a_histogram_counts_in_whole_numbers_what_is_below_in_its_first_bar():
    chart = charts.histogram({"": [0.2, *np.linspace(0.98, 1, 299)]})
    assert re.fullmatch(r"Photographs below 0\.9\d+ are in the first bar\.", chart.caption)
    few = charts.histogram({"a$b$": [0.9, 0.95], "_c": [0.97]})
    assert {"mean 0.9250, a$b$", "mean 0.9700, _c"} <= set(texts(few))
    assert not {"0.5", "1.5"} & set(texts(few))


def test_photographs_fit_the_page():
    noise = np.random.default_rng(1).integers(0, 256, (1200, 1800, 3), np.uint8)
    data = base64.b64decode(pictures._jpeg(noise).partition(",")[2])
    assert len(data) <= 400_000
    assert Image.open(io.BytesIO(data)).width in (1024, 512)
    smooth = np.zeros((1280, 1918, 3), np.uint8)
    data = base64.b64decode(pictures._jpeg(smooth).partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (1918, 1280)
