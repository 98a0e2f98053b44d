"""Reproduce Kaggle's Carvana Image Masking Challenge, and mask your own photographs.

>>> import carvana
>>> model = carvana.load("sharp")
>>> mask = model.mask("car.jpg")  # (height, width) bool
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carvana.competition.rle import decode, encode
    from carvana.networks.unet import unet
    from carvana.prediction.model import load
    from carvana.training.train import train

__version__ = "0.2.0"
__all__ = ["decode", "encode", "load", "train", "unet"]

_HOMES = {
    "decode": "carvana.competition.rle",
    "encode": "carvana.competition.rle",
    "load": "carvana.prediction.model",
    "train": "carvana.training.train",
    "unet": "carvana.networks.unet",
}


def __getattr__(name: str):
    """Import a function of the API when it is first used: TensorFlow takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'carvana' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
