"""A U-Net on an image pyramid: context from a small picture, edges from the large one."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from carvana.backend import keras
from carvana.networks.encoder import imagenet_encoder
from carvana.networks.names import HEAD
from carvana.recipe import Filters, section

STEM = 4  # pixels a side that become channels, on the way in and on the way out


@section
class PyramidUnet:
    """The U-Net on a pyramid: a recipe's [model] with network = "pyramid_unet"."""

    network: Literal["pyramid_unet"]
    filters: Annotated[list[Filters], Field(min_length=1, max_length=8)]
    fine_filters: Annotated[list[Filters], Field(max_length=4)]
    encoder_levels: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _encoder_has_pictures(self):
        if self.encoder_levels > self.pictures:
            raise ValueError(
                f"encoder_levels = {self.encoder_levels}: this network reads {self.pictures} "
                "sizes of the picture; give that many or fewer"
            )
        return self

    @property
    def step(self) -> int:
        """What both sides of the input must be divisible by."""
        return pyramid_step(len(self.filters), len(self.fine_filters))

    @property
    def pictures(self) -> int:
        """How many sizes of the picture it reads, each half the next."""
        return len(self.fine_filters) + 1

    def build(self, input_shape: tuple[int, int, int], outputs: int = 1) -> "keras.Model":
        """Build the network, untrained, for pictures of (height, width, channels)."""
        return pyramid_unet(
            input_shape, self.filters, self.fine_filters, self.encoder_levels, outputs
        )

    def part(self, network: "keras.Model", pictures: int) -> "keras.Model":
        """Return the part that reads the smallest `pictures` sizes, weights shared."""
        return coarse_part(network, without=self.pictures - pictures)


def pyramid_unet(
    input_shape: tuple[int, int, int],
    filters: tuple[int, ...] = (48, 96, 160, 224),
    fine_filters: tuple[int, ...] = (32,),
    encoder_levels: int = 0,
    num_classes: int = 1,
) -> "keras.Model":
    """Build a U-Net that reads a picture at several sizes, each half the next.

    The coarse U-Net reads the smallest picture: 4x4 pixels become channels, so that its first
    level works at a quarter of the picture's sides. Each fine level reads a picture twice as
    large in the same way, takes in the features of the level below, and adds a correction to its
    logits. Corrections start at zero, so the network predicts as soon as its coarse part does:
    `coarse_part(model)` can be trained first, at a fraction of the cost.

    A frozen pretrained encoder reads the smallest pictures too. Its features of the smallest are
    added to those of the U-Net's first four levels, at the same strides. Its features of a larger
    picture, at strides 4, 8 and 16, are summed as in a feature pyramid (Lin et al., 2017) and
    added to those of that fine level.

    Args:
        input_shape: (height, width, channels) of the largest picture, both sides divisible by
            `pyramid_step(len(filters), len(fine_filters))`.
        filters: of the coarse U-Net's levels, each half the size of the one before.
        fine_filters: of the fine levels, from the smallest picture's up.
        encoder_levels: how many of the pictures `imagenet_encoder` reads, from the smallest up.
        num_classes: channels of the output: 1 for a mask, more for exclusive classes.

    Returns:
        A `keras.Model` from (batch, height, width, channels) in [0, 1] to float32 probabilities
        (batch, height, width, num_classes).

    Raises:
        ValueError: a size is not divisible.
        CarvanaError: the encoder's file of weights is absent or broken.
    """
    step = pyramid_step(len(filters), len(fine_filters))
    for side, size in zip(("height", "width"), input_shape[:2], strict=True):
        if size < step or size % step:
            raise ValueError(f"pyramid_unet: input {side} {size} is not divisible by {step}")

    inputs = keras.Input(input_shape)
    logits, _ = _level(inputs, filters, fine_filters, encoder_levels, num_classes)
    outputs = _probabilities(logits)
    return keras.Model(inputs, outputs, name="pyramid_unet")


def pyramid_step(levels: int, fine_levels: int) -> int:
    """Return what the sides of `pyramid_unet`'s input must be divisible by."""
    return STEM * 2 ** (levels - 1 + fine_levels)


def coarse_part(model: "keras.Model", without: int = 1) -> "keras.Model":
    """Return a `pyramid_unet` without its finest levels, weights shared: pictures to probabilities.

    Args:
        model: the whole network.
        without: how many fine levels to leave out; each halves the size of the input.
    """
    coarse = model
    for _ in range(without):
        coarse = coarse.get_layer("coarse")
    outputs = _probabilities(coarse.outputs[0])
    return keras.Model(coarse.input, outputs, name="coarse_part")


