"""Trained weights small enough to ship: one `.npz` file, recipe included."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from carvana.encoder import ENCODER
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing
from carvana.predict import Run, at_prediction_sizes
from carvana.recipe import parse_recipe, to_toml
from carvana.train import build_network, choose_precision


def save_weights(run: Run, path: Path) -> None:
    """Write a run's weights to `path`: convolutions as float16, the rest as float32.

    Those of a pretrained encoder are left out: the package they came in holds them.

    Raises:
        UsageError: `path` does not end in .npz.
        CarvanaError: the run's model is not its recipe's, a weight is more than float16 holds, or
            the file cannot be written.
    """
    if path.suffix != ".npz":
        raise UsageError(f"{path}: a file of weights ends in .npz")
    model = run.models[0]
    shapes = [[weight.shape for weight in m.weights] for m in (model, build_network(run.recipe))]
    if shapes[0] != shapes[1]:
        raise CarvanaError(
            f"{path}: the run's model is not the network its recipe tells of; train again"
        )
    arrays = {"recipe": np.array(to_toml(run.recipe))}
    for number, variable in enumerate(_own_variables(model)):
        weight = variable.numpy()
        with np.errstate(over="ignore"):
            stored = weight.astype(np.float16) if weight.ndim > 1 else weight
        if not np.isfinite(stored).all():
            raise CarvanaError(f"{path}: {variable.path} holds more than float16 can; train again")
        arrays[f"{number:03}"] = stored
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load_weights(name_or_path: str) -> Run:
    """Load weights the kit ships (`sharp`), or those of a `.npz` file.

    Raises:
        UsageError: no such weights.
        CarvanaError: the file is not one `save_weights` wrote, or a package it needs is missing.
    """
    shipped = Path(__file__).parent / "shipped"
    path = Path(name_or_path) if name_or_path.endswith(".npz") else shipped / f"{name_or_path}.npz"
    if not path.is_file():
        names = sorted(file.stem for file in shipped.glob("*.npz"))
        raise UsageError(
            f"weights '{name_or_path}': there are none of this name; there are "
            f"{', '.join(names)}, or give the path of an .npz file"
        )
    fault = (
        f"{path}: is not a file of weights, is cut short, or is another version's; fetch it again"
    )
    try:
        with np.load(path) as arrays:
            recipe = parse_recipe(str(arrays["recipe"]), str(path))
            numbered = sorted(name for name in arrays.files if name != "recipe")
            weights = [arrays[name].astype(np.float32) for name in numbered]
        if not all(np.isfinite(weight).all() for weight in weights):
            raise ValueError("not numbers")
        keras.mixed_precision.set_global_policy(choose_precision(recipe.training.precision))
        model = build_network(recipe)
        for variable, weight in zip(_own_variables(model), weights, strict=True):
            variable.assign(weight)
    except (CarvanaError, MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:  # NumPy raises whatever the broken part raised
        raise CarvanaError(fault) from error
    return Run(recipe, at_prediction_sizes(recipe, model), (path,))


def _own_variables(model: keras.Model) -> list[keras.Variable]:
    """Return a network's variables in order, without those of its pretrained encoder."""
    layers = list(model.layers)
    for layer in layers:  # and, as they are added, those of the models among them
        layers += getattr(layer, "layers", [])
    foreign = {id(v) for layer in layers if layer.name == ENCODER for v in layer.weights}
    return [variable for variable in model.weights if id(variable) not in foreign]
