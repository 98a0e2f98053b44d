"""The notebook runs from its first cell to its last, on drawn pictures."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from carvana.competition.submission import read_rows
from conftest import TINY

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "carvana.ipynb"


@pytest.mark.slow
def test_the_notebook_trains_and_writes_a_submission(tiny, tmp_path):
    (tiny.root / "train_masks.csv").write_text("img,rle_mask\n")  # Kaggle has one
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    first = next(n for n, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    folders = {"INPUT": tiny.root, "WORK": tmp_path / "WORK", "ROOM": tmp_path / "ROOM"}
    lines = [f"{name} = Path({str(folder)!r})" for name, folder in folders.items()]
    lines.append(f"RECIPE, OVERRIDES = 'blog', {TINY}")
    notebook.cells.insert(first + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    header, *rows = [cells for _, cells in read_rows(tmp_path / "WORK" / "submission.csv.gz")]
    assert header == ["img", "rle_mask"]
    assert sorted(name for name, _ in rows) == sorted(path.name for path in tiny.test.iterdir())
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2  # what the network sees, and masks
