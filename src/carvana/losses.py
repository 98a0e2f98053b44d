"""Losses a recipe can name, registered so that a saved model loads without arguments."""

import keras

from carvana.metrics import dice


@keras.saving.register_keras_serializable(package="carvana")
class BinaryCrossentropyDice(keras.losses.Loss):
    """Binary cross-entropy plus one minus the batch's soft Dice, in equal parts.

    The common base of the competition's better entries. Expects probabilities.
    """

    def __init__(self, name: str = "bce_dice", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        crossentropy = keras.losses.binary_crossentropy(y_true, y_pred)  # (batch, height, width)
        return crossentropy + 1.0 - dice(y_true, y_pred)


LOSSES = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "bce_dice": BinaryCrossentropyDice,
}
