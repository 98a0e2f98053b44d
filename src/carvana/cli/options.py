"""Arguments that several commands have, and the types of their values."""

import argparse
import contextlib
import math
from collections.abc import Callable
from pathlib import Path


def add_command(
    commands, name: str, help: str, run: Callable, tensorflow: bool = False
) -> argparse.ArgumentParser:
    """Add a command that calls `run` with its parsed options.

    `run` returns the exit code, or None for 0. TensorFlow is imported first for those that always
    need it.
    """
    added = commands.add_parser(name, help=help, description=help)
    added.set_defaults(run_command=run, tensorflow=tensorflow)
    added.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return added


def add_option(added, name: str, default, help: str, type=Path, choices=None) -> None:
    """Add an option whose help names its default."""
    help = f"{help} (default: {default})"
    added.add_argument(name, type=type, default=default, choices=choices, help=help)


def add_recipe(added) -> None:
    """Add --recipe and --set."""
    add_option(added, "--recipe", "blog", "a recipe's name or .toml file", str)
    help = "change a setting of the recipe; may be repeated"
    added.add_argument("--set", action="append", metavar="SECTION.KEY=VALUE", help=help)


def add_model(added) -> None:
    """Add --run and --weights, of which one is needed."""
    which = added.add_mutually_exclusive_group(required=True)
    help = "a run's folder; several: their mean"
    which.add_argument("--run", type=Path, action="extend", nargs="+", help=help)
    help = "weights the kit ships (quick, sharp, sharper), or an .npz file"
    which.add_argument("--weights", help=help)


def add_cluster(added) -> None:
    """Add --cluster."""
    help = "a Dask scheduler's address, or local:N for N workers on this machine"
    added.add_argument("--cluster", metavar="ADDRESS", help=help)


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return a parser for whole numbers in a range."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            span = f"above {least - 1}" if most == math.inf else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {span}")
        return int(text)

    return parse


def between(low: float, high: float, what: str) -> Callable[[str], float]:
    """Return a parser for numbers between two others, both excluded."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low < float(text) < high:
                return float(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")

    return parse


def part(text: str) -> tuple[int, int]:
    """Parse a part, as in 3/16."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part, as in 3/16 (1/16 to 16/16)")
    return int(number), int(count)
