"""The command line: map errors to exit codes; one file per group of commands."""

import argparse
import io
import os
import sys
import warnings

from carvana.backend import import_quietly, use_onednn
from carvana.cli import competition, prediction, sandbox, training
from carvana.errors import CarvanaError
from carvana.files import remedy_for

BATCHED = ("train", "predict", "plan", "score", "report")  # commands that run a network on batches
RESUMED = ("download", "train", "predict", "demo")  # commands that continue where they stopped


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code.

    0, 1 failed, 2 wrong use, 130 interrupted, 143 terminated.
    """
    sys.stdout = sys.stdout or io.StringIO()  # closed, as by `>&-`
    sys.stderr = sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):  # a name the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of large pictures and odd EXIF data
    try:
        if options.command in BATCHED:
            use_onednn()
        if options.tensorflow and not options.debug and not getattr(options, "cluster", None):
            import_quietly()
        code = options.run_command(options) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output is gone, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        code, said = _explain(error, options.command)
        if options.debug or said is None:
            raise
        print(said, file=sys.stderr)
        return code


def _explain(error: BaseException, command: str) -> tuple[int, str | None]:
    """Return the exit code of an error, and its line; None of a bug."""
    if isinstance(error, CarvanaError):
        return error.exit_code, f"carvana {command}: {error}"
    if isinstance(error, KeyboardInterrupt):
        resume = "; run it again to resume" if command in RESUMED else ""
        return getattr(error, "exit_code", 130), f"\ncarvana {command}: interrupted{resume}"
    if isinstance(error, OSError):  # one that no stage explains
        what = f"{error.filename or command}: {error.strerror or error}"
        return 1, f"carvana {command}: {what}; {remedy_for(error)}, then run the same command again"
    if isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__:
        remedy = "lower training.batch_size, prediction.batch_size or the input's size"
        return 1, f"carvana {command}: out of memory; {remedy} (--set)"
    return 1, None


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="carvana", description="Reproduce Kaggle's Carvana Image Masking Challenge."
    )
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (training, prediction, competition, sandbox):
        group.add_commands(commands)
    return parser
