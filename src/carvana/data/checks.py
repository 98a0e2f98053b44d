"""What is told by masks together: classes, objects too small to see, palettes that differ."""

import threading
from collections import Counter
from pathlib import Path

import numpy as np

from carvana.data.masks import IGNORED, Mask
from carvana.errors import CarvanaError, plural
from carvana.recipe import Recipe

LEAST = 4  # pixels of the network's input that a class takes; fewer are hardly there
Palette = dict[int, tuple[str, str]]  # number -> its colour, and the mask it was first seen in


class MaskChecks:
    """Gathers what is seen of masks as they are read, on several threads.

    Args:
        recipe: whose classes and input.
        palette: what earlier masks of the set showed.
    """

    def __init__(self, recipe: Recipe, palette: Palette | None = None):
        self.recipe = recipe
        self.palette: Palette = dict(palette or {})
        self.pixels = Counter()  # by label
        self._plain: dict[int, list[Path]] = {}
        self._tiny: dict[int, list[Path]] = {}
        self._shown = Counter()  # masks by label
        self._lock = threading.Lock()

    def add(self, path: Path, mask: Mask) -> None:
        """Take in a mask.

        Raises:
            CarvanaError: one of its numbers has another colour than in an earlier mask.
        """
        counts = np.bincount(mask.labels.ravel(), minlength=IGNORED + 1)
        labels = np.flatnonzero(counts).tolist()
        share = self.recipe.input.height * self.recipe.input.width / mask.labels.size
        with self._lock:
            for label in labels:
                self.pixels[label] += int(counts[label])
                self._shown[label] += 1
                is_object = label not in (IGNORED, self.recipe.data.background)
                if is_object and counts[label] * share < LEAST:
                    self._tiny.setdefault(label, []).append(path)
            if len(labels) == 1:
                self._plain.setdefault(labels[0], []).append(path)
            for number, colour in mask.palette.items():
                before, first = self.palette.setdefault(number, (colour, path.name))
                if before != colour:
                    raise CarvanaError(
                        f"{path}: its number {number} is {colour}, that of {first} {before}; give "
                        "the colours in data.classes, or save all masks with one palette"
                    )

    def warnings(self) -> list[str]:
        """Name what may be a mistake, and leaves the masks usable."""
        said = []
        for label, masks in self._plain.items():
            what = f"{plural(len(masks), 'mask')} with nothing but {self._name(label)}"
            said.append(f"{what} (first: {min(masks)})")
        for label, masks in self._tiny.items():
            if len(masks) >= self._shown[label] / 2:
                width, height = self.recipe.input.width, self.recipe.input.height
                said.append(
                    f"{plural(len(masks), 'mask')} with less {self._name(label)} than {LEAST} "
                    f"pixels of the network's {width}x{height} (first: {min(masks)}); enlarge "
                    "input.width and input.height, or cut the pictures up"
                )
        return said

    def shares(self) -> dict[str, float]:
        """Return the share of all pixels that is of each class; "ignored" if there is any."""
        total = sum(self.pixels.values())
        named = {self._name(label): count for label, count in self.pixels.items()}
        names = [*self.recipe.data.class_names, *(["ignored"] if IGNORED in self.pixels else [])]
        return {name: named.get(name, 0) / total if total else 0.0 for name in names}

    def _name(self, label: int) -> str:
        return "ignored" if label == IGNORED else self.recipe.data.class_names[label]
