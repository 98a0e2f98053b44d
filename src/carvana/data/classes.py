"""Find out which classes masks hold, from the values of their pixels and files of names."""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carvana.data.class_names import FILES, ClassNames, Value, read_class_names
from carvana.data.images import READING, pixels_of
from carvana.data.layout import Choice
from carvana.data.masks import ON
from carvana.data.pairs import Pair
from carvana.data.values import mask_values
from carvana.errors import CarvanaError, plural
from carvana.machine import Turns, cores
from carvana.progress import progress

BLACK = "#000000"
BORDERS = (255, "#e0e0c0")  # what data sets such as Pascal VOC give pixels that do not count
IGNORED = re.compile(r"(?i)\W*(void|ignored?|unlabell?ed|don.?t.?care|border)\W*")
BACKGROUND = re.compile(r"(?i)\W*(background|bg)\W*")
NEAR = 63  # levels of a channel by which JPEG changes a colour, at most
MOST_CLASSES = 254
MANY = 30  # numbers in a mask; surely objects
SMOOTHED = 16  # greys in masks; fewer may be classes


@dataclass(frozen=True)
class _Seen:
    """What stands in one mask; transparent pixels count as 0 and black."""

    path: Path
    is_lossy: bool
    colours: Counter  # pixels by colour
    numbers: Counter | None  # pixels by number; None in a picture of colours
    palette: dict[int, str]  # the colour of each number; empty where numbers are greys


def find_classes(root: Path, pairs: list[Pair], given: Mapping[str, Any]) -> dict[str, Choice]:
    """Choose `classes`, `foreground`, `soft` and `ignore` of a recipe's [data].

    Files of names are looked for in the data folder; `given` are those of the four that are known.

    Raises:
        CarvanaError: a mask cannot be read; the masks hold one colour alone, several classes in
            JPEG, other values than the file of names says, or what may be classes or objects.
    """
    if given.keys() & {"classes", "foreground", "soft"}:
        return {}
    turns = Turns()
    pairs = [pair for pair in pairs if pair.mask]
    with ThreadPoolExecutor(cores()) as pool:
        results = pool.map(lambda pair: _read(pair.mask, turns), pairs)
        seen = list(progress(results, "reading masks", len(pairs)))
    colours = Counter()
    for mask in seen:
        colours.update(mask.colours)
    shown = f"{plural(len(colours), 'colour')} in the masks: {_shares(colours)}"
    if len(colours) < 2:
        raise CarvanaError(
            f"{root}: {shown}; there is nothing to learn, check how the masks were exported"
        )
    if (foreground := _smoothed(seen, colours)) is not None:
        of = f"masks of two colours ({_shares(colours)})"
        soft, reason = "share", f"smoothed {of}"
        if any(mask.is_lossy for mask in seen):
            soft, reason = "threshold", f"JPEG {of}, cut half-way"
        foreground = "" if _distance(foreground, "#ffffff") <= NEAR else foreground
        return {
            "soft": Choice(soft, reason),
            "foreground": Choice(foreground, "the colour that counts; none: white"),
        }
    if lossy := [mask.path for mask in seen if mask.is_lossy]:
        raise CarvanaError(
            f"{lossy[0]}: is a JPEG with more than two colours, whose classes cannot be told "
            "apart; get the masks it was made from, as PNG"
        )
    if all(len(mask.colours) <= 2 and {*mask.colours} <= {BLACK, *ON} for mask in seen):
        return {"foreground": Choice("", f"one class: {shown}")}
    if any(pair.mask.is_dir() for pair in pairs):
        return {"foreground": Choice("any", f"a file an object, all but black: {shown}")}
    names = _names_beside(root, pairs[0])
    if len(colours) == 2 and (BLACK in colours or not names):
        return _choose_foreground(root, colours, shown)
    return _choose_classes(root, seen, names, given.get("ignore"))


