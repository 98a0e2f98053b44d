"""A recipe, every setting of an experiment: read from TOML, checked, written, compared.

A network's own settings, [model], are in its module; `networks.build.NETWORKS` names them.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tomli_w
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from carvana.errors import UsageError

section = dataclass(
    frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
)


# ---- values


def _ascending(factors: list[float]) -> list[float]:
    low, high = factors
    if low > high:
        raise ValueError("give the lower value first")
    return factors


def _mask_value(says: str, words: tuple[str, ...] = (), most: int = -1) -> PlainValidator:
    """Accept a colour, one of some words, or a number from 0 to `most`."""

    def check(value: object) -> int | str:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if value in words or (is_number and 0 <= value <= most):
            return value
        if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
            return value.lower()
        raise ValueError(f"give {says}")

    return PlainValidator(check)


def _two_or_none(folders: list[str]) -> list[str]:
    if len(folders) not in (0, 2):
        raise ValueError("give the folder of photographs and that of masks, or neither")
    return folders


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from error
    if text and not groups:
        raise ValueError("needs a (group): what is the same for all pictures of one subject")
    return text


ClassValue = Annotated[
    int | str, _mask_value("a number from 0 to 254, or a colour as #rrggbb", most=254)
]
Ignore = Annotated[
    int | str,
    _mask_value('a number from 0 to 255, a colour as #rrggbb, or "" for none', ("",), 255),
]
Foreground = Annotated[str, _mask_value('a colour as #rrggbb, "any", or ""', ("", "any"))]
Pattern = Annotated[str, AfterValidator(_pattern)]  # a regular expression with a group, or ""
Folders = Annotated[list[str], AfterValidator(_two_or_none)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=8192)]  # pixels
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Filters = Annotated[int, Field(ge=1, le=1024)]
Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, le=10)]
Factors = Annotated[list[Factor], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
Scale = Annotated[float, Field(ge=0.5, le=4)]


# ---- sections


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
    soft: Literal["", "threshold", "share"] = ""
    unmasked: Literal["", "skip", "empty"] = ""
    ignore: Ignore = ""
    group: Pattern = ""
    validation_folders: Folders = dataclasses.field(default_factory=list)

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
            if self.ignore in values:
                raise ValueError(f"ignore = {self.ignore}: is the value of a class")
            values.append(self.ignore)
        if len(set(map(type, values))) > 1:
            raise ValueError("classes: give numbers for all of them and ignore, or colours for all")
        two_colours = "goes with masks of two colours, without classes"
        if self.foreground and self.classes:
            raise ValueError(f"foreground: {two_colours}")
        if self.soft and (self.classes or self.foreground == "any"):
            raise ValueError(f'soft = "{self.soft}": {two_colours}')
        if self.unmasked == "empty" and self.background is None:
            raise ValueError('unmasked = "empty": goes with a class called "background"')
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

    @property
    def outputs(self) -> int:
        """How many probabilities a network gives a pixel: the car's alone, or one a class."""
        return len(self.classes) or 1

    def other_classes(self, other: "Data") -> bool:
        """Tell whether the classes differ in a name, a value or their order."""
        return list(self.classes.items()) != list(other.classes.items())


@section
class Input:
    height: Side
    width: Side
    method: Literal["bilinear", "area"]
    antialias: bool
    white: Annotated[int, Field(ge=0, le=65535)] = 0


@section
class Augment:
    brightness: Share
    contrast: Factors
    saturation: Factors
    flip: bool
    zoom: Share
    rotate: Annotated[float, Field(ge=0, le=180)]
    shift: Share
    repaint: Annotated[float, Field(ge=0, le=2)]
    stretch: Share
    warp: Share
    gamma: Annotated[float, Field(ge=0, le=2)]


