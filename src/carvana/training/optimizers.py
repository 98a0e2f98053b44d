"""The optimizers a recipe can name, among them Muon for convolutions; compiling by a recipe."""

import contextlib
import math
from collections.abc import Iterator

from carvana.backend import keras, tf
from carvana.networks.build import is_head
from carvana.recipe import Recipe
from carvana.training.losses import loss_of, metrics_of


@keras.saving.register_keras_serializable(package="carvana")
class ConvolutionMuon(keras.optimizers.Optimizer):
    """Apply Muon to convolution kernels, Adam to everything else.

    A kernel (height, width, inputs, outputs) is taken as the matrix (height * width * inputs,
    outputs), as in Jordan et al., "Muon" (2024); its update is scaled to the size of Adam's (Liu
    et al., 2025), so that learning rates are comparable. The kernels that give logits are trained
    by Adam, as Muon's authors do. Train it inside `exact_products`.

    Keras has a Muon of its own since 3.10, for matrices only. This one does not build on it, so
    that Keras 3.8 will do.

    Args:
        learning_rate: of Muon; a schedule or a number.
        weight_decay: of the kernels Muon trains, None for none.
        epsilon: Adam's.
        adam_lr_ratio: Adam's learning rate as a share of Muon's.
    """

    BETA_1, BETA_2 = 0.9, 0.999  # Adam's
    MOMENTUM = 0.95
    ITERATIONS = 5  # of Newton and Schulz, by the polynomial a x + b x^3 + c x^5
    A, B, C = 3.4445, -4.7750, 2.0315
    RMS = 0.2  # of an update's numbers, as large as Adam's are in practice

    def __init__(
        self, learning_rate=0.01, weight_decay=None, epsilon=1e-7, adam_lr_ratio=0.3, **settings
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, **settings)
        self.epsilon = epsilon
        self.adam_lr_ratio = adam_lr_ratio

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums, self.velocities = [], []
        for variable in variables:
            self.momentums.append(self.add_variable_from_reference(variable, name="momentum"))
            velocity = None  # of Muon's
            if self._is_adams(variable):
                velocity = self.add_variable_from_reference(variable, name="velocity")
            self.velocities.append(velocity)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        momentum, velocity = self.momentums[index], self.velocities[index]
        if velocity is None:
            self._muon_step(gradient, variable, learning_rate, momentum)
        else:
            rate = learning_rate * self.adam_lr_ratio
            self._adam_step(gradient, variable, rate, momentum, velocity)

    def get_config(self):
        own = {"epsilon": self.epsilon, "adam_lr_ratio": self.adam_lr_ratio}
        return {**super().get_config(), **own}

    def _is_adams(self, variable) -> bool:
        return len(variable.shape) != 4 or is_head(variable)

    def _apply_weight_decay(self, variables):
        """Decay kernels as Keras's Muon does; the base class rounds otherwise."""
        if self.weight_decay is None:
            return
        for variable in variables:
            if not self._is_adams(variable):
                decay = keras.ops.cast(self.weight_decay, variable.dtype)
                rate = keras.ops.cast(self.learning_rate, variable.dtype)
                variable.assign(variable - variable * decay * rate)

    def _adam_step(self, gradient, variable, rate, momentum, velocity):
        rate = keras.ops.cast(rate, variable.dtype)
        gradient = keras.ops.cast(gradient, variable.dtype)
        steps = keras.ops.cast(self.iterations + 1, variable.dtype)
        first = keras.ops.power(keras.ops.cast(self.BETA_1, variable.dtype), steps)
        second = keras.ops.power(keras.ops.cast(self.BETA_2, variable.dtype), steps)
        rate = rate * keras.ops.sqrt(1 - second) / (1 - first)
        self.assign_add(momentum, (gradient - momentum) * (1 - self.BETA_1))
        self.assign_add(velocity, (keras.ops.square(gradient) - velocity) * (1 - self.BETA_2))
        self.assign_sub(variable, momentum * rate / (keras.ops.sqrt(velocity) + self.epsilon))

    def _muon_step(self, gradient, variable, rate, momentum):
        self.assign_add(momentum, gradient + momentum * (self.MOMENTUM - 1))
        gradient = gradient + self.MOMENTUM * momentum  # Nesterov's
        outputs = variable.shape[-1]
        rows = math.prod(variable.shape[:-1])
        matrix = keras.ops.reshape(gradient, (rows, outputs))
        update = rate * self.orthogonalize(matrix)
        update = update * keras.ops.sqrt(max(rows, outputs)) * self.RMS
        self.assign_sub(variable, keras.ops.reshape(update, variable.shape))

    def orthogonalize(self, x):
        """Bring a matrix's singular values close to 1 by the iteration of Newton and Schulz.

        Every iteration multiplies x by a polynomial in its Gram matrix. Here the iterations are
        done on that small square matrix alone, and x is multiplied once, at the end: two fifths of
        the arithmetic for a matrix nine times as high as wide.
        """
        if x.shape[0] < x.shape[1]:
            return keras.ops.transpose(self.orthogonalize(keras.ops.transpose(x)))
        x = x / (keras.ops.norm(x) + 1e-7)
        gram = keras.ops.transpose(x) @ x
        identity = product = keras.ops.eye(x.shape[1], dtype=x.dtype)
        for _ in range(self.ITERATIONS):
            factor = self.A * identity + self.B * gram + self.C * gram @ gram
            product = product @ factor
            gram = gram @ (factor @ factor)
        return x @ product


OPTIMIZERS = {
    "rmsprop": keras.optimizers.RMSprop,
    "adamw": keras.optimizers.Adam,  # Keras decays weights apart from the gradient: AdamW
    "muon": ConvolutionMuon,
}


def compile_network(network: "keras.Model", recipe: Recipe, steps: int) -> None:
    """Give a whole network the recipe's loss, metrics and a fresh optimizer.

    `steps` are those of an epoch, for the learning rate's schedule.
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
    network.compile(optimizer, loss_of(recipe), metrics=metrics_of(recipe))
    network.optimizer.build(network.trainable_variables)


@contextlib.contextmanager
def exact_products(optimizer: str) -> Iterator[None]:
    """Keep GPUs from rounding the factors of Muon's matrix products to ten bits (TF32).

    Ten bits do not carry the powers of a Gram matrix. Other optimizers are left alone.
    """
    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(before and optimizer != "muon")
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)
