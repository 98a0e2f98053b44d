"""Export: a run -> a model that other programs open, checked against the kit's own masks."""

import dataclasses
import functools
import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana import __version__
from carvana.data.dataset import find_pairs, read_split, spread
from carvana.data.folders import list_images
from carvana.data.images import read_photograph
from carvana.data.masks import colours, numbers
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing_folder
from carvana.prediction.evaluate import count_overlap, mean_dice
from carvana.prediction.examples import example
from carvana.prediction.formats import FORMATS, Engine, check_installed
from carvana.prediction.predict import Model
from carvana.progress import progress
from carvana.run import METRICS, SPLIT, Run, mean_of

ABOUT, EXAMPLE = "model.json", "example.py"  # beside the model
LOWEST = {None: 0.9999, "int8": 0.98}  # mean Dice to the kit's masks, by the quantization
CALIBRATION = 16  # training photographs that int8's ranges are measured on


@dataclass(frozen=True)
class Measured:
    """A model on the photographs it is checked on: a row of the table."""

    name: str
    megabytes: float
    milliseconds: float  # a photograph of full size, on all cores: the median
    dice: float  # to the masks of the kit in float32, at full size: the mean
    worst: float


def export(
    source: str | Path | Sequence[str | Path],
    out: Path,
    format: str,
    data: Path | None = None,
    overrides: list[str] | None = None,
    quantize: str | None = None,
    count: int = 16,
    photographs: Sequence[Callable[[], np.ndarray]] = (),
) -> list[Measured]:
    """Write a run's whole prediction as a model, with what it needs to be used beside it.

    Args:
        source: as `carvana.load` takes; several runs become one graph, their mean.
        out: the folder; an export in it is replaced.
        format: a key of `FORMATS`.
        data: the data folder: the run's validation photographs check the export, training
            photographs calibrate int8. Without it rendered cars check.
        overrides: of the recipe's [prediction], as `prediction.flip=false`.
        quantize: "int8", or None for float32.
        count: how many photographs to check on, at most.
        photographs: what reads others to check on, (height, width, 3) uint8 each.

    Returns:
        The kit's row of the table, float32's if the export is quantized, and the export's.

    Raises:
        UsageError: the format is unknown, its package missing, int8 cannot be had, or the folder
            holds something else.
        CarvanaError: the run is broken, the files cannot be written, or the masks differ too much
            from the kit's. Nothing is left then; an older export stays.
    """
    out = Path(out)
    _check_request(out, format, quantize)
    sources = list(source) if isinstance(source, (list, tuple)) else [source]
    run = mean_of([Run.load(each).rebuilt("float32", overrides) for each in sources], sources)
    calibration = ()
    if not photographs:
        photographs, calibration = _choose_photographs(sources[0], run, data, count)
        if quantize and not calibration:
            raise UsageError(
                f"--quantize int8 measures ranges on training photographs, and {data} holds none; "
                "give --data"
            )
    check = Check(run, [read() for read in progress(photographs, "reading", len(photographs))])
    with replacing_folder(out) as folder:
        ways = (None, quantize) if quantize else (None,)
        for way in ways:
            path = write_model(run, folder, format, way, calibration)
            name = f"{FORMATS[format].engine} {way or 'float32'}"
            row = check.measure(name, FORMATS[format].open(path), folder)
        if not row.dice >= LOWEST[quantize]:
            raise CarvanaError(
                f"{out}: the masks of {row.name} have a mean Dice of {row.dice:.6f} to the kit's "
                f"own, less than {LOWEST[quantize]}; nothing was written: choose another --format"
                f"{' or leave out --quantize' if quantize else ''}"
            )
        about = _describe(folder, format, quantize, sources, run, check)
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        (folder / EXAMPLE).write_text(example(format), encoding="utf-8")
    return check.rows


def write_model(
    run: Run,
    folder: Path,
    format: str,
    quantize: str | None = None,
    calibration: Sequence[Callable[[], np.ndarray]] = (),
) -> Path:
    """Write the model alone, in place of any there; see `export`.

    Args:
        run: in float32.
        folder: where to, there already.
        format: a key of `FORMATS`.
        quantize: "int8", or None for float32.
        calibration: what reads training photographs, (height, width, 3) uint8, for int8.

    Returns:
        The model's path.
    """
    from carvana.prediction.graph import build_graph  # here: it imports Keras

    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    path, graph = folder / FORMATS[format].file, build_graph(run)
    if quantize:
        photographs = [read() for read in calibration[:CALIBRATION]]
        FORMATS[format].quantize(graph, path, photographs)
    else:
        FORMATS[format].write(graph, path)
    return path


