"""`make demo`: the whole road, through the official client, against the local stand-in."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from carvana.errors import CarvanaError
from carvana.files import alone
from carvana.sandbox.rendered import write_competition
from carvana.sandbox.server import Sandbox

TRAIN_CARS, TEST_CARS, SEED = 24, 4, 1
NAME = "demo"


def demo(data: Path, runs: Path, submissions: Path) -> None:
    """Render a competition, then download, train, predict, validate and submit.

    Every stage is the kit's own command in a process of its own; only the environment, which
    belongs to that process, leads the official client to the stand-in on this machine.

    Args:
        data: the folder for `demo-kaggle/` (what the stand-in serves) and `demo/`.
        runs: the folder for the run `demo`.
        submissions: the folder for `demo.csv.gz`.

    Raises:
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
        ("submit", submission, "--message", "the demo", "--data", fetched),
    )
    begun = time.monotonic()
    with alone(fetched, "demo"):
        print(f"rendering {TRAIN_CARS + TEST_CARS} cars into {served}", flush=True)
        write_competition(served, TRAIN_CARS, TEST_CARS, SEED)
        with Sandbox(served) as sandbox:
            environment = os.environ | sandbox.environment()
            for stage in stages:
                _run(stage, environment)
    minutes = (time.monotonic() - begun) / 60
    print(
        f"\ndone in {minutes:.1f} minutes: the report is {run / 'report.html'}, the submission "
        f"{submission}.\nWith a Kaggle account, the same road on the real photographs: "
        "make download train submit"
    )


def _run(stage: tuple, environment: dict[str, str]) -> None:
    arguments = [str(part) for part in stage]
    print(f"\n$ carvana {shlex.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "carvana.cli", *arguments]
    process = subprocess.Popen(command, env=environment)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it has had the same Ctrl-C: let it save
        raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise CarvanaError(f"the stage `carvana {stage[0]}` failed; see above, then run it again")
