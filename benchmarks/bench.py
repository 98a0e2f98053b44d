"""Speed-ups over a naive baseline, measured alternately in one run.

    make bench                      # or .venv/bin/python benchmarks/bench.py --data data

The baseline is a transliteration of how the article, and the common Carvana kits, do the same step;
each is named where it stands below. The photographs are the data folder's own. Figures are
medians; an idle machine is needed, and the ratios are what to quote.
"""

import argparse
import csv
import gzip
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

from carvana.competition import rle
from carvana.competition.facts import HEIGHT, TEST_IMAGES, WIDTH, Paths
from carvana.competition.score import score
from carvana.competition.submission import HEADER, read_rows, validate
from carvana.data.batches import training_dataset
from carvana.data.pairs import Pair, find_pairs
from carvana.data.prepared import prepare
from carvana.networks.build import build_network, choose_precision
from carvana.networks.unet import unet
from carvana.prediction.model import Model
from carvana.prediction.submission import write_submission
from carvana.recipe import Recipe, load_recipe
from carvana.runs.trained import Run
from carvana.training.optimizers import compile_network


def in_turns(rounds: int, **ways: Callable[[], object]) -> dict[str, float]:
    """Run each way in turn, `rounds` times; return the median seconds of each."""
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(what: str, value: str, ratio: float | None = None, bar: str = "") -> None:
    print(f"{what:64}{value:>16}{f'{ratio:.2f}x' if ratio else '':>10}  {bar}", flush=True)


# --- Training input ---------------------------------------------------------------------------


def article_input(pairs: list[Pair], recipe: Recipe) -> tf.data.Dataset:
    """Build the article's dataset: decode, scale, resize, augment every image in every epoch."""

    def load(image, mask):
        image = tf.image.decode_jpeg(tf.io.read_file(image))
        mask = tf.image.decode_gif(tf.io.read_file(mask))[0][:, :, :1]
        return image, mask

    def scale(image, mask):
        return tuple(tf.image.convert_image_dtype(part, tf.float32) for part in (image, mask))

    def resize(image, mask):
        return tuple(tf.image.resize(part, (128, 128)) for part in (image, mask))

    def augment(image, mask):
        image = tf.image.random_brightness(image, 0.3)
        image = tf.image.random_contrast(image, 0.5, 0.7)
        image = tf.image.random_saturation(image, 0.5, 0.7)
        return tf.clip_by_value(image, 0.0, 1.0), mask

    images = [str(pair.image) for pair in pairs]
    masks = [str(pair.mask) for pair in pairs]
    rows = tf.data.Dataset.from_tensor_slices((images, masks))
    rows = rows.map(load).map(scale).map(resize).map(augment)
    batch = recipe.training.batch_size
    return rows.shuffle(batch * 128).batch(batch)


def keras_kit_input(pairs: list[Pair]) -> None:
    """Read an epoch as the common Keras kits' `Sequence` does: Pillow, one thread, no cache."""
    for pair in pairs:
        for path, mode in ((pair.image, "RGB"), (pair.mask, "L")):
            with Image.open(path) as picture:
                np.asarray(picture.convert(mode).resize((128, 128)), np.float32) / 255