def _read(path: Path, turns: Turns) -> _Seen:
    first = next(path.iterdir()) if path.is_dir() else path
    with turns.take(pixels_of(first) * READING):
        is_lossy, values = mask_values(path)
    colours, numbers, palette = Counter(), Counter(), {}
    for value in values:
        colour, number = (value.colour, value.number) if value.alpha else (BLACK, 0)
        colours[colour] += value.count
        numbers[number] += value.count
        palette[number] = colour
    if None in numbers:
        return _Seen(path, is_lossy, colours, None, {})
    if all(colour == f"#{3 * f'{int(number):02x}'}" for number, colour in palette.items()):
        palette = {}
    return _Seen(path, is_lossy, colours, numbers, palette)


def _smoothed(seen: list[_Seen], colours: Counter) -> str | None:
    """Return the foreground's colour if masks are black and it, blurred by JPEG or resizing.

    Resized masks are white, black and many greys between the two.
    """
    others = [colour for colour in colours if _distance(colour, BLACK) > NEAR]
    if not others:
        return None
    foreground = max(others, key=lambda colour: colours[colour])
    if not any(mask.is_lossy for mask in seen):
        greys = all(colour[1:3] * 3 == colour[1:] for colour in colours)
        if foreground != "#ffffff" or len(colours) < SMOOTHED or not greys:
            return None
    ends = (BLACK, foreground)
    between = Counter(
        {c: n for c, n in colours.items() if min(map(_distance, (c, c), ends)) > NEAR}
    )
    peak = max(between, key=between.get, default=BLACK)
    third = sum(count for colour, count in between.items() if _distance(colour, peak) <= 8)
    is_class = third > max(0.02 * colours.total(), 0.4 * between.total())
    return None if is_class or between.total() > 0.1 * colours.total() else foreground


def _distance(colour: str, other: str) -> int:
    """Return by how many levels the channels of two colours differ at most."""
    if not colour.startswith("#"):  # a number of 16 bits
        return 255
    channels = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]), strict=True)
    return max(abs(a - b) for a, b in channels)


def _choose_foreground(root: Path, colours: Counter, shown: str) -> dict[str, Choice]:
    """Choose which of two colours counts."""
    others = sorted(colours.keys() - {BLACK})
    if len(others) == 2:
        answers = " or ".join(f"--set 'data.foreground=\"{colour}\"'" for colour in others)
        raise CarvanaError(f"{root}: {shown}; which is the foreground? run again with {answers}")
    foreground = others[0] if others[0].startswith("#") else "any"
    return {"foreground": Choice(foreground, f"one class: {shown}")}


def _choose_classes(
    root: Path, seen: list[_Seen], names: ClassNames | None, given: Value | None
) -> dict[str, Choice]:
    """Choose the classes of masks with more than two values."""
    if names is None and _are_objects(root, seen):
        return {"foreground": Choice("any", "masks number objects: all but black is one class")}
    by_number = _are_numbers(seen)
    if names:
        by_number = all(isinstance(value, int) for value in names.by_value)
    counts = Counter()
    for mask in seen:
        if by_number and mask.numbers is None:
            raise CarvanaError(
                f"{names.path}: gives no colours, and {mask.path} is in colours; give them there "
                "as name,red,green,blue"
            )
        counts.update(mask.numbers if by_number else mask.colours)
    known = names.fitted_to(counts.keys()) if names else {}
    ignore = _value_to_ignore(counts, known) if given is None else given
    if names is None:
        known = _numbered(counts, ignore)
    known.pop(ignore, None)
    if unknown := [value for value in counts if value not in known and value != ignore]:
        raise CarvanaError(
            f"{names.path}: names {len(names.by_value)} classes, but not {unknown[0]}, of which "
            f"the masks have {_shares(counts, unknown)}; add its name to that file, or run again "
            f"with --set 'data.ignore={json.dumps(unknown[0])}' to leave its pixels out"
        )
    if len(known) > MOST_CLASSES:
        raise CarvanaError(
            f"{root}: the masks have {len(counts)} values, too many for classes; save them "
            "without smoothing, or if they are objects run again with --set data.foreground=any"
        )
    reason = f"{plural(len(counts), 'value')} in the masks: {_shares(counts)}"
    reason += f"; names from {names.path.name}" if names else "; give them names"
    choices = {"classes": Choice(_background_first(known), reason)}
    if ignore != "":
        choices["ignore"] = Choice(ignore, f"{_shares(counts, [ignore])}, which do not count")
    return choices


