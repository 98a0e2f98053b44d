"""What the sections of a recipe are made of: strict dataclasses and the ranges of their values."""

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

section = dataclass(
    frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
)


def _ascending(factors: list[float]) -> list[float]:
    low, high = factors
    if low > high:
        raise ValueError("give the lower value first")
    return factors


def _colour(text: str) -> str:
    if not re.fullmatch("#[0-9a-f]{6}", text.lower()):
        raise ValueError("write a colour as #rrggbb")
    return text.lower()


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from error
    if text and not groups:
        raise ValueError("needs a (group): what is the same for all pictures of one subject")
    return text


Colour = Annotated[str, AfterValidator(_colour)]
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
