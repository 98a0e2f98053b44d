"""Plan a training on somebody's own pictures: look at their folder, write a recipe for it."""

import dataclasses
import math
import os
import re
import shlex
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from carvana.backend import keras_settings
from carvana.data.classes import find_classes
from carvana.data.images import photograph_size
from carvana.data.inspect import inspect
from carvana.data.layout import Choice, find_layout
from carvana.data.pairs import Pair, find_pairs
from carvana.errors import CarvanaError, UsageError, list_faults, plural
from carvana.files import check_writable, write_text
from carvana.machine import free_memory
from carvana.networks.build import build_network, choose_precision, describe_device
from carvana.recipe import Recipe, add_override, load_recipe, parse_recipe
from carvana.training.optimizers import compile_network, exact_products

# Patterns of names whose first group is the subject, from the widest. `.rf.` is Roboflow's.
GROUPS = (r"^(.+)\.rf\.", r"^([^_]+)_", r"^([^-]+)-", r"^(\D*\d+)\D+\d", r"^(.+)_", r"^(.+)-")
LEAST_GROUPS = 5  # fewer may be classes, or parts that differ too much to hold one out
HELD_OUT = 200  # photographs are enough to validate on
# On CamVid 460 steps of 8 pictures gave 0.66 mean IoU, which is in print for hours of training.
LEAST_STEPS, MOST_STEPS = 450, 5000
LEAST_EPOCHS, LEAST_EPOCH = 10, 20  # epochs; steps of an epoch, which ends with a validation
LEAST_PIXELS, MOST_PIXELS = 128**2, 2**20  # of the input
SMALL = 128  # pixels; pictures with a shorter side are halved once less
OTHER_WORK = 1.3  # a training's time as a multiple of its steps': reading, validating, saving
STARTING = 60  # seconds
ACTIVATIONS, LOGITS = 400, 45  # bytes a pixel in training, float32: of features, of each class
NETWORKS = (  # filters, levels with an encoder
    ([48, 96, 144, 192], 1, "wider than own.toml's"),
    ([24, 48, 72, 96], 0, "narrow, as the time is short"),
)
TRIAL = {"input.height": Choice(192, ""), "input.width": Choice(256, "")}  # to time a step
SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A recipe that was written, and what to know about it."""

    recipe: Recipe
    pairs: int
    warnings: list[str]  # what may be a mistake in the masks
    commands: list[str]  # that follow


def write_plan(data: Path, out: Path, minutes: float, overrides: Sequence[str] = ()) -> Plan:
    """Write a recipe for a folder of photographs and masks, with the reason for every choice.

    The folder is only read. `minutes` are those that training may take on this machine; `overrides`
    say what is known, `section.key=value` each.

    Raises:
        UsageError: `out` exists, or an override is wrong.
        CarvanaError: no masks are found, something cannot be decided, or pairs are faulty.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already; give another --out, or remove it")
    check_writable(next(folder for folder in out.absolute().parents if folder.exists()))
    given = _given(overrides)
    known = {key[5:]: choice.value for key, choice in given.items() if key.startswith("data.")}
    layout, test = find_layout(data, known)
    choices = {f"data.{key}": choice for key, choice in layout.items()} | given
    folders = {
        key: choices[f"data.{key}"].value
        for key in (*layout, "unmasked", "validation_folders")
        if f"data.{key}" in choices
    }
    pairs = find_pairs(data, dataclasses.replace(load_recipe("own").data, **folders))
    if len(pairs) < 2:
        raise CarvanaError(
            f"{data}: has one photograph with a mask, and training needs two: one of them to "
            "validate on; add one, or cut this one in two"
        )
    found = find_classes(data, pairs, known)
    choices |= {f"data.{key}": choice for key, choice in found.items()}
    choices |= _choose_split(pairs, folders.get("validation_folders", [])) | given
    recipe = parse_recipe(_write(choices), str(out), overrides)
    choices |= _choose_flip(recipe.data.class_names) | given
    choices |= _choose_training(pairs, recipe, choices, given, minutes) | given
    recipe = parse_recipe(_write(choices), str(out))
    result = inspect(pairs, [], recipe)
    if result.faults:
        summary = f"{data}: {plural(len(result.faults), 'fault')}; correct them and plan again:"
        raise CarvanaError(list_faults(summary, result.faults))
    commands = _commands(data, out, test)
    heading = [
        f"{plural(len(pairs), 'photograph')} with masks in {data}, looked at by carvana plan.",
        f"To train for {minutes:g} minutes on {describe_device()}; change what is wrong, then:",
        *(f"    {command}" for command in commands),
    ]
    write_text(out, _write(choices, heading))
    return Plan(recipe, len(pairs), result.warnings, commands)


