"""Load a recipe (every number of an experiment) into one checked dataclass."""

import dataclasses
import itertools
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from carvana.errors import UsageError

_strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_section = dataclass(frozen=True, config=_strict)
_Positive = Annotated[int, Field(ge=1)]
_Side = Annotated[int, Field(ge=1, le=8192)]  # pixels
_Seed = Annotated[int, Field(ge=0, lt=2**31)]
_Filters = Annotated[int, Field(ge=1, le=1024)]
_Factors = Annotated[list[Annotated[float, Field(ge=0, le=10)]], Field(min_length=2, max_length=2)]


@_section
class Data:
    split: Literal["image", "car"]
    validation: Annotated[float, Field(gt=0, lt=1)]
    seed: _Seed


@_section
class Input:
    height: _Side
    width: _Side
    method: Literal["bilinear", "area"]
    antialias: bool


@_section
class Augment:
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: _Factors
    saturation: _Factors
    flip: bool
    zoom: Annotated[float, Field(ge=0, le=1)]
    rotate: Annotated[float, Field(ge=0, le=180)]
    shift: Annotated[float, Field(ge=0, le=1)]
    repaint: Annotated[float, Field(ge=0, le=2)]
    stretch: Annotated[float, Field(ge=0, le=1)] = 0.0  # runs made before it have none
    warp: Annotated[float, Field(ge=0, le=1)] = 0.0
    gamma: Annotated[float, Field(ge=0, le=2)] = 0.0


@_section
class Unet:
    network: Literal["unet"]
    filters: _Filters
    num_layers: Annotated[int, Field(ge=1, le=8)]
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @property
    def step(self) -> int:
        """What both sides of the input must be divisible by."""
        return 2**self.num_layers


def _as_count(value: object) -> object:
    """Take true for one, as runs made before counts have it."""
    return int(value) if isinstance(value, bool) else value


@_section
class PyramidUnet:
    network: Literal["pyramid_unet"]
    filters: Annotated[list[_Filters], Field(min_length=1, max_length=8)]
    fine_filters: Annotated[list[_Filters], Field(max_length=4)]
    pretrained: Annotated[int, Field(ge=0), BeforeValidator(_as_count)] = 0

    @property
    def step(self) -> int:
        """What both sides of the input must be divisible by."""
        return 4 * 2 ** (len(self.filters) - 1 + len(self.fine_filters))  # pyramid.pyramid_step


def _as_list(value: object) -> object:
    """Take a single share for a list, zero for none, as runs made before lists have it."""
    return value if not isinstance(value, float) else [value] if value else []


_NETWORKS = {"unet": Unet, "pyramid_unet": PyramidUnet}


@_section
class Training:
    seed: _Seed
    epochs: _Positive
    coarse: Annotated[list[Annotated[float, Field(ge=0, le=1)]], BeforeValidator(_as_list)]
    steps_per_epoch: Annotated[int, Field(ge=0)]
    batch_size: _Positive
    loss: Literal["binary_crossentropy", "bce_dice"]
    optimizer: Literal["rmsprop", "adamw", "muon"]
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["constant", "cosine"]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    epsilon: Annotated[float, Field(gt=0)]
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

    @property
    def stages(self) -> list[int]:
        """After how many epochs each stage ends; the last trains the whole network."""
        ends = [round(share * self.epochs) for share in itertools.accumulate(self.coarse)]
        if sum(self.coarse) < 1:  # then the whole network is trained, be it for one epoch
            ends = [min(end, self.epochs - 1) for end in ends]
        return [*ends, self.epochs]


@_section
class Prediction:
    threshold: Annotated[float, Field(gt=0, lt=1)]
    batch_size: _Positive
    flip: bool
    enlarge: Annotated[
        list[Annotated[float, Field(ge=0.5, le=4)]], Field(min_length=1), BeforeValidator(_as_list)
    ] = dataclasses.field(default_factory=lambda: [1.0])  # runs made before it do not


