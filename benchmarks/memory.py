"""Peak memory of `predict`, `score` and `train` at few images and at many: it should not grow.

    .venv/bin/python benchmarks/memory.py --run runs/blog --data data

The photographs and true masks are those of the data folder, repeated under other names.
"""

import argparse
import csv
import gzip
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from carvana.competition.submission import read_rows

COUNTS = (100, 2000)
TRAINED = (64, 5088)  # few; all of the competition's


def peak_mebibytes(*arguments) -> float:
    """Run a `carvana` command and return its peak resident memory."""
    command = [sys.executable, "-m", "carvana", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/blog"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    photographs = sorted((options.data / "test").resolve().glob("*.jpg"))
    masks = [cells[1] for _, cells in read_rows(options.data / "solution.csv")][1:]
    print(f"{'images':>8} {'predict MiB':>12} {'score MiB':>10}")
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as scratch:
            folder, truth = Path(scratch, "images"), Path(scratch, "truth.csv.gz")
            folder.mkdir()
            repeated = itertools.cycle(zip(photographs, masks, strict=False))
            with gzip.open(truth, "wt", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("img", "rle_mask"))
                for number, (photograph, mask) in enumerate(itertools.islice(repeated, count)):
                    name = f"{number:06}.jpg"
                    (folder / name).symlink_to(photograph)
                    writer.writerow((name, mask))
            out = Path(scratch, "s.csv.gz")
            predict = peak_mebibytes(
                "predict", "--run", options.run, "--images", folder, "--out", out
            )
            score = peak_mebibytes("score", out, "--truth", truth)
        print(f"{count:8} {predict:12.0f} {score:10.0f}", flush=True)
    print(f"{'images':>8} {'train MiB':>12}  (the run's recipe, three steps and a validation)")
    pairs = [
        (photograph, options.data.resolve() / "train_masks" / f"{photograph.stem}_mask.gif")
        for photograph in sorted((options.data / "train").resolve().glob("*.jpg"))
    ]
    for count in TRAINED:
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch)
            (data / "train").mkdir()
            (data / "train_masks").mkdir()
            for number, (image, mask) in enumerate(itertools.islice(itertools.cycle(pairs), count)):
                (data / "train" / f"{number:012x}_01.jpg").symlink_to(image)
                (data / "train_masks" / f"{number:012x}_01_mask.gif").symlink_to(mask)
            peak = peak_mebibytes(
                *("train", "--recipe", options.run / "recipe.toml", "--data", data),
                *("--run", data / "run", "--set", "training.steps_per_epoch=3"),
                *("--set", "training.epochs=1", "--set", "training.stages=[]"),
            )
        print(f"{count:8} {peak:12.0f}", flush=True)


if __name__ == "__main__":
    main()
