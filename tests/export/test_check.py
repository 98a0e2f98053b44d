import ast
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from carvana.cli import build_parser, main
from carvana.data.images import read_photograph
from carvana.data.masks import to_picture
from carvana.data.resize import resize
from carvana.errors import CarvanaError, UsageError
from carvana.export.check import export, photographs_of
from carvana.export.example import example
from carvana.export.formats import FORMATS, check_installed
from carvana.export.graph import build_graph, resize_in_graph
from carvana.networks.build import build_network
from carvana.prediction.model import Model, load
from carvana.recipe import Input, load_recipe
from carvana.runs.trained import Run
from conftest import TINY_PYRAMID


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The run as LiteRT, and the rows of its check."""
    out = tmp_path_factory.mktemp("exported") / "out"
    return out, export(trained[1], out, "litert", photographs=some(trained[0]))


def read_test_photographs(paths):
    return [read_photograph(path)[0] for path in sorted(paths.test.iterdir())]


def some(paths):
    """Photographs to check an export on."""
    return sorted(paths.test.iterdir())[:4]


def installed(name):
    """Skip a test of a format whose package is not installed."""
    try:
        check_installed(name)
    except UsageError as error:
        pytest.skip(str(error))
    return name


@pytest.mark.parametrize("name", ["onnx", "openvino", "saved_model"])
def test_masks_are_the_kits(name, trained, tmp_path):
    paths, run = trained
    rows = export(run, tmp_path / "out", installed(name), photographs=some(paths))
    assert [row.name for row in rows][1] == f"{FORMATS[name].engine} float32"
    assert rows[1].dice > 0.9999
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["measured"] == [dataclasses.asdict(row) for row in rows]
    engine = FORMATS[name].open(tmp_path / "out" / about["file"])
    photographs = read_test_photographs(paths)
    found = engine(np.stack(photographs[:3]))[..., 0]  # a batch
    model = Model(Run.load(run))
    want = [model.probability(photograph) for photograph in photographs[:3]]
    np.testing.assert_allclose(found, want, atol=1e-4)
    other = np.ascontiguousarray(photographs[0][:60, :31])  # another size
    np.testing.assert_allclose(engine(other[None])[0, ..., 0], model.probability(other), atol=1e-4)


def test_litert_is_written_without_extras_and_described(exported, trained):
    out, rows = exported
    assert sorted(file.name for file in out.iterdir()) == [
        "example.py",
        "model.json",
        "model.tflite",
    ]
    assert [file.name for file in out.parent.iterdir()] == ["out"]
    about = json.loads((out / "model.json").read_text())
    assert (about["format"], about["threshold"], about["precision"]) == ("litert", 0.5, "float32")
    assert about["classes"] == ["background", "car"]
    assert about["inside"]["network_sizes"] == [[32, 32]]
    assert about["photographs"] == 4  # those of the validation split
    assert about["fingerprint"] == Run.load(trained[1]).fingerprint()
    assert [row.dice > 0.9999 for row in rows] == [True, True]
    engine = FORMATS["litert"].open(out / "model.tflite")
    model = load(trained[1])
    for photograph in read_test_photographs(trained[0])[:2]:
        found = engine(photograph[None])[0, ..., 0]
        assert found.shape == photograph.shape[:2]
        np.testing.assert_allclose(found, model.probability(photograph), atol=1e-4)


@pytest.mark.parametrize("name", ["litert", "onnx"])
def test_the_example_runs_alone(name, exported, trained, tmp_path):
    if name == "litert" and importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("ai-edge-litert is not installed")
    out = exported[0]
    if name == "onnx":
        out = tmp_path / "out"
        export(trained[1], out, installed(name), photographs=some(trained[0]))
    text = (out / "example.py").read_text()
    assert len(text.splitlines()) <= 60
    assert not re.search("carvana|tensorflow|keras", text)
    photograph = sorted(trained[0].test.iterdir())[0]
    mask = tmp_path / "mask.png"
    command = [sys.executable, out / "example.py", photograph, mask]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert re.match(rf"{mask}: [0-9.]+% of the picture is not background", said)
    found = np.asarray(Image.open(mask))
    want = load(trained[1]).mask(Image.open(photograph))
    assert set(np.unique(found)) == {0, 1}  # as label maps and the competition's masks have them
    assert ((found == 1) != want).sum() < 10


def test_the_command_knows_every_format():
    for name in FORMATS:
        arguments = ["export", "--weights", "sharp", "--out", "out", "--format", name]
        assert build_parser().parse_args(arguments).format == name


@pytest.mark.parametrize("name", FORMATS)
def test_every_example_is_a_short_program(name):
    text = example(name)
    ast.parse(text)
    assert len(text.splitlines()) <= 60
    assert max(map(len, text.splitlines())) <= 100
    assert FORMATS[name].file in text


@pytest.mark.parametrize("size", [(50, 70), (33, 48), (32, 48), (17, 90), (9, 11), (129, 200)])
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


def test_flip_scales_and_several_runs_are_inside(trained, tmp_path):
    run = Run.load(trained[1])
    photographs = np.stack(read_test_photographs(trained[0])[:2])
    plain = build_graph(run)(photographs).numpy()[..., 0]
    for overrides in (["prediction.flip=true"], ["prediction.scales=[1.0, 2.0]"]):
        other = Run.load(trained[1], overrides=overrides)
        found = build_graph(other)(photographs).numpy()[..., 0]
        model = Model(other)
        want = [model.probability(photograph) for photograph in photographs]
        np.testing.assert_allclose(found, want, atol=1e-4)
        assert not np.allclose(found, plain, atol=1e-3)
    out = tmp_path / "out"
    flip = ["prediction.flip=true"]
    rows = export([trained[1]] * 2, out, "saved_model", flip, some(trained[0]))
    assert rows[1].dice > 0.9999
    about = json.loads((out / "model.json").read_text())
    assert (about["weights"], about["inside"]["flip"]) == (["run", "run"], True)
    assert about["photographs"] == 4


def test_several_classes_and_a_half_precision_pyramid(tmp_path):
    recipe = load_recipe(
        "sharp", [*TINY_PYRAMID, "data.classes={background=0, b=1, c=2}", "prediction.flip=true"]
    )
    half = Run(recipe=recipe, networks=(build_network(recipe, "mixed_bfloat16", seed=1),))
    half.save_weights(tmp_path / "w.npz")
    run = Run.load(tmp_path / "w.npz")
    graph = build_graph(run)
    photograph = np.random.default_rng(1).integers(0, 256, (1, 40, 90, 3), np.uint8)
    FORMATS["litert"].write(graph, tmp_path / "model.tflite")
    found = FORMATS["litert"].open(tmp_path / "model.tflite")(photograph)
    assert found.shape == (1, 40, 90, 3)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-4)
    want = Model(run).probability(photograph[0])
    np.testing.assert_allclose(found[0], want, atol=1e-4)


def test_a_run_is_checked_on_its_validation_photographs(trained, tmp_path):
    paths, run = trained
    split = (run / "split.csv").read_text()
    chosen = photographs_of(run, paths.root, 3)
    assert len(chosen) == 3
    assert all(f"{path.name},validation" in split for path in chosen)
    assert len(photographs_of(run, paths.root, 99)) == split.count("validation")
    Run.load(run).save_weights(tmp_path / "w.npz")
    assert len(photographs_of(tmp_path / "w.npz", paths.root, 99)) == 20


def test_masks_that_differ_fail_and_leave_nothing(trained, exported, tmp_path, monkeypatch):
    paths, run = trained
    saved_model = FORMATS["saved_model"]
    wrong = dataclasses.replace(
        saved_model, open=lambda path: lambda x: np.ones((1, *x.shape[1:3], 1), np.float32)
    )
    monkeypatch.setitem(FORMATS, "saved_model", wrong)
    with pytest.raises(CarvanaError, match=r"mean Dice of 0\.\d+ to the kit's own, less than"):
        export(run, tmp_path / "out", "saved_model", photographs=some(paths))
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(exported[0], tmp_path / "out")  # an older export stays
    with pytest.raises(CarvanaError, match="nothing was written"):
        export(run, tmp_path / "out", "saved_model", photographs=some(paths))
    assert (tmp_path / "out" / "model.tflite").is_file()


def test_what_interrupts_an_export_leaves_what_was_there(trained, exported, tmp_path, monkeypatch):
    paths, run = trained
    out = tmp_path / "out"
    shutil.copytree(exported[0], out)
    left = tmp_path / ".out.tmp0123abcd"  # of a killed process
    left.mkdir()
    for error, raised, text in (
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(28, "No space left on device"), CarvanaError, "out: cannot be written .No space"),
        (RuntimeError("x: No space left on device"), CarvanaError, "free some space"),
    ):

        def write(model, path, error=error):
            path.write_bytes(b"half")
            raise error

        broken = dataclasses.replace(FORMATS["saved_model"], write=write)
        monkeypatch.setitem(FORMATS, "saved_model", broken)
        with pytest.raises(raised, match=text):
            export(run, out, "saved_model", photographs=some(paths))
        assert [file.name for file in tmp_path.iterdir()] == ["out"]
        assert (out / "model.tflite").read_bytes() == (exported[0] / "model.tflite").read_bytes()


def test_an_export_is_replaced_and_nothing_else(trained, exported, tmp_path):
    paths, run = trained
    out = tmp_path / "out"
    shutil.copytree(exported[0], out)
    export(run, out, "saved_model", photographs=some(paths))
    assert sorted(os.listdir(out)) == ["example.py", "model.json", "saved_model"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes\.txt, which no export wrote"):
        export(run, out, "saved_model", photographs=some(paths))
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.tflite").write_text("mine")
    with pytest.raises(UsageError, match=r"holds model\.tflite, which no export wrote"):
        export(run, other, "litert", photographs=some(paths))
    with pytest.raises(UsageError, match="is not a folder"):
        export(run, out / "notes.txt", "litert", photographs=some(paths))


def test_a_missing_package_or_model_is_named(trained, tmp_path, monkeypatch, capsys):
    needs = dataclasses.replace(FORMATS["onnx"], needs=("tf2onnx_x", "onnxruntime_x"))
    monkeypatch.setitem(FORMATS, "onnx", needs)
    arguments = ["export", "--run", str(trained[1]), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--format", "onnx"]) == 2
    said = capsys.readouterr().err
    assert "tf2onnx_x and onnxruntime_x not installed; in the kit's folder run pip" in said
    (tmp_path / "empty").mkdir()
    arguments[2] = str(tmp_path / "empty")
    assert main([*arguments, "--format", "litert"]) == 1
    assert "no such model; run `carvana train` first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_table(trained, tmp_path, capsys):
    paths, run = trained
    weights = tmp_path / "w.npz"
    assert main(["weights", "--run", str(run), "--out", str(weights)]) == 0
    arguments = ["export", "--weights", str(weights), "--data", str(paths.root), "--no-flip"]
    arguments += ["--format", "saved_model", "--count", "3", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--scales", "9"]) == 2
    assert "prediction.scales" in capsys.readouterr().err
    assert main([*arguments, "--scales", "1.0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r" +MB +ms  Dice to the kit +worst", lines[0])
    assert re.match(r"TensorFlow float32 +\d+\.\d +\d+ +(1\.0|0\.9999)\d+", lines[2])
    assert lines[3] == f"{tmp_path / 'out'}: written"
    assert json.loads((tmp_path / "out" / "model.json").read_text())["photographs"] == 3


def test_without_photographs_rendered_cars_check_an_export(trained, tmp_path, capsys):
    """A fresh clone has a data folder, with a README in it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("what goes here")
    arguments = ["export", "--run", str(trained[1]), "--data", str(tmp_path / "data")]
    arguments += ["--format", "saved_model", "--count", "2", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "out" / "model.json").read_text())["photographs"] == 2


