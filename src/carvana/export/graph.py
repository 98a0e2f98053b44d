"""Prediction as one graph: photographs of any size in, probabilities of the same size out.

What `prediction/model.py` does around the network in NumPy and OpenCV is done here in TensorFlow's
operations, so that it can be written in formats other programs read.
"""

from carvana.backend import keras, keras_settings, tf
from carvana.recipe import Input
from carvana.runs.trained import Run


def build_graph(run: Run) -> "keras.Model":
    """Build the graph of a run's whole prediction: resizing, mirror images, scales, their mean.

    Args:
        run: in float32.

    Returns:
        A `keras.Model` from photographs (batch, height, width, 3) uint8, RGB, of any size, to
        probabilities (batch, height, width, outputs) float32: of the car, or of each class.
    """
    with keras_settings("float32"):
        photographs = keras.Input((None, None, 3), dtype="uint8", name="photographs")
        return keras.Model(photographs, _Prediction(run)(photographs), name="prediction")


class _Prediction(keras.layers.Layer):
    def __init__(self, run: Run):
        super().__init__()
        self.networks = list(run.networks)
        self.pictures = run.recipe.prediction_inputs
        self.flip = run.recipe.prediction.flip
        self.outputs = run.recipe.data.outputs

    def call(self, photographs):
        total = 0
        for network, pictures in zip(self.networks, self.pictures, strict=True):
            batch = resize_in_graph(photographs, pictures)
            probabilities = network(batch, training=False)
            if self.flip:  # by slices: engines reverse an axis slowly
                mirrored = network(batch[:, :, ::-1], training=False)
                probabilities = (probabilities + mirrored[:, :, ::-1]) / 2
            total += tf.image.resize(probabilities, tf.shape(photographs)[1:3])
        return total / len(self.networks)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.outputs)


def resize_in_graph(photographs, pictures: Input):
    """Resize as `data.resize.resize` does, in operations that every format has.

    A row of the result is a weighted mean of a few rows, picked out and multiplied as matrices;
    columns likewise, transposed. docs/export.md has the times of other ways.

    Args:
        photographs: (batch, height, width, 3) uint8, of any size.
        pictures: the size wanted, and how pixels are averaged.

    Returns:
        (batch, pictures.height, pictures.width, 3) float32 in [0, 1].
    """
    wanted = pictures.height, pictures.width
    if pictures.method == "bilinear" and not pictures.antialias:
        return tf.image.resize(tf.cast(photographs, tf.float32) / 255, wanted)
    batch, height, width = tf.unstack(tf.shape(photographs)[:3])
    grows = tf.constant(False)
    if pictures.method == "area":  # what grows on both sides is enlarged by cubic interpolation
        grows = tf.logical_and(height < wanted[0], width < wanted[1])
    x = tf.reshape(photographs, tf.stack([batch, height, width * 3]))
    x = _average_rows(x, batch, *_weigh(height, wanted[0], pictures.method, grows))
    x = tf.reshape(x, tf.stack([batch, wanted[0], width, 3]))
    x = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), tf.stack([batch, width, wanted[0] * 3]))
    x = _average_rows(x, batch, *_weigh(width, wanted[1], pictures.method, grows))
    x = tf.transpose(tf.reshape(x, (-1, wanted[1], wanted[0], 3)), [0, 2, 1, 3])
    whole = tf.round(tf.clip_by_value(x, 0, 255))  # OpenCV enlarges to whole grey levels
    return tf.where(grows, whole, x) / 255


def _average_rows(x, batch, rows, weights):
    """Average rows of x: (batch, rows there are, values) -> (batch, rows wanted, values)."""
    wanted, taps = tf.unstack(tf.shape(rows))
    picked = tf.cast(tf.gather(x, tf.reshape(rows, [-1]), axis=1), tf.float32)
    picked = tf.reshape(picked, tf.stack([batch, wanted, taps, tf.shape(x)[2]]))
    weights = tf.tile(weights[None, :, None, :], tf.stack([batch, 1, 1, 1]))
    return tf.matmul(weights, picked)[:, :, 0]


def _weigh(count, wanted: int, method: str, grows):
    """Return which of `count` rows each wanted row is made of, and their weights.

    Both are (wanted, taps). "bilinear" is antialiased here; "area" interpolates if `grows`.
    """
    limit = tf.cast(count, tf.float32)
    scale = limit / wanted  # rows for each wanted one
    number = tf.range(wanted, dtype=tf.float32)[:, None]
    centre = (number + 0.5) * scale - 0.5
    if method == "bilinear":
        radius = tf.maximum(scale, 1.0)
        rows = tf.math.ceil(centre - radius) + tf.range(tf.floor(2 * radius) + 1)
        weights = tf.maximum(1 - tf.abs(rows - centre) / radius, 0)
        weights = tf.where((rows >= 0) & (rows < limit), weights, 0.0)
        weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    else:
        start = number * scale
        taps = tf.range(tf.where(grows, 4.0, tf.math.ceil(scale) + 1))
        area, cubic = tf.floor(start) + taps, tf.floor(centre) - 1 + taps
        covered = tf.minimum(start + scale, area + 1) - tf.maximum(start, area)
        weights = tf.where(grows, _cubic(tf.abs(cubic - centre)), tf.maximum(covered, 0) / scale)
        rows = tf.where(grows, cubic, area)
    return tf.clip_by_value(tf.cast(rows, tf.int32), 0, count - 1), weights


def _cubic(x):
    """Weigh a row at distance x >= 0 by Keys's kernel with a = -0.75, as OpenCV does."""
    near = (1.25 * x - 2.25) * x * x + 1
    far = ((-0.75 * x + 3.75) * x - 6) * x + 3
    return tf.where(x <= 1, near, tf.where(x < 2, far, 0.0))
