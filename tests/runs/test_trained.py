import dataclasses
import io
import re
import shutil

import numpy as np
import pytest

from carvana.errors import CarvanaError, UsageError
from carvana.networks.build import build_network, load_network, own_variables
from carvana.prediction.model import Model
from carvana.recipe import load_recipe
from carvana.runs.folder import MARKER
from carvana.runs.trained import Run, initialize
from carvana.runs.weights import shipped_names
from conftest import TINY_PYRAMID, probabilities

ENCODED = "model.encoder_levels=2"


def fresh(*overrides):
    """A run whose network is not trained."""
    recipe = load_recipe("sharp", [*TINY_PYRAMID, *overrides])
    return Run(recipe=recipe, networks=(build_network(recipe, "float32"),))


@pytest.fixture(scope="module")
def run():
    return fresh()


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the trained run, to change."""
    return shutil.copytree(trained[1], tmp_path / "copied")


def check_refused(source, says):
    with pytest.raises(CarvanaError, match=says):
        Run.load(source)


def picture():
    return np.random.default_rng(1).random((1, 32, 48, 3), np.float32)


# ---- files of weights


@pytest.mark.parametrize(("overrides", "atol"), [([], 2e-3), ([ENCODED], 2e-2)])
def test_weights_written_and_read_predict_the_same(overrides, atol, tmp_path):
    run, path = fresh(*overrides), tmp_path / "w.npz"
    run.save_weights(path)
    again = Run.load(str(path))
    assert again.recipe == run.recipe
    np.testing.assert_allclose(again.networks[0](picture()), run.networks[0](picture()), atol=atol)
    assert again.fingerprint() == Run.load(path).fingerprint()
    # In 16 bits, without those of a pretrained encoder, which has a file of its own.
    weights = sum(weight.shape.num_elements() for weight in own_variables(run.networks[0]))
    assert path.stat().st_size < 2.5 * weights


def test_other_classes_start_from_all_weights_but_those_of_their_logits(run, tmp_path):
    run.save_weights(tmp_path / "w.npz")
    classes = "data.classes={background=0, circle=1, square=2}"
    other = fresh(classes, f"training.initial_weights={tmp_path / 'w.npz'}")
    network, starts = other.networks[0], run.networks[0].get_weights()
    before = network.get_weights()
    initialize(network, other.recipe)
    differ = 0
    for old, new, start in zip(before, network.get_weights(), starts, strict=True):
        kept = old.shape != start.shape
        differ += kept
        np.testing.assert_allclose(new, old if kept else start, atol=2e-3)
    assert differ == 4  # two levels' logits, a kernel and a bias each


def test_broken_files_of_weights_are_named(run, tmp_path):
    path = tmp_path / "w.npz"
    run.save_weights(path)
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        check_refused(path, r"w\.npz: is not a weights file")
    with np.load(io.BytesIO(whole)) as arrays:
        np.savez(path, **{**arrays, "000": arrays["000"] * np.nan})
    check_refused(path, r"w\.npz: is not a weights file")
    for absent in ({"recipe": np.array("[data]")}, {"a": np.zeros(3)}):
        np.savez(path, **absent)
        check_refused(path, r"w\.npz: ")


def test_weights_that_a_file_cannot_hold_are_refused_before_it_is_written(run, tmp_path):
    path = tmp_path / "w.npz"
    other = dataclasses.replace(run, recipe=load_recipe("sharp", [*TINY_PYRAMID, ENCODED]))
    with pytest.raises(CarvanaError, match="the run's model does not match its recipe"):
        other.save_weights(path)
    large = build_network(run.recipe, "float32")
    large.set_weights([np.full_like(weight, 1e5) for weight in large.get_weights()])
    with pytest.raises(CarvanaError, match="holds more than float16 can"):
        Run(recipe=run.recipe, networks=(large,)).save_weights(path)
    with pytest.raises(UsageError, match=r"must end in \.npz"):
        run.save_weights(tmp_path / "w.zip")
    assert not any(tmp_path.iterdir())


def test_what_is_not_there_is_named_with_what_the_kit_ships():
    assert shipped_names() == ["quick", "sharp", "sharper"]
    check_refused("nope", "nope: no such run or weights; give .*sharp, sharper")
    check_refused("gone.npz", r"gone\.npz: no such run or weights")
    check_refused([], "an empty list cannot be loaded")
    check_refused(None, "cannot load an object of type NoneType")


# ---- run folders


def test_broken_run_folders_are_named(copied, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    check_refused(empty, r"model\.keras: no such model; run `carvana train`")
    (copied / "model.keras").write_text("not a model")
    check_refused(copied, r"model\.keras: is not a readable Keras model")
    (copied / "recipe.toml").unlink()
    check_refused(copied, r"recipe\.toml: is missing")


def test_a_folder_the_kit_did_not_write_or_in_another_layout_is_not_loaded(copied):
    (copied / MARKER).write_text('{"carvana": "9.0.0", "layout": 9}')
    check_refused(copied, r"run\.json: the run has layout 9")
    for broken in ("", "[", "[]", "{}"):
        (copied / MARKER).write_text(broken)
        check_refused(copied, r"run\.json: cannot be read")
    (copied / MARKER).unlink()
    check_refused(copied, r"copied: has no run\.json")


def test_a_model_that_is_not_its_recipes_or_no_numbers_is_refused(copied):
    recipe = (copied / "recipe.toml").read_text()
    changed = re.sub(r"\nfilters = .*", "\nfilters = 5", recipe)
    changed = re.sub(r"scales = \[[^]]*\]", "scales = [2.0]", changed)
    (copied / "recipe.toml").write_text(changed)
    check_refused(copied, r"model\.keras: does not match its recipe\.toml")
    (copied / "recipe.toml").write_text(recipe)
    network = load_network(copied / "model.keras")
    network.set_weights([weight * np.nan for weight in network.get_weights()])
    network.save(copied / "model.keras")
    check_refused(copied, r"model\.keras: holds weights that are not numbers")


# ---- several runs


def test_several_runs_predict_their_mean(trained, copied):
    paths, folder = trained
    changed = Run.load(copied)
    changed.networks[0].set_weights([w * 0.9 for w in changed.networks[0].get_weights()])
    changed.networks[0].save(copied / "model.keras")
    names = sorted(paths.test.iterdir())[:2]
    run, both = Run.load(folder), Run.load([folder, copied])
    found, one, two = (probabilities(Model(each), names) for each in (both, run, changed))
    np.testing.assert_allclose(found, (one + two) / 2, atol=1e-5)
    assert not np.allclose(one, two, atol=1e-3)
    assert both.fingerprint() not in (run.fingerprint(), changed.fingerprint())
    assert Run.load([folder]).fingerprint() == run.fingerprint()
    text = (copied / "recipe.toml").read_text().replace('"bilinear"', '"area"')
    (copied / "recipe.toml").write_text(text)
    check_refused([folder, copied], "copied: resizes photographs differently from")
