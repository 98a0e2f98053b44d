"""Recipes planned for photographs and masks in the ways that people keep them."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from carvana.cli import main
from carvana.data.layout import find_layout
from carvana.recipe import load_recipe
from carvana.training import plan
from conftest import write_competition

REAL_STEP = plan.time_step  # which the tests replace
SIZE = (48, 64)  # height and width of the photographs
NAMES = ("a1", "b7", "c3", "d9", "e4", "f2")
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[0] * 756, 224, 224, 192]  # a palette


@pytest.fixture(autouse=True)
def half_a_second_a_step(monkeypatch):
    monkeypatch.setattr(plan, "time_step", lambda recipe: 0.5)


def labels(seed, values=(0, 255)):
    """Blobs of each value on the first one."""
    picture = np.full(SIZE, values[0], np.uint16)
    for place, value in enumerate(values[1:]):
        down, right = np.random.default_rng([seed, place]).integers(0, 5, 2)
        top, left = place * 7 % 35 + down, place % 3 * 18 + right
        picture[top : top + 8, left : left + 12] = value
    return picture.astype(np.uint8 if max(values) < 256 else np.uint16)


def save_photograph(path, seed, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path)


def save_mask(path, array, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette:
        picture.putpalette(palette)
    picture.save(path)


def write(root, image="images/{}.jpg", mask="masks/{}.png", values=(0, 255), names=NAMES, **more):
    """Write photographs and their masks; {} in a path is a photograph's name."""
    for seed, name in enumerate(names):
        save_photograph(root / image.format(name), seed)
        save_mask(root / mask.format(name), labels(seed, values), **more)


def pictures(called, file="", text="", **how):
    """Return a function that writes such pictures, and a file beside them."""

    def layout(root):
        write(root, **how)
        if file:
            (root / file).write_text(text)

    layout.__name__ = called
    return layout


def coloured(seed, colours):
    """The same blobs in colours."""
    places = labels(seed, range(len(colours)))
    return np.array([[*bytes.fromhex(colour)] for colour in colours], np.uint8)[places]


def run(root, *arguments, out="my.toml"):
    """Plan, and return the recipe."""
    recipe = root.parent / out
    assert main(["plan", str(root), "--out", str(recipe), *arguments]) == 0
    return load_recipe(recipe)


def roboflow(root):
    for part in ("train", "valid", "test"):
        names = [f"{name}_jpg.rf.{part}{version}" for name in NAMES for version in (1, 2)]
        write(root, part + "/{}.jpg", part + "/{}_mask.png", (0, 1, 2), names)
        (root / part / "_classes.csv").write_text(
            "Pixel Value, Class\n0, background\n1, cat\n2, dog"
        )


def cvat(root):
    for seed, name in enumerate(NAMES):
        save_photograph(root / f"JPEGImages/{name}.jpg", seed)
        for folder in ("SegmentationClass", "SegmentationObject"):
            array = coloured(seed, ("000000", "fa3253", "33ddff"))
            save_mask(root / f"{folder}/{name}.png", array)
    lines = ["# label:color_rgb:parts:actions", "cat:250,50,83::", "background:0,0,0::"]
    (root / "labelmap.txt").write_text("\n".join([*lines, "traffic light:51,221,255::"]))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("\n".join(NAMES))


def voc(root):
    write(root, "JPEGImages/{}.jpg", "SegmentationClass/{}.png", (0, 1, 2, 255), palette=VOC)
    write(root, "JPEGImages/{}.jpg", "SegmentationObject/{}.png", (0, 1, 2, 3, 255), palette=VOC)


def numbered_alike(root):
    """Every part of the data begins at 0.png, as in zhixuhao/unet."""
    for part in ("train", "val"):
        write(root / "training" / part, "image/{}.png", "label/{}.png", names=range(5))
    for number in range(3):
        save_photograph(root / f"training/test/{number}.png", number)


