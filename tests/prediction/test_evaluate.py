import json
import shutil

import pytest

from carvana.errors import CarvanaError
from carvana.prediction import evaluate
from carvana.prediction.evaluate import score_validation


def test_validation_split_is_scored_at_full_resolution(trained, tmp_path):
    paths, folder = trained
    run = shutil.copytree(folder, tmp_path / "run")
    before = json.loads((run / "metrics.json").read_text())
    result = score_validation(run, paths)
    assert result.count == 4
    assert 0.6 < result.mean <= 1
    assert len(result.worst) == 4
    assert result.worst == sorted(result.worst)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics == before | {"full_resolution_dice": result.mean}
    assert "val_dice" in metrics


def test_only_the_worst_are_returned(trained, tmp_path):
    run = shutil.copytree(trained[1], tmp_path / "run")
    whole = score_validation(run, trained[0])
    assert score_validation(run, trained[0], worst=2).worst == whole.worst[:2]


def test_a_run_whose_training_is_not_finished_is_not_scored(trained, tmp_path):
    run = shutil.copytree(trained[1], tmp_path / "run")
    (run / "metrics.json").unlink()
    with pytest.raises(CarvanaError, match="metrics.json: cannot be read, or training is not"):
        score_validation(run, trained[0])
    assert not (run / "metrics.json").exists()


def test_a_score_that_cannot_be_recorded_is_still_returned(trained, monkeypatch, capsys):
    paths, folder = trained

    def read_only(path, text):
        raise CarvanaError(f"{path}: cannot be written (Read-only file system)")

    monkeypatch.setattr(evaluate, "write_text", read_only)
    result = evaluate.score_validation(folder, paths)
    assert result.count == 4
    assert "(the score was not recorded)" in capsys.readouterr().err
