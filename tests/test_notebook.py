"""The notebook: from its first cell to its last on drawn pictures, and what stops it."""

import importlib.util
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from carvana.competition.submission import read_rows
from conftest import TINY

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "carvana.ipynb"


def notebook_with(**settings) -> nbformat.NotebookNode:
    """Return the notebook, its first cell followed by one that changes settings."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(n for n, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    lines = [f"{name} = {value!r}".replace("PosixPath", "Path") for name, value in settings.items()]
    notebook.cells.insert(first + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    return notebook


def run(notebook: nbformat.NotebookNode) -> None:
    NotebookClient(notebook, timeout=240, kernel_name="python3").execute()


def test_every_cell_is_empty_and_says_how_long_it_takes():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            time = cell.source.splitlines()[0]
            assert time.startswith("# ")
            assert any(unit in time.lower() for unit in ("second", "minute", "hour")), time


@pytest.mark.slow
def test_the_notebook_trains_and_writes_a_submission(tiny, tmp_path):
    (tiny.root / "train_masks.csv").write_text("img,rle_mask\n")  # Kaggle has one
    work = tmp_path / "WORK"
    notebook = notebook_with(
        INPUT=tiny.root, WORK=work, ROOM=tmp_path / "ROOM", RECIPE="blog", OVERRIDES=TINY
    )
    run(notebook)
    header, *rows = [cells for _, cells in read_rows(work / "submission.csv.gz")]
    assert header == ["img", "rle_mask"]
    assert sorted(name for name, _ in rows) == sorted(path.name for path in tiny.test.iterdir())
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2  # what the network sees, and masks


def test_a_failed_command_stops_it(tmp_path):
    (tmp_path / "empty").mkdir()
    notebook = notebook_with(INPUT=tmp_path / "empty", WORK=tmp_path, ROOM=tmp_path)
    with pytest.raises(CellExecutionError, match="the command failed"):
        run(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source.splitlines()[0] for cell in cells if cell.execution_count][-1] == (
        "# Minutes: 8 GB are unpacked."
    )


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Run the cell that installs the kit where it is absent, with a pip that fails as told."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    (source,) = (cell.source for cell in cells if "pip_install" in cell.source)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def run_cell(*codes: int) -> list[list[str]]:
        calls = []

        def pip(command, **_):
            calls.append(command[4:])
            return SimpleNamespace(returncode=codes[len(calls) - 1], stderr="pip's message")

        monkeypatch.setattr(subprocess, "run", pip)
        folders = {"WHEELS": tmp_path, "ROOM": tmp_path, "WORK": tmp_path, "RECIPE": "quick"}
        exec(compile(source, "cell", "exec"), folders)
        return calls

    return run_cell


def test_pip_is_asked_online_then_offline_and_its_failure_stops_the_notebook(install, tmp_path):
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