def smoothed(root):
    write(root)
    for path in (root / "masks").iterdir():
        small = Image.open(path).resize((45, 31), Image.Resampling.NEAREST)
        small.resize(SIZE[::-1], Image.Resampling.BILINEAR).save(path)


def many_objects(root):
    for seed, name in enumerate(NAMES):
        save_photograph(root / f"images/{name}.tif", seed)
        save_mask(root / f"masks/{name}.tif", labels(seed, (0, 1, 2, *range(300, 303 + seed))))


def one_colour(root):
    for seed, name in enumerate(NAMES):
        save_photograph(root / f"images/{name}.jpg", seed)
        save_mask(root / f"masks/{name}.png", coloured(seed, ("000000", "ff0000")))


def a_folder_each(root):
    """As the Data Science Bowl of 2018, with a link to a folder above."""
    for part in ("train", "val", "test"):
        for number in range(45 if part == "train" else 4):
            folder, name = root / f"set [1]/{part}/{part}{number}", f"{part}{number}"
            save_photograph(folder / f"images/{name}.png", number)
            for mask in ("0f", "e7"):
                save_mask(folder / f"masks/{mask}{name}.png", labels(number))
    (root / "set [1]/train/train3/loop").symlink_to(root / "set [1]")


def parts_of_folders(root):
    for part in ("train", "val"):
        for number, name in enumerate(NAMES):
            save_photograph(root / f"images/{part}/{part}{name}.png", number)
            for value in (1, 2, 3):  # numbered over all files
                mask = value * (labels(value) > 0).astype(np.uint8)
                save_mask(root / f"masks/{part}/{part}{name}/{value}.png", mask)


def camvid(root):
    for part in ("train", "val", "test"):
        names = [f"{part}_{name}" for name in NAMES]
        write(root, part + "/{}.png", part + "annot/{}.png", names=names)


def parts_inside(root):
    for part in ("train", "val", "test"):
        write(root, f"images/{part}/{{}}.jpg", f"labels/{part}/{{}}.png")


def objects_beside_classes(root):
    write(root)
    for name in NAMES:
        for part in range(3):
            save_mask(root / f"instances/{name}/{part}.png", labels(part))


