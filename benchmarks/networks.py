"""Arithmetic and time of a photograph's mask: a recipe's network against the plain 512x512 U-Net.

    .venv/bin/python benchmarks/networks.py --recipe sharp

The plain U-Net is the one that scored 0.995 on the board, trained on all 318 cars: 16 filters at
512x512 doubling to 1,024 at 8x8, two convolutions a level on the way down, three on the way up,
batch normalisation. Both networks run in one process, untrained (the time is the same), in turns;
FLOPs are TensorFlow's own count of the inference graph. The times are medians.
"""

import argparse
import statistics
import time

import keras
import tensorflow as tf
from keras import layers
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.profiler.model_analyzer import profile
from tensorflow.python.profiler.option_builder import ProfileOptionBuilder

from carvana.backend import keras_settings
from carvana.networks.build import build_network, choose_precision
from carvana.recipe import load_recipe

ROUNDS = 9


def plain_unet(size: int = 512, filters: int = 16, levels: int = 6) -> keras.Model:
    def convolve(x, count, times):
        for _ in range(times):
            x = layers.Conv2D(count, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    inputs = x = keras.Input((size, size, 3))
    skips = []
    for level in range(levels):
        x = convolve(x, filters * 2**level, 2)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = convolve(x, filters * 2**levels, 2)
    for level in reversed(range(levels)):
        x = layers.Concatenate()([skips[level], layers.UpSampling2D(2)(x)])
        x = convolve(x, filters * 2**level, 3)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x))


def flops(model: keras.Model) -> int:
    """Count the floating-point operations for one photograph."""
    shape = (1, *model.input_shape[1:])
    function = tf.function(lambda x: model(x, training=False))
    graph = convert_variables_to_constants_v2(
        function.get_concrete_function(tf.TensorSpec(shape))
    ).graph
    options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation())
    return profile(graph, options=options.with_empty_output().build()).total_float_ops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="sharp")
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    precision = choose_precision("auto")
    recipe = load_recipe(options.recipe)
    with keras_settings(precision):
        networks = {"plain U-Net, 512x512": plain_unet()}
    for pictures in recipe.prediction_inputs:
        size = f"{pictures.height}x{pictures.width}"
        networks[f"{options.recipe}, {size}"] = build_network(recipe, precision, pictures)
    work, seconds = {}, {name: [] for name in networks}
    calls = {}
    for name, model in networks.items():
        work[name] = flops(model)
        function = tf.function(lambda x, model=model: model(x, training=False))
        batch = tf.random.uniform((options.batch_size, *model.input_shape[1:]))
        calls[name] = lambda function=function, batch=batch: function(batch).numpy()
        calls[name]()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - begun) / options.batch_size)
    times = {name: statistics.median(values) for name, values in seconds.items()}
    plain = next(iter(networks))
    columns = "parameters", "GFLOP", "ms", "GFLOP/s", "less work", "faster"
    print(" " * 24 + "".join(f"{column:>12}" for column in columns))
    for name, model in networks.items():
        figures = (
            f"{model.count_params():,}",
            f"{work[name] / 1e9:.2f}",
            f"{times[name] * 1e3:.1f}",
            f"{work[name] / times[name] / 1e9:.0f}",
            f"{work[plain] / work[name]:.2f}",
            f"{times[plain] / times[name]:.2f}",
        )
        print(f"{name:24}" + "".join(f"{figure:>12}" for figure in figures))


if __name__ == "__main__":
    main()
