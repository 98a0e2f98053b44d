"""The networks a recipe can name, and the precision they compute in.

A network is one module: its settings, which are the recipe's [model] section and are read without
Keras, and its builder. Settings have

- `step`: what both sides of the input must be divisible by;
- `pictures`: how many sizes of the picture the network reads, 1 for most. Training can start with
  the smaller ones alone (`training.stages`), through `part(network, pictures)`;
- `build(input_shape, outputs)`: the network, a `keras.Model` from pictures in [0, 1] to
  probabilities: of one class (1 output), or of exclusive classes.
"""

import platform
from pathlib import Path

from carvana.backend import keras, tf
from carvana.machine import cores
from carvana.networks.pyramid import PyramidUnet
from carvana.networks.unet import Unet

NETWORKS = {  # by the name that model.network gives
    "unet": Unet,
    "pyramid_unet": PyramidUnet,
}


def choose_precision(wanted: str) -> str:
    """Return the Keras dtype policy for "auto": the fastest that this hardware computes safely.

    bfloat16 where the processor or GPU has it, float16 (Keras scales the loss) on GPUs with
    tensor cores but no bfloat16, else float32.
    """
    if wanted != "auto":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        major, _ = details.get("compute_capability", (0, 0))
        return {7: "mixed_float16"}.get(major, "mixed_bfloat16" if major >= 8 else "float32")
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def precision_of(network: "keras.Model") -> str:
    """Return the dtype policy a network was built under."""
    layers = list(network.layers)
    for layer in layers:  # and, as they are added, those of the networks among them
        layers += getattr(layer, "layers", [])
    policies = {x.dtype_policy.name for x in layers if isinstance(x, keras.layers.Conv2D)}
    return next(iter(policies - {"float32"}), "float32")


def describe_device() -> str:
    """Name what networks run on: `2 GPUs (NVIDIA A100)`, or `CPU, 2 cores (AMD EPYC)`."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "unknown")
        return f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''} ({name})"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"CPU, {cores()} cores ({next(names, platform.machine())})"
