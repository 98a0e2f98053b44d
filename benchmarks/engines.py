"""Inference engines: what `carvana export` writes, its size, its time, and what Dice it costs.

    .venv/bin/pip install --editable '.[export]'
    .venv/bin/python benchmarks/engines.py --data data --weights sharp --weights runs/blog

Each row is the whole prediction, from a photograph of full size in memory to its probabilities at
that size, one photograph at a time on all cores: the median. Dice is the mean, to the masks of the
kit in float32, and to those in `solution.csv`. What cannot be had is named with its error.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from carvana.competition import rle
from carvana.competition.facts import HEIGHT, WIDTH, Paths
from carvana.competition.submission import read_rows
from carvana.data.folders import list_images
from carvana.data.images import read_photograph
from carvana.data.pairs import evenly
from carvana.export.check import Check, table
from carvana.export.formats import FORMATS
from carvana.export.graph import build_graph
from carvana.prediction.evaluate import count_overlap, mean_dice
from carvana.prediction.model import Model
from carvana.runs.trained import Run


def measure(
    source: str | Path,
    formats: list[str],
    photographs: list[np.ndarray],
    truth: list[np.ndarray],
) -> None:
    """Print the table of a run or of weights."""
    run, fast = Run.load(source), Run.load(source, "auto")
    data = run.recipe.data
    check, scores, faults = Check(run, photographs), [], []

    def score() -> None:
        pairs = zip(check.labels, truth, strict=True)
        scores.append(np.mean([mean_dice(count_overlap(a, b, data), data) for a, b in pairs]))

    score()
    if fast.precision != run.precision:
        check.measure_model(f"the kit, TensorFlow {fast.precision}", Model(fast))
        score()
    for name in formats:
        label = f"{FORMATS[name].engine} float32"
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = Path(folder, FORMATS[name].file)
                FORMATS[name].write(build_graph(run), path)
                check.measure(label, FORMATS[name].open(path), Path(folder))
                score()
            except Exception as error:  # whatever a converter raises is its row's text
                reason = " ".join(str(error).split())[:200]
                faults.append(f"{label}: {type(error).__name__}: {reason}")
    heading, *lines = table(check.rows)
    print(f"\n{source}, {len(photographs)} photographs\n{heading} {'Dice':>8}")
    for line, dice in zip(lines, scores, strict=True):
        print(f"{line} {dice:8.5f}")
    print(*faults, sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--weights", action="append", help="weights or a run's folder; repeatable")
    parser.add_argument("--format", action="append", choices=FORMATS, help="repeatable; else all")
    parser.add_argument("--count", type=int, default=64, help="test photographs")
    options = parser.parse_args()
    paths = Paths(options.data)
    names = evenly(list_images(paths.test), options.count)
    photographs = [read_photograph(paths.test / name)[0] for name in names]
    rows = {cells[0]: cells[1] for _, cells in read_rows(paths.root / "solution.csv")}
    truth = [rle.decode(rows[name], HEIGHT, WIDTH) for name in names]
    for source in options.weights or ["sharp"]:
        source = Path(source) if Path(source).is_dir() else source
        measure(source, options.format or list(FORMATS), photographs, truth)


if __name__ == "__main__":
    main()
