"""Losses a recipe can name, and the metrics; a saved model loads them without arguments.

`masks` are the targets, (batch, height, width, outputs) in [0, 1]: how much of each pixel is the
car's, or each class's (of ignored pixels: of none). `probabilities` have the same shape; those of
several classes add up to 1 at each pixel.
"""

from carvana.backend import keras
from carvana.data.masks import LEAST_SHARE
from carvana.recipe import Recipe

SMOOTH = 1.0  # added to both sides of Dice's fraction, as in the article


@keras.saving.register_keras_serializable(package="carvana")
def dice(masks, probabilities):
    """Compute the published recipe's Dice over a whole batch, a float32 scalar in (0, 1].

    (2 * sum(t * p) + 1) / (sum(t) + sum(p) + 1) over every pixel of the batch at once, on the
    probabilities as they are: no threshold. Keras averages the batches, each counting the same
    whatever its size, as the article's stack did.
    """
    ops = keras.ops
    masks, probabilities = ops.cast(masks, "float32"), ops.cast(probabilities, "float32")
    both = ops.sum(masks * probabilities)
    return (2.0 * both + SMOOTH) / (ops.sum(masks) + ops.sum(probabilities) + SMOOTH)


def dice_by_class(masks, probabilities):
    """Compute the same for each class: (classes,) float32. Ignored pixels do not count."""
    shared, total = _shared_and_total(masks, probabilities)
    return (2.0 * shared + SMOOTH) / (total + SMOOTH)


def _shared_and_total(masks, probabilities):
    """Return each class's overlap and the sum of its two areas, over the batch."""
    ops = keras.ops
    products = ops.sum(_cross(masks, probabilities), axis=0)
    return ops.diagonal(products), ops.sum(products, axis=1) + ops.sum(products, axis=0)


def _cross(masks, probabilities):
    """Sum the products of every two classes over a picture's pixels: (batch, classes, classes).

    Rows add up to each class's area in the masks, columns to that in the probabilities. Plain sums
    over pixels take TensorFlow nearly three times as long for a dozen classes, and lose digits.
    """
    ops = keras.ops
    batch, height, width, classes = ops.shape(probabilities)
    flat = (batch, height * width, classes)
    masks = ops.reshape(ops.cast(masks, "float32"), flat)
    probabilities = ops.reshape(ops.cast(probabilities, "float32"), flat)
    return ops.matmul(ops.transpose(masks, (0, 2, 1)), probabilities)


@keras.saving.register_keras_serializable(package="carvana")
class BinaryCrossentropyDice(keras.losses.Loss):
    """Binary cross-entropy plus one minus the batch's soft Dice, in equal parts.

    The common base of the competition's better entries. Expects probabilities.
    """

    def call(self, y_true, y_pred):
        crossentropy = keras.losses.binary_crossentropy(y_true, y_pred)  # (batch, height, width)
        return crossentropy + 1.0 - dice(y_true, y_pred)


@keras.saving.register_keras_serializable(package="carvana")
class CountedCrossentropy(keras.losses.Loss):
    """Categorical cross-entropy in which ignored pixels do not count.

    Scaled so that Keras's mean over all pixels is the mean over those that count. Keras's own
    takes it that the shares of a pixel add up to 1: its gradient is wrong elsewhere.
    """

    def call(self, y_true, y_pred):
        ops = keras.ops
        masks = ops.cast(y_true, "float32")
        counted = ops.sum(masks, axis=-1, keepdims=True)
        shares = ops.where(counted > 0, masks / ops.maximum(counted, 1e-6), 1 / masks.shape[-1])
        counted = counted[..., 0]  # (batch, height, width)
        crossentropy = keras.losses.categorical_crossentropy(shares, y_pred)
        return crossentropy * counted / ops.maximum(ops.mean(counted), 1e-6)


@keras.saving.register_keras_serializable(package="carvana")
class CategoricalCrossentropyDice(CountedCrossentropy):
    """The same plus one minus the mean of the classes' soft Dice."""

    def call(self, y_true, y_pred):
        dice = keras.ops.mean(dice_by_class(y_true, y_pred))
        return super().call(y_true, y_pred) + 1.0 - dice


