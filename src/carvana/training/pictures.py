"""Show validation masks in TensorBoard, as they change from epoch to epoch."""

from pathlib import Path

import cv2
import numpy as np

from carvana.backend import keras, tf
from carvana.data.batches import validation_dataset
from carvana.data.dataset import spread
from carvana.data.masks import paint
from carvana.recipe import Recipe

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
        self.files = spread(files, PHOTOGRAPHS)
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
