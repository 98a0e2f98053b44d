"""Find the pairs of photographs and masks in a data folder."""

import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from carvana.data.folders import MASKS, PHOTOGRAPHS, list_files, list_images
from carvana.data.images import photograph_size
from carvana.data.masks import Mask, open_mask
from carvana.errors import CarvanaError, list_faults, plural
from carvana.files import real_path
from carvana.recipe import Data


@dataclass(frozen=True, order=True)
class Pair:
    """A photograph and its mask, not read yet."""

    name: str  # of the photograph's file; after its folder's, of data.validation_folders
    image: Path
    mask: Path | None  # a file, or a folder of one an object; None: nothing but background


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
            f'{settings.mask_names!r}); fetch or remove them, or set data.unmasked = "skip" or '
            '"empty" for photographs without a mask:'
        )
        raise CarvanaError(list_faults(summary, faults))
    return pairs


def match_pairs(root: Path, settings: Data) -> tuple[list[Pair], list[str]]:
    """Return the pairs of a data folder, and what is wrong with the files that have no partner.

    Names are matched whole, never by prefix, whatever the case of their endings and the Unicode
    form of their letters.

    Raises:
        CarvanaError: a folder is absent or empty, or photographs to train on validate, too.
    """
    photographs = list_photographs(root, settings.images)
    held_out, faults = [], []
    if settings.validation_folders:
        folder, masks = settings.validation_folders
        found = list_photographs(root, folder)
        held_out, faults = _match(found, root / folder, root / masks, settings)
        held_out = [replace(pair, name=f"{folder}/{pair.name}") for pair in held_out]
        apart = {real_path(path) for path in found.values()}
        before = len(photographs)
        photographs = {n: path for n, path in photographs.items() if real_path(path) not in apart}
        if before > len(photographs) and not _is_pattern(settings.images):
            raise CarvanaError(
                f"{root / folder}: holds photographs that are trained on, too; give "
                "data.validation_folders others than data.images"
            )
    pairs, more = _match(photographs, root / settings.images, root / settings.masks, settings)
    return sorted([*pairs, *held_out]), sorted([*faults, *more])


def _match(
    photographs: dict[str, Path], images: Path, masks: Path, settings: Data
) -> tuple[list[Pair], list[str]]:
    """Match photographs, which are in the folder `images`, with the masks in another."""
    if not masks.is_dir():
        raise _no_folder(masks, "masks")
    together = real_path(images) == real_path(masks)
    wanted = {name: settings.mask_names.replace("{name}", _stem(name)) for name in photographs}
    if together:  # then the masks are among the photographs
        if settings.mask_names == "{name}":
            raise CarvanaError(
                f"{images}: holds photographs and masks of the same names; move the masks to a "
                "folder of their own (data.masks), or name them otherwise (data.mask_names)"
            )
        stems = {*wanted.values()}
        wanted = {name: stem for name, stem in wanted.items() if _stem(name) not in stems}
    files, others = list_files(masks, MASKS)
    by_stem = defaultdict(list)
    for name in files:
        by_stem[_stem(name)].append(masks / name)
    missing = [stem for stem in wanted.values() if stem not in by_stem]
    united = {stem: path for stem in missing if (path := _mask_folder(masks, stem))}
    by_stem |= {stem: [path] for stem, path in united.items()}
    if others and not (together or united):
        print(f"{masks}: ignoring files that are not masks: {others}", file=sys.stderr)
    before, after = map(re.escape, settings.mask_names.split("{name}", 1))
    pairs, faults, owners, unmasked = [], [], {}, 0
    for name, stem in wanted.items():
        image = photographs[name]
        candidates = [path for path in by_stem.get(stem, ()) if path != image]
        if not candidates and together and re.fullmatch(f"{before}.+{after}", _stem(name)):
            faults.append(f"{image}: no photograph")
        elif not candidates and settings.unmasked:
            unmasked += 1
            if settings.unmasked == "empty":
                pairs.append(Pair(name, image, None))
        elif not candidates:
            faults.append(f"{image}: no mask {stem}.png (or .gif, ...) in {masks}")
        elif len(candidates) > 1:
            both = " and ".join(path.name for path in candidates)
            faults.append(f"{image}: has several masks ({both}); leave one")
        elif (owner := owners.setdefault(candidates[0], name)) != name:
            faults.append(f"{image}: has the mask of {owner}; rename or remove one")
        else:
            pairs.append(Pair(name, image, candidates[0]))
    if not (together or united):
        unwanted = by_stem.keys() - wanted.values()
        faults += [f"{path}: no photograph" for stem in unwanted for path in by_stem[stem]]
    if unmasked:
        what = "left out" if settings.unmasked == "skip" else "taken as background"
        print(f"{images}: {plural(unmasked, 'photograph')} without a mask: {what}", file=sys.stderr)
    if not owners and not faults:
        faults.append(f"{images}: no photograph has a mask")
    return pairs, faults


