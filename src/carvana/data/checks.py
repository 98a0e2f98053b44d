"""Checks over all masks together: classes, objects too small to see, palettes that differ."""

import threading
from collections import Counter
from pathlib import Path

import cv2

from carvana.data.masks import IGNORED, Mask
from carvana.errors import CarvanaError, plural
from carvana.recipe import Recipe

LEAST = 4  # pixels of the network's input that a class takes; fewer are hardly there
Palette = dict[int, tuple[str, str]]  # number -> its colour, and the mask it was first seen in


class MaskChecks:
    """Gathers what is seen of masks as they are read, on several threads.

    `palette` is what earlier masks of the set showed.
    """

    def __init__(self, recipe: Recipe, palette: Palette | None = None):
        self.recipe, self._lock = recipe, threading.Lock()
        self.palette: Palette = dict(palette or {})
        self._masks: list[tuple[Path, dict[int, int]]] = []  # and the pixels of its labels
        self._names = {**dict(enumerate(recipe.data.class_names)), IGNORED: "ignored"}

    def add(self, path: Path, mask: Mask) -> None:
        """Take in a mask.

        Raises:
            CarvanaError: one of its numbers has another colour than in an earlier mask.
        """
        pixels = cv2.calcHist([mask.labels], [0], None, [256], [0, 256]).ravel()
        self._masks.append((path, {label: int(n) for label, n in enumerate(pixels) if n}))
        seen = {number: (colour, path.name) for number, colour in mask.palette.items()}
        with self._lock:
            for number, (colour, _) in seen.items():
                before, first = self.palette.get(number, seen[number])
                if before != colour:
                    raise CarvanaError(
                        f"{path}: its number {number} is {colour}, that of {first} {before}; give "
                        "the colours in data.classes, or save all masks with one palette"
                    )
            self.palette = seen | self.palette  # of accepted masks only

    def warnings(self) -> list[str]:
        """Say what may be a mistake; the masks can be used."""
        said = []
        width, height = self.recipe.input.width, self.recipe.input.height
        for label, name in self._names.items():
            masks = [(path, counts) for path, counts in self._masks if label in counts]
            plain = [path for path, counts in masks if len(counts) == 1]
            if plain:
                what = f"{plural(len(plain), 'mask')} with nothing but {name}"
                said.append(f"{what} (first: {min(plain)})")
            least = LEAST / (width * height)  # of a mask's pixels
            tiny = [path for path, counts in masks if counts[label] < least * sum(counts.values())]
            is_object = label not in (IGNORED, self.recipe.data.background)
            if is_object and tiny and len(tiny) >= len(masks) / 2:
                said.append(
                    f"{plural(len(tiny), 'mask')} with less {name} than {LEAST} pixels of the "
                    f"network's {width}x{height} (first: {min(tiny)}); enlarge input.width and "
                    "input.height, or cut the pictures up"
                )
        return said

    def shares(self) -> dict[str, float]:
        """Return the share of all pixels that is of each class; "ignored" if there is any."""
        pixels = Counter()
        for _, counts in self._masks:
            pixels.update(counts)
        shown = {k: name for k, name in self._names.items() if k != IGNORED or pixels[k]}
        return {name: pixels[label] / max(pixels.total(), 1) for label, name in shown.items()}