NUMBERS = {"bg": 0, "cat": 1, "Void": 7, "dog": 2}
LABELMAP = json.dumps([{"name": name, "id": number} for name, number in NUMBERS.items()])
COPIES = [f"{name}_jpg.rf.{version}" for name in NAMES for version in (1, 2)]  # as Roboflow's
LAYOUTS = {
    write: {"images": "images", "masks": "masks", "mask_names": "{name}", "split": "image"},
    write_competition: {
        **{"images": "train", "masks": "train_masks", "mask_names": "{name}_mask"},
        **{"split": "car", "group": "^([^_]+)_", "classes": {}, "foreground": ""},
    },
    roboflow: {
        **{"images": "train", "masks": "train", "mask_names": "{name}_mask"},
        **{"validation_folders": ["valid", "valid"], "group": ""},
        "classes": {"background": 0, "cat": 1, "dog": 2},
    },
    cvat: {
        **{"images": "JPEGImages", "masks": "SegmentationClass"},
        "classes": {"background": "#000000", "cat": "#fa3253", "traffic light": "#33ddff"},
    },
    voc: {
        **{"images": "JPEGImages", "masks": "SegmentationClass", "ignore": 255},
        "classes": {"background": 0, "class_1": 1, "class_2": 2},
    },
    numbered_alike: {
        **{"images": "training/train/image", "masks": "training/train/label"},
        "validation_folders": ["training/val/image", "training/val/label"],
    },
    pictures("jpeg", mask="masks/{}.jpg"): {"soft": "threshold", "foreground": "", "classes": {}},
    smoothed: {"soft": "share", "foreground": "", "classes": {}},
    a_folder_each: {
        **{"images": "set [1]/train/*/images", "masks": "set [1]/train", "classes": {}},
        **{"mask_names": "{name}/masks", "foreground": ""},
        "validation_folders": ["set [1]/val/*/images", "set [1]/val"],
    },
    parts_of_folders: {
        **{"images": "images/train", "masks": "masks/train", "mask_names": "{name}"},
        **{"validation_folders": ["images/val", "masks/val"], "foreground": "any"},
    },
    pictures("copies", names=COPIES): {"split": "car", "group": r"^(.+)\.rf\."},
    many_objects: {"foreground": "any", "classes": {}},
    pictures("border", "labelmap.json", LABELMAP, values=(0, 1, 2, 7)): {
        "classes": {"background": 0, "cat": 1, "dog": 2},
        "ignore": 7,
    },
    pictures("no background", "classes.txt", "cat\ndog\nbird\n", values=(0, 1, 2, 3)): {
        "classes": {"background": 0, "cat": 1, "dog": 2, "bird": 3}
    },
    one_colour: {"classes": {}, "foreground": "#ff0000"},
    camvid: {"images": "train", "masks": "trainannot", "mask_names": "{name}"},
    parts_inside: {"images": "images/train", "masks": "labels/train", "mask_names": "{name}"},
    objects_beside_classes: {"images": "images", "masks": "masks", "mask_names": "{name}"},
}
TO_TEST_ON = {camvid: ("test", "testannot"), parts_inside: ("images/test", "labels/test")}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_layouts(layout, tmp_path, capsys):
    root = tmp_path / "my data"
    layout(root)
    before = sorted(root.rglob("*"))
    data = run(root).data
    assert {key: getattr(data, key) for key in LAYOUTS[layout]} == LAYOUTS[layout]
    assert list(data.classes) == list(LAYOUTS[layout].get("classes", data.classes))
    said = capsys.readouterr().out
    assert ("carvana predict" in said) == (layout in TO_TEST_ON)
    assert all(f"{root / folder}'" in said for folder in TO_TEST_ON.get(layout, ()))
    assert sorted(root.rglob("*")) == before


def test_masks_named_otherwise(tmp_path):
    for ending in ("_mask", "_gt", "_label", "_L", "_segmentation", "-matte"):
        beside, apart = tmp_path / f"beside{ending}", tmp_path / f"apart{ending}"
        write(beside, "{}.jpg", f"{{}}{ending}.png")
        write(apart, "image/mri_{}.jpg", f"truth/mri_{{}}{ending}.png")
        for root, folder in ((beside, "."), (apart, "truth")):
            layout, _ = find_layout(root, {})
            assert layout["masks"].value == folder
            assert layout["mask_names"].value == f"{{name}}{ending}"


def photographs_alone(root):
    for number in range(12):
        save_photograph(root / f"{number}.jpg", number)
    (root / "coco.json").write_text("{}")


def nested(root):
    for subject in ("s01", "s02", "s03"):
        write(root / subject)


def a_file_a_class(root):
    write(root)
    for path in [*(root / "masks").iterdir()]:
        for name in ("cat", "dog"):
            path.with_name(f"{path.stem}_{name}.png").write_bytes(path.read_bytes())
        path.unlink()


def two_sets_of_masks(root):
    write(root)
    write(root, mask="masks_coarse/{}.png")


def masks_in_parts(root):
    write(root, mask="train_masks/{}.png", names=NAMES[:4])
    write(root, mask="test_masks/{}.png", names=NAMES[4:])


def wrong_sizes(root):
    write(root)
    for name in NAMES[:2]:
        Image.new("L", (9, 9)).save(root / f"masks/{name}.png")


def few_objects(root):
    for seed, name in enumerate(NAMES):
        write(root, values=range(2 + seed), names=[name])


def missing_masks(root):
    write(root)
    save_photograph(root / "images/new.jpg", 1)


