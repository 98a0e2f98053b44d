"""Write a whole competition of made-up cars, in the files that Kaggle would offer."""

import contextlib
import csv
import io
import itertools
import json
import multiprocessing
import signal
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from carvana.competition import rle
from carvana.competition.facts import VIEWS
from carvana.competition.submission import HEADER
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing, write_text
from carvana.machine import cores
from carvana.progress import progress
from carvana_sandbox.cars.geometry import Rng
from carvana_sandbox.cars.studio import render

JPEG = {"format": "JPEG", "quality": 55, "subsampling": "4:2:0"}  # as in the real train.zip
MARKER = "rendered.json"  # written last: what a complete folder holds
VERSION = 2  # of the drawing; raise it when the same seed gives other pictures
FILES = ("train.zip", "train_masks.zip", "train_masks.csv.zip", "test.zip")
FILES += ("sample_submission.csv.zip", "solution.csv")
PUBLIC_SHARE = 0.25  # of the test photographs


@dataclass(frozen=True)
class Shot:
    """One photograph with its mask, encoded as in the competition."""

    name: str
    jpeg: bytes
    gif: bytes
    runs: str


def shoot(car_seed: int) -> list[Shot]:
    """Photograph a car from all sides."""
    shots = []
    for view in range(1, VIEWS + 1):
        photo, mask = render(car_seed, view)
        jpeg, gif = io.BytesIO(), io.BytesIO()
        Image.fromarray(photo).save(jpeg, **JPEG)
        picture = Image.fromarray(mask.astype(np.uint8))
        picture.putpalette((0, 0, 0, 255, 255, 255))
        picture.save(gif, "GIF")
        name = f"{car_seed:012x}_{view:02d}"
        shots.append(Shot(name, jpeg.getvalue(), gif.getvalue(), rle.encode(mask)))
    return shots


def write_competition(folder: Path, train_cars: int, test_cars: int, seed: int) -> None:
    """Write the files Kaggle would offer, of made-up cars, and the solution it would keep.

    Writes `train.zip`, `train_masks.zip`, `train_masks.csv.zip`, `test.zip`,
    `sample_submission.csv.zip` and `solution.csv` (`img,rle_mask,Usage`). Does nothing if the
    folder already holds the same competition, complete.

    Args:
        folder: made if absent.
        train_cars: 16 photographs each, from 1.
        test_cars: other cars than those, from 1.
        seed: from 0; the same arguments give the same files.

    Raises:
        UsageError: a number is out of range.
        CarvanaError: a file cannot be written, or a rendering process died.
    """
    if min(train_cars, test_cars) < 1 or seed < 0:
        raise UsageError(
            f"{train_cars} train cars, {test_cars} test cars, seed {seed}: give at least one car "
            "of each and a seed from 0"
        )
    folder = Path(folder)
    marker = folder / MARKER
    wanted = {"version": VERSION, "train_cars": train_cars, "test_cars": test_cars, "seed": seed}
    made = _read_marker(marker)
    if made == wanted | {"bytes": _sizes(folder)}:
        return
    foreign = [name for name in FILES if (folder / name).exists()]
    if foreign and "train_cars" not in made:
        raise UsageError(
            f"{folder}: holds {foreign[0]}, which was not rendered here; choose another folder"
        )
    write_text(marker, json.dumps(wanted) + "\n")  # without sizes: not complete yet
    print(f"{folder}: rendering {train_cars} training and {test_cars} test cars", flush=True)
    rng = np.random.default_rng(seed)
    count = train_cars + test_cars
    cars = list(dict.fromkeys(rng.integers(0, 16**12, 2 * count + 8).tolist()))[:count]
    cars = sorted(cars[:train_cars]) + sorted(cars[train_cars:])
    with _shots(cars) as shots:
        shots = progress(shots, "render", count * VIEWS)
        _write_train(folder, itertools.islice(shots, train_cars * VIEWS))
        _write_test(folder, shots, rng)
    write_text(marker, json.dumps(wanted | {"bytes": _sizes(folder)}, indent=2) + "\n")


def _read_marker(marker: Path) -> dict:
    try:
        made = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) else {}


def _sizes(folder: Path) -> dict[str, int]:
    paths = {name: folder / name for name in FILES}
    return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    cv2.setNumThreads(1)  # every core has a worker already


@contextlib.contextmanager
def _shots(cars: list[int]) -> Iterator[Iterator[Shot]]:
    """Yield the shots of cars, in order, rendered on all cores."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(len(cars), cores()),
        # Forking would copy the locks of whatever threads run in the caller (TensorFlow's).
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare_worker,
    )
    try:
        yield itertools.chain.from_iterable(pool.map(shoot, cars))
    except BrokenProcessPool as error:
        raise CarvanaError(
            "a rendering process died (out of memory?); run the same command again"
        ) from error
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()  # each still renders cars that are no longer needed
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        yield archive


def _add(archive: zipfile.ZipFile, name: str, data: bytes | str, method=zipfile.ZIP_STORED) -> None:
    entry = zipfile.ZipInfo(name)  # dated 1980, so that the same cars give the same bytes
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data, method)


def _write_csv(path: Path, header: list[str], rows: Iterable[tuple[str, ...]]) -> None:
    """Write a CSV, inside a zip where the path ends so."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    if path.suffix == ".zip":
        with _archive(path) as archive:
            _add(archive, path.stem, text.getvalue(), zipfile.ZIP_DEFLATED)
    else:
        write_text(path, text.getvalue())


def _write_train(folder: Path, shots: Iterable[Shot]) -> None:
    rows = []
    with _archive(folder / "train.zip") as photos, _archive(folder / "train_masks.zip") as masks:
        for shot in shots:
            _add(photos, f"train/{shot.name}.jpg", shot.jpeg)
            _add(masks, f"train_masks/{shot.name}_mask.gif", shot.gif)
            rows.append((f"{shot.name}.jpg", shot.runs))
    _write_csv(folder / "train_masks.csv.zip", HEADER, rows)


def _write_test(folder: Path, shots: Iterable[Shot], rng: Rng) -> None:
    rows = []
    with _archive(folder / "test.zip") as photos:
        for shot in shots:
            _add(photos, f"test/{shot.name}.jpg", shot.jpeg)
            rows.append((f"{shot.name}.jpg", shot.runs))
    sample = ((name, "1 1") for name, _ in rows)
    _write_csv(folder / "sample_submission.csv.zip", HEADER, sample)
    public = rng.permutation(len(rows)) < round(PUBLIC_SHARE * len(rows))
    usage = np.where(public, "Public", "Private").tolist()
    solution = ((*row, kind) for row, kind in zip(rows, usage, strict=True))
    _write_csv(folder / "solution.csv", [*HEADER, "Usage"], solution)
