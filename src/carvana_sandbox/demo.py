"""`make demo`: the whole pipeline, through the official client, against the mock server."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from carvana.errors import CarvanaError, UsageError
from carvana.files import alone, write_text
from carvana.prediction.certainty import review_of
from carvana.recipe import load_recipe, to_toml
from carvana_sandbox.cars.rendered import MARKER, write_competition
from carvana_sandbox.server import Sandbox

TRAIN_CARS, TEST_CARS, SEED = 12, 2, 1
NAME = "demo"
NOTE = ".made-by-demo"  # in the folders the demo made: of which cars and by which recipe


def demo(data: Path, runs: Path, submissions: Path) -> None:
    """Render a competition, then download, train, predict, validate and submit.

    Every stage is the kit's own command in a process of its own; only the environment, which
    belongs to that process, leads the official client to the mock server on this machine.

    Args:
        data: the folder for `demo-kaggle/` (what the mock server serves) and `demo/`.
        runs: the folder for the run `demo`.
        submissions: the folder for `demo.csv.gz`.

    Raises:
        UsageError: a folder of the demo's holds something it did not make.
        CarvanaError: a stage failed, or another demo runs in the same folders.
    """
    served, fetched = data / "demo-kaggle", data / NAME
    run, submission = runs / NAME, submissions / f"{NAME}.csv.gz"
    stages = (
        ("download", "--only", "all", "--data", fetched),
        ("train", "--recipe", NAME, "--data", fetched, "--run", run),
        ("predict", "--run", run, "--images", fetched / "test", "--out", submission),
        ("validate", submission, "--sample", fetched / "sample_submission.csv"),
        ("report", "--run", run, "--data", fetched),
        ("submit", submission, "--message", "demo", "--data", fetched),
    )
    print(
        "The demo takes about three minutes on two CPU cores. It draws photographs of\n"
        "cars, serves them on this machine as Kaggle would, and runs every stage on them:\n"
        f"{', '.join(stage for stage, *_ in stages)}.\n",
        flush=True,
    )
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C
    with alone(run, "demo", runs / ".make-demo.lock"):
        for folder in (served, fetched, run):
            _require_own(folder)
        if submission.exists() and not (run / NOTE).exists():
            raise UsageError(f"{submission}: is not of a demo, which would replace it; rename it")
        write_text(served / NOTE, "")
        write_competition(served, TRAIN_CARS, TEST_CARS, SEED)
        _clear_outdated(served, fetched, run, submission)
        with Sandbox(served) as sandbox:
            environment = os.environ | sandbox.environment()
            for stage in stages:
                _run(stage, environment)
    minutes = (time.monotonic() - began) / 60
    print(
        f"\nDone in {minutes:.1f} minutes.\n"
        f"  report:     {run / 'report.html'}\n"
        f"  submission: {submission}\n"
        "The score is of rendered cars: it has no rank on the real leaderboard.\n"
        "With a Kaggle account: make download train submit RECIPE=quick"
    )


def _require_own(folder: Path) -> None:
    """Make sure that a folder is absent, empty, or one that a demo made."""
    if folder.exists() and not (folder / NOTE).exists():
        if folder.is_dir() and not any(folder.iterdir()):
            return
        raise UsageError(f"{folder}: was not made by the demo, which needs this name; rename it")


def _clear_outdated(served: Path, fetched: Path, run: Path, submission: Path) -> None:
    """Delete what an earlier demo made of other cars or by another recipe."""
    made_of = (served / MARKER).read_text() + to_toml(load_recipe(NAME))
    for folder in (fetched, run):
        note = folder / NOTE
        if note.exists() and note.read_text() != made_of:
            shutil.rmtree(folder)
            if folder == run:
                submission.unlink(missing_ok=True)
                review_of(submission).unlink(missing_ok=True)
        write_text(note, made_of)


def _run(stage: tuple, environment: dict[str, str]) -> None:
    arguments = [str(part) for part in stage]
    lines = textwrap.wrap(f"$ carvana {shlex.join(arguments)}", 77, break_on_hyphens=False)
    print("", " \\\n    ".join(lines), sep="\n", flush=True)
    command = [sys.executable, "-m", "carvana", *arguments]
    process = subprocess.Popen(command, env=environment)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # Ctrl-C reached the stage too, a signal to this process alone did not: let it save.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()
        raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise CarvanaError(f"the stage `carvana {stage[0]}` failed; see above, then run it again")
