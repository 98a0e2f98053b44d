"""What a training shows: a line an epoch, and one bar with the time left for all of them."""

import math
import sys

from carvana.backend import keras
from carvana.networks.build import all_layers
from carvana.progress import Bar
from carvana.recipe import Training

METRICS = ("loss", "dice", "val_loss", "val_dice")  # of a line; history.csv has all


class Display(keras.callbacks.Callback):
    """Print an epoch's metrics when it ends; show a bar, or lines where there is no terminal.

    `parts` are the networks that each stage trains, `steps` and `validation_steps` an epoch's
    batches, `done` the steps completed before.
    """

    def __init__(self, training: Training, parts, steps: int, validation_steps: int, done: int):
        super().__init__()
        self.training, self.note = training, ""
        self.costs = [_step_cost(part) for part in parts]
        epoch_costs = [
            self.costs[training.stage_of(epoch)] * (steps + validation_steps)
            for epoch in range(training.epochs)
        ]
        epochs_done, steps_into = divmod(done, steps)
        work_done = sum(epoch_costs[:epochs_done])
        work_done += self.costs[training.stage_of(epochs_done)] * steps_into
        self.bar = Bar("training", sum(epoch_costs), work_done, sys.stdout, keep=False)

    def on_train_begin(self, logs=None):
        self.bar.restart()  # a stage's steps take longer than those before

    def on_epoch_begin(self, epoch, logs=None):
        self.bar.what = f"epoch {epoch + 1}/{self.training.epochs}"
        self.cost = self.costs[self.training.stage_of(epoch)]

    def on_train_batch_end(self, batch, logs=None):
        self.note = ", ".join(f"{name} {logs[name]:.4f}" for name in METRICS if name in logs)
        self.bar.advance(self.cost, self.note)

    def on_test_batch_end(self, batch, logs=None):
        self.bar.advance(self.cost, f"{self.note}, validating")

    def on_epoch_end(self, epoch, logs=None):
        figures = "".join(f"  {name} {logs[name]:.4f}" for name in METRICS if name in logs)
        self.bar.print(f"epoch {epoch + 1}/{self.training.epochs}{figures}")


def _step_cost(network: "keras.Model") -> float:
    """Return about how long a step takes, in multiplications: three times as many to train."""
    cost = 0
    for layer in all_layers(network):
        if hasattr(layer, "kernel_size"):
            factor = 3 if layer.trainable_variables else 1
            cost += factor * layer.count_params() * math.prod(layer.output.shape[1:3])
    return cost
