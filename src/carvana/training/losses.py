"""Losses a recipe can name, and the Dice metric; a saved model loads them without arguments."""

from carvana.backend import keras


@keras.saving.register_keras_serializable(package="carvana")
def dice(y_true, y_pred, smooth: float = 1.0):
    """Compute the published recipe's Dice over a whole batch.

    (2 * sum(t * p) + smooth) / (sum(t) + sum(p) + smooth) over every pixel of the batch at once,
    on the probabilities as they are: no threshold. Keras averages the batches, each counting the
    same whatever its size, as the article's stack did.

    Args:
        y_true: masks, (batch, height, width, 1), values in [0, 1].
        y_pred: probabilities, the same shape.
        smooth: added to both sides of the fraction; 1 in the article.

    Returns:
        A float32 scalar in (0, 1].
    """
    ops = keras.ops
    y_true = ops.cast(y_true, "float32")
    y_pred = ops.cast(y_pred, "float32")
    intersection = ops.sum(y_true * y_pred)
    return (2.0 * intersection + smooth) / (ops.sum(y_true) + ops.sum(y_pred) + smooth)


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
