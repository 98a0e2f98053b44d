"""Progress on a terminal and in a pipe."""

import io

import pytest

from carvana import progress
from carvana.progress import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set by hand."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_work_done_in_an_instant_shows_a_line_at_most(monkeypatch):
    for stream, said in ((Terminal(), ""), (io.StringIO(), "reading: 3 images in 00:00\n")):
        monkeypatch.setattr("sys.stderr", stream)
        assert list(progress.progress("abc", "reading", 3)) == ["a", "b", "c"]
        assert stream.getvalue() == said
    list(progress.progress("a", "predicting", 3, 1))  # stopped early: not said to be whole
    assert stream.getvalue().endswith("predicting: 1 image in 00:00\n")


def test_in_a_pipe_a_line_is_printed_now_and_then_and_none_twice(clock):
    stream = io.StringIO()
    with Bar("epoch 1/2", 100, 20, stream) as bar:
        for second in range(0, 80, 8):
            clock[0] = second
            bar.advance(8, f"loss {second}")
    said = ["epoch 1/2: 60%, loss 32, 00:40 left", "epoch 1/2: 92%, loss 64, 00:08 left"]
    assert stream.getvalue().splitlines() == said


def test_a_bar_tells_the_time_left_when_it_can_and_fits_its_line(clock, monkeypatch):
    monkeypatch.setattr(progress, "INSTANT", 0)
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with Bar("training", 10, 4, stream, keep=False) as bar:
        bar._bar.mininterval = 0
        clock[0] = 600  # the first step takes long
        bar.advance(1)
        clock[0] = 604
        bar.advance(1)
        assert "left" not in stream.getvalue()
        clock[0] = 606
        bar.advance(1)
        assert "| 7/10, 0.333/s, 00:09 left" in stream.getvalue()
        bar.restart()  # another kind of step
        bar.advance(1)
        clock[0] = 616
        bar.advance(1)
        bar.print("a line in its place")
    *_, last = stream.getvalue().partition("a line in its place")[0].split("\r")[:-2]
    assert last.startswith("training:  90%|")
    assert last.endswith("| 9/10, 0.1/s, 00:10 left")
    assert all(len(line) <= 80 for line in stream.getvalue().replace("\n", "\r").split("\r"))
