"""Read the names of classes from the files that annotation tools write beside masks."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from carvana.errors import CarvanaError

FILES = (
    *("classes.txt", "labels.txt", "labelmap.txt", "_classes.csv", "class_dict.csv"),
    *("labelmap.json", "classes.json"),
)
Value = int | str  # a number, or a colour as #rrggbb


@dataclass(frozen=True)
class ClassNames:
    """What such a file says."""

    path: Path
    by_value: dict[Value, str]
    are_counted: bool  # the file gives no values, its names count from 0

    def fitted_to(self, values: Collection[Value]) -> dict[Value, str]:
        """Return the names by the values of masks, of which a file may leave the background out."""
        count = len(self.by_value)
        unnamed = "background" not in self.by_value.values()
        if self.are_counted and unnamed and {0, count} <= {*values}:
            return {0: "background", **{n + 1: name for n, name in self.by_value.items()}}
        return dict(self.by_value)


def read_class_names(path: Path) -> ClassNames:
    """Read the name of each class by its value in the masks.

    A line is a name, or a name with a number or with three for red, green and blue, in any order,
    separated by commas, colons, semicolons or tabs; JSON may be a list or an object of the same.

    Raises:
        CarvanaError: it is not such a file, or a name or value is in it twice.
    """
    try:
        text = path.read_text("utf-8-sig")
        rows = _from_json(json.loads(text)) if path.suffix == ".json" else _from_lines(text)
    except (OSError, ValueError) as error:
        raise CarvanaError(
            f"{path}: is not a list of classes in UTF-8 ({error}); write a name a line in the "
            "order of their numbers, or name,number"
        ) from error
    are_counted = all(value is None for value, _ in rows)
    if are_counted:
        rows = [(place, name) for place, (_, name) in enumerate(rows)]
    rows = [(value, name) for value, name in rows if value is not None]  # not a table's header
    twice = min(len({value for value, _ in rows}), len({name for _, name in rows})) < len(rows)
    if twice or not rows:
        fault = "has a name or value twice" if twice else "names no classes"
        raise CarvanaError(f"{path}: {fault}; correct it or remove it")
    return ClassNames(path, dict(rows), are_counted)


def _from_lines(text: str) -> list[tuple[Value | None, str]]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("# ")]
    if all(re.match(r"\d+\s+\D", line) for line in lines):  # "0 background"
        lines = [re.sub(r"\s+", ":", line, count=1) for line in lines]
    rows = [_row(re.split(r"\s*[,:;\t]\s*", line)) for line in lines]
    if all(value is None for value, _ in rows):
        return [(None, line) for line in lines]
    return rows


def _from_json(content: object) -> list[tuple[Value | None, str]]:
    if isinstance(content, dict) and len(content) == 1:  # {"categories": [...]}
        inner = next(iter(content.values()))
        content = inner if isinstance(inner, dict | list) else content
    if isinstance(content, dict):
        return [_row([key, *_flat(value)]) for key, value in content.items()]
    if isinstance(content, list):
        return [_row(_flat(each)) for each in content]
    raise ValueError("neither a list nor an object")


def _flat(value: object) -> list:
    """Return the parts of a class's entry; an object's by the keys that tools use."""
    if isinstance(value, dict):
        keys = ("name", "label", "id", "value", "index", "color", "colour")
        known = {key: value[key] for key in keys if key in value}
        numbered = known.keys() & {"id", "value", "index"}
        parts = [known[key] for key in known if not (numbered and key.startswith("colo"))]
        return [part for each in parts for part in _flat(each)]
    return [*value] if isinstance(value, list) else [value]


def _row(parts: list) -> tuple[Value | None, str]:
    """Return the value among the parts of a line, None if there is none, and the name."""
    parts = [str(part) for part in parts if str(part)]
    numbers = [int(part) for part in parts if part.isdecimal()]
    colours = [part.lower() for part in parts if re.fullmatch("#[0-9a-fA-F]{6}", part)]
    words = [p for p in parts if not p.isdecimal() and p.lower() not in colours]
    if not words:
        return None, ":".join(parts)
    if len(numbers) >= 3 and max(numbers[-3:]) < 256:
        return "#{:02x}{:02x}{:02x}".format(*numbers[-3:]), words[0]
    return next(iter([*numbers, *colours]), None), words[0]
