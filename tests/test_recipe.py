import re
import tomllib
from importlib import resources

import pytest

from carvana.errors import UsageError
from carvana.recipe import differences, load_recipe, to_toml

SHIPPED = sorted(resources.files("carvana.recipes").glob("*.toml"))


def test_blog_is_the_published_recipe():
    blog = load_recipe("blog")
    assert (blog.data.split, blog.data.validation) == ("image", 0.2)
    assert (blog.input.height, blog.input.width) == (128, 128)
    assert (blog.input.method, blog.input.antialias) == ("bilinear", False)
    augment = blog.augment
    assert (augment.brightness, augment.contrast) == (0.3, [0.5, 0.7])
    assert augment.saturation == [0.5, 0.7]
    training = blog.training
    assert (training.optimizer, training.learning_rate) == ("rmsprop", 1e-5)
    assert (training.loss, training.batch_size, training.epochs) == ("binary_crossentropy", 32, 5)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_explains_every_key_on_its_line(path):
    explained, section = set(), ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key = re.fullmatch(r"(\w+) = [^#]*[^# ] +# \S.*", line)[1]
            explained.add((section, key))
    keys = tomllib.loads(to_toml(load_recipe(path.stem)))
    assert explained == {(section, key) for section, values in keys.items() for key in values}


def test_written_recipe_reads_back_the_same(tmp_path):
    recipe = load_recipe("blog", ["training.epochs=7", "data.split=car", "data.foreground=#ffffff"])
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe))
    assert load_recipe(path) == recipe
    assert differences(load_recipe("blog"), recipe) == [
        "data.split (image, here car)",
        'data.foreground ("", here #ffffff)',
        "training.epochs (5, here 7)",
    ]


def test_missing_key_and_broken_toml_and_no_such_recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(load_recipe("blog")).replace("dropout = 0.5", ""))
    with pytest.raises(UsageError, match=r"mine\.toml: key 'model\.dropout' is missing"):
        load_recipe(path)
    text = SHIPPED[0].read_text("utf-8")
    path.write_text("\ufeff" + text, encoding="utf-8")  # as Notepad saves
    assert load_recipe(path) == load_recipe(SHIPPED[0])
    path.write_text(text, encoding="utf-16")
    with pytest.raises(UsageError, match=r"mine\.toml: cannot be read .not a text file"):
        load_recipe(path)
    path.write_text("[data")
    with pytest.raises(UsageError, match=r"mine\.toml: not valid TOML"):
        load_recipe(path)
    with pytest.raises(UsageError, match=r"gone\.toml: cannot be read"):
        load_recipe(tmp_path / "gone.toml")
    with pytest.raises(UsageError, match="'blogg': no such recipe; use blog, demo, "):
        load_recipe("blogg")


def test_an_override_of_epochs_keeps_the_stages_shares():
    stages = "training.stages=[0.35, 0.35]"
    training = load_recipe("sharper", ["training.epochs=10", stages]).training
    assert training.stage_ends == [4, 7, 10]
    assert [training.stage_of(epoch) for epoch in range(10)] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert load_recipe("blog").training.stage_ends == [5]
    training = load_recipe("sharper", ["training.epochs=1", stages]).training
    assert training.stage_ends == [0, 0, 1]
    assert training.stage_of(0) == 2


FAULTS = {
    "blog": [
        ("training.epoch=7", "unknown key 'training.epoch'; known here: seed, epochs"),
        ("colours.red=1", "unknown key 'colours'; known here: data, input"),
        ("training.epochs=true", "training.epochs = True: input should be a valid integer"),
        ("training.epochs=0", "training.epochs = 0: input should be greater than or equal to 1"),
        ("training.learning_rate=nan", "training.learning_rate = nan"),
        ("training.stages=[0.5]", "this network has 0 smaller part(s) to train first"),
        ("input.height=100", "input.height = 100 is not divisible by 16"),
        ("augment.contrast=[0.9, 0.1]", "give the lower value first"),
        ("augment.contrast=[0.9]", "augment.contrast"),
        ("training.epochs", "write it as section.key=value"),
    ],
    "sharper": [
        ("model.network=resnet", "name one of unet, pyramid_unet"),
        ("model.dropout=0.5", "unknown key 'model.dropout'; known here: network, filters, fine_"),
        ("model.filters=[]", "model.filters"),
        ("input.height=500", "not divisible by 128"),
        ("model.encoder_levels=true", "model.encoder_levels = True"),
        ("model.encoder_levels=4", "this network reads 3 sizes of the picture; give that many"),
        ("training.stages=[0.1, 0.2, 0.1]", "training.stages"),
        ("prediction.scales=[0.4]", "prediction.scales"),
        ("prediction.scales=[1.0, 1.01]", "prediction.scales"),
    ],
    "own": [
        ("data.mask_names=mask", "data.mask_names = 'mask': say where the photograph's name"),
        ("data.classes={only=0}", "data.classes: name two or more"),
        ("data.classes={a=0, b=0}", "data.classes: name two or more, each with a value of its"),
        ("data.classes={a=0, b='#ff0000'}", "data.classes: give numbers for all of them"),
        ("data.classes={a='red', b='#ff0000'}", "a number from 0 to 254, or a colour as #rrggbb"),
        ("data.classes={a=0, b=1} data.ignore=1", "data.ignore = 1: is the value of a class"),
        ("data.classes={a=0, b=1} data.ignore='#ffffff'", "give numbers for all of them and"),
        ("data.ignore=255", "data.ignore: goes with classes"),
        ("data.classes={a=0, b=1} data.foreground='#ffffff'", "data.foreground: goes with"),
        ("data.foreground=blue", "data.foreground"),
        ("data.group=((", "data.group = '((': is not a regular expression"),
        ("data.group=abc", "data.group = 'abc': needs a (group)"),
    ],
}


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [(name, *fault) for name, faults in FAULTS.items() for fault in faults],
)
def test_faults_are_one_line_that_names_the_key(name, overrides, says):
    with pytest.raises(UsageError, match=re.escape(says)) as error:
        load_recipe(name, re.split(" (?=data)", overrides))
    assert "\n" not in str(error.value)
