"""Keras models of a recipe: built with fresh weights, or loaded from a file."""

from pathlib import Path

from carvana.backend import keras, keras_settings, layer_seeds, tf
from carvana.errors import CarvanaError
from carvana.networks.names import ENCODER, HEAD
from carvana.recipe import Input, Recipe


def build_network(
    recipe: Recipe, precision: str, pictures: Input | None = None, seed: int | None = None
) -> "keras.Model":
    """Build a recipe's network with fresh weights.

    Args:
        recipe: whose network.
        precision: a Keras dtype policy.
        pictures: the size it takes; the size trained on when None.
        seed: of the weights and of dropout.
    """
    pictures = pictures or recipe.input
    with keras_settings(precision), layer_seeds(seed):
        return recipe.model.build((pictures.height, pictures.width, 3), recipe.data.outputs)


def load_network(
    path: Path, training_precision: str | None = None, seed: int | None = None
) -> "keras.Model":
    """Load a saved network.

    Args:
        path: a run's `.keras` file.
        training_precision: the dtype policy to train on under, with the optimizer's state; None
            to predict, without an optimizer.
        seed: that it was built with, from which dropout draws again; Keras saves none.

    Raises:
        CarvanaError: absent, cut short, or not a Keras model.
    """
    import carvana.networks.layers  # noqa: F401 - registers them

    if not path.is_file():
        raise CarvanaError(f"{path}: no such model; run `carvana train` first")
    try:
        with keras_settings(training_precision or "float32"), layer_seeds(seed):
            return keras.saving.load_model(path, compile=training_precision is not None)
    except (CarvanaError, MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except PermissionError as error:
        raise CarvanaError(
            f"{path}: cannot be read ({error.strerror}); change its permissions"
        ) from error
    except Exception as error:  # Keras raises whatever the broken part raised
        raise CarvanaError(
            f"{path}: is not a readable Keras model; restore it or delete it and train again"
        ) from error


def own_variables(network: "keras.Model") -> list["keras.Variable"]:
    """Return a network's variables in order, without those of its pretrained encoder."""
    layers = list(network.layers)
    for layer in layers:  # and, as they are added, those of the models among them
        layers += getattr(layer, "layers", [])
    foreign = {id(v) for layer in layers if layer.name == ENCODER for v in layer.weights}
    return [variable for variable in network.weights if id(variable) not in foreign]


def is_head(variable: "keras.Variable") -> bool:
    """Tell whether a variable is of a layer that gives logits."""
    return HEAD in variable.path.split("/")
