"""Inference engines against TensorFlow on this processor: time of a batch, and what Dice it costs.

    .venv/bin/pip install --editable .[export]
    .venv/bin/python benchmarks/engines.py --data data

Takes weights the kit ships. Engines are timed in turns on one batch, medians; Dice is against
`solution.csv` at full size, without mirror images. An engine that is not installed, or cannot
take the network, is named with its reason. int8 is calibrated on training photographs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from carvana.competition import rle
from carvana.competition.facts import HEIGHT, WIDTH, Paths
from carvana.competition.submission import read_rows
from carvana.data.images import list_images, read_photograph
from carvana.data.resize import resize, upsample
from carvana.recipe import Input, Recipe
from carvana.run import Run, build_network

Engine = Callable[[np.ndarray], np.ndarray]
ROUNDS, CALIBRATION = 7, 32


def tensorflow(model: keras.Model, precision: str, recipe: Recipe, pictures: Input) -> Engine:
    own = build_network(recipe, precision, pictures)
    own.set_weights(model.get_weights())
    network = tf.function(lambda batch: own(batch, training=False))
    return lambda batch: network(tf.constant(batch)).numpy()


def openvino(saved: Path, shape: tuple[int, ...], precision: str) -> Engine:
    import openvino as ov

    model = ov.convert_model(saved, input=ov.PartialShape(shape))
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.compile_model(model, "CPU", settings)
    return lambda batch: compiled(batch)[0]


def onnx_runtime(own: keras.Model, shape: tuple[int, ...]) -> Engine:
    import onnxruntime
    import tf2onnx

    network = tf.function(lambda batch: own(batch, training=False))
    proto, _ = tf2onnx.convert.from_function(network, [tf.TensorSpec(shape)], opset=17)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def litert(saved: Path, shape: tuple[int, ...], calibration: np.ndarray | None) -> Engine:
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    interpreter = Interpreter(model_content=converter.convert(), num_threads=2)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, shape)
    interpreter.allocate_tensors()

    def run(batch: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(place, batch)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run


def mean_dice(engine: Engine, inputs: np.ndarray, truth: list[np.ndarray], batch: int) -> float:
    values = []
    for start in range(0, len(inputs), batch):
        for found, true in zip(engine(inputs[start : start + batch]), truth[start:], strict=False):
            mask = upsample(found, HEIGHT, WIDTH) > 0.5
            values.append(2 * (mask & true).sum() / (mask.sum() + true.sum()))
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--weights", default="sharp")
    parser.add_argument("--count", type=int, default=64, help="test photographs")
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    paths, batch = Paths(options.data), options.batch
    run = Run.load(options.weights)
    recipe, pictures = run.recipe, run.recipe.prediction_inputs[0]
    shape = (batch, pictures.height, pictures.width, 3)

    def load(path: Path) -> np.ndarray:
        return resize(read_photograph(path, pictures)[0], pictures)

    names = list_images(paths.test)[: options.count]
    names = names[: len(names) // batch * batch]
    if not names:
        parser.error(f"{paths.test}: holds no whole batch of {batch} photographs")
    inputs = np.stack([load(paths.test / name) for name in names])
    calibration = np.stack([load(p) for p in sorted(paths.train.glob("*.jpg"))[::24][:CALIBRATION]])
    rows = {cells[0]: cells[1] for _, cells in read_rows(paths.root / "solution.csv")}
    truth = [rle.decode(rows[name], HEIGHT, WIDTH).astype(bool) for name in names]

    own = build_network(recipe, "float32", pictures)
    own.set_weights(run.networks[0].get_weights())
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "saved"
        own.export(saved, verbose=False)
        ways = {
            "TensorFlow float32": lambda: tensorflow(own, "float32", recipe, pictures),
            "TensorFlow bfloat16": lambda: tensorflow(own, "mixed_bfloat16", recipe, pictures),
            "OpenVINO float32": lambda: openvino(saved, shape, "f32"),
            "OpenVINO bfloat16": lambda: openvino(saved, shape, "bf16"),
            "ONNX Runtime float32": lambda: onnx_runtime(own, shape),
            "LiteRT float32": lambda: litert(saved, shape, None),
            "LiteRT int8": lambda: litert(saved, shape, calibration),
        }
        engines, seconds = {}, {}
        for name, make in ways.items():
            try:
                engines[name] = make()
                engines[name](inputs[:batch])
                seconds[name] = []
            except Exception as error:  # whatever an engine raises is its row's text
                engines.pop(name, None)
                print(f"{name:24}{type(error).__name__}: {str(error).splitlines()[0][:120]}")
        for _ in range(ROUNDS):
            for name in seconds:
                begun = time.perf_counter()
                engines[name](inputs[:batch])
                seconds[name].append(time.perf_counter() - begun)
        plain = statistics.median(seconds["TensorFlow bfloat16"])
        print(f"{'engine':24}{'ms an image':>12}{'of TF bfloat16':>16}{'Dice':>10}")
        for name, values in seconds.items():
            median = statistics.median(values)
            dice = mean_dice(engines[name], inputs, truth, batch)
            print(f"{name:24}{1e3 * median / batch:12.1f}{plain / median:15.2f}x{dice:10.5f}")


if __name__ == "__main__":
    main()
