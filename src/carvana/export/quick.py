"""Cut-outs that start at once: a run's exported graph, kept in the user's cache, run by LiteRT.

TensorFlow takes three seconds to import, before the first photograph is read; LiteRT takes a tenth
of one. The graph is written after a run's first cut-out, into `~/.cache/carvana` (or
`$XDG_CACHE_HOME/carvana`), under a digest of the run's content. The folder is safe to delete.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from carvana import __version__
from carvana.data.images import read_photograph
from carvana.errors import CarvanaError, UsageError
from carvana.export.formats import FORMATS
from carvana.machine import Turns
from carvana.prediction.model import Model
from carvana.recipe import Input
from carvana.runs.trained import RunInfo, Source

NEEDS = {"ai_edge_litert": "ai-edge-litert", "simplejpeg": "simplejpeg"}  # modules, packages
FEW = 16  # photographs; for more, TensorFlow's speed makes up for its slow start
MOST = 5  # graphs that are kept
ABOUT = "model.json"


class GraphModel(Model):
    """An export in LiteRT, from its folder; predicts what `Model` predicts in float32."""

    def __init__(self, folder: Path):
        try:
            about = json.loads((folder / ABOUT).read_text("utf-8"))
            self._engine = FORMATS["litert"].open(folder / about["file"])
            names, inside = about["classes"], about["inside"]
            self.background = names.index("background") if "background" in names else None
            self.usual, self.white = about["usual_dice"], inside["white"]
            self.threshold = about["threshold"] or 0.5  # of several classes none
            self.batch_size = 1
            height, width = max(inside["network_sizes"])
            self._largest = Input(height, width, inside["method"], False, self.white)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CarvanaError(f"{folder}: is not a readable export; delete it") from error

    def _load(self, photograph: Path, turns: Turns) -> tuple[tuple[int, int], list[np.ndarray]]:
        path = Path(photograph)
        picture, size = read_photograph(path, self._largest, decode_jpeg)
        return size, [picture]

    def _predict_batch(self, inputs: list[list[np.ndarray]], full: bool) -> Iterator:
        return iter([(self._engine(picture[None])[0],) for (picture,) in inputs])


def decode_jpeg(data: bytes, ratio: int) -> np.ndarray:
    """Decode a JPEG at one part in `ratio`, to the very pixels that TensorFlow decodes."""
    import simplejpeg

    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    least = {"min_height": height // ratio, "min_width": width // ratio, "min_factor": ratio}
    return simplejpeg.decode_jpeg(data, "RGB", fastdct=True, **(least if ratio > 1 else {}))


def is_quick(wanted: str, count: int) -> bool:
    """Tell whether LiteRT predicts so many photographs, by the engine that is wanted.

    Raises:
        UsageError: LiteRT is wanted and not installed.
    """
    missing = [NEEDS[name] for name in NEEDS if importlib.util.find_spec(name) is None]
    if wanted == "litert" and missing:
        raise UsageError(
            f"--engine litert: {' and '.join(missing)} not installed; "
            "in the kit's folder run pip install -e '.[export]'"
        )
    return wanted == "litert" or (wanted == "auto" and not missing and count <= FEW)


def open_kept(source: Source) -> GraphModel | None:
    """Open the graph of a run or of weights, if it is in the cache, complete and unbroken."""
    folder = cache_folder(source)
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        data = (folder / about["file"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != about["files"][about["file"]]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)  # in use: others are deleted first
    return GraphModel(folder)


def keep(source: Source, photographs: Sequence[Path]) -> Path:
    """Write the graph of a run or of weights into the cache, checked on photographs.

    Raises:
        CarvanaError: it cannot be written, or its masks differ from the kit's.
    """
    from carvana.export.check import export  # here: it imports TensorFlow

    folder = cache_folder(source)
    shutil.rmtree(folder, ignore_errors=True)  # a broken one
    export(source, folder, "litert", photographs=photographs[:4])
    with contextlib.suppress(OSError):  # another process deletes them, too
        kept = sorted(folder.parent.iterdir(), key=lambda each: each.stat().st_mtime)
        for old in kept[:-MOST]:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def keep_for_next(source: Source, photographs: Sequence[Path]) -> None:
    """Keep the graph for the next cut-outs, and say so; failure is not an error."""
    home = _home()
    there = next((each for each in (home, *home.parents) if each.exists()), home)
    if str(home).startswith("~") or not os.access(there, os.W_OK):
        return  # some containers' users have no folder to keep graphs in
    print("preparing a quick start for the next cutouts (once; --engine tensorflow does not)")
    try:
        print(f"{keep(source, photographs)}: written")
    except CarvanaError as error:
        print(f"{error} (cutouts are not affected)", file=sys.stderr)


def cache_folder(source: Source) -> Path:
    """Return where the graph of a run or of weights is kept, by a digest of its content."""
    versions = f"{__version__} {importlib.metadata.version('keras')}"
    digest = hashlib.sha256(f"{versions} {RunInfo.read(source).fingerprint()}".encode())
    return _home() / "carvana" / digest.hexdigest()[:32]


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
