"""A small competition in the layout Kaggle serves, and commands that ask a mock server."""

import contextlib
import csv
import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from werkzeug.wrappers import Request, Response

from carvana.kaggle.download import FILES
from carvana.kaggle.local import NOTE
from carvana_sandbox.server import Sandbox

TEST_IMAGES = [f"car{car}_{view:02}.jpg" for car in (8, 9) for view in (1, 2)]
TRUE_RUNS = "10 20 2000 30"


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


def instead(server: Sandbox, ending: str, answer: Callable[[Request], Response | None]) -> None:
    """Let `answer` reply to requests whose path ends so; where it returns None, the server does."""
    usual = server.answer

    def reply(request: Request) -> Response:
        return (request.path.endswith(ending) and answer(request)) or usual(request)

    server.answer = reply


@contextlib.contextmanager
def start_download(root: Path, environment: dict) -> Iterator[subprocess.Popen]:
    """Start the command in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "carvana", "download", "--data", str(root)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # one that is held never ends by itself


def files_in(root: Path) -> dict[str, bytes]:
    """Read every file under a folder but the lock and the note of what was unpacked."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in (".download.lock", NOTE)
    }


def assert_train_is_there(root: Path, served: Path) -> None:
    found = files_in(root)
    for name in FILES["train"]:
        assert found.pop(name) == (served / name).read_bytes()
        with zipfile.ZipFile(served / name) as archive:
            for member in archive.namelist():
                assert found.pop(member) == archive.read(member)
    assert not found


def wait_until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the client ended: {process.communicate()[0]}")
        time.sleep(0.01)
