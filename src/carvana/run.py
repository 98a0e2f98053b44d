"""A run folder: the names of its files, and the trained network in it; small files of weights."""

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana import __version__
from carvana.backend import keras, keras_settings, tf
from carvana.competition.facts import car_of
from carvana.data.dataset import names_in
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing, write_text
from carvana.models import build_network, is_head, load_network, own_variables
from carvana.networks import choose_precision, precision_of
from carvana.recipe import Recipe, differences, load_recipe, parse_recipe, to_toml

MARKER = "run.json"  # says that the kit made the folder, and in which layout
LAYOUT = 2
MODEL = "model.keras"  # after the last epoch: what predicts, and what training resumes from
BEST = "best.keras"  # of the epoch with the highest validation dice
RECIPE = "recipe.toml"
SPLIT = "split.csv"
HISTORY = "history.csv"
METRICS = "metrics.json"
PLOT = "history.png"
REPORT = "report.html"
OURS = (MODEL, BEST, RECIPE, SPLIT, HISTORY, METRICS, PLOT, REPORT, "logs")

SHIPPED = Path(__file__).parent / "shipped"  # weights that come with the kit
CARS = SHIPPED / "cars.csv"  # which of them was trained on which cars


def check_folder(folder: Path) -> None:
    """Check that a folder is a run or may become one. Nothing is touched.

    Raises:
        UsageError: it holds files named like a run's that the kit did not write, or a run of
            another layout.
    """
    if (folder / MARKER).exists():
        _check_layout(folder)
        return
    foreign = [name for name in OURS if (folder / name).exists()]
    if foreign:
        raise UsageError(
            f"{folder}: holds {', '.join(foreign)} but no {MARKER}, so this version of the kit did "
            "not make it; choose another --run"
        )


def claim_folder(folder: Path, precision: str) -> None:
    """Mark a folder as a run of the kit's; call `check_folder` before.

    Args:
        folder: the run.
        precision: the dtype policy it is trained under, to its end, whatever hardware resumes it.

    Raises:
        CarvanaError: it cannot be written.
    """
    if not (folder / MODEL).exists():
        marker = {"carvana": __version__, "layout": LAYOUT, "precision": precision}
        write_text(folder / MARKER, json.dumps(marker) + "\n")


def precision_in(folder: Path) -> str:
    """Return the dtype policy that a run is trained under."""
    return _check_layout(folder)["precision"]