@keras.saving.register_keras_serializable(package="carvana")
class ClassScores(keras.metrics.Metric):
    """Dice and IoU of several classes, each one's pixels summed over an epoch, and their means.

    What `prediction.evaluate.summarise` computes at full size: a pixel is of its most probable
    class. A class in neither the true nor the predicted masks has NaN and is left out of the
    means; so is one called "background" of that of Dice.
    """

    def __init__(self, classes: list[str], name: str = "scores", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.classes = list(classes)
        shape = (len(self.classes),)
        self.shared = self.add_weight(shape=shape, initializer="zeros", name="shared")
        self.total = self.add_weight(shape=shape, initializer="zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        labels = keras.ops.one_hot(keras.ops.argmax(y_pred, -1), len(self.classes))
        shared, total = _shared_and_total(y_true, labels)
        self.shared.assign_add(2 * shared)
        self.total.assign_add(total)

    def result(self):
        ops = keras.ops
        occurs = self.total > 0
        dice = ops.where(occurs, self.shared / ops.where(occurs, self.total, 1.0), 0.0)
        iou = dice / (2.0 - dice)
        counted = [float(name != "background") for name in self.classes]
        means = {
            "dice": _mean_of(dice, ops.cast(occurs, "float32") * ops.array(counted)),
            "iou": _mean_of(iou, ops.cast(occurs, "float32")),
        }
        each = {
            f"{score}_{name}": ops.where(occurs[place], values[place], float("nan"))
            for score, values in (("dice", dice), ("iou", iou))
            for place, name in enumerate(self.classes)
        }
        return means | each

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


def _mean_of(values, counted):
    """Average the values that count over the last axis; 1 if none does."""
    ops = keras.ops
    total, count = ops.sum(values * counted, axis=-1), ops.sum(counted, axis=-1)
    return ops.where(count > 0, total / ops.maximum(count, 1.0), 1.0)


@keras.saving.register_keras_serializable(package="carvana")
class ExpectedDice(keras.metrics.Mean):
    """The Dice expected from the probabilities of several classes, averaged over photographs.

    See `prediction.certainty.expected_dice`, which tells by it whether a mask is unsure.

    Args:
        places: of the classes that count among the outputs.
    """

    def __init__(self, places: list[int], name: str = "expected_dice", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.places = list(places)

    def update_state(self, y_true, y_pred, sample_weight=None):
        ops = keras.ops
        products = _cross(y_pred, y_pred)
        sums = ops.take(ops.sum(products, axis=-1), self.places, axis=-1)  # (batch, classes)
        squares = ops.take(ops.diagonal(products, axis1=1, axis2=2), self.places, axis=-1)
        pixels = ops.cast(ops.prod(ops.shape(y_pred)[1:3]), "float32")
        there = ops.cast(sums >= LEAST_SHARE * pixels, "float32")
        super().update_state(_mean_of(squares / ops.maximum(sums, 1e-9), there))

    def get_config(self):
        return {**super().get_config(), "places": self.places}


@keras.saving.register_keras_serializable(package="carvana")
class CountedAccuracy(keras.metrics.Mean):
    """The share of pixels whose class is right; ignored ones do not count."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        ops = keras.ops
        counted = ops.sum(ops.cast(y_true, "float32"), axis=-1)
        right = ops.cast(ops.argmax(y_true, -1) == ops.argmax(y_pred, -1), "float32")
        super().update_state(right, sample_weight=counted)


LOSSES = {  # for one output and for exclusive classes
    "binary_crossentropy": (keras.losses.BinaryCrossentropy, CountedCrossentropy),
    "bce_dice": (BinaryCrossentropyDice, CategoricalCrossentropyDice),
}


def loss_of(recipe: Recipe) -> "keras.losses.Loss":
    """Return a recipe's loss."""
    one_output, classes = LOSSES[recipe.training.loss]
    return classes() if recipe.data.classes else one_output()


def metrics_of(recipe: Recipe) -> list:
    """Return what is watched: dice and accuracy; of several classes, IoU and each class's, too."""
    names = list(recipe.data.classes)
    if not names:
        # A metric of its own and not the function, whose variables would be made in the first
        # step: TensorFlow would then trace every step twice.
        return [
            keras.metrics.MeanMetricWrapper(dice, name="dice"),
            keras.metrics.BinaryAccuracy(name="accuracy"),
        ]
    counted = [place for place, name in enumerate(names) if name != "background"]
    return [ClassScores(names), CountedAccuracy("accuracy"), ExpectedDice(counted)]