def _probabilities(logits):
    """Turn logits into probabilities of one class, or of exclusive ones."""
    activation = "sigmoid" if logits.shape[-1] == 1 else "softmax"
    return keras.layers.Activation(activation, dtype="float32")(logits)


def _level(
    picture,
    filters: tuple[int, ...],
    fine_filters: tuple[int, ...],
    encoder_levels: int,
    num_classes: int,
):
    """Return a picture's logits and features: the U-Net's, or a fine level's on top of those."""
    if not fine_filters:
        return _coarse_unet(picture, filters, encoder_levels, num_classes)
    *below, count = fine_filters
    smaller = keras.layers.AveragePooling2D(2, dtype="float32")(picture)
    inputs = keras.Input(smaller.shape[1:])
    outputs = _level(inputs, filters, below, encoder_levels, num_classes)
    logits, x = keras.Model(inputs, outputs, name="coarse")(smaller)
    x = _convolve(x, count, 1, activation=None)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    parts = [x, _convolve(_space_to_depth(picture), count)]
    if encoder_levels > len(fine_filters):
        strides = min(len(filters) + len(fine_filters), 3)  # that the picture can be divided by
        parts.append(_sum_features(imagenet_encoder(picture.shape[1:], strides)(picture), count))
    x = keras.layers.Add()(parts)
    x = _residual_block(keras.layers.ReLU()(x), count)
    logits = keras.layers.UpSampling2D(2, interpolation="bilinear", dtype="float32")(logits)
    correction = _logits(x, num_classes, kernel_initializer="zeros")
    logits = keras.layers.Add(dtype="float32")([logits, correction])
    return logits, x


def _coarse_unet(picture, filters: tuple[int, ...], encoder_levels: int, num_classes: int):
    """Return the U-Net's logits, of the picture's size, and features of its first level."""
    encoded = []
    if encoder_levels:
        encoded = imagenet_encoder(picture.shape[1:], min(len(filters), 4))(picture)
    x = _space_to_depth(picture)
    skips = []
    for level, count in enumerate(filters):
        x = _convolve(x, count, 2 if level else 3, strides=2 if level else 1, activation=None)
        if level < len(encoded):
            x = keras.layers.Add()([x, _convolve(encoded[level], count, 1, activation=None)])
        x = keras.layers.ReLU()(x)
        if level:
            x = _residual_block(x, count)
        skips.append(x)
    skips.pop()
    for count in reversed(filters[:-1]):
        x = _convolve(x, count, 1, activation=None)
        x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
        x = keras.layers.ReLU()(keras.layers.Add()([x, skips.pop()]))
        x = _residual_block(x, count)
    return _logits(x, num_classes), x


def _sum_features(features, count: int):
    """Sum an encoder's features, each half the size of the one before, at the first one's size."""
    total = None
    for x in reversed(features):
        x = _convolve(x, count, 1, activation=None)
        if total is not None:
            total = keras.layers.UpSampling2D(2, interpolation="bilinear")(total)
            x = keras.layers.Add()([total, x])
        total = x
    return total


def _space_to_depth(picture):
    """Turn every STEM x STEM pixels into the channels of one.

    The same as `tf.nn.space_to_depth` in a tenth of the time on a CPU: TensorFlow's kernels for it
    and for its inverse copy a pixel at a time on one core.
    """
    _, height, width, channels = picture.shape
    x = keras.ops.reshape(picture, (-1, STEM, width // STEM, STEM * channels))
    x = keras.ops.transpose(x, (0, 2, 1, 3))
    return keras.ops.reshape(x, (-1, height // STEM, width // STEM, STEM**2 * channels))


def _logits(x, num_classes: int, **settings):
    """Turn features into float32 logits, those of STEM x STEM pixels at each place."""
    x = keras.layers.Conv2D(STEM**2 * num_classes, 1, dtype="float32", name=HEAD, **settings)(x)
    _, height, width, _ = x.shape
    x = keras.ops.reshape(x, (-1, width, STEM, STEM * num_classes))
    x = keras.ops.transpose(x, (0, 2, 1, 3))
    return keras.ops.reshape(x, (-1, height * STEM, width * STEM, num_classes))


def _residual_block(x, filters: int):
    """Add two convolutions to their own input."""
    residual = _convolve(_convolve(x, filters), filters, activation=None)
    return keras.layers.ReLU()(keras.layers.Add()([x, residual]))


def _convolve(x, filters: int, size: int = 3, strides: int = 1, activation: str | None = "relu"):
    """Convolve, normalise, activate."""
    from carvana.networks.layers import FusedBatchNormalization  # here: it imports Keras

    x = keras.layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
    x = FusedBatchNormalization(momentum=0.98)(x)
    return keras.layers.ReLU()(x) if activation else x
