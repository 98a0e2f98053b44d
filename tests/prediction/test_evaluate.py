import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from carvana.cli import main
from carvana.errors import CarvanaError
from carvana.prediction import evaluate
from carvana.prediction.evaluate import score_folders, score_runs
from carvana.prediction.rows import map_of
from carvana.recipe import load_recipe
from conftest import DATA


def test_validation_split_is_scored_at_full_resolution(trained, tmp_path, monkeypatch, capsys):
    paths, folder = trained
    run = shutil.copytree(folder, tmp_path / "run")
    before = json.loads((run / "metrics.json").read_text())
    result = score_runs([run], paths)
    assert result.count == 4
    assert 0.6 < result.mean <= 1
    assert len(result.worst) == 4
    assert result.worst == sorted(result.worst)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics == before | {"full_resolution_dice": result.mean}
    assert "val_dice" in metrics

    def read_only(path, text):
        raise CarvanaError(f"{path}: cannot be written (Read-only file system)")

    monkeypatch.setattr(evaluate, "write_text", read_only)
    assert score_runs([run], paths, worst=2).worst == result.worst[:2]
    assert "(the score was not recorded)" in capsys.readouterr().err


def test_a_run_whose_training_is_not_finished_is_not_scored(trained, tmp_path):
    run = shutil.copytree(trained[1], tmp_path / "run")
    (run / "metrics.json").unlink()
    with pytest.raises(CarvanaError, match="metrics.json: cannot be read, or training is not"):
        score_runs([run], trained[0])
    assert not (run / "metrics.json").exists()


def test_folders_of_masks_are_compared_by_name(tmp_path, capsys):
    found, truth = tmp_path / "found", tmp_path / "truth"
    for folder in (found, truth):
        folder.mkdir()
        Image.new("L", (8, 8), 255).save(folder / "e\u0301.png")
    (truth / "e\u0301.png").rename(truth / "\u00e9.png")  # another Unicode form
    Image.new("L", (8, 8)).save(found / "more.png")
    assert score_folders(found, truth, DATA).mean == 1
    assert "ignoring 1 mask that" in capsys.readouterr().err
    Image.new("L", (8, 8)).save(found / "more.gif")
    with pytest.raises(CarvanaError, match=r"holds more\.gif and more\.png; leave one"):
        score_folders(found, truth, DATA)
    with pytest.raises(CarvanaError, match="no such folder; `carvana predict --masks`"):
        score_folders(tmp_path / "absent", truth, DATA)


def test_true_masks_may_be_folders_of_one_an_object(tmp_path):
    settings = dataclasses.replace(load_recipe("own").data, mask_names="{name}/masks")
    truth, found = tmp_path / "truth", tmp_path / "found"
    found.mkdir()
    for name in ("cat", "dog"):
        (truth / name / "masks").mkdir(parents=True)
        for row in (1, 3):
            mask = np.zeros((6, 8), np.uint8)
            mask[row] = 255
            Image.fromarray(mask).save(truth / name / f"masks/{row}.png")
        whole = np.zeros((6, 8), np.uint8)
        whole[[1, 3] if name == "cat" else [1]] = 1
        Image.fromarray(whole).save(map_of(found, f"{name}.jpg", settings))
    result = score_folders(found, truth, settings)
    assert sorted(result.worst) == [(2 / 3, "dog.png"), (1, "cat.png")]


def test_a_runs_recipe_is_scored_as_it_was_trained(trained, capsys):
    for given in (["--set", "prediction.flip=true"], ["--recipe", "own"]):
        assert main(["score", "--run", str(trained[1]), *given]) == 2
        assert "--recipe and --set go with folders of masks" in capsys.readouterr().err
