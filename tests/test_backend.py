"""Settings from outside: KERAS_BACKEND, keras.json, no home."""

import json
import os
import subprocess
import sys

import keras
import pytest

from carvana.backend import keras_settings
from carvana.prediction.submission import write_submission

NO_HOME = """
import os, pwd, sys
del os.environ["HOME"]
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown  # a container's user has no entry
assert os.path.expanduser("~") == "~"
from carvana.cli import main
assert main(["download", "--data", "data"]) == 1
sys.exit(main(["cutout", sys.argv[1], "--run", sys.argv[2], "--out", "cutouts"]))
"""


@pytest.fixture
def predict(trained, tmp_path):
    """Predict the test photographs in a process with other environment variables."""
    data, run = trained
    out = tmp_path / "odd.csv"
    command = [sys.executable, "-m", "carvana", "predict", "--run", run]
    command += ["--images", data.test, "--out", out]

    def run_process(**environment):
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        return done, out.read_text() if out.exists() else None

    return run_process


def test_settings_of_keras_from_outside_change_no_mask(predict, trained, model, tmp_path):
    odd = {"backend": "jax", "image_data_format": "channels_first"}
    odd |= {"floatx": "float16", "epsilon": 0.01}
    (tmp_path / "keras.json").write_text(json.dumps(odd))
    done, masks = predict(KERAS_HOME=str(tmp_path), KERAS_BACKEND="not_installed_anywhere")
    assert done.returncode == 0, done.stderr
    assert "predicting on CPU" in done.stdout
    write_submission(model, trained[0].test, tmp_path / "plain.csv")
    assert masks == (tmp_path / "plain.csv").read_text()


def test_a_keras_json_that_keras_refuses_is_named(predict, tmp_path):
    (tmp_path / "keras.json").write_text('{"floatx": "float99"}')
    done, masks = predict(KERAS_HOME=str(tmp_path))
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


def test_settings_are_restored_after_an_error():
    with pytest.raises(ZeroDivisionError), keras_settings("mixed_bfloat16"):
        1 / 0  # noqa: B018
    assert keras.config.dtype_policy().name == "float32"


def test_a_user_without_a_home(trained, tmp_path):
    data, run = trained
    photograph = sorted(data.test.iterdir())[0]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG", "KAGGLE"))}
    command = [sys.executable, "-c", NO_HOME, photograph, run]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "no Kaggle credentials found" in done.stderr
    assert not (tmp_path / "~").exists()
