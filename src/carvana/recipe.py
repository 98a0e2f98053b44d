"""Load a recipe, every setting of an experiment, into one checked dataclass."""

import dataclasses
import itertools
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Union

import tomli_w
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from carvana.data.augment import Augment
from carvana.errors import UsageError
from carvana.networks import NETWORKS
from carvana.sections import (
    ClassValue,
    Count,
    Foreground,
    Ignore,
    Pattern,
    Seed,
    Share,
    Side,
    section,
)


@section
class Data:
    split: Literal["image", "car"]
    validation: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed
    # The competition's layout, unless a recipe says otherwise.
    images: str = "train"
    masks: str = "train_masks"
    mask_names: str = "{name}_mask"
    classes: Annotated[dict[str, ClassValue], Field(max_length=254)] = dataclasses.field(
        default_factory=dict
    )
    foreground: Foreground = ""
    soft: Literal["", "threshold"] = ""
    ignore: Ignore = ""
    group: Pattern = ""

    @model_validator(mode="after")
    def _fits_together(self):
        if "{name}" not in self.mask_names:
            raise ValueError(
                f"mask_names = {self.mask_names!r}: say where the photograph's name stands, as in "
                "{name}_mask"
            )
        values = [*self.classes.values()]
        if len(self.classes) == 1 or len(set(values)) < len(values):
            raise ValueError("classes: name two or more, each with a value of its own")
        if self.background:
            raise ValueError('classes: list "background" first')
        if self.ignore != "":
            if not values:
                raise ValueError("ignore: goes with classes; a mask of two colours has no third")
            values.append(self.ignore)
        if len(set(map(type, values))) > 1:
            raise ValueError("classes: give numbers for all of them and ignore, or colours for all")
        if self.ignore in self.classes.values():
            raise ValueError(f"ignore = {self.ignore}: is the value of a class")
        if self.foreground and self.classes:
            raise ValueError("foreground: goes with masks of two colours, without classes")
        if self.soft and (self.classes or self.foreground == "any"):
            raise ValueError(
                f'soft = "{self.soft}": goes with masks of two colours, without classes'
            )
        return self

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of labels."""
        return list(self.classes) or ["background", "car"]

    @property
    def background(self) -> int | None:
        """The label of the background; None if no class is called that."""
        names = self.class_names
        return names.index("background") if "background" in names else None

    def other_classes(self, other: "Data") -> bool:
        """Tell whether the classes differ in a name, a value or their order."""
        return list(self.classes.items()) != list(other.classes.items())

    @property
    def outputs(self) -> int:
        """How many probabilities a network gives a pixel: the car's alone, or one a class."""
        return len(self.classes) or 1


@section
class Input:
    height: Side
    width: Side
    method: Literal["bilinear", "area"]
    antialias: bool
    white: Annotated[int, Field(ge=0, le=65535)] = 0


@section
class Training:
    seed: Seed
    epochs: Count
    stages: list[Share]
    steps_per_epoch: Annotated[int, Field(ge=0)]
    batch_size: Count
    loss: Literal["binary_crossentropy", "bce_dice"]
    optimizer: Literal["rmsprop", "adamw", "muon"]
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["constant", "cosine"]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    epsilon: Annotated[float, Field(gt=0)]
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    initial_weights: str = ""

    @property
    def stage_ends(self) -> list[int]:
        """After how many epochs each stage ends; the last one trains the whole network."""
        ends = [round(share * self.epochs) for share in itertools.accumulate(self.stages)]
        if sum(self.stages) < 1:  # then the whole network gets an epoch at least
            ends = [min(end, self.epochs - 1) for end in ends]
        return [*ends, self.epochs]

    def stage_of(self, epoch: int) -> int:
        """Return the number of the stage that trains an epoch; both count from 0."""
        return sum(epoch >= end for end in self.stage_ends[:-1])


@section
class Prediction:
    threshold: Annotated[float, Field(gt=0, lt=1)]
    batch_size: Count
    flip: bool
    scales: Annotated[list[Annotated[float, Field(ge=0.5, le=4)]], Field(min_length=1)]


@section
class Recipe:
    """Every setting of an experiment; `recipes/*.toml` explain each key."""

    data: Data
    input: Input
    augment: Augment
    model: Annotated[Union[tuple(NETWORKS.values())], Field(discriminator="network")]  # noqa: UP007
    training: Training
    prediction: Prediction

    @property
    def prediction_inputs(self) -> list[Input]:
        """The input at each of the prediction's scales, its sides rounded to the network's step."""
        step = self.model.step
        return [
            dataclasses.replace(
                self.input,
                height=max(round(self.input.height * scale / step), 1) * step,
                width=max(round(self.input.width * scale / step), 1) * step,
            )
            for scale in self.prediction.scales
        ]


