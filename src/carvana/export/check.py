"""Export a run as a model that other programs open, checked against the kit's own masks."""

import dataclasses
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana import __version__
from carvana.data.images import read_photograph
from carvana.data.masks import colours, numbers
from carvana.data.pairs import evenly, find_pairs, list_photographs
from carvana.data.split import read_split
from carvana.errors import CarvanaError, UsageError
from carvana.export.example import example
from carvana.export.formats import FORMATS, Engine, check_installed
from carvana.files import real_path, replacing_folder
from carvana.prediction.evaluate import count_overlap, mean_dice
from carvana.prediction.model import Model
from carvana.progress import progress
from carvana.runs.folder import SPLIT, read_metrics
from carvana.runs.trained import Run, RunInfo, Source

ABOUT, EXAMPLE = "model.json", "example.py"  # beside the model
LOWEST = 0.9999  # mean Dice to the kit's masks


@dataclass(frozen=True)
class Measured:
    """A model on the photographs it is checked on: a row of the table."""

    name: str
    megabytes: float
    milliseconds: float  # a photograph of full size, on all cores: the median
    dice: float  # to the masks of the kit in float32, at full size: the mean
    worst: float


def export(
    source: Source,
    out: Path,
    format: str,
    overrides: Sequence[str] = (),
    photographs: Sequence[Path | np.ndarray] = (),
) -> list[Measured]:
    """Write a run's whole prediction as a model, with what it needs to be used beside it.

    Args:
        source: as `carvana.load` takes; several runs become one graph, their mean.
        out: the folder; an export in it is replaced.
        format: a key of `FORMATS`.
        overrides: of the recipe's [prediction], as `prediction.flip=false`.
        photographs: to check it on: paths, or (height, width, 3) uint8.

    Returns:
        The kit's row of the table, and the export's.

    Raises:
        UsageError: the format is unknown, its package missing, or the folder holds something else.
        CarvanaError: the run is broken, the files cannot be written, or the masks differ too much
            from the kit's. Nothing is left then; an older export stays.
    """
    from carvana.export.graph import build_graph  # here: it imports Keras

    out = Path(out)
    check_request(out, format)
    if not len(photographs):
        raise UsageError("no photographs to check the export on; give some")
    run = Run.load(source, overrides=overrides)
    check = Check(run, photographs)
    with replacing_folder(out) as folder:
        path = folder / FORMATS[format].file
        FORMATS[format].write(build_graph(run), path)
        name = f"{FORMATS[format].engine} float32"
        row = check.measure(name, FORMATS[format].open(path), folder)
        if not row.dice >= LOWEST:
            raise CarvanaError(
                f"{out}: the masks of {row.name} have a mean Dice of {row.dice:.6f} to the kit's "
                f"own, less than {LOWEST}; nothing was written: choose another --format"
            )
        about = _describe(folder, format, run, check)
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        (folder / EXAMPLE).write_text(example(format), encoding="utf-8")
    return check.rows


class Check:
    """The photographs an export of a float32 run is checked on, and what was measured."""

    def __init__(self, run: Run, photographs: Sequence[Path | np.ndarray]):
        white = run.recipe.input.white
        self.photographs = [
            each if isinstance(each, np.ndarray) else read_photograph(each, white=white)[0]
            for each in progress(photographs, "reading", len(photographs))
        ]
        self.model = Model(run)
        self.rows: list[Measured] = []
        self.masks: list[np.ndarray] = []  # the kit's
        self.labels: list[np.ndarray] = []  # the last row's masks
        self.measure_model("the kit, TensorFlow float32", self.model)

    def measure_model(self, name: str, model: Model) -> Measured:
        """Add a row of the table: the kit itself."""
        return self._measure(name, model.mask, 4e-6 * model.run.networks[0].count_params())

    def measure(self, name: str, engine: Engine, folder: Path) -> Measured:
        """Add a row of the table: an engine that has opened the model in a folder."""

        def mask(photograph: np.ndarray) -> np.ndarray:
            by_scale = [engine(photograph[None])[0]]
            return self.model.prediction(by_scale, photograph.shape[:2]).mask()

        size = sum(file.stat().st_size for file in _files(folder)) / 1e6
        return self._measure(name, mask, size)

    def _measure(self, name: str, mask: Callable, megabytes: float) -> Measured:
        mask(self.photographs[0])  # what is done once is not timed
        self.labels, seconds = [], []
        for photograph in progress(self.photographs, name, len(self.photographs)):
            begun = time.perf_counter()
            self.labels.append(mask(photograph))
            seconds.append(time.perf_counter() - begun)
        self.masks = self.masks or self.labels
        settings = self.model.recipe.data
        pairs = zip(self.labels, self.masks, strict=True)
        dice = [mean_dice(count_overlap(*pair, settings), settings) for pair in pairs]
        median = 1e3 * statistics.median(seconds)
        self.rows.append(Measured(name, megabytes, median, float(np.mean(dice)), float(min(dice))))
        return self.rows[-1]


