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
from carvana.errors import CarvanaError, plural

MASKS = re.compile(
    r"(?i)mask|object|instance|label|annot|truth|target|matte|seg|(?<![a-z])(gt|y)(?![a-z])"
)
OBJECTS = re.compile(r"(?i)object|instance")
# Of a data set, as folders name it.
PART = re.compile(r"(?i)(?<![a-z])(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)")
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
    images: str
    masks: str
    mask_names: str

    @property
    def part(self) -> int:
        """How good a part of a data set this is to train on, 0 the best."""
        parts = _parts(f"{self.images} {self.masks}")
        return {"tra": 0, "": 1}.get(parts[0] if parts else "", 2)

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

    Args:
        root: the data folder.
        given: the folders that are known.

    Returns:
        The choices, and the folders of photographs and of masks to test on, if there are any.

    Raises:
        CarvanaError: no masks or several sets of them are found, or they are laid out in a way
            that is not read; the line says what to do.
    """
    folders = _picture_folders(root)
    if nested := _find_nested(folders):
        return nested, None
    if len(folders) > MOST_FOLDERS:
        raise _no_masks(root, folders) if _several_masks(folders) else _scattered(root, folders)
    pairs = itertools.product(
        [name for name in folders if name == given.get("images", name)],
        [name for name in folders if name == given.get("masks", name)],
    )
    found = [layout for a, b in pairs if (layout := _match(folders, a, b))]
    found = [each for each in found if _is_right_way_round(root, folders, each, given)]
    if not found:
        raise _no_masks(root, folders)
    plain = [each for each in found if each.images == each.masks or not _holds_masks(each.images)]
    found = plain or found
    layout = _choose(root, found)
    images, masks = len(folders[layout.images]), len(folders[layout.masks])
    others = sorted({each.images for each in found if each.part > layout.part})
    parts = {
        _parts(each.images)[0]: each
        for each in found
        if each.part > layout.part == 0 and each.any_part == layout.any_part
    }
    choices = {}
    if held_out := parts.get("val"):
        others.remove(held_out.images)
        reason = f"{len(folders[held_out.images]):,} photographs to validate on"
        choices["validation_folders"] = Choice([held_out.images, held_out.masks], reason)
    test = parts.get("tes")
    unused = f"; not used: {', '.join(others)}" if others else ""
    together = layout.images == layout.masks
    kinds = "photographs and masks" if together else "photographs"
    choices |= {
        "images": Choice(layout.images, f"folder of {images:,} {kinds}{unused}"),
        "masks": Choice(layout.masks, "the same folder" if together else f"{masks:,} masks"),
        "mask_names": Choice(layout.mask_names, "{name} is the photograph's, without ending"),
    }
    return choices, (test.images, test.masks) if test else None


def _parts(path: str) -> list[str]:
    """Return the parts of a data set that a path names: "tra", "val" or "tes" each."""
    return [part[:3].lower() for part in PART.findall(path)]


def _find_nested(folders: Mapping[str, list[str]]) -> dict[str, Choice] | None:
    """Choose where each photograph has a folder of its own for its masks, a file an object.

    The photographs are in one folder, or each in one beside that of its masks.
    """
    alike = defaultdict(dict)  # by what is above and below the folder called as a photograph
    for folder, names in folders.items():
        parts = Path(folder).parts
        for place, part in enumerate(parts):
            alike["/".join(parts[:place]), "/".join(parts[place + 1 :])][part] = names
    flat = {folder: _stems(names) for folder, names in folders.items()}
    for (above, below), found in alike.items():
        if all(_stems(names) == {stem} for stem, names in found.items()):
            flat["/".join(filter(None, (above, "*", below)))] = {*found}
    nested = {}  # by how many photographs have a folder of masks
    for (images, stems), ((above, below), masks) in itertools.product(flat.items(), alike.items()):
        several = sum(len(names) for names in masks.values()) > len(masks)
        count = len(stems & masks.keys())
        if count > len(stems) / 2 and several and _holds_masks(below or above):
            mask_names = "/".join(filter(None, ("{name}", below)))
            nested[count] = images, above or ".", mask_names
    if not nested:
        return None
    count = max(nested)
    images, masks, mask_names = nested[count]
    return {
        "images": Choice(images, f"{plural(count, 'photograph')}, each with a folder of masks"),
        "masks": Choice(masks, "the folders of masks are in it"),
        "mask_names": Choice(mask_names, "a folder a photograph: its files are united"),
    }


def _picture_folders(root: Path) -> dict[str, list[str]]:
    """Return the folders below `root` that hold pictures, and the names of these."""
    if not root.is_dir():
        raise CarvanaError(f"{root}: no such folder; give the one that holds your pictures")
    found = {}
    for folder, below, _ in os.walk(root, followlinks=True):
        path = Path(folder).relative_to(root)
        deep = len(path.parts) == DEPTH  # so that a link to a folder above comes to an end
        below[:] = sorted(n for n in below if not (deep or n.startswith((".", "__"))))
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
        of_all = 2 * len(matched) / len(others) if images == masks else len(matched) / len(others)
        if of_all > 0.5:
            return _Layout(images, masks, mask_names)
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
    """Tell whether a folder is called as those of masks are."""
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
    found = [each for each in found if each.part == min(other.part for other in found)]
    nearest = Counter()  # folders of masks are those with most of their path in common
    for each in found:
        nearest[each.images] = max(nearest[each.images], each.in_common)
    found = [each for each in found if each.in_common == nearest[each.images]]
    found = [each for each in found if not OBJECTS.search(each.masks)] or found
    images, masks = sorted({each.images for each in found}), sorted({each.masks for each in found})
    if len(found) == 1:
        return found[0]
    if len(images) == 1 or images == masks:
        raise _question(root, "which folder holds the masks", "data.masks", masks)
    if len(masks) == 1:
        raise _question(root, "which folder holds the photographs", "data.images", images)
    raise _scattered(root, images)


def _question(root: Path, question: str, key: str, answers: list[str]) -> CarvanaError:
    """Ask what cannot be decided; the answer is given by --set."""
    first, second, *more = (f"--set {key}={shlex.quote(answer)}" for answer in answers)
    others = f" (or {len(more)} others)" if more else ""
    return CarvanaError(f"{root}: {question}? run again with {first} or with {second}{others}")


def _scattered(root: Path, folders: Collection[str]) -> CarvanaError:
    """Say that photographs or masks are in many folders."""
    first, second, *_ = sorted(folders)
    return CarvanaError(
        f"{root}: pictures lie in {len(folders)} folders ({first}, {second}, ...), and training "
        "reads one folder of photographs and one of masks; copy them into images/ and masks/, "
        "each file's name beginning with its folder's, as in subject1_01.png"
    )


def _no_masks(root: Path, folders: Mapping[str, list[str]]) -> CarvanaError:
    """Say why no picture is the mask of another."""
    if several := _several_masks(folders):
        return CarvanaError(
            f"{root}: {several} holds several masks of one photograph; merge them into one file, "
            "with a value for each class, or white where any of them is"
        )
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
        "images/cat1.jpg and masks/cat1.png, or cat1.jpg and cat1_mask.png"
    )


def _several_masks(folders: Mapping[str, list[str]]) -> str | None:
    """Return a folder that holds a mask for each class or object, not for each photograph."""
    alone = {Path(name).parent for name, files in folders.items() if len(files) == 1}
    stems = {name: _stems(files) for name, files in folders.items()}
    photographs = set().union(*stems.values())
    for name, own in stems.items():
        if _holds_masks(name) and len(own) > 1 and Path(name).parent in alone:
            return name
        owners = Counter(re.sub(r"[\W_][^\W_]*$", "", stem) for stem in own)  # cat1 of cat1_tail
        shared = sum(n for owner, n in owners.items() if n > 1 and owner in photographs)
        if shared > len(own) / 2:
            return name
    return None
