"""Show the progress of long work: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

from carvana.errors import plural

_Item = TypeVar("_Item")
LINE_SECONDS = 30  # between plain lines
INSTANT = 1  # second: work done in less shows no bar
SURE_SECONDS = 5  # of work before its pace, and so the time left, can be told


def on_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream is shown on a terminal; it is None where it was closed."""
    return stream is not None and stream.isatty()


def progress(
    items: Iterable[_Item], what: str, total: int, done: int = 0, unit: str = "image"
) -> Iterator[_Item]:
    """Pass items through, showing rate and time left on standard error.

    `total` includes the `done` ones, of an earlier session.
    """
    if not total:
        return
    began = time.monotonic()
    with Bar(what, total, done, sys.stderr) as bar:
        for item in items:
            yield item
            bar.advance(1)
    if not on_terminal(sys.stderr):
        took = tqdm.format_interval(time.monotonic() - began)
        print(f"{what}: {plural(bar.done - done, unit)} in {took}", file=sys.stderr, flush=True)


class Bar:
    """Show how much of some work is done, and how long the rest will take.

    The pace is measured from the first piece of work on, which may include a slow start. `done`
    is how much was done before; `keep` leaves the bar on the terminal at the end.
    """

    def __init__(self, what: str, total: float, done: float, stream: TextIO, keep: bool = True):
        self.what, self.total, self.done, self._stream = what, total, done, stream
        self._shown = time.monotonic()
        self._bar = None
        if on_terminal(stream):
            settings = {"initial": done, "delay": INSTANT, "miniters": 0, "dynamic_ncols": True}
            self._bar = tqdm(None, what, total, keep, stream, **settings)
        self.restart()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def restart(self) -> None:
        """Measure the pace afresh."""
        self._first = None  # when the first piece of work was done, and how much was done then

    def advance(self, amount: float, note: str = "") -> None:
        """Count work as done; show it with a note (how much is done, when empty)."""
        now = time.monotonic()
        self.done += amount
        self._first = self._first or (now, self.done)
        text = (note or f"{self.done:,}/{self.total:,}") + self._pace(now, show_rate=not note)
        if self._bar is not None:
            self._bar.set_description(self.what, refresh=False)
            self._bar.bar_format = "{l_bar}{bar}| " + text
            self._bar.update(amount)
        elif now - self._shown > LINE_SECONDS and self.done < self.total:
            self.print(f"{self.what}: {self.done / self.total:.0%}, {text}")

    def print(self, line: str) -> None:
        """Print a line in place of the bar, which follows it."""
        if self._bar is not None:
            self._bar.clear()
        print(line, file=self._stream, flush=True)
        self._shown = time.monotonic()

    def _pace(self, now: float, show_rate: bool) -> str:
        began, before = self._first
        seconds, left = now - began, self.total - self.done
        if seconds < SURE_SECONDS or left <= 0:
            return ""
        rate = (self.done - before) / seconds
        shown = f", {rate:.3g}/s" if show_rate else ""
        return f"{shown}, {tqdm.format_interval(left / rate)} left"