@_section
class Recipe:
    """Every number of an experiment; `recipes/*.toml` say what each means."""

    data: Data
    input: Input
    augment: Augment
    model: Annotated[Unet | PyramidUnet, Field(discriminator="network")]
    training: Training
    prediction: Prediction

    @property
    def prediction_inputs(self) -> list[Input]:
        """How photographs become what the network predicts from: enlarged, to whole steps."""
        step = self.model.step
        return [
            dataclasses.replace(
                self.input,
                height=max(round(self.input.height * enlarge / step), 1) * step,
                width=max(round(self.input.width * enlarge / step), 1) * step,
            )
            for enlarge in self.prediction.enlarge
        ]


def load_recipe(name_or_path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Load a recipe and check it.

    Args:
        name_or_path: the name of one of the kit's recipes (`blog`), or a path to a TOML file.
        overrides: `section.key=value` each, the value in TOML (a bare word is taken as a string).

    Raises:
        UsageError: no such recipe; a key that is unknown, missing or of the wrong type; a value
            out of range; a size the model cannot take.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        text, source = _read(path), str(path)
    else:
        shipped = resources.files("carvana.recipes")
        names = sorted(f.name[:-5] for f in shipped.iterdir() if f.name.endswith(".toml"))
        if str(name_or_path) not in names:
            raise UsageError(
                f"recipe '{name_or_path}': no such recipe; there are {', '.join(names)}, "
                "or give the path of a .toml file"
            )
        text, source = (shipped / f"{name_or_path}.toml").read_text("utf-8"), f"{path}.toml"
    return parse_recipe(text, source, overrides)


def parse_recipe(text: str, source: str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe from TOML and check it; `source` is what errors name. See `load_recipe`."""
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
    a, b = dataclasses.asdict(a), dataclasses.asdict(b)
    return [
        f"{section}.{key} ({a[section].get(key, 'none')}, here {b[section].get(key, 'none')})"
        for section in a
        for key in a[section] | b[section]
        if a[section].get(key) != b[section].get(key)
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"{path}: cannot be read ({reason}); give a recipe's .toml") from error


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
    step = recipe.model.step
    for side in ("height", "width"):
        size = getattr(recipe.input, side)
        if size % step:
            below = max(size // step, 1) * step
            raise UsageError(
                f"{source}: input.{side} = {size} is not divisible by {step}, as this model's "
                f"levels need; use {below} or {below + step}"
            )
    try:
        sizes = [(pictures.height, pictures.width) for pictures in recipe.prediction_inputs]
    except ValidationError as error:
        raise UsageError(
            f"{source}: prediction.enlarge = {recipe.prediction.enlarge} makes pictures larger "
            "than 8192 pixels a side; give less"
        ) from error
    if len(set(sizes)) < len(sizes):
        raise UsageError(
            f"{source}: prediction.enlarge = {recipe.prediction.enlarge} makes pictures of one "
            f"size more than once, as sides are multiples of {step}: {sizes}"
        )
    coarse, levels = recipe.training.coarse, len(getattr(recipe.model, "fine_filters", ()))
    if len(coarse) > levels or sum(coarse) > 1:
        raise UsageError(
            f"{source}: training.coarse = {coarse}: give as many shares of the epochs as this "
            f"model has fine levels ({levels}) or fewer, together no more than 1"
        )
    pretrained = getattr(recipe.model, "pretrained", 0)
    if pretrained > levels + 1:
        raise UsageError(
            f"{source}: model.pretrained = {pretrained}: this model looks at {levels + 1} "
            "pictures; give that many or fewer"
        )
    for key in ("contrast", "saturation"):
        low, high = getattr(recipe.augment, key)
        if low > high:
            raise UsageError(f"{source}: augment.{key} = [{low}, {high}]: the lower comes first")
    return recipe


def _explain(fault: dict) -> str:
    key = ".".join(str(part) for part in fault["loc"] if part not in _NETWORKS)
    if fault["type"].startswith("union_tag"):
        return f"{key}.network: name one of {', '.join(_NETWORKS)}"
    if fault["type"] == "unexpected_keyword_argument":
        section, *inner = fault["loc"]
        known = Recipe
        if inner:
            known = _NETWORKS.get(inner[0]) or Recipe.__dataclass_fields__[section].type
        return f"unknown key '{key}'; known here: {', '.join(known.__dataclass_fields__)}"
    if fault["type"] == "missing":
        return f"key '{key}' is missing"
    return f"{key} = {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
