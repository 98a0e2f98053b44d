"""A tiny competition of drawn shapes a run trained on it, a mock server, the real data."""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image, ImageDraw

from kaggle_fixtures import write_served

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from carvana.competition import rle
from carvana.competition.facts import Paths
from carvana.data.pairs import Pair
from carvana.data.prepared import prepare, read_prepared
from carvana.kaggle import client, submit
from carvana.prediction.model import Model, load
from carvana.recipe import Recipe, load_recipe
from carvana_sandbox.faults import Fault
from carvana_sandbox.server import Sandbox

REAL = Path(__file__).parents[2] / "shared" / "carvana-mini"
# Jobs in the background of a script ignore Ctrl-C, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
WIDTH, HEIGHT = 150, 100  # of the tiny photographs
DATA = load_recipe("blog").data  # the competition's layout
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
    "model.encoder_levels=0",
    "prediction.flip=true",
    "training.batch_size=8",
    "training.epochs=3",
    "training.stages=[0.67]",
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


class DrawnPaths(Paths):
    """Where the files of the tiny competition lie, those of a training photograph too."""

    def image(self, name: str) -> Path:
        return self.train / name

    def mask(self, name: str) -> Path:
        return self.train_masks / f"{Path(name).stem}_mask.gif"


def write_competition(root: Path, cars: int = 5, views: int = 4) -> DrawnPaths:
    """Write training cars, two test cars, their truth and a sample submission."""
    paths = DrawnPaths(root)
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


def prepare_and_read(
    pairs: list[Pair], paths: Paths, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """What a network sees of pairs, decoded, resized and read back: images and masks."""
    files = prepare(pairs, paths.cache, recipe)
    pictures = np.stack([read_prepared(file, recipe) for file in files])
    return pictures[..., :3], pictures[..., 3:]


def probabilities(model: Model, photographs: list[Path]) -> np.ndarray:
    return np.array([probability for _, probability in model.predict(photographs)])


def press_ctrl_c(process: subprocess.Popen) -> tuple:
    """Press Ctrl-C, once more if nothing happens, and return what `communicate` returns.

    Python ignores an interrupt that falls into a weakref callback.
    """
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=10)
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory) -> None:
    """Keep the user's cache out of the tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiny(tmp_path) -> DrawnPaths:
    return write_competition(tmp_path / "data")


@pytest.fixture
def eagerly():
    """Compute step by step: tracing the graph of a pyramid takes longer than tiny trainings."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[Paths, Path]:
    """A tiny competition and a run that has learnt it a little. Tests change copies of the run."""
    from carvana.training.train import train  # here: it imports TensorFlow

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one training serves all of them
        root = root.parent
    paths, run = Paths(root / "trained" / "data"), root / "trained" / "run"
    with FileLock(root / "trained.lock"):
        if not (run / "metrics.json").exists():
            shutil.rmtree(root / "trained", ignore_errors=True)  # of a worker that was killed
            write_competition(paths.root)
            changes = ["training.epochs=40", "training.learning_rate=0.004"]
            train(load_recipe("blog", [*TINY, *changes]), paths.root, run)
    return paths, run


@pytest.fixture(scope="session")
def model(trained) -> Model:
    """The model of that run."""
    return load(trained[1])


@pytest.fixture
def predicted(monkeypatch):
    """A list that grows with the name of each photograph that is predicted."""
    names, load = [], Model._load

    def counted(self, photograph, turns):
        names.append(photograph.name)
        return load(self, photograph, turns)

    monkeypatch.setattr(Model, "_load", counted)
    return names


@pytest.fixture(scope="session")
def many(trained, model, tmp_path_factory) -> tuple[Path, Path]:
    """A folder of 40 photographs, and their submission, made in one go."""
    from carvana.prediction.submission import write_submission

    folder = tmp_path_factory.mktemp("many") / "images"
    folder.mkdir()
    photographs = sorted(trained[0].test.iterdir())
    for number in range(40):
        shutil.copy(photographs[number % 8], folder / f"p_{number:02}.jpg")
    write_submission(model, folder, folder.with_name("s.csv.gz"))
    return folder, folder.with_name("s.csv.gz")


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> tuple[Path, list]:
    """That run as LiteRT, and the rows of its check. Tests change copies of the folder."""
    from carvana.export.check import export

    paths, run = trained
    out = tmp_path_factory.mktemp("exported") / "out"
    return out, export(run, out, "litert", photographs=sorted(paths.test.iterdir())[:4])


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of the competition's own photographs."""
    if not REAL.is_dir():
        pytest.skip(f"the real photographs are not at {REAL}")
    return REAL


@pytest.fixture
def paths(tmp_path) -> Paths:
    """Where a data folder will be."""
    return Paths(tmp_path / "data")


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Path:
    """The files that the mock server serves."""
    return write_served(tmp_path_factory.mktemp("served") / "competition")


@pytest.fixture(scope="session")
def kaggle_client(served) -> None:
    """Import the official client, which reads once where Kaggle is, and asks it something."""
    with Sandbox(served) as kaggle, pytest.MonkeyPatch.context() as patch:
        for name, value in kaggle.environment().items():
            patch.setenv(name, value)
        from kaggle.api.kaggle_api_extended import KaggleApi

        assert "--local" in KaggleApi.args, "another test imported kaggle for the real Kaggle"


@pytest.fixture
def sandbox(served, monkeypatch, kaggle_client):
    """Start mock servers; the official client of this process talks to the last one."""
    monkeypatch.setattr(client, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(submit, "POLL_SECONDS", 0.05)
    with contextlib.ExitStack() as stack:

        def start(*faults: str, folder: Path = served, pending_seconds: float = 0.1) -> Sandbox:
            misbehaviour = [Fault.parse(fault) for fault in faults]
            started = stack.enter_context(
                Sandbox(folder, faults=misbehaviour, pending_seconds=pending_seconds)
            )
            for name, value in started.environment().items():
                monkeypatch.setenv(name, value)
            return started

        yield start
