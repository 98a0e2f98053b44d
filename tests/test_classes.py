"""Several classes, from a folder of drawn pictures to label maps and their score."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw

import carvana
from carvana.cli import main
from carvana.errors import UsageError
from carvana.networks.build import build_network
from carvana.prediction.submission import write_submission
from carvana.recipe import load_recipe
from carvana.runs.trained import Run
from conftest import TINY, TINY_PYRAMID

CLASSES = {"background": 0, "circle": 1, "square": 2}
SETTINGS = [
    "data.classes={background=0, circle=1, square=2}",
    "data.ignore=255",
    "input.height=32",
    "input.width=48",
    "training.precision=float32",
]
FOLDERS = ["data.images=images", "data.masks=masks", "data.mask_names={name}"]
NETWORKS = {  # of each recipe a network that trains in seconds
    "own": ["model.filters=[20, 24]", "model.encoder_levels=0"],
    "blog": [*FOLDERS, *TINY, "training.learning_rate=0.01", "training.epochs=4"],
    "sharp": [*FOLDERS, *TINY_PYRAMID, "training.stages=[0.5]", "training.epochs=2"],
}


def draw(seed):
    """A dark circle and a bright square on noise, of any size, the circle's border ignored."""
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers((90, 60), (150, 100)))
    noise = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
    image, mask = Image.fromarray(noise), Image.new("P", (width, height), 0)
    mask.putpalette([0, 0, 0, 200, 30, 30, 30, 30, 200, *range(9, 256), *[90] * 512])
    x, y = (int(part) for part in rng.integers(3, (width // 3, height // 3)))
    left, top = width // 2 + int(rng.integers(0, 6)), int(rng.integers(2, height // 3))
    for picture, circle, square in ((image, (20, 10, 10), (240, 240, 200)), (mask, 1, 2)):
        pen = ImageDraw.Draw(picture)
        pen.rectangle((left, top, left + width // 4, top + height // 2), fill=square)
        border = 255 if picture is mask else circle
        pen.ellipse((x, y, x + width // 3, y + height // 2), fill=circle, outline=border)
    return image, mask


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A data folder of drawn pictures, with others to test on."""
    root = tmp_path_factory.mktemp("own")
    for part, seeds in (("data", range(24)), ("test", range(100, 106))):
        for folder in ("images", "masks"):
            (root / part / folder).mkdir(parents=True)
        for seed in seeds:
            image, mask = draw(seed)
            image.save(root / part / "images" / f"drawn {seed}.jpg", quality=95)
            mask.save(root / part / "masks" / f"drawn {seed}.png")
    return root


def arguments(*settings):
    return [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]


def test_inspect_says_what_a_folder_holds(own, capsys, tmp_path):
    sheet = tmp_path / "sheet.png"
    command = ["inspect", str(own / "data"), "--recipe", "own", *arguments(*NETWORKS["own"])]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["pairs"], result["faults"]) == (24, [])
    assert set(result["classes"]) == {*CLASSES, "ignored"}
    assert sum(result["classes"].values()) == pytest.approx(1)
    assert result["classes"]["background"] > 0.5 > result["classes"]["circle"] > 0.05
    assert sum(result["sizes"].values()) == 24
    assert main([*command, "--out", str(sheet)]) == 0
    printed = capsys.readouterr().out
    assert "24 photographs with masks" in printed
    assert "no faults" in printed
    assert Image.open(sheet).width > 600


def test_inspect_lists_all_faults_at_once(own, capsys, tmp_path):
    data = shutil.copytree(own / "test", tmp_path / "data")
    masks = sorted((data / "masks").iterdir())
    masks[0].unlink()
    Image.open(masks[1]).resize((9, 9)).save(masks[1])
    Image.new("L", Image.open(masks[2]).size, 77).save(masks[2])
    command = ["inspect", str(data), "--recipe", "own", *arguments(*NETWORKS["own"])]
    assert main([*command, "--json"]) == 1
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert len(faults) == 3
    for says in ("100.jpg: no mask drawn 100.png", "101.png: is 9x9", "does not name (77)"):
        assert any(says in fault for fault in faults)


@pytest.fixture(scope="module")
def run(own, tmp_path_factory):
    """A run that has learnt them a little."""
    run, data = tmp_path_factory.mktemp("run") / "own", str(own / "data")
    long = arguments(*NETWORKS["own"], "training.epochs=20")
    assert main(["train", "--recipe", "own", "--data", data, "--run", str(run), *long]) == 0
    return run


def test_training_and_its_score_watch_every_class(run, own, tmp_path, capsys):
    metrics = json.loads((run / "metrics.json").read_text())
    by_class = metrics["val_dice_by_class"]
    assert list(by_class) == list(CLASSES)
    mean = (by_class["circle"] + by_class["square"]) / 2
    assert metrics["val_dice"] == pytest.approx(mean, abs=1e-5)
    iou = metrics["val_iou_by_class"].values()  # the background's, too
    assert metrics["val_iou"] == pytest.approx(sum(iou) / 3, abs=1e-5)
    header = (run / "history.csv").read_text().splitlines()[0]
    assert header.endswith(",val_iou_background,val_iou_circle,val_iou_square")
    assert main(["score", "--run", str(run), "--data", str(own / "data")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"mean IoU  0\.\d{6}\n.*\n  circle Dice 0\..*, IoU 0\.", said)
    with pytest.raises(UsageError, match="has 3 classes; write label maps with --masks"):
        write_submission(carvana.load(run), own / "test" / "images", tmp_path / "s.csv")


def test_label_maps_and_their_score(run, own, tmp_path, capsys):
    test, maps = own / "test", tmp_path / "maps"
    predict = ["predict", "--run", str(run), "--images", str(test / "images"), "--masks", str(maps)]
    assert main(predict) == 0
    truth = sorted((test / "masks").iterdir())
    assert [path.name for path in sorted(maps.glob("*.png"))] == [path.name for path in truth]
    assert not list(maps.glob(".*.rows"))

    capsys.readouterr()
    recipe = ["--recipe", str(run / "recipe.toml")]
    score = ["score", str(maps), "--truth", str(test / "masks"), *recipe, "--json"]
    assert main(score) == 0
    assert json.loads(capsys.readouterr().out)["mean"] > 0.4  # it has learnt something
    mask = carvana.load(run).mask(test / "images" / f"{truth[0].stem}.jpg")
    np.testing.assert_array_equal(mask, np.asarray(Image.open(maps / truth[0].name)))

    (maps / truth[1].name).unlink()
    assert main(score) == 1
    assert "1 of" in capsys.readouterr().err


def test_runs_whose_outputs_mean_something_else_are_not_mixed(run, own, tmp_path):
    swapped = "data.classes={background = 0, square = 2, circle = 1}"
    recipe = load_recipe(run / "recipe.toml", [swapped])
    other = Run(recipe=recipe, networks=(build_network(recipe, "float32"),))
    other.save_weights(tmp_path / "swapped.npz")
    says = r"swapped\.npz: has other classes, or in another order, than"
    with pytest.raises(UsageError, match=says):
        carvana.load([run, tmp_path / "swapped.npz"])
    with pytest.raises(UsageError, match=r"holds a run of another recipe: data\.classes"):
        carvana.train(recipe, own / "data", run)


def maps(folder, labels):
    folder.mkdir()
    for number, each in enumerate(labels):
        Image.fromarray(np.array(each, np.uint8)).save(folder / f"{number}.png")
    return folder


def test_absent_classes_do_not_lift_the_mean_and_ignored_pixels_do_not_count(tmp_path, capsys):
    """The only square is missed, circles are found half, triangles are nowhere."""
    true = maps(tmp_path / "true", [[[0, 1, 1, 2, 255]], *[[[0, 0, 1, 1]]] * 3])
    found = maps(tmp_path / "found", [[[0, 1, 0, 0, 1]], *[[[0, 0, 1, 0]]] * 3])
    classes = "{background = 0, circle = 1, square = 2, triangle = 3}"
    score = ["score", str(found), "--truth", str(true), "--recipe", "own"]
    score += ["--set", f"data.classes={classes}", "--set", "data.ignore=255"]
    assert main([*score, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    background = 2 * 7 / (7 + 12)
    assert result["classes"] == pytest.approx(
        {"background": background, "circle": 2 / 3, "square": 0}
    )
    assert result["mean"] == pytest.approx(1 / 3)
    iou = {"background": 7 / 12, "circle": 4 / 8, "square": 0}
    assert result["iou"] == pytest.approx(iou)
    assert result["mean_iou"] == pytest.approx(sum(iou.values()) / 3)
    assert result["absent"] == ["triangle"]
    assert main(score) == 0
    assert "triangle: in no mask, true or predicted; left out" in capsys.readouterr().out


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", ["blog", "sharp"])
def test_one_dice_for_training_and_score(name, tmp_path, capsys):
    """At the size of the pictures, training watches what `score` and the report compute."""
    run, data = tmp_path / "run", tmp_path / "data"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(12):
        mask = np.zeros((32, 64), np.uint8)
        mask[4:20, 5:30] = 1
        mask[4:20, 30:32] = 255
        if number % 3 == 0:
            mask[22:30, 30:40] = 2
        image = rng.integers(90, 120, (32, 64, 3)) + 60 * (mask[..., None] == (1, 2, 3))
        Image.fromarray(image.astype(np.uint8)).save(data / "images" / f"{number}.png")
        Image.fromarray(mask).save(data / "masks" / f"{number}.png")
    settings = [*NETWORKS[name], "input.width=64", "prediction.flip=false"]
    classes = "data.classes={background=0, circle=1, square=2, triangle=3}"
    command = ["train", "--recipe", name, "--data", str(data), "--run", str(run)]
    assert main([*command, *arguments(*settings, classes)]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    capsys.readouterr()
    assert main(["score", "--run", str(run), "--data", str(data), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    # A network that has learnt little is undecided about a few pixels, which rounding decides.
    assert metrics["val_dice"] == pytest.approx(result["mean"], abs=1e-3)
    assert metrics["val_dice_by_class"] == pytest.approx(result["classes"], abs=1e-3)
    assert metrics["val_iou_by_class"] == pytest.approx(result["iou"], abs=1e-3)
