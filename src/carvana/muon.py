"""Muon for convolutions: the optimizer that makes the most of few steps."""

import math

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="carvana")
class ConvolutionMuon(keras.optimizers.Muon):
    """Apply Muon to convolution kernels, Adam to everything else.

    Keras's own takes matrices alone. A kernel (height, width, inputs, outputs) is taken as the
    matrix (height * width * inputs, outputs), as Jordan et al., "Muon" (2024), do; its update is
    scaled to the size Adam's has (Liu et al., 2025), so that rates mean the same. Kernels with
    no more than 16 outputs, the logits' among them, are Adam's.

    Args:
        learning_rate: of Muon; a schedule or a number.
        weight_decay: of the kernels Muon trains, None for none.
        epsilon: Adam's.
        adam_lr_ratio: Adam's learning rate as a share of Muon's.
    """

    def __init__(self, learning_rate=0.01, weight_decay=None, adam_lr_ratio=0.3, **settings):
        # Ten bits, as GPUs take where they may, do not carry the powers of a Gram matrix.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        settings = {"adam_weight_decay": None, "exclude_embeddings": False} | settings
        super().__init__(
            learning_rate, weight_decay=weight_decay, adam_lr_ratio=adam_lr_ratio, **settings
        )

    def _should_use_adamw(self, variable):
        return len(variable.shape) != 4 or variable.shape[-1] <= 16

    def _muon_update_step(self, gradient, variable, lr, m):
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        if self.nesterov:
            m = ops.add(gradient, self.momentum * m)
        outputs = variable.shape[-1]
        rows = math.prod(variable.shape[:-1])
        update = self.zeropower_via_newtonschulz5(ops.reshape(m, (rows, outputs)), self.ns_steps)
        self.assign_sub(variable, ops.reshape(self.lr_adjust(lr * update), variable.shape))

    def zeropower_via_newtonschulz5(self, x, steps: int):
        """Bring a matrix's singular values close to 1, as Keras's method of this name does.

        Every iteration multiplies x by a polynomial in its Gram matrix. Here the iterations are
        done on that small square matrix alone, and x is multiplied once, at the end: two fifths of
        the arithmetic for a matrix nine times as high as wide.
        """
        if x.shape[0] < x.shape[1]:
            return ops.transpose(self.zeropower_via_newtonschulz5(ops.transpose(x), steps))
        x = x / (ops.norm(x) + 1e-7)
        gram = ops.transpose(x) @ x
        identity = product = ops.eye(x.shape[1], dtype=x.dtype)
        for _ in range(steps):
            factor = self.muon_a * identity + self.muon_b * gram + self.muon_c * gram @ gram
            product = product @ factor
            gram = gram @ (factor @ factor)
        return x @ product
