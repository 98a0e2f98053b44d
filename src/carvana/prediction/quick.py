"""Predict without TensorFlow: a graph kept in the user's cache, run by LiteRT.

TensorFlow takes three seconds to import, before the first photograph is read. LiteRT takes a tenth
of one. The graph of a run is written once, after its first cutout, into `~/.cache/carvana` (or
`$XDG_CACHE_HOME/carvana`), under a checksum of the run's files. The folder is safe to delete.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from carvana import __version__
from carvana.backend import import_quietly
from carvana.data.images import decode_photograph, read_bytes
from carvana.errors import CarvanaError, UsageError
from carvana.prediction.formats import FORMATS
from carvana.prediction.predict import Prediction, ahead
from carvana.recipe import Input
from carvana.run import MODEL, RECIPE, Run, find_source

_Out = TypeVar("_Out")
ENGINES = ("auto", "litert", "tensorflow")
NEEDS = {"ai_edge_litert": "ai-edge-litert", "simplejpeg": "simplejpeg"}  # modules, packages
FEW = 16  # photographs; for more TensorFlow's start is repaid by its speed
ABOUT = "model.json"


class QuickModel:
    """A run's graph in LiteRT; predicts what `Model` predicts in float32.

    Args:
        folder: an export in LiteRT.

    Raises:
        CarvanaError: it is not one, or is broken.
    """

    def __init__(self, folder: Path):
        try:
            about = json.loads((folder / ABOUT).read_text("utf-8"))
            self._engine = FORMATS["litert"].open(folder / about["file"])
            height, width = max(about["inside"]["network_sizes"])
            method = about["inside"]["method"]
            names = about["classes"]
            self.background = names.index("background") if "background" in names else None
            self.usual = about["usual_dice"]
            self._threshold = about["threshold"] or 0.5  # of several classes none
            self.white = about["inside"]["white"]
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CarvanaError(f"{folder}: is not a readable export; delete it") from error
        self._largest = Input(height, width, method, antialias=False, white=self.white)

    def map(
        self, photographs: Iterable[Path], work: Callable[[Path, Prediction], _Out]
    ) -> Iterator[_Out]:
        """Predict photographs in order, as `Model.map` does; reading and the work overlap.

        Raises:
            CarvanaError: a photograph cannot be read.
        """
        with ThreadPoolExecutor(1) as readers, ThreadPoolExecutor(2) as finishers:
            loaded = ahead(readers, self._load, photographs, 1)
            results = map(self._predict_one, loaded)
            yield from ahead(finishers, lambda result: work(*result), results, 1)

    def _predict_one(self, loaded: tuple) -> tuple[Path, Prediction]:
        path, picture, size = loaded
        probabilities = self._engine(picture[None])[0]
        return path, Prediction([probabilities], size, self._threshold, self.background)

    def _load(self, path: Path) -> tuple[Path, np.ndarray, tuple[int, int]]:
        picture, size = decode_photograph(read_bytes(path), path, self._largest, decode_jpeg)
        return path, picture, size


def decode_jpeg(data: bytes, ratio: int) -> np.ndarray:
    """Decode a JPEG at one part in `ratio`, to the very pixels that TensorFlow decodes."""
    import simplejpeg

    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    least = {"min_height": height // ratio, "min_width": width // ratio, "min_factor": ratio}
    return simplejpeg.decode_jpeg(data, "RGB", fastdct=True, **(least if ratio > 1 else {}))


def choose_engine(
    wanted: str, sources: Sequence[str | Path], count: int
) -> tuple[str, str, Path | None]:
    """Choose what predicts a few photographs, and say why.

    LiteRT where it is installed, the run's graph is in the cache and there are 16 photographs or
    fewer; else TensorFlow.

    Args:
        wanted: "auto", "litert" or "tensorflow".
        sources: the runs or weights, as `carvana.load` takes.
        count: how many photographs.

    Returns:
        "litert" or "tensorflow"; the reason; and where LiteRT's graph is, if it is there already.

    Raises:
        UsageError: LiteRT is wanted and not installed, or a source is not there.
        CarvanaError: a file of a source cannot be read.
    """
    if wanted == "tensorflow":
        return wanted, "--engine names it", None
    missing = [NEEDS[name] for name in NEEDS if importlib.util.find_spec(name) is None]
    if wanted == "litert":
        if missing:
            raise UsageError(
                f"--engine litert: {' and '.join(missing)} not installed; "
                "pip install 'carvana[export]', in a clone of the kit pip install -e '.[export]'"
            )
        folder = cache_folder(sources)
        return wanted, "--engine names it", folder if has_graph(folder) else None
    if missing:
        return "tensorflow", f"{' and '.join(missing)} not installed, of the extra [export]", None
    if count > FEW:
        return "tensorflow", f"{count} photographs, more than {FEW}, repay its start", None
    if not can_keep():
        return "tensorflow", "there is no folder to keep a graph in", None
    folder = cache_folder(sources)
    if not has_graph(folder):
        return "tensorflow", f"{folder} holds no graph yet", None
    return "litert", f"{folder} holds the graph", folder


def has_graph(folder: Path) -> bool:
    """Tell whether a folder of the cache is complete and unbroken."""
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        data = (folder / about["file"]).read_bytes()
        return hashlib.sha256(data).hexdigest() == about["files"][about["file"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def will_keep(wanted: str, engine: str, count: int) -> bool:
    """Tell whether TensorFlow was used only because there is no graph yet."""
    installed = all(importlib.util.find_spec(name) for name in NEEDS)
    chosen = (wanted, engine) == ("auto", "tensorflow") and count <= FEW
    return chosen and installed and can_keep()


def cache_folder(sources: Sequence[str | Path]) -> Path:
    """Return where the graph of runs or weights is kept, by a checksum of their files.

    Raises:
        CarvanaError: as `carvana.load` does, if a file is absent or cannot be read.
    """
    digest = hashlib.sha256(f"{__version__} {importlib.metadata.version('keras')}".encode())
    for source in sources:
        for path in _files_of(source):
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                import_quietly()
                Run.load(source)  # which says what is wrong
                raise CarvanaError(f"{path}: cannot be read ({error.strerror})") from error
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "carvana" / digest.hexdigest()[:32]


def can_keep() -> bool:
    """Tell whether there is a home, or a cache folder named otherwise, to keep graphs in."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~")
    there = next((each for each in (Path(home), *Path(home).parents) if each.exists()), Path(home))
    return home != "~" and os.access(there, os.W_OK)


def _files_of(source: str | Path) -> list[Path]:
    path = find_source(source)
    return [path] if path.suffix == ".npz" else [path / MODEL, path / RECIPE]


def keep_for_next(sources: Sequence[str | Path], photographs: Sequence[Path]) -> None:
    """Write the graph after cutouts that had to do without, and say so; a failure is no harm."""
    print("preparing a quick start for the next cutouts (once; --engine tensorflow does not)")
    try:
        print(f"{keep_graph(sources, photographs)}: written")
    except CarvanaError as error:
        print(f"{error} (cutouts are not affected)", file=sys.stderr)


def keep_graph(sources: Sequence[str | Path], photographs: Sequence[Path]) -> Path:
    """Write the graph of runs or weights into the cache, checked on photographs.

    Raises:
        CarvanaError: it cannot be written, or its masks differ from the kit's.
    """
    from carvana.prediction.export import export, read_whole

    folder = cache_folder(sources)
    shutil.rmtree(folder, ignore_errors=True)  # a broken one
    reads = [functools.partial(read_whole, path) for path in photographs[:4]]
    export(list(sources), folder, "litert", photographs=reads)
    return folder
