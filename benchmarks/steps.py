"""Seconds of a training step without bfloat16, by how TensorFlow computes convolutions.

    .venv/bin/python benchmarks/steps.py --recipe sharper

Three ways, in turns, each time in a process of its own: TensorFlow's default on processors without
AVX-512 VNNI, oneDNN, and oneDNN with gradients of kernels by matrix products, which training uses
on processors with AVX2 alone. A recipe with stages is timed at the size of each. The times are
medians; an idle machine is needed.
"""

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Iterator
from dataclasses import replace

from carvana.recipe import Recipe, load_recipe

WAYS = {"default": ("0", False), "oneDNN": ("1", False), "and matrix products": ("1", True)}


def stages(recipe: Recipe) -> Iterator[Recipe]:
    """Yield recipes whose whole network is what each stage trains."""
    model, pictures = recipe.model, recipe.input
    for count in range(1, model.pictures):
        shrink = 2 ** (model.pictures - count)
        yield replace(
            recipe,
            input=replace(
                pictures, height=pictures.height // shrink, width=pictures.width // shrink
            ),
            model=replace(
                model,
                fine_filters=model.fine_filters[: count - 1],
                encoder_levels=min(model.encoder_levels, count),
            ),
        )
    yield recipe


def measure(recipe: Recipe, products: bool) -> float:
    """Time a step, in a process that has not imported TensorFlow."""
    from carvana.backend import import_quietly

    import_quietly()
    from carvana.networks import layers
    from carvana.training.plan import time_step

    if not products:
        layers._products_are_faster = lambda channels: False
    return time_step(recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="sharper")
    parser.add_argument("--set", action="append", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, options.set)
    recipe = replace(recipe, training=replace(recipe.training, precision="float32"))
    print(f"{'':20}" + "".join(f"{way:>20}" for way in WAYS))
    for stage in stages(recipe):
        seconds = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, (onednn, products) in WAYS.items():
                os.environ["TF_ENABLE_ONEDNN_OPTS"] = onednn
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    seconds[way].append(pool.apply(measure, (stage, products)))
        size = f"{stage.input.height}x{stage.input.width}, {stage.training.batch_size}"
        figures = "".join(f"{statistics.median(values):20.2f}" for values in seconds.values())
        print(f"{size:20}{figures}", flush=True)


if __name__ == "__main__":
    main()
