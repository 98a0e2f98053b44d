"""The mean of several runs: whether their outputs can be averaged, and the networks that do."""

from collections.abc import Sequence
from pathlib import Path

from carvana.backend import keras, keras_settings
from carvana.errors import UsageError
from carvana.recipe import Recipe


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


def mean_of(members: Sequence[tuple["keras.Model", ...]]) -> tuple["keras.Model", ...]:
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
