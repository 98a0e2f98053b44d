"""The optimizers a recipe can name, among them Muon for convolutions; compiling by a recipe."""

import contextlib
import math
from collections.abc import Iterator

from carvana.backend import keras, tf
from carvana.recipe import Recipe
from carvana.training.losses import loss_of, metrics_of


@keras.saving.register_keras_serializable(package="carvana")
class ConvolutionMuon(keras.optimizers.Muon):
    """Apply Muon to convolution kernels, Adam to everything else.

    Keras's own handles matrices only. A kernel (height, width, inputs, outputs) is taken as the
    matrix (height * width * inputs, outputs), as in Jordan et al., "Muon" (2024); its update is
    scaled to the size of Adam's (Liu et al., 2025), so that learning rates are comparable.
    Kernels with 16 outputs or fewer, the logits' among them, are trained by Adam. Train it
    inside `exact_products`.

    Args:
        learning_rate: of Muon; a schedule or a number.
        weight_decay: of the kernels Muon trains, None for none.
        epsilon: Adam's.
        adam_lr_ratio: Adam's learning rate as a share of Muon's.
    """

    def __init__(self, learning_rate=0.01, weight_decay=None, adam_lr_ratio=0.3, **settings):
        settings = {"adam_weight_decay": None, "exclude_embeddings": False} | settings
        super().__init__(
            learning_rate, weight_decay=weight_decay, adam_lr_ratio=adam_lr_ratio, **settings
        )

    def _should_use_adamw(self, variable):
        return len(variable.shape) != 4 or variable.shape[-1] <= 16

    def _muon_update_step(self, gradient, variable, lr, m):
        self.assign_add(m, keras.ops.add(gradient, m * (self.momentum - 1)))
        if self.nesterov:
            m = keras.ops.add(gradient, self.momentum * m)
        outputs = variable.shape[-1]
        rows = math.prod(variable.shape[:-1])
        matrix = keras.ops.reshape(m, (rows, outputs))
        update = self.zeropower_via_newtonschulz5(matrix, self.ns_steps)
        self.assign_sub(variable, keras.ops.reshape(self.lr_adjust(lr * update), variable.shape))

    def zeropower_via_newtonschulz5(self, x, steps: int):
        """Bring a matrix's singular values close to 1, as Keras's method of this name does.

        Every iteration multiplies x by a polynomial in its Gram matrix. Here the iterations are
        done on that small square matrix alone, and x is multiplied once, at the end: two fifths of
        the arithmetic for a matrix nine times as high as wide.
        """
        if x.shape[0] < x.shape[1]:
            transposed = self.zeropower_via_newtonschulz5(keras.ops.transpose(x), steps)
            return keras.ops.transpose(transposed)
        x = x / (keras.ops.norm(x) + 1e-7)
        gram = keras.ops.transpose(x) @ x
        identity = product = keras.ops.eye(x.shape[1], dtype=x.dtype)
        for _ in range(steps):
            factor = self.muon_a * identity + self.muon_b * gram + self.muon_c * gram @ gram
            product = product @ factor
            gram = gram @ (factor @ factor)
        return x @ product


OPTIMIZERS = {
    "rmsprop": keras.optimizers.RMSprop,
    "adamw": keras.optimizers.Adam,  # Keras decays weights apart from the gradient: AdamW
    "muon": ConvolutionMuon,
}


def compile_network(network: "keras.Model", recipe: Recipe, steps: int) -> None:
    """Give a network the recipe's loss, metrics and a fresh optimizer.

    Args:
        network: the whole network, as all its variables become the optimizer's.
        recipe: whose optimizer, loss and schedule.
        steps: of an epoch, for the learning rate's schedule.
    """
    training = recipe.training
    rate = training.learning_rate
    if training.schedule == "cosine":
        total = steps * training.epochs
        warmup = min(math.ceil(total * training.warmup), total - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate, total - warmup, warmup_target=rate, warmup_steps=warmup
        )
    optimizer = OPTIMIZERS[training.optimizer](
        rate, epsilon=training.epsilon, weight_decay=training.weight_decay or None
    )
    compile_with(network, optimizer, recipe)
    network.optimizer.build(network.trainable_variables)


def compile_with(
    network: "keras.Model", optimizer: "keras.optimizers.Optimizer", recipe: Recipe
) -> None:
    """Give a network, or a part of one, an optimizer and the recipe's loss and metrics."""
    network.compile(
        optimizer=optimizer,
        loss=loss_of(recipe),
        metrics=metrics_of(recipe),
    )


@contextlib.contextmanager
def exact_products(optimizer: str) -> Iterator[None]:
    """Keep GPUs from rounding the factors of Muon's matrix products to ten bits (TF32).

    Ten bits do not carry the powers of a Gram matrix. Other optimizers are left alone.
    """
    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    if optimizer == "muon":
        config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)
