"""Settings from outside: KERAS_BACKEND, keras.json, and a TensorFlow that dies."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from carvana.backend import keras_settings

ABORTING = """
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            os.write(2, b"F cpu_feature_guard.cc] compiled to use AVX, not available here\\n")
            os.abort()
sys.meta_path.insert(0, Finder())
"""


def predict(tmp_path, name, run, **environment):
    """Predict a photograph in a process of its own."""
    out = tmp_path / f"{name}.csv"
    images = tmp_path / "images"
    if not images.exists():
        images.mkdir()
        picture = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
        Image.fromarray(picture).save(images / "a.png")
    command = [sys.executable, "-m", "carvana", "predict", "--run", run]
    done = subprocess.run(
        [*command, "--images", images, "--out", out],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    return done, out.read_text() if out.exists() else None


def test_settings_of_keras_from_outside_change_no_mask(trained, tmp_path):
    odd = {"backend": "jax", "image_data_format": "channels_first"}
    odd |= {"floatx": "float16", "epsilon": 0.01}
    (tmp_path / "keras.json").write_text(json.dumps(odd))
    plain, want = predict(tmp_path, "plain", trained[1])
    assert plain.returncode == 0, plain.stderr
    assert "predicting on CPU" in plain.stdout
    outside = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "not_installed_anywhere"}
    done, masks = predict(tmp_path, "odd", trained[1], **outside)
    assert done.returncode == 0, done.stderr
    assert masks == want


def test_a_keras_json_that_keras_refuses_is_named(trained, tmp_path):
    (tmp_path / "keras.json").write_text('{"floatx": "float99"}')
    done, masks = predict(tmp_path, "bad", trained[1], KERAS_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("carvana predict: keras.json: Keras does not start with it")
    assert done.stderr.count("\n") == 1
    assert masks is None


def test_keras_on_another_backend_is_refused_in_one_line():
    code = (
        "import sys, types; fake = sys.modules['keras'] = types.ModuleType('keras'); "
        "fake.config = types.SimpleNamespace(backend=lambda: 'torch'); "
        "import carvana; carvana.load('sharp')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "carvana.errors.UsageError: Keras runs on torch in this process; set "
        "KERAS_BACKEND=tensorflow before anything imports keras"
    )


def test_last_words_of_a_tensorflow_that_dies_are_shown(trained, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(ABORTING)
    done, _ = predict(tmp_path, "dead", trained[1], PYTHONPATH=str(tmp_path))
    assert done.returncode < 0
    assert "compiled to use AVX, not available here" in done.stderr


def test_settings_are_restored_after_an_error():
    keras.config.set_epsilon(1e-5)
    try:
        with pytest.raises(ZeroDivisionError), keras_settings("mixed_bfloat16"):
            assert keras.config.epsilon() == 1e-7
            assert keras.config.dtype_policy().name == "mixed_bfloat16"
            with keras_settings("float32"):
                assert keras.config.dtype_policy().name == "float32"
            assert keras.config.dtype_policy().name == "mixed_bfloat16"
            assert keras.config.epsilon() == 1e-7
            1 / 0  # noqa: B018
        assert keras.config.epsilon() == 1e-5
        assert keras.config.dtype_policy().name == "float32"
    finally:
        keras.config.set_epsilon(1e-7)


NO_HOME = """
import os, pwd, sys
del os.environ["HOME"]
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown  # a container's user has no entry
assert os.path.expanduser("~") == "~"
from carvana.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["cutout", "download"])
def test_a_user_without_a_home(command, tiny, tmp_path):
    photograph = str(sorted(tiny.test.iterdir())[0])
    arguments = {
        "cutout": [photograph, "--weights", "quick", "--out", "cutouts"],
        "download": ["--data", "data"],
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG", "KAGGLE"))}
    done = subprocess.run(
        [sys.executable, "-c", NO_HOME, command, *arguments[command]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "~").exists()
    if command == "download":
        assert "no Kaggle credentials found" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
