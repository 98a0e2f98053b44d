"""A U-Net on an image pyramid: context from a small picture, edges from the large one."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from carvana.backend import keras
from carvana.networks import HEAD
from carvana.networks.encoder import imagenet_encoder
from carvana.recipe import Filters, section

STEM = 4  # pixels a side that become channels, on the way in and on the way out


@section
class PyramidUnet:
    """A U-Net that reads a picture at several sizes, each half the next; see `build.py`.

    The coarse U-Net reads the smallest picture: 4x4 pixels become channels, so that its first
    level works at a quarter of the picture's sides. Each fine level reads a picture twice as
    large in the same way, takes in the features of the level below, and adds a correction to its
    logits. Corrections start at zero, so the network predicts as soon as its coarse part does,
    which can be trained first, at a fraction of the cost.

    A frozen pretrained encoder reads the smallest pictures too. Its features of the smallest are
    added to those of the U-Net's first four levels, at the same strides. Its features of a larger
    picture, at strides 4, 8 and 16, are summed as in a feature pyramid (Lin et al., 2017) and
    added to those of that fine level.
    """

    network: Literal["pyramid_unet"]
    filters: Annotated[list[Filters], Field(min_length=1, max_length=8)]  # of the coarse levels
    fine_filters: Annotated[list[Filters], Field(max_length=4)]  # from the smallest picture up
    encoder_levels: Annotated[int, Field(ge=0)]  # pictures the encoder reads, smallest first

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
        return STEM * 2 ** (len(self.filters) - 1 + len(self.fine_filters))

    @property
    def pictures(self) -> int:
        return len(self.fine_filters) + 1

    def build(self, input_shape: tuple[int, int, int], outputs: int = 1) -> "keras.Model":
        inputs = keras.Input(input_shape)
        logits, _ = _level(inputs, self, self.fine_filters, outputs)
        return keras.Model(inputs, _probabilities(logits), name="pyramid_unet")

    def part(self, network: "keras.Model", pictures: int) -> "keras.Model":
        """Return the part that reads the smallest `pictures` sizes, weights shared."""
        for _ in range(self.pictures - pictures):
            network = network.get_layer("coarse")
        probabilities = _probabilities(network.outputs[0])
        return keras.Model(network.input, probabilities, name="coarse_part")


def _probabilities(logits):
    """Turn logits into probabilities of one class, or of exclusive ones."""
    activation = "sigmoid" if logits.shape[-1] == 1 else "softmax"
    return keras.layers.Activation(activation, dtype="float32")(logits)


def _level(picture, settings: PyramidUnet, fine_filters: list[int], outputs: int):
    """Return a picture's logits and features: the U-Net's, or a fine level's on top of those."""
    if not fine_filters:
        return _coarse_unet(picture, settings, outputs)
    *below, count = fine_filters
    smaller = keras.layers.AveragePooling2D(2, dtype="float32")(picture)
    inputs = keras.Input(smaller.shape[1:])
    logits_and_features = _level(inputs, settings, below, outputs)
    logits, x = keras.Model(inputs, logits_and_features, name="coarse")(smaller)
    x = _convolve(x, count, 1, activation=None)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    parts = [x, _convolve(_space_to_depth(picture), count)]
    if settings.encoder_levels > len(fine_filters):
        strides = min(len(settings.filters) + len(fine_filters), 3)  # that divide the picture
        parts.append(_sum_features(imagenet_encoder(picture.shape[1:], strides)(picture), count))
    x = keras.layers.Add()(parts)
    x = _residual_block(keras.layers.ReLU()(x), count)
    logits = keras.layers.UpSampling2D(2, interpolation="bilinear", dtype="float32")(logits)
    correction = _logits(x, outputs, kernel_initializer="zeros")
    logits = keras.layers.Add(dtype="float32")([logits, correction])
    return logits, x


def _coarse_unet(picture, settings: PyramidUnet, outputs: int):
    """Return the U-Net's logits, of the picture's size, and features of its first level."""
    filters, encoded = settings.filters, []
    if settings.encoder_levels:
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
    return _logits(x, outputs), x


def _sum_features(features, count: int):
    """Sum an encoder's features, each half the size of the one before, at the first one's size."""
    total = _convolve(features[-1], count, 1, activation=None)
    for feature in reversed(features[:-1]):
        x = _convolve(feature, count, 1, activation=None)
        total = keras.layers.UpSampling2D(2, interpolation="bilinear")(total)
        total = keras.layers.Add()([total, x])
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


def _logits(x, outputs: int, **settings):
    """Turn features into float32 logits, those of STEM x STEM pixels at each place."""
    x = keras.layers.Conv2D(STEM**2 * outputs, 1, dtype="float32", name=HEAD, **settings)(x)
    _, height, width, _ = x.shape
    x = keras.ops.reshape(x, (-1, width, STEM, STEM * outputs))
    x = keras.ops.transpose(x, (0, 2, 1, 3))
    return keras.ops.reshape(x, (-1, height * STEM, width * STEM, outputs))


def _residual_block(x, filters: int):
    """Add two convolutions to their own input."""
    residual = _convolve(_convolve(x, filters), filters, activation=None)
    return keras.layers.ReLU()(keras.layers.Add()([x, residual]))


def _convolve(x, filters: int, size: int = 3, strides: int = 1, activation: str | None = "relu"):
    """Convolve, normalise, activate."""
    from carvana.networks.layers import Convolution, FusedBatchNormalization  # it imports Keras

    settings = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    convolution = Convolution if (size, strides) == (3, 1) else keras.layers.Conv2D
    x = convolution(filters, size, strides=strides, **settings)(x)
    x = FusedBatchNormalization(momentum=0.98)(x)
    return keras.layers.ReLU()(x) if activation else x
