"""Find the photographs and masks in a folder, however it is laid out."""

import itertools
import os
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from carvana.data.folders import PHOTOGRAPHS, list_files
from carvana.data.images import readable
from carvana.data.pairs import evenly
from carvana.errors import CarvanaError
from carvana.files import real_path

MASKS = re.compile(
    r"(?i)mask|object|instance|label|annot|truth|target|matte|seg|(?<![a-z])(gt|y)(?![a-z])"
)
OBJECTS = re.compile(r"(?i)object|instance")
# Of a data set, as folders name it.
PART = re.compile(r"(?i)(?<![a-z])(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)")
PARTS = {"tra": 0, "": 1, "val": 2, "tes": 2}  # how good they are to train on, 0 the best
ANNOTATIONS = (".json", ".txt", ".xml", ".mat", ".npy", ".npz", ".csv")
DEPTH = 5  # folders below the data folder that are looked into
MOST_FOLDERS = 40  # with pictures; more are a folder for each subject
FLAT = 0.6  # share of the eight most frequent greys in masks; photographs have less


class Choice(NamedTuple):
    """A value of the recipe, and why it has it."""

    value: Any
    reason: str


@dataclass(frozen=True)
class _Layout:
    images: str  # a folder, or with * all that are called so
    masks: str
    mask_names: str
    mask_folder: str  # whose name tells what masks are in it
    photographs: int
    reason: str

    @property
    def part(self) -> str:
        """The part of a data set: "tra", "val" or "tes"; "" if the names tell none."""
        return (_parts(self.images) or _parts(self.masks) or [""])[-1]

    @property
    def any_part(self) -> tuple[str, ...]:
        """What is the same for all parts of a data set."""
        folders = (PART.sub("*", name).lower() for name in (self.images, self.masks))
        return (*folders, self.mask_names)

    @property
    def in_common(self) -> int:
        """How many folders of the two paths have the same name."""
        return len({*Path(self.images).parts} & {*Path(self.masks).parts})


def find_layout(
    root: Path, given: Mapping[str, Any]
) -> tuple[dict[str, Choice], tuple[str, str] | None]:
    """Choose the folders of a recipe's [data], and `mask_names`.

    Returns:
        The choices, and the folders of photographs and of masks to test on, if there are any.

    Raises:
        CarvanaError: no masks or several sets of them are found, or they are laid out in a way
            that is not read; the line says what to do.
    """
    folders = _picture_folders(root)
    found, used = _find_nested(folders)
    flat = {name: files for name, files in folders.items() if name not in used}
    if len(flat) > MOST_FOLDERS:
        if not found:
            raise _scattered(root, flat)
        flat = {}
    pairs = [layout for a, b in itertools.product(flat, flat) if (layout := _match(flat, a, b))]
    found += [each for each in pairs if _is_right_way_round(root, flat, each, given)]
    keys = ("images", "masks", "mask_names")
    found = [e for e in found if all(getattr(e, k) == given.get(k, getattr(e, k)) for k in keys)]
    if not found:
        raise _no_masks(root, folders)
    plain = [each for each in found if each.images == each.masks or not _holds_masks(each.images)]
    found = plain or found
    layout = _choose(root, found)
    worse = [each for each in found if PARTS[each.part] > PARTS[layout.part]]
    others = sorted({each.images for each in worse} - {layout.images})
    parts = {each.part: each for each in worse if each.any_part == layout.any_part}
    choices = {}
    held_out, test = parts.get("val"), parts.get("tes")
    if held_out and held_out.images != layout.images:
        others.remove(held_out.images)
        reason = f"{held_out.photographs:,} photographs to validate on"
        choices["validation_folders"] = Choice([held_out.images, held_out.masks], reason)
    unused = f"; not used: {', '.join(others)}" if others else ""
    choices |= {
        "images": Choice(layout.images, f"{layout.photographs:,} pictures{unused}"),
        "masks": Choice(layout.masks, layout.reason),
        "mask_names": Choice(layout.mask_names, "{name} is the photograph's, without ending"),
    }
    plain_test = test and "*" not in test.images and test.images not in (test.masks, layout.images)
    return choices, (test.images, test.masks) if plain_test else None


