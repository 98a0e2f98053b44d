"""Keras and TensorFlow as the kit uses them: imported on first use, under settings of their own.

Every module takes `keras` and `tf` from here. They are imported when something of theirs is first
used, so that `import carvana`, `carvana --help` and reading a recipe take no seconds; and Keras is
started on TensorFlow whatever KERAS_BACKEND or keras.json say.
"""

import contextlib
import importlib
import os
import random
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from carvana.errors import UsageError
from carvana.files import some_home
from carvana.machine import check_processor, cpuinfo

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
else:

    class _Lazy:
        """Stand for a module until something of it is used."""

        def __init__(self, name: str):
            self._name = name

        def __getattr__(self, attribute: str):
            if attribute.startswith("__") and attribute != "__version__":  # asked by tools
                raise AttributeError(attribute)
            _import_keras()
            return getattr(sys.modules[self._name], attribute)

    keras, tf = _Lazy("keras"), _Lazy("tensorflow")

_lock = threading.RLock()
_process: int | None = None  # in which networks were first built or run
_users = 0  # of `keras_settings` at this moment, over all threads
_outside: dict | None = None  # Keras's settings before the first of them
_OURS = {
    "floatx": "float32",
    "image_data_format": "channels_last",
    "epsilon": 1e-7,
    # KERAS_MAX_EPOCHS would cut a training short, silently; Keras 3.8 has neither.
    "max_epochs": None,
    "max_steps_per_epoch": None,
}


def _import_keras() -> None:
    """Import Keras on TensorFlow; raise UsageError if it is on another backend or cannot start."""
    if "keras" in sys.modules:  # imported by us before, or by whoever uses the API
        loaded = importlib.import_module("keras")
    else:
        with _lock:
            wanted = os.environ.get("KERAS_BACKEND")
            os.environ["KERAS_BACKEND"] = "tensorflow"
            try:
                with some_home():
                    loaded = importlib.import_module("keras")
            except (ValueError, TypeError, AttributeError, AssertionError, OSError) as error:
                raise UsageError(
                    f"keras.json: Keras does not start with it ({error}); correct or delete it "
                    "(it is in KERAS_HOME, by default ~/.keras)"
                ) from error
            finally:
                os.environ.pop("KERAS_BACKEND")
                if wanted is not None:
                    os.environ["KERAS_BACKEND"] = wanted
    if loaded.config.backend() != "tensorflow":
        raise UsageError(
            f"Keras runs on {loaded.config.backend()} in this process; set "
            "KERAS_BACKEND=tensorflow before anything imports keras"
        )
    importlib.import_module("tensorflow")


def check_process() -> None:
    """Raise UsageError if TensorFlow was used before this process was forked: it would hang."""
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise UsageError(
            "a model was loaded before this process was forked, and TensorFlow would hang in it; "
            "load the model in the worker, after the fork (gunicorn: without --preload), or start "
            "workers by spawn"
        )


@contextlib.contextmanager
def keras_settings(precision: "str | keras.DTypePolicy") -> Iterator[None]:
    """Build or run networks under a dtype policy and Keras's defaults; restore all afterwards.

    The dtype policy belongs to the thread. The other settings, which a keras.json may have
    changed, belong to the process: they are restored when the last thread leaves.

    Raises:
        UsageError: see `check_process`.
    """
    global _users, _outside
    check_process()
    with _lock:
        policy = keras.config.dtype_policy()
        if _users == 0:
            config = keras.config
            _outside = {name: getattr(config, name)() for name in _OURS if hasattr(config, name)}
            _set_global({name: _OURS[name] for name in _outside})
        _users += 1
    try:
        keras.config.set_dtype_policy(precision)
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        with _lock:
            _users -= 1
            if _users == 0:
                _set_global(_outside)


def _set_global(settings: dict) -> None:
    for name, value in settings.items():
        getattr(keras.config, f"set_{name}")(value)


@contextlib.contextmanager
def layer_seeds(seed: int | None = None) -> Iterator[None]:
    """Build a network whose layers draw their seeds from this one; restore Python's random state.

    Keras takes the seeds of layers from Python's `random`, as it is when `seed` is None. Other
    threads of ours wait.
    """
    with _lock:
        state = random.getstate()
        try:
            if seed is not None:
                random.seed(seed)
            yield
        finally:
            random.setstate(state)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Hold back what a library in C++ writes to standard error, unless that is closed."""
    try:
        standard_error = os.dup(2)
    except OSError:
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)


def use_onednn() -> None:
    """Let TensorFlow use oneDNN where its default is not to, on processors without AVX-512 VNNI.

    For commands, before TensorFlow computes anything: it holds for the whole process. On a Zen 3
    batches take up to a third less time, a batch of one six times as long.
    """
    if "avx2" in cpuinfo():
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def import_quietly() -> None:
    """Import TensorFlow without its notes about absent GPUs.

    For commands: it sets TensorFlow's log level for the whole process.

    Raises:
        CarvanaError: the processor lacks AVX, and TensorFlow would end the process.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    check_processor()
    with silence():
        _import_keras()
        tf.config.list_physical_devices()
