"""`carvana sandbox serve`: the mock server in the foreground."""

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from carvana.competition.facts import SLUG
from carvana_sandbox.faults import Fault
from carvana_sandbox.server import Sandbox


def serve(
    folder: Path,
    port: int = 0,
    faults: Sequence[Fault] = (),
    pending_seconds: float = 5.0,
) -> None:
    """Serve a folder until Ctrl-C, saying how the official client gets here.

    Args:
        folder, port, faults, pending_seconds: see `Sandbox`.

    Raises:
        UsageError: the folder has no files, or the port is taken.
    """
    with Sandbox(folder, port, faults, pending_seconds) as sandbox:
        sandbox.on_log = lambda line: print(line, file=sys.stderr, flush=True)
        variables = shlex.join(f"{key}={value}" for key, value in sandbox.environment().items())
        print(f"{folder} as {SLUG} on 127.0.0.1:{sandbox.port}, until Ctrl-C. To use it, run:")
        print(f"env {variables} kaggle competitions files {SLUG}", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up, too
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
