"""A U-Net on an image pyramid: context from a small picture, edges from the large one."""

import keras
import tensorflow as tf
from keras import layers, ops

from carvana.encoder import imagenet_encoder

STEM = 4  # pixels a side that become channels, on the way in and on the way out


@keras.saving.register_keras_serializable(package="carvana")
class FusedBatchNormalization(layers.BatchNormalization):
    """Normalise batches over the last axis by TensorFlow's fused kernel.

    Keras makes several passes over the activations, this makes one, for the same result; the
    moving variance is the unbiased one.
    """

    def call(self, inputs, training=None):
        gamma, beta, mean, variance = (
            tf.cast(weight, "float32")
            for weight in (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        fused = tf.compat.v1.nn.fused_batch_norm
        if not (training and self.trainable):
            return fused(inputs, gamma, beta, mean, variance, self.epsilon, is_training=False)[0]
        outputs, batch_mean, batch_variance = fused(inputs, gamma, beta, epsilon=self.epsilon)
        keep, take = self.momentum, 1 - self.momentum
        self.moving_mean.assign(mean * keep + batch_mean * take)
        self.moving_variance.assign(variance * keep + batch_variance * take)
        return outputs


def pyramid_unet(
    input_shape: tuple[int, int, int],
    filters: tuple[int, ...] = (48, 96, 160, 224),
    fine_filters: tuple[int, ...] = (32,),
    pretrained: int = 0,
) -> keras.Model:
    """Build a U-Net that sees a picture at several sizes, each half the next.

    The coarse U-Net reads the smallest picture: 4x4 pixels become channels, so that its first
    level works at a quarter of the picture's sides. Each fine level reads a picture twice as
    large in the same way, takes in the features below it, and adds a correction to the logits
    from below. Corrections begin at zero, so that the network predicts as soon as its coarse
    part does: `coarse_part(model)` can be trained first, at a fraction of the cost.

    A pretrained encoder, frozen, looks at the smallest pictures too. What it finds in the smallest
    is added to the features of the U-Net's first four levels, at the same strides. What it finds
    in a larger one, at strides 4, 8 and 16, is added up as in a feature pyramid (Lin et al., 2017)
    and to that fine level's features.

    Args:
        input_shape: (height, width, channels) of the largest picture, both sides divisible by
            `pyramid_step(len(filters), len(fine_filters))`.
        filters: of the coarse U-Net's levels, each half the size of the one before.
        fine_filters: of the fine levels, from the smallest picture's up.
        pretrained: how many pictures `imagenet_encoder` looks at, from the smallest up.

    Returns:
        A `keras.Model` from (batch, height, width, channels) in [0, 1] to float32 probabilities
        (batch, height, width, 1).

    Raises:
        ValueError: a size is not divisible.
        CarvanaError: the encoder's weights are not installed.
    """
    step = pyramid_step(len(filters), len(fine_filters))
    for side, size in zip(("height", "width"), input_shape[:2], strict=True):
        if size < step or size % step:
            raise ValueError(f"pyramid_unet: input {side} {size} is not divisible by {step}")

    inputs = keras.Input(input_shape)
    logits, _ = _look(inputs, filters, fine_filters, pretrained)
    outputs = layers.Activation("sigmoid", dtype="float32")(logits)
    return keras.Model(inputs, outputs, name="pyramid_unet")


def pyramid_step(levels: int, fine_levels: int) -> int:
    """Return what the sides of `pyramid_unet`'s input must be divisible by."""
    return STEM * 2 ** (levels - 1 + fine_levels)


def coarse_part(model: keras.Model, without: int = 1) -> keras.Model:
    """Return a `pyramid_unet` without its finest levels, weights shared: pictures to probabilities.

    Args:
        model: the whole.
        without: how many fine levels are left out; for each the input is smaller by a half.
    """
    coarse = model
    for _ in range(without):
        coarse = coarse.get_layer("coarse")
    outputs = layers.Activation("sigmoid", dtype="float32")(coarse.outputs[0])
    return keras.Model(coarse.input, outputs, name="coarse_part")


def _look(picture, filters: tuple[int, ...], fine_filters: tuple[int, ...], pretrained: int):
    """Return a picture's logits and features: the U-Net's, or those from below made finer."""
    if not fine_filters:
        return _coarse_unet(picture, filters, pretrained)
    *below, count = fine_filters
    smaller = layers.AveragePooling2D(2, dtype="float32")(picture)
    inputs = keras.Input(smaller.shape[1:])
    coarse = keras.Model(inputs, _look(inputs, filters, below, pretrained), name="coarse")
    logits, x = coarse(smaller)
    x = _convolve(x, count, 1, activation=None)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    parts = [x, _convolve(_fold(picture), count)]
    if pretrained > len(fine_filters):
        strides = min(len(filters) + len(fine_filters), 3)  # that the picture can be divided by
        parts.append(_add_up(imagenet_encoder(picture.shape[1:], strides)(picture), count))
    x = layers.Add()(parts)
    x = _residual_block(layers.ReLU()(x), count)
    logits = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32")(logits)
    logits = layers.Add(dtype="float32")([logits, _unfold(x, kernel_initializer="zeros")])
    return logits, x


def _coarse_unet(picture, filters: tuple[int, ...], pretrained: int):
    """Return the U-Net's logits, of the picture's size, and features of its first level."""
    hints = imagenet_encoder(picture.shape[1:], min(len(filters), 4))(picture) if pretrained else []
    x = _fold(picture)
    skips = []
    for level, count in enumerate(filters):
        x = _convolve(x, count, 2 if level else 3, strides=2 if level else 1, activation=None)
        if level < len(hints):
            x = layers.Add()([x, _convolve(hints[level], count, 1, activation=None)])
        x = layers.ReLU()(x)
        if level:
            x = _residual_block(x, count)
        skips.append(x)
    skips.pop()
    for count in reversed(filters[:-1]):
        x = _convolve(x, count, 1, activation=None)
        x = layers.UpSampling2D(2, interpolation="bilinear")(x)
        x = layers.ReLU()(layers.Add()([x, skips.pop()]))
        x = _residual_block(x, count)
    return _unfold(x), x


def _add_up(features, count: int):
    """Add up an encoder's features, each half the size of the one before, at the first's size."""
    total = None
    for found in reversed(features):
        found = _convolve(found, count, 1, activation=None)
        if total is not None:
            total = layers.UpSampling2D(2, interpolation="bilinear")(total)
            found = layers.Add()([total, found])
        total = found
    return total


def _fold(picture):
    """Make STEM x STEM pixels the channels of one.

    As `ops.space_to_depth`, in a tenth of the time on a CPU: TensorFlow's kernels for it and for
    its inverse copy a pixel at a time on one core.
    """
    _, height, width, channels = picture.shape
    x = ops.reshape(picture, (-1, STEM, width // STEM, STEM * channels))
    x = ops.transpose(x, (0, 2, 1, 3))
    return ops.reshape(x, (-1, height // STEM, width // STEM, STEM**2 * channels))


def _unfold(x, **settings):
    """Turn features into one float32 logit for each of the STEM x STEM pixels folded away."""
    x = layers.Conv2D(STEM**2, 1, dtype="float32", **settings)(x)
    _, height, width, _ = x.shape
    x = ops.transpose(ops.reshape(x, (-1, width, STEM, STEM)), (0, 2, 1, 3))
    return ops.reshape(x, (-1, height * STEM, width * STEM, 1))


def _residual_block(x, filters: int):
    """Add what two convolutions find to what they were given."""
    found = _convolve(_convolve(x, filters), filters, activation=None)
    return layers.ReLU()(layers.Add()([x, found]))


def _convolve(x, filters: int, size: int = 3, strides: int = 1, activation: str | None = "relu"):
    """Convolve, normalise, activate."""
    x = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
    x = FusedBatchNormalization(momentum=0.98)(x)
    return layers.ReLU()(x) if activation else x
