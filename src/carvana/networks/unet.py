"""The U-Net of the published recipe, in one line: `model = unet((128, 128, 3))`."""

from typing import Annotated, Literal

from pydantic import Field

from carvana.backend import keras, keras_settings
from carvana.networks import HEAD
from carvana.recipe import Filters, section


@section
class Unet:
    """The published U-Net: a recipe's [model] with network = "unet". See `build.py`."""

    network: Literal["unet"]
    filters: Filters
    num_layers: Annotated[int, Field(ge=1, le=8)]
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @property
    def step(self) -> int:
        return 2**self.num_layers

    @property
    def pictures(self) -> int:
        return 1

    def build(self, input_shape: tuple[int, int, int], outputs: int = 1) -> "keras.Model":
        activation = "sigmoid" if outputs == 1 else "softmax"
        return unet(input_shape, outputs, self.dropout, self.filters, self.num_layers, activation)


def _block(x, filters: int):
    """Convolve twice: 3x3, same padding, ReLU, He-normal weights, no normalisation."""
    for _ in range(2):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal"
        )(x)
    return x


def unet(
    input_shape: tuple[int, int, int],
    num_classes: int = 1,
    dropout: float = 0.5,
    filters: int = 64,
    num_layers: int = 4,
    output_activation: str = "sigmoid",
) -> "keras.Model":
    """Build the published U-Net.

    Source: Ronneberger et al., "U-Net" (2015), in the form of the R package `unet` that the
    published recipe trains.

    Args:
        input_shape: (height, width, channels); height and width divisible by 2**num_layers.
        num_classes: channels of the output, 1 for a mask.
        dropout: the rate after the last pooling, 0 to 1 (1 excluded).
        filters: filters of the first block; they double at each level down.
        num_layers: levels of pooling, at least 1.
        output_activation: "sigmoid" for independent classes, "softmax" for exclusive ones.

    Returns:
        A `keras.Model` from (batch, height, width, channels) in [0, 1] to float32 probabilities
        (batch, height, width, num_classes). For (128, 128, 3): 31,031,745 parameters.

    Raises:
        ValueError: a size is not divisible by 2**num_layers, or a count is below 1.

    Example:
        >>> unet((128, 128, 3)).count_params()
        31031745
    """
    height, width, channels = input_shape
    step = 2**num_layers
    if min(channels, num_classes, filters, num_layers) < 1:
        raise ValueError("unet: channels, num_classes, filters and num_layers must be at least 1")
    for side, size in (("height", height), ("width", width)):
        if size < step or size % step:
            below = max(size // step, 1) * step
            raise ValueError(
                f"unet: input {side} {size} is not divisible by {step} (2**num_layers); "
                f"use {below} or {below + step}, or change num_layers"
            )

    with keras_settings(keras.config.dtype_policy()):  # channels last, whatever keras.json says
        x = inputs = keras.Input(input_shape)
        skips = []
        for level in range(num_layers):
            x = _block(x, filters * 2**level)
            skips.append(x)
            x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.Dropout(dropout)(x)
        x = _block(x, filters * 2**num_layers)
        for level in reversed(range(num_layers)):
            x = keras.layers.Conv2DTranspose(filters * 2**level, 2, strides=2, padding="same")(x)
            x = keras.layers.Concatenate()([skips[level], x])
            x = _block(x, filters * 2**level)
        if keras.config.dtype_policy().compute_dtype == "float32":
            x = keras.layers.Conv2D(num_classes, 1, activation=output_activation, name=HEAD)(x)
        else:  # as TensorFlow's guide to mixed precision: probabilities in float32, not logits
            x = keras.layers.Conv2D(num_classes, 1, name=HEAD)(x)
            x = keras.layers.Activation(output_activation, dtype="float32")(x)
        return keras.Model(inputs, x, name="unet")