def names_without_colours(root):
    cvat(root)
    (root / "labelmap.txt").write_text("background\ncat\ndog\n")


FAULTS = {
    (lambda root: None): "no such folder; give the one that holds your pictures",
    (lambda root: root.mkdir()): "holds no pictures; a mask has its photograph's name",
    photographs_alone: "no masks of them; annotations (.json) are not read, export masks as PNG",
    nested: "pictures lie in 3 folders (s01/images, s02/images, ...), and training reads one",
    a_file_a_class: "several masks of one photograph go into one file",
    two_sets_of_masks: "which folder holds the masks? run again with --set data.masks=masks or "
    "with --set data.masks=masks_coarse",
    masks_in_parts: 'set data.unmasked = "skip" or "empty" for photographs without a mask',
    wrong_sizes: "data: 2 faults; correct them and plan again:\n",
    pictures("empty", values=(0,)): "masks: #000000 (100%); there is nothing to learn",
    pictures("soft", mask="masks/{}.jpg", values=(0, 120, 250)): "JPEG with more than two colours",
    pictures("no_black", values=(1, 2)): """--set 'data.foreground="#010101"' or --set""",
    few_objects: "are they classes or objects? For classes put a file classes.txt",
    missing_masks: "new.jpg: no mask new.png",
    pictures("odd_names", "classes.txt", "background\ncat\n", values=(0, 1, 5)): "classes.txt: "
    "names 2 classes, but not 5, of which the masks have 5 (3.12%)",
    names_without_colours: "labelmap.txt: gives no colours, and ",
    pictures("alone", names=["alone"]): "has one photograph with a mask, and training needs two",
}
ANSWERS = {
    "two_sets_of_masks": {"masks": "masks_coarse"},
    "no_black": {"foreground": "#020202"},
    "few_objects": {"foreground": "any"},
    "missing_masks": {"unmasked": "skip"},
    "odd_names": {"ignore": 5},
}


