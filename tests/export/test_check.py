import dataclasses
import importlib.util
import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from carvana.cli import main
from carvana.data.masks import to_picture
from carvana.data.resize import resize
from carvana.errors import CarvanaError, UsageError
from carvana.export import check, graph
from carvana.export.check import export
from carvana.export.formats import FORMATS, check_installed
from carvana.export.graph import resize_in_graph
from carvana.networks.build import build_network
from carvana.prediction.model import load
from carvana.recipe import Input, load_recipe
from carvana.runs.trained import Run
from carvana_sandbox.cars import studio


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """Weights of a small pyramid for three classes, in half precision; cats are 2 and dogs 7."""
    classes = "data.classes={background=0, dog=7, cat=2}"
    small = ["input.height=32", "input.width=32", "model.filters=[8]", "model.encoder_levels=0"]
    recipe = load_recipe("own", [classes, *small])
    assert recipe.prediction.flip
    path = tmp_path_factory.mktemp("animals") / "w.npz"
    network = build_network(recipe, "mixed_bfloat16", seed=3)
    Run(recipe=recipe, networks=(network,)).save_weights(path)
    return path


@pytest.fixture
def run_example(monkeypatch):
    """Run the `example.py` of an export, where LiteRT is not installed on TensorFlow's own."""

    def run(out, photograph, mask):
        text = (out / "example.py").read_text()
        assert len(text.splitlines()) <= 60
        assert max(map(len, text.splitlines())) <= 100
        assert not re.search("carvana|keras", text)
        assert ("tensorflow" in text) == (out / "saved_model").exists()
        monkeypatch.setattr(sys, "argv", ["example.py", str(photograph), str(mask)])
        runpy.run_path(str(out / "example.py"), run_name="__main__")
        return Image.open(mask)

    if importlib.util.find_spec("ai_edge_litert") is None:
        fake = SimpleNamespace(Interpreter=tf.lite.Interpreter)
        monkeypatch.setitem(sys.modules, "ai_edge_litert", fake)
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", fake)
    return run


def test_litert_is_written_without_extras_and_described(
    exported, trained, model, run_example, tmp_path, capsys
):
    out, rows = exported
    assert sorted(os.listdir(out)) == ["example.py", "model.json", "model.tflite"]
    assert os.listdir(out.parent) == ["out"]
    about = json.loads((out / "model.json").read_text())
    assert (about["format"], about["threshold"], about["precision"]) == ("litert", 0.5, "float32")
    assert about["classes"] == ["background", "car"]
    assert about["inside"]["network_sizes"] == [[32, 32]]
    assert about["photographs"] == 4
    assert about["fingerprint"] == Run.load(trained[1]).fingerprint()
    assert about["measured"] == [dataclasses.asdict(row) for row in rows]
    assert [row.dice > 0.9999 for row in rows] == [True, True]
    photograph, mask = sorted(trained[0].test.iterdir())[0], tmp_path / "mask.png"
    found = np.asarray(run_example(out, photograph, mask))
    said = capsys.readouterr().out
    assert re.match(rf"{mask}: [0-9.]+% of the picture is not background", said)
    assert set(np.unique(found)) == {0, 1}  # as label maps and the competition's masks have them
    assert ((found == 1) != model.mask(photograph)).sum() < 10


@pytest.mark.parametrize("name", FORMATS)
def test_masks_are_the_kits_and_the_example_answers_in_the_recipes_numbers(
    name, animals, run_example, tmp_path
):
    """Places in the list would swap cats and dogs and shrink them."""
    try:
        check_installed(name)
    except UsageError as error:
        pytest.skip(str(error))
    out, model = tmp_path / "out", load(animals)
    photographs = np.random.default_rng(1).integers(0, 256, (2, 40, 60, 3), np.uint8)
    rows = export(animals, out, name, photographs=photographs)
    assert [row.name for row in rows][1] == f"{FORMATS[name].engine} float32"
    assert rows[1].dice > 0.9999
    about, classes = json.loads((out / "model.json").read_text()), model.recipe.data
    assert dict(zip(about["classes"], about["numbers"], strict=True)) == classes.classes
    engine = FORMATS[name].open(out / about["file"])
    for batch in (photographs, photographs[:1, :25, :31]):
        want = [model.probability(np.ascontiguousarray(each)) for each in batch]
        np.testing.assert_allclose(engine(np.ascontiguousarray(batch)), want, atol=1e-4)
    Image.fromarray(photographs[0]).save(tmp_path / "p.png")
    found = run_example(out, tmp_path / "p.png", tmp_path / "mask.png")
    want = to_picture(model.mask(photographs[0]), classes)
    assert found.getpalette()[:24] == want.getpalette()[:24]
    assert set(np.unique(found)) <= {0, 2, 7}
    assert (np.asarray(found) == np.asarray(want)).mean() > 0.99


