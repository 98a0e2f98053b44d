"""What the sections of a recipe are made of: strict dataclasses and the ranges of their values."""

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator
from pydantic.dataclasses import dataclass

section = dataclass(
    frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
)


def _ascending(factors: list[float]) -> list[float]:
    low, high = factors
    if low > high:
        raise ValueError("give the lower value first")
    return factors


def _is_colour(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value) is not None


def _is_number(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _class_value(value: object) -> int | str:
    if not (_is_number(value, 254) or _is_colour(value)):
        raise ValueError("give a number from 0 to 254, or a colour as #rrggbb")
    return value.lower() if isinstance(value, str) else value


def _ignore(value: object) -> int | str:
    if not (value == "" or _is_number(value, 255) or _is_colour(value)):
        raise ValueError('give a number from 0 to 255, a colour as #rrggbb, or "" for none')
    return value.lower() if isinstance(value, str) else value


def _foreground(value: object) -> str:
    if not (value in ("", "any") or _is_colour(value)):
        raise ValueError('give a colour as #rrggbb, "any", or ""')
    return value.lower()


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from error
    if text and not groups:
        raise ValueError("needs a (group): what is the same for all pictures of one subject")
    return text


ClassValue = Annotated[int | str, PlainValidator(_class_value)]
Ignore = Annotated[int | str, PlainValidator(_ignore)]
Foreground = Annotated[str, PlainValidator(_foreground)]
Pattern = Annotated[str, AfterValidator(_pattern)]  # a regular expression with a group, or ""
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=8192)]  # pixels
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Filters = Annotated[int, Field(ge=1, le=1024)]
Share = Annotated[float, Field(ge=0, le=1)]
Factors = Annotated[
    list[Annotated[float, Field(ge=0, le=10)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_ascending),
]
