"""Find the pairs of photographs and masks in a data folder."""

import sys
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from carvana.data.folders import MASKS, list_files, list_images
from carvana.data.images import photograph_size
from carvana.errors import CarvanaError, list_faults
from carvana.files import real_path
from carvana.recipe import Data

_Item = TypeVar("_Item")


@dataclass(frozen=True, order=True)
class Pair:
    """A photograph and its mask, not read yet."""

    name: str  # of the photograph's file
    image: Path
    mask: Path


def find_pairs(root: Path, settings: Data) -> list[Pair]:
    """Return the photographs of a data folder with their masks, sorted by name.

    Raises:
        CarvanaError: a folder is absent or empty, or an image or mask has no partner or more than
            one; all are counted, the first twenty named.
    """
    pairs, faults = match_pairs(root, settings)
    if faults:
        summary = (
            f"{root}: {len(faults)} without a partner (data.mask_names = "
            f"{settings.mask_names!r}); fetch or remove them:"
        )
        raise CarvanaError(list_faults(summary, faults))
    return pairs


def match_pairs(root: Path, settings: Data) -> tuple[list[Pair], list[str]]:
    """Return the pairs of a data folder, and what is wrong with the files that have no partner.

    Names are matched whole, never by prefix, whatever the case of their endings and the Unicode
    form of their letters.

    Raises:
        CarvanaError: a folder is absent or empty.
    """
    images, masks = root / settings.images, root / settings.masks
    for folder, key in ((images, "data.images"), (masks, "data.masks")):
        if not folder.is_dir():
            raise CarvanaError(
                f"{folder}: no such folder; run `make download`, or for pictures of your own name "
                f"it in a recipe ({key}; see own.toml)"
            )
    names = list_images(images)
    together = real_path(images) == real_path(masks)
    files, others = list_files(masks, MASKS)
    if others and not together:
        print(f"{masks}: ignoring files that are not masks: {others}", file=sys.stderr)
    by_stem = defaultdict(list)
    for name in files:
        by_stem[_stem(name)].append(masks / name)
    wanted = {name: settings.mask_names.replace("{name}", _stem(name)) for name in names}
    if together:  # then the masks are among the photographs
        if settings.mask_names == "{name}":
            raise CarvanaError(
                f"{images}: holds photographs and masks of the same names; move the masks to a "
                "folder of their own (data.masks), or name them otherwise (data.mask_names)"
            )
        stems = {*wanted.values()}
        wanted = {name: stem for name, stem in wanted.items() if _stem(name) not in stems}
    pairs, faults, owners = [], [], {}
    for name, stem in wanted.items():
        image = images / name
        candidates = [path for path in by_stem.get(stem, ()) if path != image]
        if not candidates:
            faults.append(f"{image}: no mask {stem}.png (or .gif, ...) in {masks}")
        elif len(candidates) > 1:
            both = " and ".join(path.name for path in candidates)
            faults.append(f"{image}: has several masks ({both}); leave one")
        elif (owner := owners.setdefault(candidates[0], name)) != name:
            faults.append(f"{image}: has the mask of {owner}; rename or remove one")
        else:
            pairs.append(Pair(name, image, candidates[0]))
    if not together:
        unwanted = by_stem.keys() - wanted.values()
        faults += [f"{path}: no photograph" for stem in unwanted for path in by_stem[stem]]
    if not pairs and not faults:
        faults.append(f"{images}: no photograph has a mask")
    return sorted(pairs), sorted(faults)


def _stem(name: str) -> str:
    """Return a name without its ending; two Unicode forms of one letter are the same."""
    return unicodedata.normalize("NFC", Path(name).stem)


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return at most `count` items evenly spread over a sequence, its ends among them."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def size_fault(pair: Pair, size: tuple[int, int]) -> str:
    """Say what is wrong with a mask whose (height, width) is not its photograph's."""
    height, width, orientation = photograph_size(pair.image)
    fault = f"{pair.mask}: is {size[1]}x{size[0]}, its photograph {width}x{height}"
    if size == (width, height) and orientation > 4:
        return (
            f"{fault} when upright (its EXIF orientation tag is {orientation}, so it is shown on "
            "its other side); rotate the mask the same way, or remove the tag"
        )
    return f"{fault}; make a mask of the photograph's size"
