"""What shows a training: validation masks in TensorBoard, a plot of the history."""

from pathlib import Path

import cv2
import numpy as np

from carvana.backend import keras, tf
from carvana.data.batches import validation_dataset
from carvana.data.masks import paint
from carvana.data.pairs import evenly
from carvana.files import replacing
from carvana.recipe import Recipe
from carvana.runs.folder import PLOT, read_history

PHOTOGRAPHS = 3  # shown, from all over the validation photographs
WIDTH = 256  # of each of a row's pictures, at most; pixels


class MaskImages(keras.callbacks.Callback):
    """Write rows of photograph, true mask and prediction after each epoch.

    It costs about a second an epoch on two cores, of `blog` and `sharp` alike, and 130 to 400 KB
    of logs. Nothing of the training changes: no random number is drawn.

    Args:
        logs: the folder for TensorBoard.
        files: prepared validation pairs, see `cache.prepare`.
        recipe: the recipe.
        shrink: as `validation_dataset` takes it.
    """

    def __init__(self, logs: Path, files: list[Path], recipe: Recipe, shrink: int):
        super().__init__()
        self.files = evenly(files, PHOTOGRAPHS)
        self.recipe, self.shrink = recipe, shrink
        self.writer = tf.summary.create_file_writer(str(logs))

    def on_epoch_end(self, epoch, logs=None):
        names = iter(self.files)
        with self.writer.as_default(step=epoch):
            for images, masks in validation_dataset(self.files, self.recipe, self.shrink):
                predictions = self.model(images, training=False)
                for parts in zip(images, masks, predictions, strict=True):
                    row = self._row(*(part.numpy().astype(np.float32) for part in parts))
                    name = f"photograph, truth, prediction/{next(names).stem}"
                    tf.summary.image(name, row[None])
        self.writer.flush()

    def on_train_end(self, logs=None):
        self.writer.close()

    def _row(self, image: np.ndarray, mask: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Put the three side by side: (height, 3 widths, 3) uint8."""
        data = self.recipe.data
        row = np.stack((image, paint(mask, data), paint(prediction, data)))
        height, width = row.shape[1:3]
        if width > WIDTH:
            size = (WIDTH, round(WIDTH * height / width))
            row = [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in row]
        return np.rint(np.nan_to_num(np.hstack(row)) * 255).astype(np.uint8)


def draw_history(run: Path) -> None:
    """Save a plot of a run's dice, accuracy and loss by training step, `history.png`.

    Raises:
        CarvanaError: the history cannot be read or the picture not be written.
    """
    from matplotlib.figure import Figure

    rows = read_history(run)
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("dice", "accuracy", "loss"), strict=True):
        axes.plot(rows["steps"], rows[name], ".--", label="training")
        axes.plot(rows["steps"], rows[f"val_{name}"], "o-", label="validation")
        axes.set(xlabel="step", title=name)
        axes.legend()
    with replacing(run / PLOT) as temporary:
        figure.savefig(temporary)
