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
    """Convolve at stride 1, without bias; the kernel's gradient is by matrix products where faster.

    That is with oneDNN on processors with AVX2 and without AVX-512: its own gradient of a 3x3
    kernel takes up to four times as long there.
    """

    def call(self, inputs, training=None):
        if training and self.compute_dtype == "float32" and _products_are_faster():
            return _convolve(inputs, tf.convert_to_tensor(self.kernel))
        return super().call(inputs)


def _products_are_faster() -> bool:
    flags, onednn = cpuinfo(), os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1"
    has_units = "avx2" in flags and "avx512f" not in flags
    return onednn and has_units and not tf.config.list_physical_devices("GPU")


@tf.custom_gradient
def _convolve(pictures, kernel):
    def gradients(of_outputs):
        of_pictures = tf.nn.conv2d_transpose(of_outputs, kernel, tf.shape(pictures), 1, "SAME")
        return of_pictures, kernel_gradient(pictures, of_outputs, kernel.shape[0])

    return tf.nn.conv2d(pictures, kernel, 1, "SAME"), gradients


def kernel_gradient(pictures, of_outputs, size: int):
    """Compute the gradient of a convolution's kernel as a matrix product for each of its places.

    Once padded and flattened, pictures moved by rows and columns are one array from other starts,
    and TensorFlow slices a first axis without copying.

    Args:
        pictures: (batch, height, width, inputs) float32, what was convolved.
        of_outputs: (batch, height, width, outputs) float32, the gradient of the outputs.
        size: of the kernel, a side.

    Returns:
        (size, size, inputs, outputs) float32.
    """
    _, height, width, inputs = pictures.shape
    batch, outputs, more = tf.shape(pictures)[0], of_outputs.shape[-1], size - 1
    row = width + more
    pixels = (height + more) * row  # of a padded picture
    sides = [more // 2, more - more // 2]
    # A picture more at the end, for the moved ones to run into.
    flat = tf.reshape(tf.pad(pictures, [[0, 1], sides, sides, [0, 0]]), (-1, inputs))
    of_outputs = tf.pad(of_outputs, [[0, 0], [0, more], [0, more], [0, 0]])
    of_outputs = tf.reshape(of_outputs, (batch, pixels, outputs))
    places = []
    for start in (down * row + across for down in range(size) for across in range(size)):
        moved = tf.reshape(flat[start : start + batch * pixels], (batch, pixels, inputs))
        places.append(tf.reduce_sum(tf.matmul(moved, of_outputs, transpose_a=True), axis=0))
    return tf.reshape(tf.stack(places), (size, size, inputs, outputs))
