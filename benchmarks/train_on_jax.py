"""Train a recipe on Keras's JAX backend, on one GPU: for machines with JAX but no TensorFlow.

    python benchmarks/train_on_jax.py --recipe sharper --data data --out sharper.npz

Takes recipes of `pyramid_unet` and one class. The network, loss, optimizer, schedule, split, order
of the photographs and the random draws of each are the kit's own code. The loop is this file's, and
so is the augmentation, as a CPU would be too slow: all photographs stay in the GPU's memory
(`sharper`: 52 GB for 4,064, and 3 GB for the batches under way) and are changed there. It differs
from `carvana train` in this:

- JPEGs are decoded by OpenCV, at full size; augmented pictures are not rounded to 8 bits;
- batch norm's moving variance is not the unbiased one;
- fresh weights are other random numbers; they are always trained in bfloat16;
- `val_dice` is the mean over photographs, and is measured at the end of each stage;
- it cannot resume.

Needs jax[cuda], keras, and the packages that the kit imports but TensorFlow: numpy,
opencv-python-headless, pillow, pandas, pydantic, filelock, tqdm, tomli-w.
"""

import argparse
import csv
import functools
import importlib
import itertools
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.94")
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import cv2
import jax
import jax.numpy as jnp
import keras
import numpy as np
from PIL import Image

import carvana.backend

carvana.backend._import_keras = lambda: importlib.import_module("keras")  # not on TensorFlow

import carvana.networks.layers
import carvana.runs.trained
from carvana.data.augment import WARP_POINTS, draw
from carvana.data.batches import training_batch
from carvana.data.pairs import find_pairs
from carvana.data.split import draw_split
from carvana.networks.build import build_network
from carvana.recipe import load_recipe
from carvana.runs.trained import Run, initialize
from carvana.training.losses import loss_of
from carvana.training.optimizers import compile_network

carvana.networks.layers.FusedBatchNormalization.call = keras.layers.BatchNormalization.call
carvana.runs.trained.choose_precision = lambda wanted: "mixed_bfloat16"  # without asking TensorFlow
TOGETHER = 20  # steps a call, at most: one at a time, the GPU waits for Python
EXACT = jax.default_matmul_precision("highest")


def read(pair) -> np.ndarray:
    """Decode a photograph and its mask: (height, width, RGB and mask) uint8."""
    picture = cv2.cvtColor(cv2.imread(str(pair.image)), cv2.COLOR_BGR2RGB)
    mask = np.asarray(Image.open(pair.mask).convert("L")) > 0
    return np.dstack([picture, 255 * mask.astype(np.uint8)])


def areas(size: int, wanted: int) -> np.ndarray:
    """Return the matrix that averages areas: (wanted, size) float32."""
    edges = np.arange(wanted + 1) * (size / wanted)
    pixels = np.arange(size)
    share = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(share, 0) * (wanted / size)).astype(np.float32)


def pack(pairs):
    """Hold the four bytes of a pixel in one number, which is one read of memory."""
    shifted = pairs.astype(jnp.uint32) << jnp.array([0, 8, 16, 24], jnp.uint32)
    return shifted.sum(-1, dtype=jnp.uint32)


def unpack(packed):
    return ((packed[..., None] >> jnp.array([0, 8, 16, 24], jnp.uint32)) & 255).astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=(3,), donate_argnums=(0,))
