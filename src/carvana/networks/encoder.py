"""EfficientNet-Lite2, pretrained on ImageNet and frozen: features for a network."""

from pathlib import Path

import numpy as np

from carvana.backend import keras
from carvana.errors import CarvanaError
from carvana.networks import ENCODER

WEIGHTS = Path(__file__).parent / "efficientnet_lite2.npz"  # its card is beside it
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
        4, 8, 16, 32 and of 24, 48, 120, 352 channels.

    Raises:
        CarvanaError: the file of weights is absent or broken.
    """
    weights = _read_weights()
    inputs = keras.Input(input_shape)
    # (255 x - 127) / 128, as the network was trained.
    x = keras.layers.Rescaling(255 / 128, -127 / 128)(inputs)
    x = keras.layers.ReLU(6)(_convolve(x, weights, "stem", strides=2))
    features = []
    for number, (_, strides, expansion, filters) in enumerate(BLOCKS[: LAST[levels - 1] + 1]):
        y = x
        if expansion > 1:
            y = keras.layers.ReLU(6)(_convolve(y, weights, f"{number}.expand"))
        y = keras.layers.ReLU(6)(_convolve(y, weights, f"{number}.depthwise", strides))
        y = _convolve(y, weights, f"{number}.project")
        x = keras.layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y
        if number in LAST:
            features.append(x)
    encoder = keras.Model(inputs, features, name=ENCODER)
    encoder.trainable = False
    return encoder


def _read_weights() -> dict[str, np.ndarray]:
    """Read float32 kernels and biases, as "stem.kernel", "stem.bias" and "0.depthwise.kernel"."""
    try:
        with np.load(WEIGHTS) as arrays:
            return dict(arrays)
    except Exception as error:  # NumPy raises whatever the broken part raised
        raise CarvanaError(
            f"{WEIGHTS}: cannot be read, though it comes with the kit; install the kit again"
        ) from error


def _convolve(x, weights: dict[str, np.ndarray], name: str, strides: int = 1):
    kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]
    size = kernel.shape[0]
    if name.endswith("depthwise"):
        layer = keras.layers.DepthwiseConv2D(size, strides=strides, padding="same")
    else:
        layer = keras.layers.Conv2D(len(bias), size, strides=strides, padding="same")
    x = layer(x)
    layer.set_weights([kernel, bias])
    return x
