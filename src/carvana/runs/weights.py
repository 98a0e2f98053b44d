"""Weights: small `.npz` files, those that ship with the kit, and what a training starts from."""

import contextlib
import csv
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from carvana.backend import keras, tf
from carvana.competition.facts import car_of
from carvana.data.split import names_in
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing
from carvana.networks.build import build_network, own_variables
from carvana.recipe import Recipe, parse_recipe, to_toml
from carvana.runs.folder import SPLIT, usual_key

SHIPPED = Path(__file__).parents[1] / "shipped"  # weights that come with the kit
CARS = SHIPPED / "cars.csv"  # which of them was trained on which cars


def shipped_names() -> list[str]:
    """Return the names of the weights that come with the kit."""
    return sorted(file.stem for file in SHIPPED.glob("*.npz"))


def find_source(source: str | Path) -> Path:
    """Return the run folder or file of weights that a model is loaded from.

    Raises:
        UsageError: there is nothing of this name, or it is not a path.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise UsageError(
            f"cannot load an object of type {type(source).__name__}; give the path of a run, "
            "an .npz file, the name of shipped weights, or a list of those"
        )
    path = Path(source)
    by_name = isinstance(source, str) or not path.is_dir()
    if by_name and str(path) in shipped_names():
        return SHIPPED / f"{path}.npz"
    if path.is_dir() or (path.suffix == ".npz" and path.is_file()):
        return path
    raise UsageError(
        f"{source}: no such run or weights; give a run's folder, an .npz file, or one of "
        f"{', '.join(shipped_names())}"
    )


def read_recipe(path: Path) -> tuple[Recipe, float | None]:
    """Read the recipe that a file of weights was trained by, and how sure its masks usually are.

    Raises:
        CarvanaError: it is not a file of weights.
    """
    with _readable(path), np.load(path) as arrays:
        recipe = parse_recipe(str(arrays["recipe"]), str(path))
        key = usual_key(recipe)
        return recipe, float(arrays[key]) if key in arrays else None


def read_weights(path: Path, recipe: Recipe, precision: str) -> "keras.Model":
    """Build a recipe's network with the weights in a file.

    Raises:
        CarvanaError: it is not a file of weights, or not one of this recipe.
    """
    with _readable(path):
        with np.load(path) as arrays:
            numbered = sorted(filter(str.isdecimal, arrays.files), key=int)
            weights = [arrays[name].astype(np.float32) for name in numbered]
        if not all(np.isfinite(weight).all() for weight in weights):
            raise ValueError("not numbers")
        network = build_network(recipe, precision)
        for variable, weight in zip(own_variables(network), weights, strict=True):
            variable.assign(weight)
        return network


def write_weights(path: Path, recipe: Recipe, network: "keras.Model", usual: float | None) -> None:
    """Write weights to a small file: convolutions as float16, the rest as float32.

    Those of a pretrained encoder are left out, as the kit ships them in one file of their own.

    `usual` is how sure its masks usually are, where it is known.

    Raises:
        UsageError: `path` does not end in .npz.
        CarvanaError: the network is not the recipe's, a weight is more than float16 holds,
            or the file cannot be written.
    """
    if path.suffix != ".npz":
        raise UsageError(f"{path}: a weights file must end in .npz")
    fresh = build_network(recipe, "float32")
    if [w.shape for w in network.weights] != [w.shape for w in fresh.weights]:
        raise CarvanaError(f"{path}: the run's model does not match its recipe; train again")
    arrays = {"recipe": np.array(to_toml(recipe))}
    if usual is not None:
        arrays[usual_key(recipe)] = np.array(usual)
    for number, variable in enumerate(own_variables(network)):
        weight = variable.numpy()
        with np.errstate(over="ignore"):
            stored = weight.astype(np.float16) if weight.ndim > 1 else weight
        if not np.isfinite(stored).all():
            raise CarvanaError(f"{path}: {variable.path} holds more than float16 can; train again")
        arrays[f"{number:03}"] = stored
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **arrays)


@contextlib.contextmanager
def _readable(path: Path):
    try:
        yield
    except (CarvanaError, MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:  # NumPy raises whatever the broken part raised
        raise CarvanaError(
            f"{path}: is not a weights file, is cut short, or belongs to another version of the "
            "kit; fetch it again"
        ) from error


def trained_on(source: str, names: Iterable[str]) -> list[str]:
    """Return those photographs, by name, that a run or shipped weights had to train on.

    Empty where that is not on record, as of other files of weights. What a run started from itself
    does not count.
    """
    path = find_source(source)
    if path.is_dir():
        known = set()
        with contextlib.suppress(CarvanaError):  # no split, or not one: it is not needed to start
            known = names_in(path / SPLIT, "train")
        return [name for name in names if name in known]
    if path.resolve().parent != SHIPPED.resolve():
        return []
    with CARS.open(newline="", encoding="utf-8") as file:
        cars = {row["car"] for row in csv.DictReader(file) if row.get(path.stem) == "train"}
    return [name for name in names if car_of(name) in cars]