def load_recipe(name_or_path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Load a recipe and check it.

    Args:
        name_or_path: the name of one of the kit's recipes (`blog`), or a path to a TOML file.
        overrides: `section.key=value` each, the value in TOML (a bare word is a string).

    Raises:
        UsageError: no such recipe; a key that is unknown, missing or of the wrong type; a value
            out of range; a size the network cannot take.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        text, source = _read(path), str(path)
    else:
        shipped = resources.files("carvana.recipes")
        names = sorted(f.name[:-5] for f in shipped.iterdir() if f.name.endswith(".toml"))
        if str(name_or_path) not in names:
            raise UsageError(
                f"recipe '{name_or_path}': no such recipe; use {', '.join(names)}, or the path of "
                "a .toml file"
            )
        text, source = (shipped / f"{name_or_path}.toml").read_text("utf-8"), f"{path}.toml"
    return parse_recipe(text, source, overrides)


def parse_recipe(text: str, source: str, overrides: list[str] | None = None) -> Recipe:
    """Parse and check a recipe's TOML; errors name `source`. See `load_recipe`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source}: not valid TOML: {error}") from error
    for override in overrides or []:
        _override(values, override)
    return _check(values, source)


def to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML that `load_recipe` reads back to the same recipe."""
    return tomli_w.dumps(dataclasses.asdict(recipe))


def differences(a: Recipe, b: Recipe) -> list[str]:
    """Name the keys in which two recipes differ: `training.epochs (5, here 8)`."""
    a, b = ({s: _in_order(v) for s, v in dataclasses.asdict(each).items()} for each in (a, b))

    def shown(section: dict, key: str):
        value = section.get(key, "none")
        return '""' if value == "" else value

    return [
        f"{section}.{key} ({shown(a[section], key)}, here {shown(b[section], key)})"
        for section in a
        for key in a[section] | b[section]
        if a[section].get(key) != b[section].get(key)
    ]


def _in_order(section: dict) -> dict:
    """Turn a section's tables into lists, as the order of classes matters."""
    return {k: [*v.items()] if isinstance(v, dict) else v for k, v in section.items()}


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # Notepad writes a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"{path}: cannot be read ({reason}); give a recipe in TOML") from error


def _override(values: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        raise UsageError(f"--set {override}: write it as section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    if not isinstance(values.setdefault(section, {}), dict):
        raise UsageError(f"--set {override}: [{section}] is not a section")
    values[section][name] = value


def _check(values: dict, source: str) -> Recipe:
    try:
        # As JSON: strict about types, yet a table is a section and a whole number a float.
        recipe = TypeAdapter(Recipe).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        faults = [_explain(fault) for fault in error.errors()]
        raise UsageError(f"{source}: {'; '.join(faults)}") from error
    _check_sizes(recipe, source)
    if recipe.augment.repaint and recipe.data.background is None:
        raise UsageError(
            f"{source}: augment.repaint = {recipe.augment.repaint}: paints all but the class "
            '"background", and none is called that; use 0.0'
        )
    stages, most = recipe.training.stages, recipe.model.pictures - 1
    if len(stages) > most or sum(stages) > 1:
        raise UsageError(
            f"{source}: training.stages = {stages}: this network has {most} smaller part(s) to "
            f"train first; give {most} share(s) of the epochs or fewer, with a sum of at most 1"
        )
    return recipe


def _check_sizes(recipe: Recipe, source: str) -> None:
    """Make sure that the network can take pictures of the recipe's sizes."""
    step = recipe.model.step
    for side in ("height", "width"):
        size = getattr(recipe.input, side)
        if size % step:
            below = max(size // step, 1) * step
            raise UsageError(
                f"{source}: input.{side} = {size} is not divisible by {step}, as this network's "
                f"levels need; use {below} or {below + step}"
            )
    scales = f"{source}: prediction.scales = {recipe.prediction.scales}"
    try:
        sizes = [(pictures.height, pictures.width) for pictures in recipe.prediction_inputs]
    except ValidationError as error:
        raise UsageError(
            f"{scales} makes pictures of more than 8192 pixels a side; use smaller scales"
        ) from error
    if len(set(sizes)) < len(sizes):
        raise UsageError(
            f"{scales} makes the same size twice, as sides are multiples of {step}: {sizes}; "
            "use scales further apart"
        )


def _explain(fault: dict) -> str:
    """Say in the recipe's own words what pydantic found."""
    key = ".".join(str(part) for part in fault["loc"] if part not in NETWORKS)
    text = fault["msg"].removeprefix("Value error, ")
    text = f"{text[0].lower()}{text[1:]}"
    if fault["type"].startswith("union_tag"):
        return f"{key}.network: name one of {', '.join(NETWORKS)}"
    if fault["type"] == "unexpected_keyword_argument":
        section_name, *inner = fault["loc"]
        known = Recipe
        if inner:
            known = NETWORKS.get(inner[0]) or Recipe.__dataclass_fields__[section_name].type
        return f"unknown key '{key}'; known here: {', '.join(known.__dataclass_fields__)}"
    if fault["type"] == "missing":
        return f"key '{key}' is missing"
    if fault["type"] == "value_error" and isinstance(fault["input"], dict):
        return f"{key}.{text}"  # of a whole section: the text begins with the key
    return f"{key} = {fault['input']!r}: {text}"