def _parts(path: str) -> list[str]:
    """Return the parts of a data set that a path names: "tra", "val" or "tes" each."""
    return [part[:3].lower() for part in PART.findall(path)]


def _find_nested(folders: Mapping[str, list[str]]) -> tuple[list[_Layout], set[str]]:
    """Find layouts in which each photograph has a folder for its masks, a file an object.

    The photographs are in one folder, or each in one beside that of its masks.

    Returns:
        The layouts, and the folders that are in them.
    """
    stems = {folder: _stems(names) for folder, names in folders.items()}
    groups = defaultdict(dict)  # folders by one name in their path, for each above and below it
    for folder in folders:
        parts = Path(unicodedata.normalize("NFC", folder)).parts
        for place, part in enumerate(parts):
            groups["/".join(parts[:place]), "/".join(parts[place + 1 :])][part] = folder
    groups = {ends: found for ends, found in groups.items() if len(found) > 1}
    photographs = {folder: found for folder, found in stems.items() if len(found) > 1}
    members = {folder: [folder] for folder in photographs}
    for (above, below), found in groups.items():
        if all(stems[folder] == {name} for name, folder in found.items()):
            pattern = "/".join(filter(None, (above, "*", below)))
            photographs[pattern], members[pattern] = {*found}, [*found.values()]
    layouts, used = [], set()
    for (above, below), found in groups.items():
        called = [part for part in Path(above, below).parts if MASKS.search(part)]
        for images, names in photographs.items() if called else ():
            count = len(names & found.keys())
            if count <= len(names) / 2 or {*members[images]} & {*found.values()}:
                continue
            mask_names = "/".join(filter(None, ("{name}", below)))
            reason = "a folder of masks for each photograph, whose files are united"
            layouts.append(_Layout(images, above or ".", mask_names, called[-1], count, reason))
            used |= {*members[images], *found.values()} if "*" in images else {*found.values()}
    return layouts, used


def _picture_folders(root: Path) -> dict[str, list[str]]:
    """Return the folders below `root` that hold pictures, and the names of these."""
    if not root.is_dir():
        raise CarvanaError(f"{root}: no such folder; give the one that holds your pictures")
    found, seen = {}, set()
    for folder, below, _ in os.walk(root, followlinks=True):
        path, real = Path(folder).relative_to(root), real_path(Path(folder))
        if len(path.parts) == DEPTH or real in seen:
            below.clear()
        if real in seen:  # a link to one above
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith((".", "__")))
        if names := list_files(Path(folder), PHOTOGRAPHS)[0]:
            found[path.as_posix()] = names
    return found


def _match(folders: Mapping[str, list[str]], images: str, masks: str) -> _Layout | None:
    """Return how the masks of one folder are named after the photographs of another."""
    photographs, others = _stems(folders[images]), _stems(folders[masks])
    names = Counter()
    for stem in evenly(sorted(others), 20):
        ends = itertools.combinations(range(len(stem) + 1), 2)
        inside = {stem[start:end] for start, end in ends} & photographs
        names.update(stem.replace(part, "{name}", 1) for part in inside)
    for mask_names, _ in names.most_common():
        added = mask_names.replace("{name}", "")
        if bool(re.search(r"[^\W\d]", added)) != bool(added) or (images == masks and not added):
            continue  # digits alone are other photographs' names
        matched = {mask_names.replace("{name}", stem) for stem in photographs} & others
        masked = 2 * len(matched) if images == masks else len(matched)
        if masked > len(others) / 2:
            reason = "the same folder" if images == masks else f"{len(folders[masks]):,} masks"
            return _Layout(images, masks, mask_names, masks, len(folders[images]), reason)
    return None


def _stems(names: list[str]) -> set[str]:
    return {unicodedata.normalize("NFC", Path(name).stem) for name in names}