def _given(overrides: Sequence[str]) -> dict[str, Choice]:
    values: dict[str, dict] = {}
    for each in overrides:
        add_override(values, each)
    return {
        f"{section}.{key}": Choice(value, "given by --set")
        for section, keys in values.items()
        for key, value in keys.items()
    }


def _choose_split(pairs: list[Pair], held_out: list[str]) -> dict[str, Choice]:
    """Choose what is held out: whole subjects if names tell them apart, else single photographs.

    `held_out` are the folders that hold what to validate on, if there are any.
    """
    names = [pair.name for pair in pairs]
    if held_out:
        count = sum(name.startswith(f"{held_out[0]}/") for name in names)
        share = round(count / len(names), 4)
        return {"data.validation": Choice(share, "not used: see validation_folders")}
    group = next((pattern for pattern in GROUPS if _tells_apart(pattern, names)), "")
    units, unit = len(names), "photograph"
    split = Choice("image", "each photograph on its own: the names tell no subjects apart")
    if group:
        units, unit = len({re.search(group, name)[1] for name in names}), "subject"
        split = Choice("car", "photographs of one subject are on one side")
    share = max(min(0.2, HELD_OUT / len(names)), 1 / units)
    held_out = plural(round(share * units), unit)
    example = f", as in {names[0]}: {re.search(group, names[0])[1]}" if group else ""
    return {
        "data.split": split,
        "data.group": Choice(group, f"{plural(units, unit)}{example}"),
        "data.validation": Choice(
            round(share, 4), f"{held_out} of {units} held out to validate on"
        ),
    }


def _tells_apart(pattern: str, names: list[str]) -> bool:
    """Tell whether a pattern finds subjects with several photographs each."""
    found = [re.search(pattern, name) for name in names]
    if not all(found):
        return False
    counts = Counter(match[1] for match in found)
    if pattern == GROUPS[0]:  # changed copies of one photograph, of some more than of others
        return 1 < len(counts) < len(names)
    enough = len(counts) >= LEAST_GROUPS and min(counts.values()) > 1
    return enough and max(counts.values()) <= len(names) / 2


def _choose_flip(classes: list[str]) -> dict[str, Choice]:
    """Choose against mirroring where it would turn one class into another."""
    names = {tuple(re.split(r"[\W_]+", name.lower())): name for name in classes}
    for words, name in names.items():
        mirrored = tuple(SIDES.get(word, word) for word in words)
        if mirrored != words and mirrored in names:
            reason = f"a mirror would turn {name!r} into {names[mirrored]!r}"
            return {
                "augment.flip": Choice(False, reason),
                "prediction.flip": Choice(False, reason),
            }
    return {}


def _choose_training(
    pairs: list[Pair],
    recipe: Recipe,
    choices: Mapping[str, Choice],
    given: Mapping[str, Choice],
    minutes: float,
) -> dict[str, Choice]:
    """Choose the network, the size of its input, and as many steps as the time allows."""
    sizes = [photograph_size(pair.image)[:2] for pair in pairs]
    aspect = statistics.median(height / width for height, width in sizes)
    whole = statistics.median(height * width for height, width in sizes)
    levels = 4 if statistics.median(min(size) for size in sizes) >= SMALL else 3
    count = len(pairs) - round(recipe.data.validation * len(pairs))
    batch_size = recipe.training.batch_size
    batch = min(batch_size, count)  # pictures that a step reads
    seconds = max(60 * minutes - STARTING, 30 * minutes) / OTHER_WORK
    least = min(LEAST_PIXELS, whole)
    for filters, encoder_levels, why in NETWORKS:
        network = {
            "model.filters": Choice(filters[:levels], f"of its {levels} levels; {why}"),
            "model.encoder_levels": Choice(
                encoder_levels, "1: an encoder pretrained on photographs"
            ),
        }
        trial = parse_recipe(_write({**choices, **TRIAL, **network, **given}), "--set")
        per_pixel = time_step(trial) / (batch_size * trial.input.height * trial.input.width)
        affordable = seconds / (per_pixel * batch * LEAST_STEPS)
        if affordable >= least:
            break
    memory = free_memory() / 2 / (batch * (ACTIVATIONS + LOGITS * trial.data.outputs))
    pixels, why = min(
        (affordable, f"as large as {LEAST_STEPS} steps in {minutes:g} minutes allow"),
        (whole, "as large as the photographs"),
        (memory, "as large as the free memory allows"),
        (MOST_PIXELS, "as large as it pays for most photographs"),
    )
    height, width = _sides(max(pixels, least), aspect, trial.model.step)
    size = {"input.height": Choice(height, why), "input.width": Choice(width, "by their shape")}
    chosen = {**size, **given}
    step_seconds = per_pixel * batch * chosen["input.height"].value * chosen["input.width"].value
    return network | size | _choose_steps(math.ceil(count / batch), step_seconds, seconds)