@pytest.mark.parametrize("size", [(50, 70), (32, 48), (17, 90), (9, 11)])
@pytest.mark.parametrize(
    ("method", "antialias"), [("area", False), ("bilinear", False), ("bilinear", True)]
)
def test_the_graph_resizes_as_the_kit_does(size, method, antialias):
    settings = Input(height=32, width=48, method=method, antialias=antialias)
    pictures = np.random.default_rng(1).integers(0, 256, (2, *size, 3), np.uint8)
    found = resize_in_graph(pictures, settings).numpy()
    want = np.stack([resize(picture, settings) for picture in pictures])
    grown = method == "area" and size[0] < 32 and size[1] < 48  # OpenCV computes in fixed point
    np.testing.assert_allclose(found, want, atol=1.1 / 255 if grown else 3e-5)


def test_an_export_that_fails_leaves_nothing(trained, model, tmp_path, monkeypatch):
    photographs = sorted(trained[0].test.iterdir())[:1]
    out = tmp_path / "out"
    monkeypatch.setattr(Run, "load", lambda *_, **__: model.run)
    monkeypatch.setattr(graph, "build_graph", lambda run: None)

    def fails(raised, says, error=None):
        def write(model, path):
            path.write_bytes(b"half")
            if error:
                raise error

        def open_wrong(path):
            return lambda batch: np.ones((*batch.shape[:3], 1), np.float32)

        broken = dataclasses.replace(FORMATS["saved_model"], write=write, open=open_wrong)
        monkeypatch.setitem(FORMATS, "saved_model", broken)
        with pytest.raises(raised, match=says):
            export(trained[1], out, "saved_model", photographs=photographs)

    differ = r"mean Dice of 0\.\d+ to the kit's own, less than .* nothing was written"
    fails(CarvanaError, differ)
    fails(KeyboardInterrupt, None, KeyboardInterrupt())
    fails(CarvanaError, "out: cannot be written .No space", OSError(28, "No space left on device"))
    fails(CarvanaError, "free some space", RuntimeError("x: No space left on device"))
    assert os.listdir(tmp_path) == []


def test_what_no_export_wrote_is_not_replaced(trained, exported, tmp_path):
    photographs = sorted(trained[0].test.iterdir())[:1]
    with pytest.raises(UsageError, match="choose a folder within it"):
        export(trained[1], Path(), "litert", photographs=photographs)
    out, other = shutil.copytree(exported[0], tmp_path / "out"), tmp_path / "other"
    (out / "notes.txt").write_text("mine")
    other.mkdir()
    (other / "model.tflite").write_text("mine")
    for folder, says in (
        (out, r"holds notes\.txt, which no export wrote"),
        (other, r"holds model\.tflite, which no export wrote"),
        (out / "notes.txt", "is not a folder"),
    ):
        with pytest.raises(UsageError, match=says):
            export(trained[1], folder, "litert", photographs=photographs)


def test_a_missing_package_or_model_is_named(trained, tmp_path, monkeypatch, capsys):
    needs = dataclasses.replace(FORMATS["onnx"], needs=("tf2onnx_x", "onnxruntime_x"))
    monkeypatch.setitem(FORMATS, "onnx", needs)
    monkeypatch.delattr(studio, "render_some")  # it is said before cars are rendered
    arguments = ["export", "--run", str(trained[1]), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--data", str(tmp_path), "--format", "onnx"]) == 2
    said = capsys.readouterr().err
    assert "tf2onnx_x and onnxruntime_x not installed; in the kit's folder run pip" in said
    (tmp_path / "empty").mkdir()
    arguments[2] = str(tmp_path / "empty")
    assert main([*arguments, "--data", str(trained[0].root), "--format", "litert"]) == 1
    assert "no such model; run `carvana train` first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_replaces_an_export_and_prints_the_table(trained, exported, tmp_path, capsys):
    """The mean of two runs, of mirror images and of two scales is inside."""
    paths, run = trained
    out = shutil.copytree(exported[0], tmp_path / "out")
    arguments = ["export", "--run", str(run), "--run", str(run), "--data", str(paths.root)]
    arguments += ["--flip", "--format", "saved_model", "--count", "3", "--out", str(out)]
    assert main([*arguments, "--scales", "9"]) == 2
    assert "prediction.scales" in capsys.readouterr().err
    assert main([*arguments, "--scales", "0.5,1.0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r" +MB +ms  Dice to the kit +worst", lines[0])
    assert re.match(r"TensorFlow float32 +\d+\.\d +\d+ +(1\.0|0\.9999)\d+", lines[2])
    assert lines[3] == f"{out}: written"
    assert sorted(os.listdir(out)) == ["example.py", "model.json", "saved_model"]
    about = json.loads((out / "model.json").read_text())
    assert (about["weights"], about["photographs"]) == (["run", "run"], 3)
    assert (about["inside"]["flip"], about["inside"]["scales"]) == (True, [0.5, 1.0])


def test_without_photographs_rendered_cars_check_an_export(
    trained, exported, tmp_path, monkeypatch
):
    checked_on = []

    def fake(*given):
        checked_on.extend(given[-1])
        return exported[1]

    monkeypatch.setattr(check, "export", fake)
    arguments = ["export", "--run", str(trained[1]), "--data", str(tmp_path)]
    arguments += ["--format", "saved_model", "--count", "1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert [each.shape for each in checked_on] == [(1280, 1918, 3)]
