import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from carvana.cli import main
from carvana.errors import CarvanaError, UsageError
from carvana.export import check, quick


@pytest.fixture
def cache(trained, exported, tmp_path, monkeypatch):
    """The run's graph in a cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = quick.cache_folder(trained[1])
    assert folder.parent == tmp_path / "cache" / "carvana"
    return shutil.copytree(exported[0], folder)


@pytest.fixture
def installed(monkeypatch):
    """As if LiteRT and simplejpeg were there; TensorFlow's own LiteRT stands for it."""
    monkeypatch.setattr(quick, "NEEDS", {"json": "json"})


def test_its_masks_are_the_kits_and_a_broken_photograph_is_named(trained, model, cache, tmp_path):
    pytest.importorskip("simplejpeg")
    paths = sorted(trained[0].test.iterdir())[:3]
    large, broken = tmp_path / "large.png", tmp_path / "broken.jpg"
    Image.open(paths[0]).resize((331, 277)).save(large)
    broken.write_bytes(paths[0].read_bytes()[:1500])
    results = quick.GraphModel(cache).map([*paths, large, broken], lambda *both: both)
    for path, want in model.predict([*paths, large]):
        found, prediction = next(results)
        assert found == path
        probability = prediction.probability()
        assert probability.shape == want.shape
        np.testing.assert_allclose(probability, want, atol=1e-4)
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


def test_the_engine_is_chosen_by_rule(installed, monkeypatch):
    assert quick.is_quick("auto", 16)
    assert not quick.is_quick("auto", 17)
    assert quick.is_quick("litert", 17)
    assert not quick.is_quick("tensorflow", 1)
    monkeypatch.setattr(quick, "NEEDS", {"gone_x": "gone-x"})
    assert not quick.is_quick("auto", 1)
    with pytest.raises(UsageError, match=r"gone-x not installed; in the kit's folder run pip"):
        quick.is_quick("litert", 1)


def test_a_graph_is_found_by_the_content_of_its_run(trained, cache, tmp_path):
    assert quick.open_kept(trained[1])
    other = shutil.copytree(trained[1], tmp_path / "other")
    assert quick.open_kept(other)  # the same content
    recipe = other / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("flip = false", "flip = true"))
    assert quick.open_kept(other) is None
    assert quick.open_kept("sharp") is None
    assert quick.cache_folder(trained[1]) != quick.cache_folder([trained[1], trained[1]])


def test_a_broken_graph_is_not_used_and_written_again(trained, cache, exported, monkeypatch):
    whole = (cache / "model.tflite").read_bytes()
    (cache / "model.tflite").write_bytes(whole[:-9])
    assert quick.open_kept(trained[1]) is None
    (cache / "model.json").write_text(json.dumps({"file": "model.tflite"}))
    with pytest.raises(CarvanaError, match="is not a readable export; delete it"):
        quick.GraphModel(cache)
    monkeypatch.setattr(quick, "MOST", 2)
    for number in range(3):  # of other runs, longer ago
        (cache.parent / str(number)).mkdir()
        os.utime(cache.parent / str(number), (number, number))

    def export(source, out, format, photographs):
        shutil.copytree(exported[0], out)

    monkeypatch.setattr(check, "export", export)
    assert quick.keep(trained[1], [next(trained[0].test.iterdir())]) == cache
    assert quick.open_kept(trained[1])
    assert {each.name for each in cache.parent.iterdir()} == {cache.name, "2"}


def test_the_command_keeps_the_graph_and_uses_it(trained, installed, tmp_path, monkeypatch, capsys):
    pytest.importorskip("simplejpeg")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photograph = sorted(trained[0].test.iterdir())[0]
    command = ["cutout", str(photograph), "--run", str(trained[1])]
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "predicting on CPU" in said and "preparing a quick start" in said
    assert main([*command, "--out", str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "predicting by LiteRT, in float32" in said and "preparing" not in said
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
