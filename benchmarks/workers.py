"""Workers over Dask against one process, the network's threads one each: photographs a second.

    .venv/bin/pip install --editable '.[cluster]'
    .venv/bin/python benchmarks/workers.py --images data/test --weights sharp

Every figure comes from two runs, of 96 and of 192 photographs, so that starting up does not count.
A worker is compared with none twice, with two cores and with one, which it then shares with Dask's
client and scheduler; and two workers on two cores with one on one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from carvana.data.folders import list_images

FEW, MANY = 96, 192  # photographs
CASES = {  # the cores, None for all; the cluster
    "no cluster": (None, None),
    "one worker": (None, "local:1"),
    "no cluster, one core": ("0", None),
    "one worker, one core": ("0", "local:1"),
    "two workers, two cores": ("0,1", "local:2"),
}


def seconds(images: Path, weights: str, cores: str | None, cluster: str | None) -> float:
    """Time a prediction from the shell."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "carvana", "predict", "--weights", weights]
        command += ["--images", str(images), "--out", f"{folder}/s.csv", "--part", "1/1"]
        command += ["--workers", "1", *(["--cluster", cluster] if cluster else [])]
        pinned = ["taskset", "--cpu-list", cores] if cores else []
        threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        start = time.monotonic()
        subprocess.run(
            [*pinned, *command], env=os.environ | threads, check=True, stdout=subprocess.DEVNULL
        )
        return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=Path("data/test"))
    parser.add_argument("--weights", default="sharp")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    photographs = [options.images / name for name in list_images(options.images)[:MANY]]
    if len(photographs) < MANY:
        parser.error(
            f"{options.images}: holds {len(photographs)} photographs, and {MANY} are needed"
        )
    with tempfile.TemporaryDirectory() as folder:
        sets = []
        for count in (FEW, MANY):
            sets.append(Path(folder, str(count)))
            sets[-1].mkdir()
            for path in photographs[:count]:
                (sets[-1] / path.name).symlink_to(path.resolve())
        for _ in range(options.turns):
            for name, case in CASES.items():
                few, many = (seconds(images, options.weights, *case) for images in sets)
                print(f"{name}: {(MANY - FEW) / (many - few):.2f} photographs/s", flush=True)


if __name__ == "__main__":
    main()