def _background_first(names: Mapping[Value, str]) -> dict[str, Value]:
    """Return the value of each name, the background's first and under the name that recipes use."""
    background = next((v for v, name in names.items() if BACKGROUND.fullmatch(name)), None)
    classes = {} if background is None else {"background": background}
    return classes | {name: value for value, name in names.items() if value != background}


def _are_objects(root: Path, seen: list[_Seen]) -> bool:
    """Tell whether each mask numbers its own objects, 1, 2, 3, ..., rather than classes.

    Raises:
        CarvanaError: they may be either.
    """
    if any(mask.numbers is None for mask in seen):
        return False
    highest = [int(max(mask.numbers)) for mask in seen if max(mask.numbers) > 0]
    gapless = all({0, *mask.numbers} == {*range(int(max(mask.numbers)) + 1)} for mask in seen)
    if max(highest) > 255 or (gapless and max(highest) > MANY):
        return True
    alike = Counter(highest).most_common(1)[0][1]
    if gapless and max(highest) > 2 and alike < len(highest) / 2:
        raise CarvanaError(
            f"{root}: the masks have numbers from 0 to {max(highest)}, in some fewer; are they "
            "classes or objects? For classes put a file classes.txt with a name a line (0 first) "
            "there, for objects run again with --set data.foreground=any"
        )
    return False


def _are_numbers(seen: list[_Seen]) -> bool:
    """Tell whether numbers tell classes apart; if not, colours do."""
    palette: dict[int, str] = {}
    numbers = {number for mask in seen for number in mask.numbers or [None]}
    agree = all(palette.setdefault(n, c) == c for mask in seen for n, c in mask.palette.items())
    if None in numbers or not agree:
        return False
    others = numbers - {255}  # which no class may have
    return 255 not in numbers or others in ({*range(len(others))}, {*range(1, len(others) + 1)})


def _value_to_ignore(counts: Counter, known: Mapping[Value, str]) -> Value:
    """Return the value of pixels that do not count, "" if there is none."""
    named = [value for value, name in known.items() if IGNORED.fullmatch(name)]
    borders = [value for value in BORDERS if value in counts and value not in known]
    return next(iter([*named, *borders]), "")


def _numbered(counts: Counter, ignore: Value) -> dict[Value, str]:
    """Return names for classes that have none, the background's if it is the most frequent."""
    values = [value for value, _ in counts.most_common() if value != ignore]
    names = {value: f"class_{place}" for place, value in enumerate(values)}
    if all(isinstance(value, int) for value in values):
        names = {value: f"class_{value}" for value in sorted(values)}
    if values[0] in (0, BLACK):
        names[values[0]] = "background"
    return names


def _names_beside(root: Path, pair: Pair) -> ClassNames | None:
    """Read the names of classes from a file in the data folder, or in those of the pictures."""
    for folder in (pair.mask.parent, pair.mask.parent.parent, pair.image.parent, root):
        for name in FILES:
            if folder.is_relative_to(root) and (folder / name).is_file():
                return read_class_names(folder / name)
    return None


def _shares(counts: Counter, values: Collection[Value] | None = None) -> str:
    """Name the most frequent of some values, with the share of pixels that each has."""
    chosen = [(v, n) for v, n in counts.most_common() if values is None or v in values]
    shown = [f"{value} ({100 * count / counts.total():.3g}%)" for value, count in chosen[:12]]
    return ", ".join(shown) + (", ..." if len(chosen) > 12 else "")