def _check_layout(folder: Path) -> dict:
    """Read a run's marker, and make sure that it is of this version's layout."""
    marker = folder / MARKER
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        layout = content["layout"]
        if layout == LAYOUT and "precision" not in content:
            raise ValueError("no precision")
    except FileNotFoundError as error:
        raise CarvanaError(
            f"{folder}: has no {MARKER}, so this version of the kit did not make it; train again "
            "in another folder, or use the version that made it"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CarvanaError(
            f"{marker}: cannot be read; restore it or train in another folder"
        ) from error
    if layout != LAYOUT:
        raise UsageError(
            f"{marker}: the run has layout {layout}, this version of the kit reads layout "
            f"{LAYOUT}; use the version that made it, or train again in another folder"
        )
    return content


@dataclass(frozen=True)
class Run:
    """A trained network with the recipe it was trained by."""

    recipe: Recipe
    networks: tuple["keras.Model", ...]  # the same one at each of the prediction's scales
    paths: tuple[Path, ...]  # of the files it was loaded from
    usual: float | None = None  # the `expected_dice` of validation photographs, where known

    @classmethod
    def load(cls, source: str | Path | Sequence[str | Path], precision: str = "float32") -> "Run":
        """Load a run folder, a file of weights, weights the kit ships, or the mean of several.

        Args:
            source: a run's folder, an `.npz` file, a shipped name ("sharp"), or a list of those.
                The recipe of a list's first member decides how the mean predicts.
            precision: what networks compute in, whatever they were trained in: "float32", or
                "auto" for the fastest that this hardware computes safely.

        Raises:
            UsageError: there is nothing of this name, it is not a path, or the members of a list
                resize photographs differently or have other classes.
            CarvanaError: a file is absent or broken, or does not match its recipe.
        """
        if isinstance(source, (list, tuple)):
            return cls._load_mean(source, precision)
        path = find_source(source)
        precision = "float32" if precision == "float32" else choose_precision("auto")
        load = cls._load_folder if path.is_dir() else cls._load_weights
        return load(path, precision)

    @classmethod
    def _load_folder(cls, folder: Path, precision: str) -> "Run":
        path = folder / MODEL
        if not path.is_file() and not (folder / MARKER).exists():
            raise CarvanaError(f"{path}: no such model; run `carvana train` first")
        _check_layout(folder)
        network = load_network(path)
        if not (folder / RECIPE).exists():
            raise CarvanaError(f"{folder / RECIPE}: is missing; restore it or train again")
        recipe = load_recipe(folder / RECIPE)
        mismatch = CarvanaError(
            f"{path}: does not match its {RECIPE}; restore the matching model or train again"
        )
        if network.input_shape[1:3] != (recipe.input.height, recipe.input.width):
            raise mismatch
        if not all(np.isfinite(weight).all() for weight in network.get_weights()):
            raise CarvanaError(
                f"{path}: holds weights that are not numbers; restore a good one or train again"
            )
        try:
            if precision_of(network) != precision:
                trained, network = network, build_network(recipe, precision)
                network.set_weights(trained.get_weights())
            networks = _at_each_scale(recipe, network)
        except ValueError as error:
            raise mismatch from error
        return cls(recipe, networks, (path,), read_usual(folder / METRICS, recipe))

    @classmethod
    def _load_mean(cls, sources: Sequence[str | Path], precision: str) -> "Run":
        if not sources:
            raise UsageError("an empty list cannot be loaded; name one run or more")
        return mean_of([cls.load(source, precision) for source in sources], sources)

    @classmethod
    def _load_weights(cls, path: Path, precision: str) -> "Run":
        try:
            with np.load(path) as arrays:
                recipe = parse_recipe(str(arrays["recipe"]), str(path))
                numbered = sorted(filter(str.isdecimal, arrays.files), key=int)
                weights = [arrays[name].astype(np.float32) for name in numbered]
                key = usual_key(recipe)
                usual = float(arrays[key]) if key in arrays else None
            if not all(np.isfinite(weight).all() for weight in weights):
                raise ValueError("not numbers")
            network = build_network(recipe, precision)
            for variable, weight in zip(own_variables(network), weights, strict=True):
                variable.assign(weight)
            return cls(recipe, _at_each_scale(recipe, network), (path,), usual)
        except (CarvanaError, MemoryError, tf.errors.ResourceExhaustedError):
            raise
        except Exception as error:  # NumPy raises whatever the broken part raised
            raise CarvanaError(
                f"{path}: is not a weights file, is cut short, or belongs to another version of "
                "the kit; fetch it again"
            ) from error

    def rebuilt(self, precision: str, overrides: list[str] | None = None) -> "Run":
        """Return the same weights in networks of another dtype policy.

        Args:
            precision: the dtype policy.
            overrides: of the recipe's [prediction], as `prediction.flip=false`.

        Raises:
            CarvanaError: an override is wrong (UsageError), or the network not the recipe's.
        """
        recipe = parse_recipe(to_toml(self.recipe), str(self.paths[0]), overrides)
        networks = []
        for pictures in recipe.prediction_inputs:
            networks.append(build_network(recipe, precision, pictures))
            try:
                networks[-1].set_weights(self.networks[0].get_weights())
            except ValueError as error:
                raise CarvanaError(
                    f"{self.paths[0]}: does not match its recipe; restore it or train again"
                ) from error
        return Run(recipe, tuple(networks), self.paths, self.usual)

    def save_weights(self, path: Path) -> None:
        """Write the weights to a small file: convolutions as float16, the rest as float32.

        Those of a pretrained encoder are left out, as the kit ships them in one file of their own.

        Raises:
            UsageError: `path` does not end in .npz.
            CarvanaError: the network is not the recipe's, a weight is more than float16 holds,
                or the file cannot be written.
        """
        if path.suffix != ".npz":
            raise UsageError(f"{path}: a weights file must end in .npz")
        network, fresh = self.networks[0], build_network(self.recipe, "float32")
        if [w.shape for w in network.weights] != [w.shape for w in fresh.weights]:
            raise CarvanaError(f"{path}: the run's model does not match its recipe; train again")
        arrays = {"recipe": np.array(to_toml(self.recipe))}
        if self.usual is not None:
            arrays[usual_key(self.recipe)] = np.array(self.usual)
        for number, variable in enumerate(own_variables(network)):
            weight = variable.numpy()
            with np.errstate(over="ignore"):
                stored = weight.astype(np.float16) if weight.ndim > 1 else weight
            if not np.isfinite(stored).all():
                raise CarvanaError(
                    f"{path}: {variable.path} holds more than float16 can; train again"
                )
            arrays[f"{number:03}"] = stored
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @property
    def precision(self) -> str:
        """The dtype policy that it predicts under."""
        return precision_of(self.networks[0])

    def fingerprint(self) -> str:
        """Return a digest of the model's and recipe's bytes: the same run has the same."""
        return fingerprint(self.recipe, self.paths)


def fingerprint(recipe: Recipe, paths: Sequence[Path]) -> str:
    """Return the digest of a recipe and of the files a model is loaded from."""
    digest = hashlib.sha256(to_toml(recipe).encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def initialize(network: "keras.Model", recipe: Recipe) -> None:
    """Give a fresh network the weights that its recipe starts from, if it names any.

    Pictures may be of another size. Where the classes differ, or their order, the layers that
    give logits keep their fresh weights.

    Raises:
        UsageError: there are no weights of this name, or they are of another network.
        CarvanaError: they cannot be read, or do not match their own recipe.
    """
    name = recipe.training.initial_weights
    if not name:
        return
    try:
        start = Run.load(name)
    except CarvanaError as error:
        raise type(error)(f"training.initial_weights = {name}: {error}") from error
    changed = [key for key in differences(start.recipe, recipe) if key.startswith("model.")]
    if changed:
        raise UsageError(
            f"training.initial_weights = {name}: are of another network: {', '.join(changed)}; "
            "give the recipe the same [model], or train from fresh weights"
        )
    weights = start.networks[0].get_weights()
    try:
        if start.recipe.data.class_names != recipe.data.class_names:
            pairs = zip(network.weights, weights, strict=True)
            weights = [new.numpy() if is_head(new) else old for new, old in pairs]
        network.set_weights(weights)
    except ValueError as error:
        raise CarvanaError(
            f"training.initial_weights = {name}: its model does not match its {RECIPE}; restore "
            "the matching one"
        ) from error


def trained_on(source: str, names: Iterable[str]) -> list[str]:
    """Return those photographs, by their names, that a run or shipped weights had to train on.

    None where that is not on record, as of other files of weights. What a run started from itself
    does not count.
    """
    path = find_source(source)
    if path.is_dir():
        known = set()
        with contextlib.suppress(CarvanaError):  # no split, or not one: it is not needed to start
            known = names_in(path / SPLIT, "train")
        return [name for name in names if name in known]
    if path.resolve().parent != SHIPPED.resolve():
        return []
    with CARS.open(newline="", encoding="utf-8") as file:
        cars = {row["car"] for row in csv.DictReader(file) if row.get(path.stem) == "train"}
    return [name for name in names if car_of(name) in cars]


def find_source(source: str | Path) -> Path:
    """Return the run folder or file of weights that a model is loaded from.

    Raises:
        UsageError: there is nothing of this name, or it is not a path.
    """
    if isinstance(source, os.PathLike):
        source = Path(source)
    if not isinstance(source, (str, Path)):
        raise UsageError(
            f"cannot load an object of type {type(source).__name__}; give the path of a run, "
            "an .npz file, the name of shipped weights, or a list of those"
        )
    path = Path(source)
    if isinstance(source, Path) and path.is_dir():
        return path
    if path.suffix == ".npz":
        if not path.is_file():
            raise UsageError(f"{path}: no such file of weights")
        return path
    if str(source) in shipped_names():
        return SHIPPED / f"{source}.npz"
    if not path.is_dir():
        raise UsageError(
            f"{source}: no such run or weights; give a run's folder, an .npz file, or one of "
            f"{', '.join(shipped_names())}"
        )
    return path


def usual_key(recipe: Recipe) -> str:
    """Return which figure of a training tells how sure its masks usually are.

    Of one output it is the soft dice of the validation photographs, which calibrated
    probabilities let expect; that of several classes has a metric of its own.
    """
    return "val_expected_dice" if recipe.data.classes else "val_dice"


def read_usual(metrics: Path, recipe: Recipe) -> float | None:
    """Return that figure from `metrics.json`; None where training is not finished."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return float(json.loads(metrics.read_text(encoding="utf-8"))[usual_key(recipe)])
    return None


def mean_of(runs: Sequence[Run], sources: Sequence[str | Path]) -> Run:
    """Return the run that predicts the mean of several; the first one's recipe decides how.

    Raises:
        UsageError: see `check_mean`.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    check_mean([run.recipe for run in runs], sources)
    means = []
    for networks in zip(*(run.networks for run in runs), strict=True):
        for number, network in enumerate(networks):
            network.name = f"run_{number}"  # unique within the mean
        with keras_settings("float32"):
            inputs = keras.Input(networks[0].input_shape[1:])
            mean = keras.layers.Average()([network(inputs) for network in networks])
            means.append(keras.Model(inputs, mean))
    paths = tuple(path for run in runs for path in run.paths)
    known = [run.usual for run in runs if run.usual is not None]
    return Run(first.recipe, tuple(means), paths, min(known, default=None))


def check_mean(recipes: Sequence[Recipe], sources: Sequence[str | Path]) -> None:
    """Make sure that the outputs of several runs mean the same, so that they can be averaged.

    Raises:
        UsageError: they do not; the one of `sources` is named.
    """
    first = recipes[0]
    for recipe, source in zip(recipes, sources, strict=True):
        what = ""
        if recipe.prediction_inputs != first.prediction_inputs:
            what = "resizes photographs differently from"
        elif recipe.data.other_classes(first.data):
            what = "has other classes, or in another order, than"
        if what:
            raise UsageError(f"{source}: {what} {sources[0]}; average runs of one recipe")


def shipped_names() -> list[str]:
    """Return the names of the weights that come with the kit."""
    return sorted(file.stem for file in SHIPPED.glob("*.npz"))


def _at_each_scale(recipe: Recipe, network: "keras.Model") -> tuple["keras.Model", ...]:
    """Return a trained network once for each size of picture its recipe predicts from.

    Raises:
        ValueError: the network is not the recipe's.
    """
    networks = []
    for pictures in recipe.prediction_inputs:
        if pictures == recipe.input:
            networks.append(network)
            continue
        resized = build_network(recipe, precision_of(network), pictures)
        resized.set_weights(network.get_weights())
        networks.append(resized)
    return tuple(networks)
