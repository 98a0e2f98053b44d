"""A small competition in the layout Kaggle serves, and the official client sent to a stand-in."""

import contextlib
import csv
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from carvana import kaggle_client
from carvana.competition import Paths
from carvana.sandbox.server import Fault, Sandbox

TEST_IMAGES = [f"car{car}_{view:02}.jpg" for car in (8, 9) for view in (1, 2)]
TRUE_RUNS = "10 20 2000 30"
RUN = """
import sys
from pathlib import Path
from carvana import kaggle_client
from carvana.competition import Paths
from carvana.errors import CarvanaError
kaggle_client.FIRST_DELAY = kaggle_client.POLL_SECONDS = 0.05
try:
    {call}
except CarvanaError as error:
    sys.exit(f"{{error}}")
"""


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def csv_bytes(rows: list) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def write_served(folder: Path) -> Path:
    """Write the archives, of random bytes, and the truth of four test images."""
    folder.mkdir(parents=True)
    for name, count, size in (("train", 8, 2**19), ("train_masks", 8, 5000), ("test", 4, 40_000)):
        members = {f"{name}/{number}.jpg": os.urandom(size) for number in range(count)}
        write_zip(folder / f"{name}.zip", members)
    runs = [("img", "rle_mask"), *((name, "1 1") for name in TEST_IMAGES)]
    for name in ("train_masks", "sample_submission"):
        write_zip(
            folder / f"{name}.csv.zip", {f"{name}.csv": csv_bytes(runs)}, zipfile.ZIP_DEFLATED
        )
    usage = ["Public", "Private", "Private", "Ignored"]
    truth = [(name, TRUE_RUNS, part) for name, part in zip(TEST_IMAGES, usage, strict=True)]
    (folder / "solution.csv").write_bytes(csv_bytes([("img", "rle_mask", "Usage"), *truth]))
    return folder


def write_submission(path: Path, runs: str = TRUE_RUNS, last: str = TRUE_RUNS) -> Path:
    rows = [(name, runs) for name in TEST_IMAGES[:-1]] + [(TEST_IMAGES[-1], last)]
    path.write_bytes(csv_bytes([("img", "rle_mask"), *rows]))
    return path


def start_client(call: str, environment: dict, **options) -> subprocess.Popen:
    """Start a fresh interpreter on a call of the client, as a user's command would."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN.format(call=call)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def run_client(call: str, environment: dict) -> tuple[int, str]:
    with start_client(call, environment) as process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, output


def download_call(paths: Paths, only: str = "train") -> str:
    return f"kaggle_client.download(Paths(Path({str(paths.root)!r})), {only!r})"


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Path:
    return write_served(tmp_path_factory.mktemp("served") / "competition")


@pytest.fixture
def paths(tmp_path) -> Paths:
    return Paths(tmp_path / "data")


@pytest.fixture
def sandbox(served, monkeypatch):
    """Start stand-ins; the official client of this process talks to the last one."""
    monkeypatch.setattr(kaggle_client, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(kaggle_client, "POLL_SECONDS", 0.05)
    with contextlib.ExitStack() as stack:

        def start(*faults: str, folder: Path = served, pending_seconds: float = 0.1) -> Sandbox:
            misbehaviour = [Fault.parse(fault) for fault in faults]
            started = stack.enter_context(
                Sandbox(folder, faults=misbehaviour, pending_seconds=pending_seconds)
            )
            for name, value in started.environment().items():
                monkeypatch.setenv(name, value)
            # The package reads where Kaggle is once, when it is first imported.
            from kaggle.api.kaggle_api_extended import KaggleApi

            assert "--local" in KaggleApi.args, "another test imported kaggle for the real Kaggle"
            started.log.clear()
            return started

        yield start