def bench_input(paths: Paths, count: int, rounds: int) -> None:
    recipe = load_recipe("blog")
    pairs = find_pairs(paths.root, recipe.data)[:count]
    count = len(pairs)
    batches = -(-count // recipe.training.batch_size)

    def epoch(data: tf.data.Dataset) -> None:
        for _ in data.take(batches):
            pass

    def ours_first() -> None:
        for file in prepare(pairs, paths.cache, recipe):
            file.unlink()
        epoch(training_dataset(prepare(pairs, paths.cache, recipe), recipe))

    files = prepare(pairs, paths.cache, recipe)
    later = iter(training_dataset(files, recipe))  # one for all epochs, as in training

    def ours_later(epochs: int) -> None:
        for _ in range(epochs * batches):
            next(later)

    ours_later(1)
    times = in_turns(
        rounds,
        article=lambda: epoch(article_input(pairs, recipe)),
        kit=lambda: keras_kit_input(pairs),
        first=ours_first,
        later=lambda: ours_later(20),
    )
    times["later"] /= 20
    rate = {name: f"{count / seconds:,.0f} images/s" for name, seconds in times.items()}
    show("input, the article's tf.data pipeline", rate["article"])
    show("input, a Keras kit's Sequence", rate["kit"], times["article"] / times["kit"])
    show(
        "input, ours, first epoch (cache built)",
        rate["first"],
        times["article"] / times["first"],
        ">= 1.5",
    )
    show("input, ours, later epochs", rate["later"], times["article"] / times["later"], ">= 30")


# --- Training step ----------------------------------------------------------------------------


def matrix_rate(dtype: str, size: int = 3072) -> float:
    """Measure FLOP/s of a large matrix product, the limit of the arithmetic."""
    a = tf.cast(tf.random.uniform((size, size)), dtype)
    product = tf.function(lambda: tf.reduce_sum(tf.cast(a @ a, "float32")))
    product().numpy()
    return 2 * size**3 / in_turns(5, product=lambda: product().numpy())["product"]


def convolution_flops(model: keras.Model) -> float:
    """Count the FLOPs of a forward pass for one image: two for each multiplication and addition."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2DTranspose):
            _, height, width, _ = layer.input.shape
        elif isinstance(layer, keras.layers.Conv2D):
            _, height, width, _ = layer.output.shape
        else:
            continue
        total += 2 * height * width * np.prod(layer.kernel.shape)
    return float(total)


def bench_training(paths: Paths, rounds: int, epoch: int = 5) -> None:
    recipe = load_recipe("blog")
    precision = choose_precision("auto")
    pairs = find_pairs(paths.root, recipe.data)[: 32 * epoch]
    data = training_dataset(prepare(pairs, paths.cache, recipe), recipe)
    images, masks = next(iter(data))
    plain = unet((128, 128, 3))
    plain.compile("rmsprop", "binary_crossentropy")
    ours = build_network(recipe, precision)
    compile_network(ours, recipe, 128)
    steps = {
        "plain": lambda: plain.train_on_batch(images, masks),
        "ours": lambda: ours.train_on_batch(images, masks),
        "epoch": lambda: ours.fit(data, steps_per_epoch=epoch, shuffle=False, verbose=0),
    }
    for step in steps.values():
        step()
    times = in_turns(rounds, **steps)
    dtype = keras.DTypePolicy(precision).compute_dtype
    work = 3 * 32 * convolution_flops(ours)
    limit = matrix_rate(dtype)
    show("training step of 32, plain Keras in float32", f"{times['plain']:.2f} s")
    show(
        f"training step of 32, ours in {precision}",
        f"{times['ours']:.2f} s",
        times["plain"] / times["ours"],
        ">= 1.8 where bfloat16 is in hardware",
    )
    show(f"  its arithmetic, of a matrix product's in {dtype}", f"{limit / 1e9:,.0f} GFLOP/s")
    show(
        "  share of that",
        f"{work / times['ours'] / 1e9:,.0f} GFLOP/s",
        work / times["ours"] / limit,
    )
    show(
        f"an epoch of {epoch} steps, time over theirs",
        f"{times['epoch']:.2f} s",
        times["epoch"] / epoch / times["ours"],
        "<= 1.05",
    )


# --- Prediction -------------------------------------------------------------------------------


def plain_prediction(photographs: list[Path], car: Image.Image, out: Path) -> None:
    """Predict as the common kits do, the network taken out: one image after the other, a list."""
    rows = []
    for path in photographs:
        with Image.open(path) as picture:
            np.asarray(picture.resize((128, 128)), np.float32) / 255
        probability = car.resize((WIDTH, HEIGHT), Image.BILINEAR)
        mask = np.asarray(probability) > 0.5
        pixels = np.concatenate([[0], mask.ravel(), [0]])
        runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
        runs[1::2] -= runs[::2]
        rows.append((path.name, " ".join(str(run) for run in runs)))
    pd.DataFrame(rows, columns=HEADER).to_csv(out, index=False, compression="gzip")


def bench_prediction(paths: Paths, count: int, rounds: int, folder: Path) -> None:
    recipe = load_recipe("blog")
    images = folder / "images"
    images.mkdir()
    there = itertools.cycle(sorted(paths.test.resolve().glob("*.jpg")))  # a small extract repeats
    for number, path in zip(range(count), there, strict=False):
        (images / f"{number:06}.jpg").symlink_to(path)
    photographs = sorted(images.iterdir())
    drawn = np.zeros((128, 128), np.float32)  # with a car's runs, which no untrained network has
    cv2.ellipse(drawn, (64, 70), (45, 30), 0, 0, 360, 1.0, cv2.FILLED)
    car = tf.constant(drawn[None, ..., None])
    own = build_network(recipe, choose_precision("auto"))

    def model(network: Callable) -> Model:
        return Model(Run(recipe=recipe, networks=(network,)))

    without = model(lambda batch, training: car + 0 * batch[..., :1])
    whole = model(lambda batch, training: car + 1e-6 * own(batch, training=training))
    out = folder / "s.csv.gz"
    batches = [tf.random.uniform((recipe.prediction.batch_size, 128, 128, 3))] * -(
        -len(photographs) // recipe.prediction.batch_size
    )
    network = tf.function(lambda batch: own(batch, training=False))
    network(batches[0])
    times = in_turns(
        rounds,
        plain=lambda: plain_prediction(photographs, Image.fromarray(drawn), out),
        without=lambda: write_submission(without, images, out),
        whole=lambda: write_submission(whole, images, out),
        network=lambda: [network(batch).numpy() for batch in batches],
    )
    rate = {name: f"{len(photographs) / seconds:,.1f} images/s" for name, seconds in times.items()}
    show("disk to CSV without the network, plain", rate["plain"])
    show(
        "disk to CSV without the network, ours",
        rate["without"],
        times["plain"] / times["without"],
        ">= 3",
    )
    show("the network alone (blog, 31 M parameters)", rate["network"])
    show(
        "disk to CSV with the network: time over the network's alone",
        rate["whole"],
        times["whole"] / times["network"],
        "<= 1.1 where the network is the limit",
    )


# --- Scoring ----------------------------------------------------------------------------------


def full_decode_score(pairs: list[tuple[str, str]]) -> float:
    """Score by decoding every mask to pixels."""
    values = []
    for found, true in pairs:
        a, b = (rle.decode(runs, HEIGHT, WIDTH) for runs in (found, true))
        values.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(values))


def bench_scoring(paths: Paths, folder: Path, count: int = TEST_IMAGES) -> None:
    rows = [cells for _, cells in read_rows(paths.root / "solution.csv")][1:]
    names = [f"{number:012x}_01.jpg" for number in range(count)]
    truth, found, sample = (folder / f"{name}.csv.gz" for name in ("truth", "found", "sample"))
    for path, shift in ((truth, 0), (found, 1), (sample, 0)):
        with gzip.open(path, "wt", compresslevel=1, newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            for number, name in enumerate(names):
                runs = "1 1" if path == sample else rows[(number + shift) % len(rows)][1]
                writer.writerow((name, runs))
    pairs = [(rows[(i + 1) % len(rows)][1], rows[i][1]) for i in range(min(len(rows), 64))]
    decoded = in_turns(3, decoded=lambda: full_decode_score(pairs))["decoded"] / len(pairs) * count
    times = in_turns(
        1,
        score=lambda: score(found, truth),
        validate=lambda: validate(found, sample),
    )
    show(f"score {count:,} rows by decoding them (from 64 rows)", f"{decoded:,.0f} s")
    show(
        f"score {count:,} rows, ours",
        f"{times['score']:,.0f} s",
        decoded / times["score"],
        "< 180 s",
    )
    show(f"validate {count:,} rows, ours", f"{times['validate']:,.0f} s", None, "< 180 s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--count", type=int, default=480, help="photographs a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["input", "training", "prediction", "scoring"])
    options = parser.parse_args()
    paths = Paths(options.data)
    print(f"{os.cpu_count()} cores, {choose_precision('auto')}, TensorFlow {tf.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for part in (paths.train, paths.train_masks):  # beside a cache of its own
            (scratch / part.name).symlink_to(part.resolve())
        benches = {
            "input": lambda: bench_input(Paths(scratch), options.count, options.rounds),
            "training": lambda: bench_training(Paths(scratch), options.rounds),
            "prediction": lambda: bench_prediction(paths, options.count, options.rounds, scratch),
            "scoring": lambda: bench_scoring(paths, scratch),
        }
        for name, bench in benches.items():
            if options.only in (None, name):
                bench()


if __name__ == "__main__":
    main()
