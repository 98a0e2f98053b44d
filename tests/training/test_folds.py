import shutil
from pathlib import Path

import pytest

from carvana.cli import main
from carvana.data.split import names_in
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe
from carvana.runs.folder import read_metrics
from carvana.training.folds import train_folds
from conftest import TINY

FAST = [part for setting in [*TINY, "training.epochs=1"] for part in ("--set", setting)]


@pytest.mark.usefixtures("eagerly")
def test_folds_are_trained_resumed_and_scored_together(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("carvana.training.train.draw_history", lambda run: None)
    folder, data = tmp_path / "runs", ["--data", str(tiny.root)]
    by_car = ["--set", "data.split=car"]
    train = ["train", *data, "--run", str(folder), *FAST, *by_car, "--folds", "2"]
    assert main(train) == 0
    held_out = [names_in(folder / f"fold-{n}/split.csv", "validation") for n in (1, 2)]
    cars = [{name.partition("_")[0] for name in names} for names in held_out]
    assert sorted([*cars[0], *cars[1]]) == [f"car{n}" for n in range(5)]
    capsys.readouterr()
    assert main(train) == 0
    assert capsys.readouterr().out.count("1 epoch trained already; nothing to do") == 2
    assert main([*train[:-1], "3"]) == 2
    assert "holds a run of another recipe: data.validation" in capsys.readouterr().err

    shutil.copytree(folder, tmp_path / "again")
    folds = [str(each / f"fold-{n}") for each in (folder, tmp_path / "again") for n in (1, 2)]
    assert main(["score", *data, "--run", *folds]) == 0
    said = capsys.readouterr().out
    assert "over 20 images" in said
    for fold in folds:
        assert f"{fold} {read_metrics(Path(fold))['full_resolution_dice']:.6f} alone" in said

    out = tmp_path / "s.csv"
    assert main(["predict", "--images", str(tiny.test), "--out", str(out), "--run", *folds]) == 0
    assert out.read_text().count("\n") == 9


def test_a_single_run_is_not_for_a_cluster(tmp_path, capsys):
    assert main(["train", "--run", str(tmp_path / "r"), "--cluster", "local:2"]) == 2
    assert "--cluster goes with --folds" in capsys.readouterr().err
    for folds in ("1", "x", "101"):
        with pytest.raises(SystemExit):
            main(["train", "--run", str(tmp_path / "r"), "--folds", folds])


def fail_in_fold(number, error):
    """A training that fails in one fold and is none in the others."""

    def train(recipe, data, run, cache=None, fold=None):
        if fold[0] == number:
            raise error
        return {"epochs": 1}

    return train


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "fold-2: out of memory; lower training.batch_size"),
        (CarvanaError("car.jpg: is broken"), "fold-2: car.jpg: is broken"),
        (ZeroDivisionError("a bug"), "fold-2: ZeroDivisionError"),
    ],
)
def test_a_fold_that_fails_does_not_end_the_others(error, says, tmp_path, monkeypatch):
    monkeypatch.setattr("carvana.training.train.train", fail_in_fold(2, error))
    trained = []
    folds = train_folds(load_recipe("blog"), tmp_path, tmp_path / "runs", 3)
    with pytest.raises(CarvanaError, match=says):
        for run, _ in folds:
            trained.append(run.name)
    assert trained == ["fold-1", "fold-3"]


@pytest.mark.usefixtures("eagerly")
def test_folds_over_a_cluster(tiny, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    from carvana.cluster.folds import train_folds_on

    monkeypatch.setattr("carvana.training.train.draw_history", lambda run: None)
    recipe = load_recipe("blog", [*TINY, "data.split=car", "training.epochs=1"])
    folder, where = tmp_path / "runs", "local:1"
    options = {"dashboard_address": "127.0.0.1:0", "threads_per_worker": 1, "n_workers": 1}
    options["memory_limit"] = 0  # by its share of the machine's it would wait for ever
    with (  # a worker in a thread of this process, to which tasks go as to one elsewhere
        distributed.LocalCluster(**options, processes=False, protocol="tcp://") as cluster,
        distributed.Client(cluster) as client,
    ):
        trained = train_folds_on(client, where, recipe, tiny.root, folder, 2)
        assert [run.name for run, _ in trained] == ["fold-1", "fold-2"]
        assert all(metrics["epochs"] == 1 for _, metrics in trained)
        monkeypatch.setattr("carvana.training.train.train", fail_in_fold(2, MemoryError()))
        with pytest.raises(CarvanaError, match="^.*fold-2: out of memory"):
            train_folds_on(client, where, recipe, tiny.root, folder, 2)
    logs = [(folder / f"fold-{number}.log").read_text() for number in (1, 2)]
    assert all("training on CPU" in log for log in logs)
    assert ["MemoryError" in log for log in logs] == [False, True]