@section
class Training:
    seed: Seed
    epochs: Annotated[int, Field(ge=1, le=100_000)]
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
    scales: Annotated[list[Scale], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting of an experiment; `recipes/*.toml` explain each key."""

    data: Data
    input: Input
    augment: Augment
    model: Any  # the settings of a network
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


# ---- reading and writing


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] | None = None) -> Recipe:
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
        try:
            text = path.read_text("utf-8-sig")  # Notepad writes a byte order mark
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise UsageError(f"{path}: cannot be read ({reason}); give a recipe in TOML") from error
        return parse_recipe(text, str(path), overrides)
    shipped = resources.files("carvana.recipes")
    names = sorted(f.name[:-5] for f in shipped.iterdir() if f.name.endswith(".toml"))
    if str(name_or_path) not in names:
        raise UsageError(
            f"recipe '{name_or_path}': no such recipe; use {', '.join(names)}, or the path of a "
            ".toml file"
        )
    text = (shipped / f"{name_or_path}.toml").read_text("utf-8")
    return parse_recipe(text, f"{path}.toml", overrides)


def parse_recipe(text: str, source: str, overrides: Sequence[str] | None = None) -> Recipe:
    """Parse and check a recipe's TOML; errors name `source`. See `load_recipe`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source}: not valid TOML: {error}") from error
    for override in overrides or []:
        add_override(values, override)
    recipe = _check_values(values, source)
    _check_together(recipe, source)
    return recipe


def to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML that `load_recipe` reads back to the same recipe."""
    return tomli_w.dumps(dataclasses.asdict(recipe))


def differences(a: Recipe, b: Recipe) -> list[str]:
    """Name the keys in which two recipes differ: `training.epochs (5, here 8)`."""

    def shown(section: dict, key: str) -> str:
        value = section.get(key, "none")
        if isinstance(value, dict):
            value = [*value.items()]  # the order of classes matters
        return '""' if value == "" else str(value)

    a, b = dataclasses.asdict(a), dataclasses.asdict(b)
    return [
        f"{name}.{key} ({shown(a[name], key)}, here {shown(b[name], key)})"
        for name in a
        for key in a[name] | b[name]
        if shown(a[name], key) != shown(b[name], key)
    ]


def add_override(values: dict, override: str) -> None:
    """Put `section.key=value` into the sections of a recipe.

    Raises:
        UsageError: it is not written so.
    """
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


# ---- checking


@functools.cache
def _checker() -> tuple[TypeAdapter, dict[str, type], dict[str, type]]:
    """Return what checks a recipe's values, the types of its sections, and the networks."""
    from carvana.networks.build import NETWORKS  # here: networks import this module

    models = Annotated[Union[tuple(NETWORKS.values())], Field(discriminator="network")]  # noqa: UP007
    kinds = {field.name: field.type for field in dataclasses.fields(Recipe)} | {"model": models}
    checked = dataclasses.make_dataclass("Checked", kinds.items(), frozen=True)
    return TypeAdapter(section(checked)), kinds, NETWORKS


def _check_values(values: dict, source: str) -> Recipe:
    """Check each value by itself, and those of a section together; name all faults."""
    adapter, *known = _checker()
    try:
        # As JSON: strict about types, yet a table is a section and a whole number a float.
        checked = adapter.validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        faults = [_explain(fault, *known) for fault in error.errors()]
        raise UsageError(f"{source}: {'; '.join(faults)}") from error
    return Recipe(**vars(checked))


def _explain(fault: dict, kinds: dict[str, type], networks: dict[str, type]) -> str:
    """Say in the recipe's own words what pydantic found."""
    place, kind = fault["loc"], fault["type"]
    key = ".".join(str(part) for part in place if part not in networks)
    text = fault["msg"].removeprefix("Value error, ")
    text = f"{text[0].lower()}{text[1:]}"
    if kind.startswith("union_tag"):
        return f"{key}.network: name one of {', '.join(networks)}"
    if kind == "unexpected_keyword_argument":
        known = kinds
        if len(place) > 1:
            known = (networks.get(place[1]) or kinds[place[0]]).__dataclass_fields__
        return f"unknown key '{key}'; known here: {', '.join(known)}"
    if kind == "missing":
        return f"key '{key}' is missing"
    if kind == "value_error" and isinstance(fault["input"], dict):
        return f"{key}.{text}"  # of a whole section: the text begins with the key
    return f"{key} = {fault['input']!r}: {text}"


def _check_together(recipe: Recipe, source: str) -> None:
    """Make sure that sizes, classes and stages are such as the network can take."""
    step = recipe.model.step
    for side in ("height", "width"):
        size = getattr(recipe.input, side)
        if size % step:
            below = max(size // step, 1) * step
            raise UsageError(
                f"{source}: input.{side} = {size} is not divisible by {step}, as this network's "
                f"levels need; use {below} or {below + step}"
            )
    scales, sizes = recipe.prediction.scales, set()
    with contextlib.suppress(ValidationError):  # of a side of more than 8192 pixels
        sizes = {(pictures.height, pictures.width) for pictures in recipe.prediction_inputs}
    if len(sizes) < len(scales):
        raise UsageError(
            f"{source}: prediction.scales = {scales}: sides are rounded to multiples of "
            f"{step}; give scales of different sizes, of at most 8192 pixels a side"
        )
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
