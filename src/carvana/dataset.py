"""Find image/mask pairs, check them, and split them."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from carvana.competition import Paths, car_of
from carvana.errors import CarvanaError, list_faults
from carvana.files import write_text

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Split:
    """Names of the photographs on each side, sorted."""

    train: list[str]
    validation: list[str]


def list_images(folder: Path) -> list[str]:
    """Return the sorted names of the photographs in a folder; hidden files are passed over.

    Raises:
        CarvanaError: the folder is absent, not a folder, or holds no photograph; a name is not
            UTF-8.
    """
    if folder.is_file():
        raise CarvanaError(f"{folder}: is a file; give the folder it lies in")
    if not folder.is_dir():
        raise CarvanaError(f"{folder}: no such folder; run `make download` or unzip it there")
    names = sorted(
        f.name
        for f in folder.iterdir()
        if f.suffix.lower() in IMAGE_ENDINGS and not f.name.startswith(".") and not f.is_dir()
    )
    if not names:
        raise CarvanaError(
            f"{folder}: holds no photograph ({', '.join(IMAGE_ENDINGS)}); run `make download` or "
            "unzip the images straight into it"
        )
    for name in names:
        if not name.isprintable():
            raise CarvanaError(f"{folder}/{name!a}: has an unreadable name; rename it")
    return names


def find_pairs(paths: Paths) -> list[str]:
    """Return the sorted names of the training photographs, each with its mask beside it.

    Names are matched whole (`<stem>.jpg` with `<stem>_mask.gif`), never by prefix.

    Raises:
        CarvanaError: a folder is absent or empty, or an image or mask has no partner; every one
            is named, at most twenty in full.
    """
    images = list_images(paths.train)
    if not paths.train_masks.is_dir():
        raise CarvanaError(f"{paths.train_masks}: no such folder; run `make download`")
    masks = {f.name for f in paths.train_masks.glob("*.gif") if not f.name.startswith(".")}
    wanted = {paths.mask(name).name: name for name in images}
    faults = [f"{paths.train / wanted[mask]}: no mask {mask}" for mask in wanted.keys() - masks]
    faults += [f"{paths.train_masks / mask}: no photograph" for mask in masks - wanted.keys()]
    if faults:
        summary = f"{paths.root}: {len(faults)} without a partner; fetch or remove them:"
        raise CarvanaError(list_faults(summary, sorted(faults)))
    return images


def pair_fault(image: Path, mask: Path) -> str | None:
    """Say what is wrong with a pair by its files' headers, or None if nothing is.

    A photograph is a JPEG of three channels, a mask a GIF of one frame and of the same size.
    """
    try:
        with Image.open(image) as photograph:
            if photograph.format != "JPEG":
                return f"{image}: is a {photograph.format} under another name; convert it to JPEG"
            if photograph.mode != "RGB":
                return f"{image}: is {photograph.mode}, not RGB; convert it to an RGB JPEG"
            size = photograph.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return f"{image}: is not a readable image; fetch it again"
    try:
        with Image.open(mask) as picture:
            if picture.format != "GIF":
                return f"{mask}: is a {picture.format}, not a GIF; fetch it again"
            if getattr(picture, "n_frames", 1) != 1:
                return f"{mask}: has {picture.n_frames} frames; a mask has one"
            if picture.size != size:
                return (
                    f"{mask}: is {picture.size[0]}x{picture.size[1]}, its photograph "
                    f"{size[0]}x{size[1]}; fetch both again"
                )
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return f"{mask}: is not a readable image; fetch it again"
    return None


def read_mask(path: Path) -> np.ndarray:
    """Read a mask GIF at full size.

    Returns:
        (height, width) bool.

    Raises:
        CarvanaError: unreadable, or values other than two.
    """
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture.convert("L"))
    except (OSError, UnidentifiedImageError) as error:
        raise CarvanaError(f"{path}: is not a readable mask; fetch it again") from error
    fault = mask_fault(values)
    if fault:
        raise CarvanaError(f"{path}: {fault}")
    return values > 0


def mask_fault(values: np.ndarray) -> str | None:
    """Say what is wrong with a decoded mask's values (uint8), or None: black and white only."""
    grey = np.count_nonzero((values > 0) & (values < 255))
    if grey:
        return f"has {grey} values besides black and white; a mask has two values"
    return None


def draw_split(names: list[str], by: str, validation: float, seed: int) -> Split:
    """Split photographs at random, the same way each time for the same names and seed.

    Args:
        names: photographs, `<car>_<view>.jpg`.
        by: "image" as published, or "car": all views of a car on one side.
        validation: the share of images (or cars) held out, in (0, 1).
        seed: of the draw.

    Raises:
        CarvanaError: too few to leave one on each side.
    """
    key = car_of if by == "car" else str
    units = sorted({key(name) for name in names})
    count = round(len(units) * validation)
    if not 0 < count < len(units):
        raise CarvanaError(
            f"{len(units)} {by}(s) cannot be split with {validation:.0%} for validation; "
            "add photographs or change data.validation"
        )
    held_out = set(np.random.default_rng(seed).permutation(units)[:count])
    return Split(
        train=sorted(n for n in names if key(n) not in held_out),
        validation=sorted(n for n in names if key(n) in held_out),
    )


def write_split(path: Path, split: Split) -> None:
    """Write `img,subset` rows, sorted by image."""
    rows = [(n, "train") for n in split.train] + [(n, "validation") for n in split.validation]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("img", "subset"))
    writer.writerows(sorted(rows))
    write_text(path, text.getvalue())


def read_split(path: Path, names: list[str]) -> Split:
    """Read a split back and check that it still fits the photographs there are.

    Raises:
        CarvanaError: unreadable, or its images are not just `names`.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["img"], row["subset"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise CarvanaError(f"{path}: is not a split (img,subset); start another run") from error
    gone = sorted({img for img, _ in rows} - set(names))
    new = sorted(set(names) - {img for img, _ in rows})
    if gone or new:
        raise CarvanaError(
            f"{path}: {len(gone)} of its images are not in the data and {len(new)} of the data's "
            f"not in it (first: {(gone or new)[0]}); bring the data back or start another run"
        )
    sides = {
        side: [img for img, subset in rows if subset == side] for side in ("train", "validation")
    }
    if not all(sides.values()) or sum(map(len, sides.values())) != len(rows):
        raise CarvanaError(f"{path}: a side is empty or misnamed; start another run")
    return Split(**sides)
