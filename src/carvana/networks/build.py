"""The networks a recipe can name: built with fresh weights, or loaded from a file.

A network is one module: its settings, which are the recipe's [model] section and are read without
Keras, and its builder. Settings have

- `step`: what both sides of the input must be divisible by;
- `pictures`: how many sizes of the picture the network reads, 1 for most. Training can start with
  the smaller ones alone (`training.stages`), through `part(network, pictures)`;
- `build(input_shape, outputs)`: the network, a `keras.Model` from pictures in [0, 1] to
  probabilities: of one class (1 output), or of exclusive classes.
"""

import platform
import re
from pathlib import Path

from carvana.backend import keras, keras_settings, layer_seeds, tf
from carvana.errors import CarvanaError, plural
from carvana.machine import cores, cpuinfo
from carvana.networks import ENCODER, HEAD
from carvana.networks.pyramid import PyramidUnet
from carvana.networks.unet import Unet
from carvana.recipe import Input, Recipe

NETWORKS = {  # by the name that model.network gives
    "unet": Unet,
    "pyramid_unet": PyramidUnet,
}


def build_network(
    recipe: Recipe, precision: str, pictures: Input | None = None, seed: int | None = None
) -> "keras.Model":
    """Build a recipe's network with fresh weights, by `seed`, under a Keras dtype policy.

    It takes pictures of the size trained on, or of that of `pictures`.
    """
    pictures = pictures or recipe.input
    with keras_settings(precision), layer_seeds(seed):
        return recipe.model.build((pictures.height, pictures.width, 3), recipe.data.outputs)


def load_network(
    path: Path, training_precision: str | None = None, seed: int | None = None
) -> "keras.Model":
    """Load a run's `.keras` file.

    Args:
        path: the file.
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


def choose_precision(wanted: str) -> str:
    """Return the Keras dtype policy for "auto": the fastest that this hardware computes safely.

    bfloat16 where the processor or GPU is faster at it, float16 (Keras scales the loss) on GPUs
    with tensor cores but no bfloat16, else float32. Of processors, those with AMX, and AMD's with
    AVX-512 BF16; Intel's without AMX do no more products a second in bfloat16 than in float32.
    """
    if wanted != "auto":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        major, _ = details.get("compute_capability", (0, 0))
        return {7: "mixed_float16"}.get(major, "mixed_bfloat16" if major >= 8 else "float32")
    processor = cpuinfo()
    faster = "amx_bf16" in processor or ("avx512_bf16" in processor and "AuthenticAMD" in processor)
    return "mixed_bfloat16" if faster else "float32"


def describe_device() -> str:
    """Name what networks run on: `2 GPUs (NVIDIA A100)`, or `CPU, 2 cores (AMD EPYC)`."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "unknown")
        return f"{plural(len(gpus), 'GPU')} ({name})"
    name = re.search(r"^model name\s*: (.*)", cpuinfo(), re.MULTILINE)
    return f"CPU, {cores()} cores ({name[1].strip() if name else platform.machine()})"


def all_layers(network: "keras.Model") -> list["keras.layers.Layer"]:
    """Return a network's layers and, recursively, those of the models among them."""
    layers = list(network.layers)
    for layer in layers:  # which grows
        layers += getattr(layer, "layers", [])
    return layers


def own_variables(network: "keras.Model") -> list["keras.Variable"]:
    """Return a network's variables in order, without those of its pretrained encoder."""
    encoders = (layer for layer in all_layers(network) if layer.name == ENCODER)
    foreign = {id(variable) for encoder in encoders for variable in encoder.weights}
    return [variable for variable in network.weights if id(variable) not in foreign]


def is_head(variable: "keras.Variable") -> bool:
    """Tell whether a variable is of a layer that gives logits."""
    return HEAD in variable.path.split("/")
