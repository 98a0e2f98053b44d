"""Layers of our own, registered so that a saved network loads without arguments."""

import os

from carvana.backend import keras, tf
from carvana.machine import cpuinfo


@keras.saving.register_keras_serializable(package="carvana")
class FusedBatchNormalization(keras.layers.BatchNormalization):
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


@keras.saving.register_keras_serializable(package="carvana")
class Convolution(keras.layers.Conv2D):
    """A Conv2D that trains faster on some processors; only for stride 1, same padding, no bias.

    With oneDNN on processors with AVX2 but not AVX-512 it computes the gradient of its kernel by
    matrix products: oneDNN's own takes up to four times as long (two cores of a Zen 3).
    """

    def call(self, inputs, training=None):
        if training and self.compute_dtype == "float32" and _products_are_faster(inputs.shape[-1]):
            return tf.custom_gradient(_convolve)(inputs, tf.convert_to_tensor(self.kernel))
        return super().call(inputs)


def _products_are_faster(channels: int) -> bool:
    if channels < 32 or channels % 16:  # by measurement; slices of other widths are copied
        return False
    flags, onednn = cpuinfo(), os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1"
    avx2_only = "avx2" in flags and "avx512f" not in flags
    return onednn and avx2_only and not tf.config.list_physical_devices("GPU")


def _convolve(pictures, kernel):
    """Return the convolution, and the function of its gradients."""

    def gradients(output_gradient):
        shape = tf.shape(pictures)
        input_gradient = tf.nn.conv2d_transpose(output_gradient, kernel, shape, 1, "SAME")
        return input_gradient, kernel_gradient(pictures, output_gradient, kernel.shape[0])

    return tf.nn.conv2d(pictures, kernel, 1, "SAME"), gradients


def kernel_gradient(pictures, output_gradient, size: int):
    """Compute the gradient of a convolution's kernel, by a matrix product for each position in it.

    Every shift of the padded, flattened pictures is a slice of one array, which TensorFlow does
    not copy if channels are a multiple of 16.

    Args:
        pictures: (batch, height, width, inputs) float32, what was convolved.
        output_gradient: (batch, height, width, outputs) float32.
        size: the kernel's height and width.

    Returns:
        (size, size, inputs, outputs) float32.
    """
    _, height, width, inputs = pictures.shape
    batch, outputs, padding = tf.shape(pictures)[0], output_gradient.shape[-1], size - 1
    row = width + padding
    pixels = (height + padding) * row  # of a padded picture
    sides = [padding // 2, padding - padding // 2]
    # One extra picture at the end, so that shifted slices stay within the array.
    flat = tf.reshape(tf.pad(pictures, [[0, 1], sides, sides, [0, 0]]), (-1, inputs))
    gradient = tf.pad(output_gradient, [[0, 0], [0, padding], [0, padding], [0, 0]])
    gradient = tf.reshape(gradient, (batch, pixels, outputs))
    products = []
    for start in (down * row + across for down in range(size) for across in range(size)):
        shifted = tf.reshape(flat[start : start + batch * pixels], (batch, pixels, inputs))
        products.append(tf.reduce_sum(tf.matmul(shifted, gradient, transpose_a=True), axis=0))
    return tf.reshape(tf.stack(products), (size, size, inputs, outputs))