def table(rows: Sequence[Measured]) -> list[str]:
    width = max(len(row.name) for row in rows)
    return [
        f"{'':{width}} {'MB':>8} {'ms':>7} {'Dice to the kit':>16} {'worst':>9}",
        *(
            f"{row.name:{width}} {row.megabytes:8.1f} {row.milliseconds:7.0f} {row.dice:16.6f} "
            f"{row.worst:9.6f}"
            for row in rows
        ),
    ]


def photographs_of(source: Source, data: Path, count: int) -> list[Path]:
    """Return photographs to check an export on: of a run those it was validated on.

    Of weights alone any of the data's. Empty where the data folder has none.
    """
    first = source[0] if isinstance(source, (list, tuple)) else source
    settings = RunInfo.read(first).recipe.data
    folder, split = Path(data / settings.images.partition("*")[0]), Path(first) / SPLIT
    if not folder.is_dir():
        return []
    if split.is_file():
        pairs = read_split(split, find_pairs(data, settings)).validation
        return evenly([pair.image for pair in pairs], count)
    return evenly([*list_photographs(data, settings.images).values()], count)


def check_request(out: Path, format: str) -> None:
    """Raise UsageError unless a format can be written here, into this folder."""
    if format not in FORMATS:
        raise UsageError(f"--format {format}: no such format; use {', '.join(FORMATS)}")
    check_installed(format)
    if real_path(out) in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(f"{out}: choose a folder within it")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is not a folder; choose another --out")
    try:
        ours = {*json.loads((out / ABOUT).read_text("utf-8"))["files"], ABOUT, EXAMPLE}
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    foreign = sorted({str(file.relative_to(out)) for file in _files(out)} - ours)
    if foreign:
        raise UsageError(f"{out}: holds {foreign[0]}, which no export wrote; choose another --out")


def _describe(folder: Path, format: str, run: Run, check: Check) -> dict:
    recipe, many = run.recipe, bool(run.recipe.data.classes)
    names = recipe.data.class_names
    metrics = read_metrics(run.paths[0]) if len(run.paths) == 1 else None
    return {
        "carvana": __version__,
        "format": format,
        "file": FORMATS[format].file,
        "files": {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in _files(folder)
        },
        "weights": [path.stem for path in run.paths],
        "fingerprint": run.fingerprint(),
        "precision": "float32",
        "input": {
            "shape": ["batch", "height", "width", 3],
            "dtype": "uint8",
            "colours": "RGB (sRGB), the photograph upright",
            "size": "any: the model resizes photographs itself",
        },
        "output": {
            "shape": ["batch", "height", "width", recipe.data.outputs],
            "dtype": "float32",
            "values": "probability of each class" if many else "probability of the car",
            "size": "the photograph's: the model resizes probabilities itself",
        },
        "threshold": None if many else recipe.prediction.threshold,
        "classes": names,
        "numbers": numbers(recipe.data),  # of the classes in label maps
        "colours": ["#" + bytes(rgb).hex() for rgb in colours(recipe.data)[: len(names)]],
        "usual_dice": run.usual,
        "inside": {
            "network_sizes": [[each.height, each.width] for each in recipe.prediction_inputs],
            "method": recipe.input.method,
            "white": recipe.input.white,
            "flip": recipe.prediction.flip,
            "scales": recipe.prediction.scales,
        },
        "dice_of_the_run": (metrics or {}).get("full_resolution_dice"),
        "photographs": len(check.photographs),
        "measured": [dataclasses.asdict(row) for row in check.rows],
    }


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
