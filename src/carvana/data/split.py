"""Which pairs are trained on, and which validate: drawn, written down, read back."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana.competition.facts import car_of
from carvana.data.pairs import Pair
from carvana.errors import CarvanaError, plural
from carvana.files import to_line, write_text
from carvana.recipe import Data


@dataclass(frozen=True)
class Split:
    """The pairs on each side, sorted."""

    train: list[Pair]
    validation: list[Pair]


def draw_split(pairs: list[Pair], settings: Data, fold: tuple[int, int] | None = None) -> Split:
    """Split pairs at random, the same way each time for the same names and seed.

    With `data.split = "car"`, all photographs of a car, or of whatever `data.group` says, are on
    one side. Nothing is drawn where `data.validation_folders` says what to validate on.

    Args:
        pairs, settings: what to split, and how.
        fold: (2, 5) to validate on the second of five equal parts; `data.validation` at random
            when None. Each pair is in the validation of one fold.

    Raises:
        CarvanaError: too few to leave one on each side, or a name that `data.group` does not
            match.
    """
    if settings.validation_folders:
        if fold:
            raise CarvanaError(
                "data.validation_folders says what to validate on, and folds draw it; leave one out"
            )
        start = f"{settings.validation_folders[0]}/"
        held_out = {pair for pair in pairs if pair.name.startswith(start)}
        return Split(sorted({*pairs} - held_out), sorted(held_out))
    units = {pair.name: pair.name for pair in pairs}
    if settings.split == "car":
        units = group_pairs(pairs, settings.group)
        if settings.group or any(name != unit for name, unit in units.items()):
            how = "by data.group" if settings.group else "by file name (the part before the last _)"
            print(f"{plural(len(set(units.values())), 'subject')}, told apart {how}")
        else:
            print(
                "the photographs' names do not tell subjects apart (<car>_<view>.jpg would): each "
                "is split on its own; data.group can give a pattern"
            )
    drawn = sorted(set(units.values()))
    count = round(len(drawn) * settings.validation)
    what = "photograph" if settings.split == "image" else "subject"
    if not (0 < count < len(drawn) or fold):
        raise CarvanaError(
            f"{plural(len(drawn), what)} cannot be split with data.validation = "
            f"{settings.validation}; add photographs, or change data.validation, data.group or "
            'data.split ("image")'
        )
    order = np.random.default_rng(settings.seed).permutation(drawn)
    if fold and fold[1] > len(drawn):
        raise CarvanaError(f"{len(drawn)} {what}(s) cannot be split in {fold[1]} folds; use fewer")
    held_out = set(np.array_split(order, fold[1])[fold[0] - 1] if fold else order[:count])
    return Split(
        train=sorted(pair for pair in pairs if units[pair.name] not in held_out),
        validation=sorted(pair for pair in pairs if units[pair.name] in held_out),
    )


def group_pairs(pairs: list[Pair], pattern: str) -> dict[str, str]:
    """Return what each photograph, by its name, belongs to: a pattern's first group, or its car.

    Photographs whose names tell no cars apart are each on their own.

    Raises:
        CarvanaError: the pattern does not match a name.
    """
    if not pattern:
        units = {pair.name: car_of(pair.image.name) or pair.image.stem for pair in pairs}
        apart = any(car_of(name) for name in units) and len(set(units.values())) > 1
        return units if apart else {name: name for name in units}
    matches = {pair.name: re.search(pattern, pair.image.name) for pair in pairs}
    unmatched = [name for name, match in matches.items() if not (match and match.group(1))]
    if unmatched:
        raise CarvanaError(
            f"{len(unmatched)} names do not match data.group = {pattern!r} (first: "
            f"{unmatched[0]}); correct the pattern"
        )
    return {name: match.group(1) for name, match in matches.items()}


def write_split(path: Path, split: Split) -> None:
    """Write `img,subset` rows, sorted by image."""
    rows = [(pair.name, "train") for pair in split.train]
    rows += [(pair.name, "validation") for pair in split.validation]
    write_text(path, "".join(map(to_line, [("img", "subset"), *sorted(rows)])))


def read_split(path: Path, pairs: list[Pair]) -> Split:
    """Read a split.

    Raises:
        CarvanaError: it is unreadable, or its images are not just those of `pairs`.
    """
    rows = _read_rows(path)
    by_name = {pair.name: pair for pair in pairs}
    gone = sorted({img for img, _ in rows} - by_name.keys())
    new = sorted(by_name.keys() - {img for img, _ in rows})
    if gone or new:
        raise CarvanaError(
            f"{path}: {len(gone)} of its images are not in the data and {len(new)} of the data's "
            f"are not in it (first: {(gone or new)[0]}); restore the data or start another run"
        )
    sides = {"train": [], "validation": []}
    for img, subset in rows:
        sides.get(subset, []).append(by_name[img])
    if not all(sides.values()) or sum(map(len, sides.values())) != len(rows):
        raise CarvanaError(f"{path}: a side is empty or misnamed; start another run")
    return Split(**sides)


def names_in(path: Path, side: str) -> set[str]:
    """Return the names of a split's photographs on one side, "train" or "validation"."""
    return {name for name, subset in _read_rows(path) if subset == side}


def _read_rows(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["img"], row["subset"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise CarvanaError(f"{path}: is not a split (img,subset); start another run") from error
