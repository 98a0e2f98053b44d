"""The notebook: from its first cell to its last on drawn pictures, and what stops it."""

import ast
import importlib.util
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from carvana.competition.submission import read_rows
from conftest import TINY

NOTEBOOK = json.loads((Path(__file__).parents[1] / "notebooks" / "carvana.ipynb").read_text())
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
SOURCES = ["".join(cell["source"]) for cell in CELLS]


def run(**settings) -> list:
    """Run all cells, the first followed by other settings; return what each shows."""
    names, shown = {}, []
    for source in SOURCES:
        *statements, last = ast.parse(source).body
        if not isinstance(last, ast.Expr):
            statements.append(last)
        exec(compile(ast.Module(statements, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
        if source is SOURCES[0]:
            names.update(settings)
    return shown


@pytest.mark.usefixtures("eagerly")
def test_the_notebook_trains_and_writes_a_submission(tiny, tmp_path):
    (tiny.root / "train_masks.csv").write_text("img,rle_mask\n")  # Kaggle has one
    work, room = tmp_path / "WORK", tmp_path / "ROOM"
    shown = run(INPUT=tiny.root, WORK=work, ROOM=room, RECIPE="blog", OVERRIDES=TINY)
    header, *rows = [cells for _, cells in read_rows(work / "submission.csv.gz")]
    assert header == ["img", "rle_mask"]
    assert sorted(name for name, _ in rows) == sorted(path.name for path in tiny.test.iterdir())
    pictures = [each for each in shown if isinstance(each, Image.Image)]
    assert len(pictures) == 2  # what the network sees, and masks


def test_a_failed_command_stops_it(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError, match="the command failed"):
        run(INPUT=tmp_path / "empty", WORK=tmp_path, ROOM=tmp_path)


def test_pip_is_asked_online_then_offline_and_its_failure_stops_it(tmp_path, monkeypatch):
    (source,) = (source for source in SOURCES if "pip_install" in source)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def install(*codes: int) -> list[list[str]]:
        """Run the cell that installs the kit where it is absent, with a pip that fails as told."""
        calls = []

        def pip(command, **_):
            calls.append(command[4:])
            return SimpleNamespace(returncode=codes[len(calls) - 1], stderr="pip's message")

        monkeypatch.setattr(subprocess, "run", pip)
        exec(source, {"WHEELS": tmp_path})
        return calls

    with pytest.raises(FileNotFoundError, match="add the kit's wheel"):
        install()
    wheel = tmp_path / "carvana-1-py3-none-any.whl"
    wheel.touch()
    (online,) = install(0)
    assert "--no-index" not in online
    assert online[-1] == str(wheel)
    _, offline = install(1, 0)
    assert offline[1:] == ["--no-index", "--find-links", str(tmp_path), str(wheel)]
    with pytest.raises(RuntimeError, match="pip's message"):
        install(1, 1)
