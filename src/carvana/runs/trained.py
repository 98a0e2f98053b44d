"""A trained run: what it is, known without TensorFlow, and its networks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana.backend import keras, keras_settings
from carvana.errors import CarvanaError, UsageError
from carvana.networks.build import build_network, choose_precision, is_head, load_network
from carvana.recipe import Recipe, differences, load_recipe, parse_recipe, to_toml
from carvana.runs.folder import MODEL, RECIPE, check_layout, read_usual
from carvana.runs.weights import find_source, read_recipe, read_weights, write_weights

Source = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a trained run is, or the mean of several."""

    recipe: Recipe  # of a mean the first one's, which decides how it predicts
    paths: tuple[Path, ...] = ()  # run folders and files of weights
    usual: float | None = None  # the `expected_dice` of validation photographs, where known
    precision: str = "float32"  # that networks compute in, whatever they were trained in

    @classmethod
    def read(
        cls, source: Source, precision: str = "float32", overrides: Sequence[str] = ()
    ) -> "RunInfo":
        """Read a run folder, a file of weights, weights the kit ships, or a list of those.

        Args:
            source: a run's folder, an `.npz` file, a shipped name ("sharp"), or a list of those.
            precision: "float32", or "auto" for the fastest that the hardware computes safely.
            overrides: of the recipe's [prediction], as `prediction.flip=false`.

        Raises:
            UsageError: there is nothing of this name, it is not a path, or the members of a list
                resize photographs differently or have other classes.
            CarvanaError: a file is absent or broken.
        """
        sources = list(source) if isinstance(source, (list, tuple)) else [source]
        if not sources:
            raise UsageError("an empty list cannot be loaded; name one run or more")
        paths = tuple(map(find_source, sources))
        recipes, dices = zip(*(_read_one(path, overrides) for path in paths), strict=True)
        _check_mean(recipes, sources)
        known = [dice for dice in dices if dice is not None]
        return cls(
            recipe=recipes[0], paths=paths, usual=min(known, default=None), precision=precision
        )

    def fingerprint(self) -> str:
        """Return a digest of the recipe and of the models' bytes."""
        digest = hashlib.sha256(to_toml(self.recipe).encode())
        for path in self.paths:
            digest.update((path / MODEL if path.is_dir() else path).read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Run(RunInfo):
    """A trained run with its networks."""

    networks: tuple["keras.Model", ...]  # the same one at each of the prediction's scales

    @classmethod
    def load(
        cls, source: Source, precision: str = "float32", overrides: Sequence[str] = ()
    ) -> "Run":
        """Load what `RunInfo.read` reads, with its arguments.

        Raises:
            UsageError: see `RunInfo.read`.
            CarvanaError: a file is absent or broken, or does not match its recipe.
        """
        info = RunInfo.read(source, choose_precision(precision), overrides)
        members = [_load_one(path, info.precision, overrides) for path in info.paths]
        return cls(**vars(info), networks=_mean_of(members))

    def save_weights(self, path: Path) -> None:
        """Write the weights to a small file; see `write_weights`."""
        write_weights(path, self.recipe, self.networks[0], self.usual)


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
    if start.recipe.data.class_names != recipe.data.class_names:
        pairs = zip(network.weights, weights, strict=True)
        weights = [new.numpy() if is_head(new) else old for new, old in pairs]
    network.set_weights(weights)


def _read_one(path: Path, overrides: Sequence[str]) -> tuple[Recipe, float | None]:
    if not path.is_dir():
        recipe, usual = read_recipe(path)
    else:
        if not (path / MODEL).is_file():
            raise CarvanaError(f"{path / MODEL}: no such model; run `carvana train` first")
        check_layout(path)
        if not (path / RECIPE).exists():
            raise CarvanaError(f"{path / RECIPE}: is missing; restore it or train again")
        recipe = load_recipe(path / RECIPE)
        usual = read_usual(path, recipe)
    if overrides:
        recipe = parse_recipe(to_toml(recipe), str(path), overrides)
    return recipe, usual


def _load_one(path: Path, precision: str, overrides: Sequence[str]) -> tuple["keras.Model", ...]:
    """Load a run or a file of weights: its network at each scale of its recipe's prediction."""
    recipe, _ = _read_one(path, overrides)
    if not path.is_dir():
        return _at_each_scale(recipe, read_weights(path, recipe, precision), precision)
    trained = load_network(path / MODEL)
    if not all(np.isfinite(weight).all() for weight in trained.get_weights()):
        raise CarvanaError(
            f"{path / MODEL}: holds weights that are not numbers; restore a good one or train again"
        )
    network = build_network(recipe, precision)
    try:
        if trained.input_shape != network.input_shape:
            raise ValueError("another size")
        network.set_weights(trained.get_weights())
    except ValueError as error:
        raise CarvanaError(
            f"{path / MODEL}: does not match its {RECIPE}; restore the right model or train again"
        ) from error
    return _at_each_scale(recipe, network, precision)


def _at_each_scale(
    recipe: Recipe, network: "keras.Model", precision: str
) -> tuple["keras.Model", ...]:
    """Return a trained network once for each size of picture its recipe predicts from."""
    networks = []
    for pictures in recipe.prediction_inputs:
        resized = network
        if pictures != recipe.input:
            resized = build_network(recipe, precision, pictures)
            resized.set_weights(network.get_weights())
        networks.append(resized)
    return tuple(networks)


def _check_mean(recipes: Sequence[Recipe], sources: Sequence[str | Path]) -> None:
    """Make sure that the outputs of several runs mean the same, so that they can be averaged."""
    first = recipes[0]
    for recipe, source in zip(recipes, sources, strict=True):
        what = ""
        if recipe.prediction_inputs != first.prediction_inputs:
            what = "resizes photographs differently from"
        elif recipe.data.other_classes(first.data):
            what = "has other classes, or in another order, than"
        if what:
            raise UsageError(f"{source}: {what} {sources[0]}; average runs of one recipe")


def _mean_of(members: Sequence[tuple["keras.Model", ...]]) -> tuple["keras.Model", ...]:
    """Return networks that give the mean of several runs', one for each scale."""
    if len(members) == 1:
        return members[0]
    means = []
    for networks in zip(*members, strict=True):
        for number, network in enumerate(networks):
            network.name = f"run_{number}"  # unique within the mean
        with keras_settings("float32"):
            inputs = keras.Input(networks[0].input_shape[1:])
            mean = keras.layers.Average()([network(inputs) for network in networks])
            means.append(keras.Model(inputs, mean))
    return tuple(means)