class Check:
    """The photographs an export is checked on, the kit's masks of them, and what was measured.

    Args:
        run: in float32.
        photographs: (height, width, 3) uint8 each.
    """

    def __init__(self, run: Run, photographs: Sequence[np.ndarray]):
        self.photographs, self.settings = photographs, run.recipe.data
        self.rows: list[Measured] = []
        self.model = Model(run)
        self.masks: list[np.ndarray] = []  # the kit's
        self.labels: list[np.ndarray] = []  # the last row's masks
        self.measure_model("the kit, TensorFlow float32", self.model)

    def measure_model(self, name: str, model: Model) -> Measured:
        """Add a row: the kit itself."""
        return self._measure(name, model.probability, 4e-6 * model.run.networks[0].count_params())

    def measure(self, name: str, engine: Engine, folder: Path) -> Measured:
        """Add a row: an engine that has opened the model in a folder."""

        def probability(photograph: np.ndarray) -> np.ndarray:
            probabilities = engine(photograph[None])[0]
            return probabilities[..., 0] if probabilities.shape[-1] == 1 else probabilities

        size = sum(file.stat().st_size for file in _files(folder)) / 1e6
        return self._measure(name, probability, size)

    def _measure(self, name: str, probability: Callable, megabytes: float) -> Measured:
        probability(self.photographs[0])  # what is done once is not timed
        seconds, labels = [], []
        for photograph in progress(self.photographs, name, len(self.photographs)):
            begun = time.perf_counter()
            probabilities = probability(photograph)
            seconds.append(time.perf_counter() - begun)
            labels.append(self.model.decide(probabilities))
        self.labels, self.masks = labels, self.masks or labels
        pairs = zip(labels, self.masks, strict=True)
        overlaps = [count_overlap(*pair, self.settings) for pair in pairs]
        dice = [mean_dice(overlap, self.settings) for overlap in overlaps]
        median = 1e3 * statistics.median(seconds)
        self.rows.append(Measured(name, megabytes, median, float(np.mean(dice)), float(min(dice))))
        return self.rows[-1]


def table(rows: Sequence[Measured]) -> list[str]:
    """Return the table of an export's check, in lines."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}} {'MB':>8} {'ms':>7} {'Dice to the kit':>16} {'worst':>9}"]
    for row in rows:
        figures = f"{row.megabytes:8.1f} {row.milliseconds:7.0f} {row.dice:16.6f} {row.worst:9.6f}"
        lines.append(f"{row.name:{width}} {figures}")
    return lines


def _check_request(out: Path, format: str, quantize: str | None) -> None:
    """Refuse what cannot be done before anything is loaded."""
    if format not in FORMATS:
        raise UsageError(f"--format {format}: no such format; use {', '.join(FORMATS)}")
    check_installed(format, quantize is not None)
    if quantize is not None and (quantize not in LOWEST or FORMATS[format].quantize is None):
        able = ", ".join(name for name, each in FORMATS.items() if each.quantize)
        raise UsageError(f"--quantize {quantize}: use int8, with --format {able}")
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out}: is not a folder; choose another --out")
    try:
        ours = {*json.loads((out / ABOUT).read_text("utf-8"))["files"], ABOUT, EXAMPLE}
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    foreign = sorted({str(file.relative_to(out)) for file in _files(out)} - ours)
    if foreign:
        raise UsageError(f"{out}: holds {foreign[0]}, which no export wrote; choose another --out")


def _choose_photographs(
    source: str | Path, run: Run, data: Path | None, count: int
) -> tuple[list[Callable], list[Callable]]:
    """Return what reads the photographs to check on, and those to calibrate int8 on."""
    settings = run.recipe.data
    if data is None or not (data / settings.images).is_dir():
        from carvana.sandbox.cars.studio import render  # pictures alone, nothing of the sandbox

        shots = [(seed, view) for seed in (1, 2) for view in range(1, 17)]
        return [
            functools.partial(lambda *shot: render(*shot)[0], *shot)
            for shot in spread(shots, count)
        ], []
    if (Path(source) / SPLIT).is_file():
        split = read_split(Path(source) / SPLIT, find_pairs(data, settings))
        check, train = ([pair.image for pair in side] for side in (split.validation, split.train))
    else:  # weights without a run: which photographs they were trained on is not known
        folder = data / settings.images
        check = train = [folder / name for name in list_images(folder)]
    return tuple(
        [
            functools.partial(read_whole, path, run.recipe.input.white)
            for path in spread(paths, wanted)
        ]
        for paths, wanted in ((check, count), (train, CALIBRATION))
    )


def read_whole(path: Path, white: int = 0) -> np.ndarray:
    """Read a photograph at full size: (height, width, 3) uint8; see `decode_photograph`."""
    return read_photograph(path, white=white)[0]


def _describe(
    folder: Path, format: str, quantize: str | None, sources: list, run: Run, check: Check
) -> dict:
    """Return what `model.json` says."""
    recipe, many = run.recipe, bool(run.recipe.data.classes)
    names = recipe.data.class_names
    sizes = [[pictures.height, pictures.width] for pictures in recipe.prediction_inputs]
    return {
        "carvana": __version__,
        "format": format,
        "file": FORMATS[format].file,
        "files": {str(file.relative_to(folder)): _sha256(file) for file in _files(folder)},
        "weights": [str(Path(source).name) for source in sources],
        "fingerprint": run.fingerprint(),
        "precision": quantize or "float32",
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
            "network_sizes": sizes,
            "method": recipe.input.method,
            "white": recipe.input.white,
            "flip": recipe.prediction.flip,
            "scales": recipe.prediction.scales,
        },
        "dice_of_the_run": _known_dice(sources),
        "photographs": len(check.photographs),
        "measured": [dataclasses.asdict(row) for row in check.rows],
    }


def _known_dice(sources: list) -> float | None:
    """Return a run's Dice on its validation split, if `carvana score --run` has measured it."""
    try:
        metrics = json.loads((Path(sources[0]) / METRICS).read_text("utf-8"))
        return metrics["full_resolution_dice"] if len(sources) == 1 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
