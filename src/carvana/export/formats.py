"""The formats a graph is written in, and the engines that run them."""

import contextlib
import importlib.util
import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana.backend import keras, silence, tf
from carvana.errors import UsageError
from carvana.machine import cores

Engine = Callable[[np.ndarray], np.ndarray]
"""Photographs (batch, height, width, 3) uint8 -> probabilities (batch, height, width, outputs)."""


@dataclass(frozen=True)
class Format:
    """One way to write a graph."""

    file: str  # the model's name in its folder
    engine: str
    needs: tuple[str, ...]  # modules beyond TensorFlow, to write it and run it
    write: Callable[["keras.Model", Path], None]
    open: Callable[[Path], Engine]  # on all cores


def check_installed(name: str) -> None:
    """Raise UsageError unless what a format needs is installed."""
    missing = [need for need in FORMATS[name].needs if importlib.util.find_spec(need) is None]
    if missing:
        raise UsageError(
            f"--format {name}: {' and '.join(missing)} not installed; "
            "in the kit's folder run pip install -e '.[export]'"
        )


def _write_by_keras(model: "keras.Model", path: Path) -> None:
    format = {".onnx": "onnx", ".xml": "openvino"}[path.suffix]
    with _quiet():
        model.export(str(path), format=format, verbose=False, input_signature=_signature(model))


def _open_onnx(path: Path) -> Engine:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (inputs,) = session.get_inputs()
    return lambda photographs: session.run(None, {inputs.name: photographs})[0]


def _open_openvino(path: Path) -> Engine:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda photographs: compiled(photographs)[0]


def _write_litert(model: "keras.Model", path: Path) -> None:
    """Convert a SavedModel, as Keras's own export does; Keras 3.8 has none."""
    saved = path.with_name(".saved")
    _write_saved_model(model, saved)
    with _quiet():
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert())
    shutil.rmtree(saved, ignore_errors=True)


def _open_litert(path: Path) -> Engine:
    try:  # starts in 0.1 s; TensorFlow has the same one in it
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        Interpreter = tf.lite.Interpreter
    with warnings.catch_warnings(), silence():
        warnings.simplefilter("ignore")  # TensorFlow says that its own is deprecated
        interpreter = Interpreter(str(path), num_threads=cores())
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape = None

    def run(photographs: np.ndarray) -> np.ndarray:
        nonlocal shape
        if photographs.shape != shape:
            shape = photographs.shape
            interpreter.resize_tensor_input(inputs["index"], shape)
            with silence():  # it says which kernels it uses
                interpreter.allocate_tensors()
        interpreter.set_tensor(inputs["index"], photographs)
        interpreter.invoke()
        return interpreter.get_tensor(outputs["index"])

    return run


def _write_saved_model(model: "keras.Model", path: Path) -> None:
    with _quiet():  # `model.export` would write every weight twice
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serve", lambda x: model(x, training=False), _signature(model))
        archive.write_out(str(path), verbose=False)
    shutil.rmtree(path / "assets", ignore_errors=True)  # empty


def _open_saved_model(path: Path) -> Engine:
    loaded = tf.saved_model.load(str(path))
    return lambda photographs: loaded.serve(photographs).numpy()


def _signature(model: "keras.Model") -> list:
    any_size = (None, None, None, 3)
    return [tf.TensorSpec(any_size, tf.uint8, name=model.input.name)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what converters print, log and warn of."""
    said, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(),
            silence(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


FORMATS = {
    "onnx": Format(
        "model.onnx", "ONNX Runtime", ("tf2onnx", "onnxruntime"), _write_by_keras, _open_onnx
    ),
    "litert": Format("model.tflite", "LiteRT", (), _write_litert, _open_litert),
    "openvino": Format("model.xml", "OpenVINO", ("openvino",), _write_by_keras, _open_openvino),
    "saved_model": Format("saved_model", "TensorFlow", (), _write_saved_model, _open_saved_model),
}