@pytest.mark.parametrize("layout", FAULTS, ids=lambda layout: layout.__name__)
def test_what_cannot_be_planned_is_one_line_and_is_answered_by_set(layout, tmp_path, capsys):
    layout(tmp_path / "data")
    out = tmp_path / "my.toml"
    assert main(["plan", str(tmp_path / "data"), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.count("carvana plan: ") == 1
    assert FAULTS[layout] in said
    assert not out.exists()
    for key, value in ANSWERS.get(layout.__name__, {}).items():
        data = run(tmp_path / "data", "--set", f"data.{key}={value}").data
        assert getattr(data, key) == value


def test_an_answer_to_no_question_is_refused(tmp_path, capsys):
    write(tmp_path / "data")
    out = tmp_path / "my.toml"
    assert main(["plan", str(tmp_path / "data"), "--out", str(out), "--set", "data.mask=x"]) == 2
    assert "unknown key 'data.mask'" in capsys.readouterr().err
    out.write_text("mine")
    assert main(["plan", str(tmp_path / "data"), "--out", str(out)]) == 2
    assert "my.toml: is there already; give another --out" in capsys.readouterr().err
    assert out.read_text() == "mine"


STRANGE = ["background", "traffic light/red", "дерево", '<b onclick="x">"car"</b>', "it's 100% #1"]


@pytest.mark.usefixtures("eagerly")
def test_strange_names_of_classes_reach_the_trained_model(tmp_path):
    root = tmp_path / "data"
    write(root, values=range(5))
    (root / "classes.txt").write_text("\n".join(STRANGE), "utf-8")
    small = ["model.filters=[20, 24]", "model.encoder_levels=0", "training.epochs=1"]
    settings = [part for setting in small for part in ("--set", setting)]
    assert list(run(root, *settings, "--set", "training.steps_per_epoch=1").data.classes) == STRANGE
    train = ["train", "--recipe", str(tmp_path / "my.toml"), "--data", str(root)]
    assert main([*train, "--run", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert list(metrics["val_dice_by_class"]) == STRANGE
    assert main(["report", "--run", str(tmp_path / "run"), "--data", str(root)]) == 0


def test_left_and_right_are_not_mirrored(tmp_path):
    root = tmp_path / "data"
    write(root, values=(0, 1, 2))
    (root / "classes.txt").write_text("background\nleft lung\nright lung\n")
    recipe = run(root)
    assert recipe.data.classes == {"background": 0, "left lung": 1, "right lung": 2}
    assert (recipe.augment.flip, recipe.prediction.flip) == (False, False)
    text = (tmp_path / "my.toml").read_text()
    assert "# a mirror would turn 'left lung' into 'right lung'" in text
    (root / "classes.txt").unlink()
    assert run(root, out="other.toml").augment.flip


def test_every_key_has_a_reason_and_a_read_only_folder_a_cache(tmp_path, monkeypatch, capsys):
    write(tmp_path / "data")
    monkeypatch.setattr(plan.os, "access", lambda path, mode: False)
    run(tmp_path / "data")
    assert "--run runs/mine --cache runs/cache\n" in capsys.readouterr().out
    lines = (tmp_path / "my.toml").read_text().splitlines()
    assert all(" # " in line for line in lines if " = " in line)


def planned(root, seconds, minutes, monkeypatch, size=(512, 768), count=10):
    """Plan for a machine that takes so many seconds a step."""
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 255
    for number in range(count):
        save_photograph(root / f"images/{number}.jpg", 1, size)
        save_mask(root / f"masks/{number}.png", mask)
    timed = []

    def time_step(recipe):
        timed.append(recipe)
        return seconds * (4 if recipe.model.encoder_levels else 1)

    monkeypatch.setattr(plan, "time_step", time_step)
    recipe = plan.write_plan(root, root.with_suffix(".toml"), minutes).recipe
    assert {(each.input.height, each.input.width) for each in timed} == {(192, 256)}
    steps = recipe.training.epochs * (recipe.training.steps_per_epoch or math.ceil(count * 0.8 / 8))
    return recipe, steps


def test_size_network_and_epochs_fit_the_time(tmp_path, monkeypatch):
    recipe, steps = planned(tmp_path / "a", 0.001, 30, monkeypatch)
    assert (recipe.input.height, recipe.input.width, steps) == (512, 768, plan.MOST_STEPS)
    assert recipe.model.encoder_levels == 1
    recipe, steps = planned(tmp_path / "b", 0.2, 30, monkeypatch)
    pixels = recipe.input.height * recipe.input.width
    assert pixels < 512 * 768
    assert recipe.input.width / recipe.input.height == pytest.approx(1.5, rel=0.15)
    seconds = steps * 0.8 * pixels / (192 * 256) * plan.OTHER_WORK
    assert seconds == pytest.approx(29 * 60, rel=0.15)
    recipe, steps = planned(tmp_path / "c", 20, 5, monkeypatch)
    assert recipe.model.encoder_levels == 0
    assert recipe.input.height * recipe.input.width <= 1.3 * plan.LEAST_PIXELS
    recipe, _ = planned(tmp_path / "d", 0.2, 30, monkeypatch, (50, 90), 2)
    assert (recipe.input.height, recipe.input.width, len(recipe.model.filters)) == (48, 96, 3)
    assert recipe.data.validation == 0.5
    monkeypatch.setattr(plan, "HELD_OUT", 3)
    recipe, _ = planned(tmp_path / "many", 0.2, 1, monkeypatch, SIZE, 30)
    assert recipe.data.validation == pytest.approx(3 / 30)


@pytest.mark.usefixtures("eagerly")
def test_a_step_is_timed():
    small = ["model.filters=[20, 24]", "model.encoder_levels=0"]
    small += ["input.height=32", "input.width=32"]
    assert REAL_STEP(load_recipe("own", small)) > 0
