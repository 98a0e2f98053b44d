"""Several classes, from a folder of drawn pictures to label maps and their score."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

import carvana
from carvana.cli import main
from carvana.errors import UsageError

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
    "own": ["model.filters=[20, 24]"],
    "blog": [*FOLDERS, "model.filters=4", "model.num_layers=2", "training.batch_size=8"],
    "sharp": [
        *(*FOLDERS, "data.validation=0.2", "input.width=64", "model.filters=[20, 24]"),
        *("model.fine_filters=[18]", "training.stages=[0.5]"),
    ],
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
    assert result["pairs"] == 24
    assert result["faults"] == []
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
    data = tmp_path / "data"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    for seed in range(4):
        image, mask = draw(seed)
        image.save(data / "images" / f"{seed}.jpg")
        mask.save(data / "masks" / f"{seed}.png")
    (data / "masks" / "0.png").unlink()
    Image.open(data / "masks" / "1.png").resize((9, 9)).save(data / "masks" / "1.png")
    Image.new("L", Image.open(data / "images" / "2.jpg").size, 77).save(data / "masks" / "2.png")
    assert (
        main(["inspect", str(data), "--recipe", "own", *arguments(*NETWORKS["own"]), "--json"]) == 1
    )
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert len(faults) == 3
    for says in ("0.jpg: no mask 0.png", "1.png: is 9x9, its photograph", "does not name (77)"):
        assert any(says in fault for fault in faults)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_watches_every_class(name, own, tmp_path, capsys):
    run, data = str(tmp_path / "run"), str(own / "data")
    settings = arguments(*NETWORKS[name], "training.epochs=2")
    assert main(["train", "--recipe", name, "--data", data, "--run", run, *settings]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    by_class = metrics["val_dice_by_class"]
    assert list(by_class) == list(CLASSES)
    mean = (by_class["circle"] + by_class["square"]) / 2
    assert metrics["val_dice"] == pytest.approx(mean, abs=1e-5)
    header = (tmp_path / "run" / "history.csv").read_text().splitlines()[0]
    assert header.endswith("val_dice_background,val_dice_circle,val_dice_square")
    assert main(["score", "--run", run, "--data", data]) == 0
    assert "  circle 0." in capsys.readouterr().out
    assert main(["report", "--run", run, "--data", data]) == 0
    with pytest.raises(UsageError, match="has 3 classes; write label maps with --masks"):
        from carvana.prediction.shards import write_submission

        write_submission(carvana.load(run), own / "test" / "images", tmp_path / "s.csv")


def test_from_a_folder_to_label_maps_and_their_score(own, tmp_path, capsys):
    run, maps = tmp_path / "run", tmp_path / "maps"
    data, test = str(own / "data"), own / "test"
    long = arguments(*NETWORKS["own"], "training.epochs=40")
    assert main(["train", "--recipe", "own", "--data", data, "--run", str(run), *long]) == 0
    predict = ["predict", "--run", str(run), "--images", str(test / "images"), "--masks", str(maps)]
    assert main(predict) == 0
    truth = sorted((test / "masks").iterdir())
    assert [path.name for path in sorted(maps.glob("*.png"))] == [path.name for path in truth]
    assert not list(maps.glob(".*.shards"))

    capsys.readouterr()
    recipe = ["--recipe", str(run / "recipe.toml")]
    score = ["score", str(maps), "--truth", str(test / "masks"), *recipe, "--json"]
    assert main(score) == 0
    result = json.loads(capsys.readouterr().out)
    # The same by hand, from the files' numbers.
    by_class = {name: [] for name in CLASSES}
    for path in truth:
        found, true = (np.asarray(Image.open(p)) for p in (maps / path.name, path))
        assert found.shape == true.shape
        for name, value in CLASSES.items():
            a, b = (found == value) & (true != 255), true == value
            by_class[name].append(2 * (a & b).sum() / (a.sum() + b.sum()))
    means = {name: np.mean(values) for name, values in by_class.items()}
    assert result["classes"] == pytest.approx(means)
    assert result["mean"] == pytest.approx((means["circle"] + means["square"]) / 2)
    assert result["mean"] > 0.8  # it has learnt something
    model = carvana.load(run)
    mask = model.mask(truth[0].parent.parent / "images" / f"{truth[0].stem}.jpg")
    np.testing.assert_array_equal(mask, np.asarray(Image.open(maps / truth[0].name)))

    # A deleted map is made again, the others are kept.
    dates = {path: path.stat().st_mtime_ns for path in maps.glob("*.png")}
    (maps / truth[1].name).unlink()
    assert main(score) == 1
    assert "1 of" in capsys.readouterr().err
    assert main(predict) == 0
    assert main(score) == 0
    assert len(dates) == len(list(maps.glob("*.png")))
