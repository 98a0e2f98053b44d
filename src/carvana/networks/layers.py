"""Layers of our own, registered so that a saved network loads without arguments."""

from carvana.backend import keras, tf


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
