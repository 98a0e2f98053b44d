import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from carvana.cli import main
from carvana.data.images import read_photograph
from carvana.errors import CarvanaError, UsageError
from carvana.prediction import quick
from carvana.prediction.predict import Model
from carvana.run import Run


@pytest.fixture(scope="module")
def kept(trained, tmp_path_factory):
    """A cache that holds the run's graph."""
    home = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        photographs = sorted(trained[0].test.iterdir())
        folder = quick.keep_graph([trained[1]], photographs)
    assert folder.parent == home / "carvana"
    return home, folder


@pytest.fixture
def installed(monkeypatch):
    """As if LiteRT and simplejpeg were there; TensorFlow's own LiteRT stands for it."""
    monkeypatch.setattr(quick, "NEEDS", {"json": "json"})


@pytest.fixture
def cache(kept, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept[0]))
    return kept[1]


def test_its_masks_are_the_kits(trained, cache, tmp_path):
    pytest.importorskip("simplejpeg")
    paths = sorted(trained[0].test.iterdir())
    other = tmp_path / "large.png"
    Image.open(paths[0]).resize((331, 277)).save(other)
    model = Model(Run.load(trained[1]).rebuilt("float32"))
    found = list(quick.QuickModel(cache).map([*paths, other], lambda *both: both))
    assert [path for path, _ in found] == [*paths, other]
    for (_, prediction), (_, want) in zip(found, model.predict([*paths, other]), strict=True):
        probability = prediction.probability()
        assert probability.shape == want.shape
        np.testing.assert_allclose(probability, want, atol=1e-4)


def test_a_broken_photograph_is_named_after_those_before_it(trained, cache, tmp_path):
    pytest.importorskip("simplejpeg")
    path = sorted(trained[0].test.iterdir())[0]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(path.read_bytes()[:1500])
    results = quick.QuickModel(cache).map([path, broken], lambda *both: both)
    assert next(results)[0] == path
    with pytest.raises(CarvanaError, match=r"broken\.jpg: is not a readable photograph"):
        next(results)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4", "4:2:2"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_are_decoded_to_tensorflows_pixels(ratio, subsampling, mode):
    pytest.importorskip("simplejpeg")
    noise = np.random.default_rng(1).integers(0, 256, (8, 10, 3), np.uint8)
    picture = Image.fromarray(noise).resize((160, 96)).convert(mode)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=70, subsampling=subsampling, progressive=ratio == 4)
    want = tf.io.decode_jpeg(file.getvalue(), channels=3, ratio=ratio).numpy()
    np.testing.assert_array_equal(quick.decode_jpeg(file.getvalue(), ratio), want)


def test_the_engine_is_chosen_by_rule(trained, cache, installed, tmp_path, monkeypatch):
    run = [trained[1]]
    assert quick.choose_engine("tensorflow", run, 1) == ("tensorflow", "--engine names it", None)
    assert quick.choose_engine("auto", run, 16) == ("litert", f"{cache} holds the graph", cache)
    assert quick.choose_engine("litert", run, 17) == ("litert", "--engine names it", cache)
    assert quick.choose_engine("auto", run, 17)[0] == "tensorflow"
    other = shutil.copytree(trained[1], tmp_path / "other")
    assert quick.choose_engine("auto", [other], 1)[0] == "litert"  # the same bytes
    recipe = other / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("flip = false", "flip = true"))
    assert "holds no graph yet" in quick.choose_engine("auto", [other], 1)[1]
    assert quick.choose_engine("litert", [other], 1)[2] is None
    assert quick.choose_engine("auto", ["sharp"], 1)[0] == "tensorflow"
    monkeypatch.setattr(quick, "NEEDS", {"gone_x": "gone-x"})
    assert quick.choose_engine("auto", run, 1)[0] == "tensorflow"
    with pytest.raises(UsageError, match=r"gone-x not installed; pip install 'carvana\[export\]'"):
        quick.choose_engine("litert", run, 1)
    with pytest.raises(UsageError, match="gone: no such run or weights"):
        quick.cache_folder([tmp_path / "gone"])


def test_a_broken_cache_is_not_used(trained, cache, installed, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    copy = shutil.copytree(cache, tmp_path / "carvana" / cache.name)
    assert quick.has_graph(copy)
    (copy / "model.tflite").write_bytes((cache / "model.tflite").read_bytes()[:-9])
    assert quick.choose_engine("auto", [trained[1]], 1)[0] == "tensorflow"
    (copy / "model.json").write_text(json.dumps({"file": "model.tflite"}))
    with pytest.raises(CarvanaError, match="is not a readable export; delete it"):
        quick.QuickModel(copy)
    assert quick.keep_graph([trained[1]], [next(trained[0].test.iterdir())]) == copy
    assert quick.has_graph(copy)


def test_the_command_keeps_the_graph_and_uses_it(trained, installed, tmp_path, monkeypatch, capsys):
    pytest.importorskip("simplejpeg")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photograph = sorted(trained[0].test.iterdir())[0]
    command = ["cutout", str(photograph), "--run", str(trained[1]), "--debug"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "engine tensorflow: " in said and "preparing a quick start" in said
    assert main([*command, "--out", str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "engine litert: " in said and "preparing" not in said
    first, second = (np.asarray(Image.open(tmp_path / n / "car5_01.png")) for n in "ab")
    np.testing.assert_allclose(first[..., 3], second[..., 3], atol=1)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # which cannot be a folder
    assert main([*command, "--out", str(tmp_path / "c")]) == 0
    assert "(cutouts are not affected)" in capsys.readouterr().err


def test_tensorflow_is_not_imported(trained, cache, tmp_path):
    pytest.importorskip("simplejpeg")
    pytest.importorskip("ai_edge_litert")
    photograph = sorted(trained[0].test.iterdir())[0]
    program = (
        "import sys; from carvana.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or len({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    command = ["cutout", photograph, "--run", trained[1], "--out", tmp_path, "--engine", "litert"]
    subprocess.run([sys.executable, "-c", program, *command], check=True)
    assert Image.open(tmp_path / "car5_01.png").mode == "RGBA"


def test_several_classes_and_means(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, two = quick.cache_folder([trained[1]]), quick.cache_folder([trained[1], trained[1]])
    assert one != two

    class Classes(quick.QuickModel):
        def __init__(self):
            self._engine = lambda batch: np.ones((*batch.shape[:3], 3), np.float32) / 3
            self._threshold, self.background = 0.5, 0

    picture = read_photograph(sorted(trained[0].test.iterdir())[0])[0]
    loaded = ("x", picture, picture.shape[:2])
    assert Classes()._predict_one(loaded)[1].probability().shape == (*picture.shape[:2], 3)