def _sides(pixels: float, aspect: float, step: int) -> tuple[int, int]:
    """Return height and width, multiples of a step, of a picture with so many pixels."""
    sides = (math.sqrt(pixels * aspect), math.sqrt(pixels / aspect))
    height, width = (max(round(side / step), 1) * step for side in sides)
    return height, width


def _choose_steps(a_pass: int, step_seconds: float, seconds: float) -> dict[str, Choice]:
    """Choose epochs for a time, and how many steps each has; a pass is so many steps."""
    steps = int(min(max(seconds / step_seconds, LEAST_EPOCH), MOST_STEPS))
    an_epoch, why = 0, "0: once through the training pictures"
    if a_pass < LEAST_EPOCH:
        an_epoch, why = LEAST_EPOCH, "the pictures are few: several times through them"
    elif a_pass * LEAST_EPOCHS > steps:
        an_epoch, why = max(steps // LEAST_EPOCHS, LEAST_EPOCH), "less than once through, to watch"
    epochs = max(round(steps / (an_epoch or a_pass)), 1)
    total = epochs * (an_epoch or a_pass)
    needed = (total * step_seconds * OTHER_WORK + STARTING) / 60
    few = "" if total >= LEAST_STEPS / 2 else "; few: give more --minutes"
    return {
        "training.epochs": Choice(epochs, f"{total:,} steps, about {needed:.0f} minutes here{few}"),
        "training.steps_per_epoch": Choice(an_epoch, why),
    }


def time_step(recipe: Recipe) -> float:
    """Return the seconds that a step of training takes on this machine, the least of three."""
    precision, pictures = choose_precision(recipe.training.precision), recipe.input
    shape = (recipe.training.batch_size, pictures.height, pictures.width)
    images = np.random.default_rng(1).random((*shape, 3), np.float32)
    masks = np.zeros((*shape, recipe.data.outputs), np.float32)
    masks[..., 0] = images[..., 0] > 0.5
    seconds = []
    with keras_settings(precision), exact_products(recipe.training.optimizer):
        network = build_network(recipe, precision, seed=recipe.training.seed)
        compile_network(network, recipe, LEAST_STEPS)
        for _ in range(4):
            began = time.monotonic()
            network.train_on_batch(images, masks)
            seconds.append(time.monotonic() - began)
    return min(seconds[1:])  # the first one builds the graph


def _write(choices: Mapping[str, Choice], heading: Sequence[str] = ()) -> str:
    """Write own.toml with other values, each with the reason for it."""
    lines, section = [], ""
    own = (resources.files("carvana.recipes") / "own.toml").read_text("utf-8")
    for line in own[own.index("\n[data]") + 1 :].splitlines():
        section = line.strip("[]") if line.startswith("[") else section
        key = line.partition(" ")[0]
        if choice := choices.get(f"{section}.{key}"):
            assigned = _assign(key, choice.value).ljust(line.index("#") - 2)
            line = f"{assigned}  # {_printable(choice.reason)}"
        lines.append(line)
    return "\n".join([*(f"# {_printable(line)}" for line in heading), "", *lines, ""])


def _assign(key: str, value: Any) -> str:
    """Write `key = value` in TOML on one line."""
    if isinstance(value, dict):
        return f"{key} = {{ {', '.join(_assign(*item) for item in value.items())} }}"
    if isinstance(value, list):
        return f"{key} = [{', '.join(_assign('x', each)[4:] for each in value)}]"
    return tomli_w.dumps({key: value}).strip()


def _printable(text: str) -> str:
    """Replace what no comment may hold, such as the end of a line."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text)


def _commands(data: Path, out: Path, test: tuple[str, str] | None) -> list[str]:
    """Return the commands that follow; `test` is the folders of photographs and masks for it."""
    recipe, folder = shlex.quote(str(out)), shlex.quote(str(data))
    cache = "" if os.access(data, os.W_OK) else " --cache runs/cache"
    commands = [
        f"carvana inspect {folder} --recipe {recipe} --out sheet.png",
        f"carvana train --recipe {recipe} --data {folder} --run runs/mine{cache}",
    ]
    if test:
        images, masks = (shlex.quote(str(data / name)) for name in test)
        commands += [
            f"carvana predict --run runs/mine --images {images} --masks runs/mine/test",
            f"carvana score runs/mine/test --truth {masks} --recipe {recipe}",
        ]
    return commands
