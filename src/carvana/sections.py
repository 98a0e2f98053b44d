"""What the sections of a recipe are made of: strict dataclasses and the ranges of their values."""

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