@pytest.mark.parametrize("name", ["onnx", "litert", "openvino", "saved_model"])
def test_every_example_answers_in_the_recipes_numbers(name, tmp_path):
    """Cats are 7 and dogs 2, in this order: places in the list would swap and shrink them."""
    installed(name)
    if name == "litert":
        pytest.importorskip("ai_edge_litert")
    classes = "data.classes={background=0, dog=7, cat=2}"
    recipe = load_recipe("own", [classes, "input.height=32", "input.width=32", "model.filters=[8]"])
    network = build_network(recipe, "float32", seed=3)
    run = Run(recipe=recipe, networks=(network,))
    run.save_weights(tmp_path / "w.npz")
    rng = np.random.default_rng(1)
    photographs = [rng.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(2)]
    export(tmp_path / "w.npz", tmp_path / "out", name, photographs=photographs)
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert dict(zip(about["classes"], about["numbers"], strict=True)) == recipe.data.classes
    Image.fromarray(photographs[0]).save(tmp_path / "p.png")
    command = [sys.executable, tmp_path / "out" / "example.py", tmp_path / "p.png"]
    subprocess.run([*command, tmp_path / "mask.png"], check=True, env=os.environ)
    with Image.open(tmp_path / "mask.png") as mask:
        found, kit = np.asarray(mask), load(tmp_path / "w.npz").mask(tmp_path / "p.png")
        want = np.asarray(to_picture(kit, recipe.data))
        assert mask.getpalette()[:24] == to_picture(kit, recipe.data).getpalette()[:24]
    assert set(np.unique(found)) <= {0, 2, 7}
    assert (found == want).mean() > 0.99