def _is_right_way_round(
    root: Path, folders: Mapping[str, list[str]], layout: _Layout, given: Mapping[str, Any]
) -> bool:
    """Tell whether the second folder holds masks of the first, by its name or by its pictures."""
    images, masks = layout.images, layout.masks
    parts = [{*_parts(name)} for name in (images, masks)]
    if all(parts) and parts[0] != parts[1]:
        return False
    if images == masks or "masks" in given:
        return True
    named = [_holds_masks(name) for name in (images, masks)]
    if named[0] != named[1]:
        return named[1]
    if layout.mask_names != "{name}":
        return True
    flatness = [_flatness(root / name, folders[name]) for name in (images, masks)]
    return flatness[1] > max(FLAT, flatness[0] - 0.05)  # if both are, it will be asked


def _holds_masks(folder: str) -> bool:
    return bool(MASKS.search(Path(folder).name))


def _flatness(folder: Path, names: list[str]) -> float:
    """Return the share of pixels with one of the eight most frequent greys, in a few pictures."""
    shares = []
    for name in evenly(names, 3):
        with readable(folder / name), Image.open(folder / name) as picture:
            counts = sorted(picture.convert("L").histogram())
        shares.append(sum(counts[-8:]) / sum(counts))
    return sum(shares) / len(shares)


def _choose(root: Path, found: list[_Layout]) -> _Layout:
    """Return the layout to train on.

    Raises:
        CarvanaError: several will do.
    """
    best = min(PARTS[each.part] for each in found)
    found = [each for each in found if PARTS[each.part] == best]
    nearest = Counter()  # folders of masks are those with most of their path in common
    for each in found:
        nearest[each.images] = max(nearest[each.images], each.in_common)
    found = [each for each in found if each.in_common == nearest[each.images]]
    found = [each for each in found if not OBJECTS.search(each.mask_folder)] or found
    images, masks = sorted({each.images for each in found}), sorted({each.masks for each in found})
    if len(found) == 1:
        return found[0]
    if len(images) == len(masks) == 1:
        names = sorted(each.mask_names for each in found)
        raise _question(root, "which are the masks", "data.mask_names", names)
    if len(images) == 1 or images == masks:
        raise _question(root, "which folder holds the masks", "data.masks", masks)
    if len(masks) == 1:
        raise _question(root, "which folder holds the photographs", "data.images", images)
    raise _scattered(root, images)


def _question(root: Path, question: str, key: str, answers: list[str]) -> CarvanaError:
    first, second, *more = (f"--set {key}={shlex.quote(answer)}" for answer in answers)
    others = f" (or {len(more)} others)" if more else ""
    return CarvanaError(f"{root}: {question}? run again with {first} or with {second}{others}")


def _scattered(root: Path, folders: Collection[str]) -> CarvanaError:
    first, second, *_ = sorted(folders)
    return CarvanaError(
        f"{root}: pictures lie in {len(folders)} folders ({first}, {second}, ...), and training "
        "reads one folder of photographs and one of masks; copy them into images/ and masks/, "
        "each file's name beginning with its folder's, as in subject1_01.png; several masks of one "
        "photograph go into one file"
    )


def _no_masks(root: Path, folders: Mapping[str, list[str]]) -> CarvanaError:
    files = (name for _, _, names in os.walk(root) for name in names)
    annotations = sorted({Path(name).suffix.lower() for name in files} & {*ANNOTATIONS})
    what = "holds no pictures"
    if folders:
        examples = [f"{folder}/{names[0]}" for folder, names in folders.items()]
        what = f"holds pictures ({', '.join(examples[:3])}, ...), but no masks of them"
    if annotations:
        what += f"; annotations ({', '.join(annotations)}) are not read, export masks as PNG"
    return CarvanaError(
        f"{root}: {what}; a mask has its photograph's name, or that and more, as in "
        "images/cat1.jpg and masks/cat1.png, or cat1.jpg and cat1_mask.png; several masks of one "
        "photograph go into one file, with a value for each class, or white where any of them is"
    )
