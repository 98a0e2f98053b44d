"""Show the progress of long work: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")
LINE_SECONDS = 30  # between plain lines


def on_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream is shown on a terminal; it is None where it was closed."""
    return stream is not None and stream.isatty()


def progress(
    items: Iterable[_Item], what: str, total: int, done: int = 0, unit: str = "image"
) -> Iterator[_Item]:
    """Pass items through, showing rate and time left on standard error.

    Args:
        items: what to iterate over.
        what: the name of the work, shown before the bar.
        total: number of items, including those already done.
        done: items done in an earlier session.
        unit: what one item is called.
    """
    if not total:
        return
    if on_terminal(sys.stderr):
        yield from tqdm(items, what, total, initial=done, unit=unit)
        return
    began = shown = time.monotonic()
    count = done
    for count, item in enumerate(items, done + 1):
        yield item
        now = time.monotonic()
        if now - shown > LINE_SECONDS and count < total:
            _show(count, total, now - began, what, unit, done)
            shown = now
    _show(count, total, time.monotonic() - began, what, unit, done)


def _show(count: int, total: int, elapsed: float, what: str, unit: str, done: int) -> None:
    line = tqdm.format_meter(count, total, elapsed, ncols=0, prefix=what, unit=unit, initial=done)
    print(line, file=sys.stderr, flush=True)
