"""The benchmarks run; what they measure depends on the machine."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("alpha.py --weights quick --count 1", "quick: probability 0."),
        ("bench.py --only prediction --count 4 --rounds 1", "the network alone"),
    ],
)
def test_a_benchmark_measures(command, said, tiny, monkeypatch, capsys):
    script, *arguments = command.split()
    if script == "bench.py":
        arguments += ["--data", str(tiny.root)]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    assert said in capsys.readouterr().out
