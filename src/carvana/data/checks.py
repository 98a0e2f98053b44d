"""What is told by masks together: classes, objects too small to see, palettes that differ."""

import threading
from collections import Counter, defaultdict
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
        self._pixels = Counter()  # by label
        self._shown = Counter()  # masks by label
        self._plain, self._tiny = defaultdict(list), defaultdict(list)  # paths by label
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
                self._pixels[label] += int(counts[label])
                self._shown[label] += 1
                is_object = label not in (IGNORED, self.recipe.data.background)
                if is_object and counts[label] * share < LEAST:
                    self._tiny[label].append(path)
            if len(labels) == 1:
                self._plain[labels[0]].append(path)
            for number, colour in mask.palette.items():
                before, first = self.palette.setdefault(number, (colour, path.name))
                if before != colour:
                    raise CarvanaError(
                        f"{path}: its number {number} is {colour}, that of {first} {before}; give "
                        "the colours in data.classes, or save all masks with one palette"
                    )

    def warnings(self) -> list[str]:
        """Say what may be a mistake; the masks can be used."""
        said = []
        for label, masks in self._plain.items():
            what = f"{plural(len(masks), 'mask')} with nothing but {self._name(label)}"
            said.append(f"{what} (first: {min(masks)})")
        size = f"{self.recipe.input.width}x{self.recipe.input.height}"
        for label, masks in self._tiny.items():
            if len(masks) >= self._shown[label] / 2:
                said.append(
                    f"{plural(len(masks), 'mask')} with less {self._name(label)} than {LEAST} "
                    f"pixels of the network's {size} (first: {min(masks)}); enlarge input.width "
                    "and input.height, or cut the pictures up"
                )
        return said

    def shares(self) -> dict[str, float]:
        """Return the share of all pixels that is of each class; "ignored" if there is any."""
        labels = [*range(len(self.recipe.data.class_names)), *({IGNORED} & self._pixels.keys())]
        total = max(self._pixels.total(), 1)
        return {self._name(label): self._pixels[label] / total for label in labels}

    def _name(self, label: int) -> str:
        return "ignored" if label == IGNORED else self.recipe.data.class_names[label]
