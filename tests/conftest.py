"""A tiny competition of drawn shapes, and where the real photographs are, if they are."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from carvana import pipeline, rle
from carvana.competition import Paths

REAL = Path(__file__).parents[2] / "shared" / "carvana-mini"
WIDTH, HEIGHT = 150, 100  # of the tiny photographs
TINY = [  # a recipe that trains in seconds
    "input.height=32",
    "input.width=32",
    "model.filters=4",
    "model.num_layers=2",
    "training.batch_size=8",
    "training.epochs=2",
    "training.learning_rate=0.001",
    "training.precision=float32",
]

TINY_PYRAMID = [  # the same of `sharp`
    "input.height=32",
    "input.width=48",
    "data.validation=0.2",
    "model.filters=[20, 24]",
    "model.fine_filters=[18]",
    "training.batch_size=8",
    "training.epochs=3",
    "training.coarse=[0.67]",
    "training.precision=float32",
]


def draw_car(car: int, view: int) -> tuple[Image.Image, Image.Image]:
    """Draw a dark ellipse on a light ground: a photograph and its mask."""
    rng = np.random.default_rng([car, view])
    noise = rng.integers(180, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image, mask = Image.fromarray(noise), Image.new("P", (WIDTH, HEIGHT), 0)
    mask.putpalette([0, 0, 0, 255, 255, 255])
    left, top = (int(v) for v in rng.integers(10, 40, 2))
    box = (left, top, left + 90, top + 50)
    ImageDraw.Draw(image).ellipse(box, fill=tuple(int(v) for v in rng.integers(0, 90, 3)))
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    return image, mask


def write_competition(root: Path, cars: int = 5, views: int = 4) -> Paths:
    """Write training cars, two test cars, their truth and a sample submission."""
    paths = Paths(root)
    for folder in (paths.train, paths.train_masks, paths.test):
        folder.mkdir(parents=True)
    truth = []
    for car in range(cars + 2):
        for view in range(1, views + 1):
            name = f"car{car}_{view:02}.jpg"
            image, mask = draw_car(car, view)
            if car < cars:
                image.save(paths.image(name), quality=90)
                mask.save(paths.mask(name))
            else:
                image.save(paths.test / name, quality=90)
                truth.append((name, rle.encode(np.asarray(mask)), "Public"))
    with (root / "solution.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("img", "rle_mask", "Usage"), *truth])
    with paths.sample_submission.open("w", newline="") as file:
        csv.writer(file).writerows([("img", "rle_mask"), *((row[0], "1 1") for row in truth)])
    return paths


def prepared(names, paths, settings):
    """What a network sees of pairs, decoded, resized and read back: images and masks."""
    files = pipeline.prepare(names, paths, settings)
    pairs = np.stack([pipeline.read_prepared(file, settings) for file in files])
    return pairs[..., :3], pairs[..., 3:]


@pytest.fixture
def tiny(tmp_path) -> Paths:
    return write_competition(tmp_path / "data")


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of the competition's own photographs."""
    if not REAL.is_dir():
        pytest.skip(f"the real photographs are not at {REAL}")
    return REAL
