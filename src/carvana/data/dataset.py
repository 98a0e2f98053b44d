"""Find the pairs of photographs and masks in a data folder, and split them."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana.competition.facts import Paths, car_of
from carvana.data.images import list_images
from carvana.errors import CarvanaError, list_faults
from carvana.files import write_text


@dataclass(frozen=True, order=True)
class Pair:
    """A photograph and its mask, not read yet."""

    name: str  # of the photograph's file
    image: Path
    mask: Path


@dataclass(frozen=True)
class Split:
    """The pairs on each side, sorted."""

    train: list[Pair]
    validation: list[Pair]


def find_pairs(paths: Paths) -> list[Pair]:
    """Return the training photographs with their masks, sorted by name.

    Names are matched whole (`<stem>.jpg` with `<stem>_mask.gif`), never by prefix.

    Raises:
        CarvanaError: a folder is absent or empty, or an image or mask has no partner; every one
            is named, at most twenty in full.
    """
    pairs = [Pair(name, paths.image(name), paths.mask(name)) for name in list_images(paths.train)]
    if not paths.train_masks.is_dir():
        raise CarvanaError(f"{paths.train_masks}: no such folder; run `make download`")
    masks = {f.name for f in paths.train_masks.glob("*.gif") if not f.name.startswith(".")}
    wanted = {pair.mask.name: pair for pair in pairs}
    faults = [f"{wanted[mask].image}: no mask {mask}" for mask in wanted.keys() - masks]
    faults += [f"{paths.train_masks / mask}: no photograph" for mask in masks - wanted.keys()]
    if faults:
        summary = f"{paths.root}: {len(faults)} without a partner; fetch or remove them:"
        raise CarvanaError(list_faults(summary, sorted(faults)))
    return pairs


def draw_split(pairs: list[Pair], by: str, validation: float, seed: int) -> Split:
    """Split pairs at random, the same way each time for the same names and seed.

    Args:
        pairs: their photographs named `<car>_<view>.jpg`.
        by: "image" as published, or "car": all views of a car on one side.
        validation: the share of images (or cars) held out, in (0, 1).
        seed: of the draw.

    Raises:
        CarvanaError: too few to leave one on each side.
    """
    key = car_of if by == "car" else str
    units = sorted({key(pair.name) for pair in pairs})
    count = round(len(units) * validation)
    if not 0 < count < len(units):
        raise CarvanaError(
            f"{len(units)} {by}(s) cannot be split with {validation:.0%} for validation; "
            "add photographs or change data.validation"
        )
    held_out = set(np.random.default_rng(seed).permutation(units)[:count])
    return Split(
        train=sorted(pair for pair in pairs if key(pair.name) not in held_out),
        validation=sorted(pair for pair in pairs if key(pair.name) in held_out),
    )


def write_split(path: Path, split: Split) -> None:
    """Write `img,subset` rows, sorted by image."""
    rows = [(pair.name, "train") for pair in split.train]
    rows += [(pair.name, "validation") for pair in split.validation]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("img", "subset"))
    writer.writerows(sorted(rows))
    write_text(path, text.getvalue())


def read_split(path: Path, pairs: list[Pair]) -> Split:
    """Read a split and check that it still fits the pairs there are.

    Raises:
        CarvanaError: unreadable, or its images are not just those of `pairs`.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["img"], row["subset"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise CarvanaError(f"{path}: is not a split (img,subset); start another run") from error
    by_name = {pair.name: pair for pair in pairs}
    gone = sorted({img for img, _ in rows} - by_name.keys())
    new = sorted(by_name.keys() - {img for img, _ in rows})
    if gone or new:
        raise CarvanaError(
            f"{path}: {len(gone)} of its images are not in the data and {len(new)} of the data's "
            f"are not in it (first: {(gone or new)[0]}); restore the data or start another run"
        )
    sides = {
        side: [by_name[img] for img, subset in rows if subset == side]
        for side in ("train", "validation")
    }
    if not all(sides.values()) or sum(map(len, sides.values())) != len(rows):
        raise CarvanaError(f"{path}: a side is empty or misnamed; start another run")
    return Split(**sides)