def _mask_folder(masks: Path, name: str) -> Path | None:
    """Return the folder of a photograph's masks, a file an object; None if it holds none."""
    folder = masks
    for part in Path(name).parts:
        if not (folder / part).is_dir():  # it may be spelt in another Unicode form
            part = unicodedata.normalize("NFD", part)
        folder = folder / part
    return folder if folder.is_dir() and list_files(folder, MASKS)[0] else None


def list_photographs(root: Path, images: str) -> dict[str, Path]:
    """Return the photographs by name, of a folder, or of many: `*` stands for any name in a path.

    Raises:
        CarvanaError: there is no such folder, it holds none, or two have the same name.
    """
    is_pattern = _is_pattern(images)
    top = root if is_pattern else root / images
    if not top.is_dir():
        raise _no_folder(top, "images")
    if not is_pattern:
        return {name: top / name for name in list_images(top)}
    folders = [root]
    for part in Path(images).parts:
        if part == "*":
            below = (each for folder in folders for each in sorted(folder.iterdir()))
            folders = [each for each in below if each.is_dir() and _may_hold_data(each)]
        else:
            folders = [folder / part for folder in folders if (folder / part).is_dir()]
    found = {}
    for folder in folders:
        for name in list_files(folder, PHOTOGRAPHS)[0]:
            if name in found:
                raise CarvanaError(f"{folder / name}: has the name of {found[name]}; rename one")
            found[name] = folder / name
    if not found:
        raise CarvanaError(f"{root / images}: no folder of that kind holds a photograph")
    return found


def _is_pattern(images: str) -> bool:
    return "*" in Path(images).parts


def _may_hold_data(folder: Path) -> bool:
    return not (folder.name.startswith(".") or (folder / "run.json").exists())


def _no_folder(folder: Path, key: str) -> CarvanaError:
    return CarvanaError(
        f"{folder}: no such folder; run `make download`, or for pictures of your own name it in a "
        f"recipe (data.{key}; see own.toml)"
    )


def open_truth(pair: Pair, settings: Data, size: tuple[int, int]) -> Mask:
    """Read a pair's mask; of a photograph without one, nothing but background.

    `size` is the photograph's height and width.

    Raises:
        CarvanaError: it cannot be read, or has another size than its photograph.
    """
    if pair.mask is None:
        return Mask(np.zeros(size, np.uint8), {})
    mask = open_mask(pair.mask, settings)
    found = mask.labels.shape
    if found == tuple(size):
        return mask
    height, width, orientation = photograph_size(pair.image)
    fault = f"{pair.mask}: is {found[1]}x{found[0]}, its photograph {width}x{height}"
    remedy = "make a mask of the photograph's size"
    if found == (width, height) and orientation > 4:
        fault += f" when upright (its EXIF orientation tag is {orientation})"
        remedy = "rotate the mask the same way, or remove the tag"
    raise CarvanaError(f"{fault}; {remedy}")


def _stem(name: str) -> str:
    """Return a name without its ending; two Unicode forms of one letter are the same."""
    return unicodedata.normalize("NFC", Path(name).stem)


def evenly(items: Sequence, count: int) -> list:
    """Return at most `count` items evenly spread over a sequence, its ends among them."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]