def place(arrays, number, frames, shrinks, down, across):
    """Resize raw pairs, shrink them, and put them into the arrays from `number` on."""
    with EXACT:
        full = jnp.einsum("hy,nyxc->nhxc", down, frames.astype(jnp.float32))
        full = jnp.rint(jnp.einsum("wx,nhxc->nhwc", across, full))
    placed = []
    for array, side in zip(arrays, shrinks, strict=True):
        count, height, width, _ = full.shape
        small = full.reshape(count, height // side, side, width // side, side, 4).mean((2, 4))
        small = pack(jnp.rint(small)).reshape(count, -1)
        placed.append(jax.lax.dynamic_update_slice(array, small, (number, 0)))
    return placed


@jax.jit
def pick(pairs, chosen):
    return pairs[chosen]


def load(pairs, recipe, shrinks) -> list:
    """Put all pairs on the GPU, at each of the sizes: (pairs, height * width) uint32 each."""
    height, width = recipe.input.height, recipe.input.width
    arrays = [
        jnp.zeros((len(pairs), (height // side) * (width // side)), jnp.uint32) for side in shrinks
    ]
    chunk = 64
    matrices = None
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(pairs), chunk):
            some = np.stack(list(pool.map(read, pairs[start : start + chunk])))
            if matrices is None:
                matrices = areas(some.shape[1], height), areas(some.shape[2], width)
            arrays = place(arrays, start, some, tuple(shrinks), *matrices)
    return arrays


def between_points(size: int, points: int) -> np.ndarray:
    """Return the matrix that draws a smooth curve through a warp's points: (size, points)."""
    curve = cv2.resize(
        np.eye(points, dtype=np.float32), (points, -(-size // 8)), interpolation=cv2.INTER_CUBIC
    )
    return cv2.resize(curve, (points, size), interpolation=cv2.INTER_LINEAR)


def changes(seeds, settings, height: int, width: int) -> dict[str, np.ndarray]:
    """Draw what `apply` would do to the pairs of a batch; what is left out changes nothing."""
    still = {
        "transform": np.eye(2, 3),
        "offsets": np.zeros((*WARP_POINTS, 2)),
        "paint": np.eye(3),
    }
    rows = [vars(draw(seed, settings, height, width)) for seed in seeds]
    stacked = {}
    for key in rows[0]:
        values = [still[key] if row[key] is None else row[key] for row in rows]
        stacked[key] = np.stack(values) if key == "flip" else np.float32(values)
    return stacked


def augment(pairs, change, height: int, width: int):
    """Do to a batch what `carvana.data.augment` does: (images, masks) float32 in [0, 1]."""
    with EXACT:
        x, y = jnp.arange(width, dtype=jnp.float32), jnp.arange(height, dtype=jnp.float32)[:, None]
        sides = (height, width)
        curves = [between_points(s, p) for s, p in zip(sides, WARP_POINTS, strict=True)]
        bent = jnp.einsum("hp,npqa,wq->anhw", curves[0], change["offsets"], curves[1])
        transform = change["transform"][..., None, None]
        to_x, to_y = (
            transform[:, axis, 0] * x + transform[:, axis, 1] * y + transform[:, axis, 2]
            for axis in (0, 1)
        )
        to_x, to_y = to_x + bent[0], to_y + bent[1]
    left, top = jnp.floor(to_x), jnp.floor(to_y)
    right_share, lower_share = to_x - left, to_y - top

    def at(row, column):
        row = jnp.clip(row, 0, height - 1).astype(jnp.int32)
        column = jnp.clip(column, 0, width - 1).astype(jnp.int32)
        column = jnp.where(change["flip"][:, None, None], width - 1 - column, column)
        return unpack(jax.vmap(lambda pair, index: pair[index])(pairs, row * width + column))

    def blend(a, b, share):
        return a + (b - a) * share[..., None]

    upper = blend(at(top, left), at(top, left + 1), right_share)
    lower = blend(at(top + 1, left), at(top + 1, left + 1), right_share)
    moved = blend(upper, lower, lower_share) / 255
    image, mask = moved[..., :3], moved[..., 3:]

    def by_pair(name):
        return change[name][:, None, None, None]

    with EXACT:
        painted = jnp.clip(jnp.einsum("nhwc,ndc->nhwd", image, change["paint"]), 0, 1)
    painted = painted * mask + image * (1 - mask)
    unchanged = (change["paint"] == jnp.eye(3)).all((1, 2))[:, None, None, None]
    image = jnp.where(unchanged, image, painted)
    image = jnp.maximum(image, 1e-6) ** by_pair("power")
    mean = image.mean((1, 2), keepdims=True)
    image = by_pair("contrast") * (image - mean) + mean + by_pair("brightness")
    return jnp.clip(image, 0, 1), mask


class Trainer:
    """A recipe's network and its optimizer, as arrays, with compiled steps for each stage."""

    def __init__(self, recipe, steps: int):
        training = recipe.training
        self.recipe = recipe
        self.network = build_network(recipe, "mixed_bfloat16", seed=training.seed)
        initialize(self.network, recipe)
        compile_network(self.network, recipe, steps)
        self.optimizer = self.network.optimizer
        stages = range(len(training.stages))
        self.parts = [recipe.model.part(self.network, stage + 1) for stage in stages]
        self.parts.append(self.network)
        self.variables = [*self.network.variables, *self.optimizer.variables]
        self.values = [variable.value + 0 for variable in self.variables]
        self.loss = loss_of(recipe)
        self.steps = [self._steps(part) for part in self.parts]
        self.scores = [self._score(part) for part in self.parts]

    def sides(self, stage: int) -> tuple[int, int]:
        return self.parts[stage].input_shape[1:3]

    def _steps(self, part):
        place_of = {id(variable): place for place, variable in enumerate(self.variables)}
        trained = part.trainable_variables
        height, width = part.input_shape[1:3]

        def predict(trained_values, values, images, masks):
            known = zip(self.variables, values, strict=True)
            scope = keras.StatelessScope([*known, *zip(trained, trained_values, strict=True)])
            with scope:
                loss = self.loss(masks, part(images, training=True))
            return loss, [scope.get_current_value(v) for v in part.non_trainable_variables]

        def step(values, batch):
            images, masks = augment(*batch, height, width)
            trained_values = [values[place_of[id(v)]] for v in trained]
            gradient_of = jax.value_and_grad(predict, has_aux=True)
            (loss, moving), gradients = gradient_of(trained_values, values, images, masks)
            values = list(values)
            for variable, value in zip(part.non_trainable_variables, moving, strict=True):
                values[place_of[id(variable)]] = value
            scope = keras.StatelessScope(list(zip(self.variables, values, strict=True)))
            with scope, EXACT:
                self.optimizer.apply(gradients, trained)
            return [scope.get_current_value(variable) for variable in self.variables], loss

        @functools.partial(jax.jit, donate_argnums=(0,))
        def steps(values, pairs, change):
            return jax.lax.scan(step, values, (pairs, change))

        return steps

    def _score(self, part):
        height, width = part.input_shape[1:3]

        @jax.jit
        def score(values, pairs):
            pairs = unpack(pairs).reshape(-1, height, width, 4) / 255
            images, masks = pairs[..., :3], pairs[..., 3:]
            with keras.StatelessScope(list(zip(self.variables, values, strict=True))):
                predicted = part(images, training=False)
            both = (masks * predicted).sum((1, 2, 3))
            return 2 * both / (masks.sum((1, 2, 3)) + predicted.sum((1, 2, 3)))

        return score

    def train(self, stage: int, pairs, batches) -> jax.Array:
        """Do a step for each of the batches, all of one size, in one call; return their losses."""
        drawn = [changes(seeds, self.recipe.augment, *self.sides(stage)) for _, seeds in batches]
        change = {key: np.stack([draws[key] for draws in drawn]) for key in drawn[0]}
        chosen = np.stack([indices for indices, _ in batches])
        self.values, losses = self.steps[stage](self.values, pick(pairs, chosen), change)
        return losses

    def validate(self, stage: int, pairs, chosen) -> np.ndarray:
        """Return the soft Dice of photographs at the network's size."""
        size = self.recipe.training.batch_size
        batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        return np.concatenate(
            [self.scores[stage](self.values, pick(pairs, batch)) for batch in batches]
        )

    def save(self, path: Path, val_dice: float) -> None:
        for variable, value in zip(self.variables, self.values, strict=True):
            variable.assign(value)
        Run(recipe=self.recipe, networks=(self.network,), usual=val_dice).save_weights(path)


def groups(batches):
    """Gather an epoch's batches of one size: what is trained on in one call.

    All groups are of one length, as another would be compiled anew.
    """
    for _, alike in itertools.groupby(batches, key=lambda batch: len(batch[0])):
        alike = list(alike)
        length = max(n for n in range(1, TOGETHER + 1) if len(alike) % n == 0)
        yield from (alike[at : at + length] for at in range(0, len(alike), length))


def what_it_lacks(recipe) -> str:
    """Name what a recipe wants that only `carvana train` does; nothing if there is none."""
    data, training = recipe.data, recipe.training
    wants = {
        "another network": recipe.model.network != "pyramid_unet",
        "several classes, or masks of other colours": data.classes
        or data.foreground
        or data.ignore,
        "another way to resize": recipe.input.method != "area",
        "saturation": tuple(recipe.augment.saturation) != (1, 1),
        "steps_per_epoch": training.steps_per_epoch,
        "another precision": training.precision not in ("auto", "mixed_bfloat16"),
    }
    return ", ".join(want for want, wanted in wants.items() if wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="sharper")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, required=True, help="the file of weights (.npz)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    began = time.monotonic()
    recipe = load_recipe(arguments.recipe, arguments.set)
    if fault := what_it_lacks(recipe):
        parser.error(f"{arguments.recipe}: {fault}, which this benchmark does not do")
    if arguments.out.suffix != ".npz":
        parser.error(f"{arguments.out}: must end in .npz")
    training = recipe.training
    split = draw_split(find_pairs(arguments.data, recipe.data), recipe.data)
    count = len(split.train)
    steps = -(-count // training.batch_size)
    trainer = Trainer(recipe, steps)
    shrinks = [recipe.input.height // part.input_shape[1] for part in trainer.parts]
    arrays = load(split.train + split.validation, recipe, shrinks)
    held_out = np.arange(count, count + len(split.validation))
    print(
        f"{count} + {len(held_out)} pairs on {jax.devices()[0].device_kind} after "
        f"{time.monotonic() - began:.1f} s",
        flush=True,
    )
    batch_of = functools.partial(
        training_batch, count=count, batch_size=training.batch_size, seed=training.seed
    )
    with open(arguments.out.with_suffix(".csv"), "w", newline="") as file:
        history = csv.writer(file)
        history.writerow(["epoch", "steps", "seconds", "loss", "val_dice"])
        for epoch in range(training.epochs):
            stage, start, losses = training.stage_of(epoch), time.monotonic(), []
            numbers = range(epoch * steps, (epoch + 1) * steps)
            for group in groups(map(batch_of, numbers)):
                losses.append(trainer.train(stage, arrays[stage], group))
                jax.block_until_ready(losses[-2:-1])  # pictures of two groups fit into memory
            loss, dice = float(np.concatenate(losses).mean()), ""
            if not np.isfinite(loss):
                sys.exit(f"epoch {epoch + 1}: the loss is not a number; lower the learning rate")
            if epoch + 1 in training.stage_ends:
                dice = trainer.validate(stage, arrays[stage], held_out).mean()
            row = [epoch + 1, (epoch + 1) * steps, f"{time.monotonic() - start:.1f}", loss, dice]
            history.writerow(row)
            file.flush()
            print(*row, flush=True)
    trainer.save(arguments.out, float(dice))
    print(f"{arguments.out}: saved after {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
