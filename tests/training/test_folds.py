import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tensorflow.errors import ResourceExhaustedError

from carvana.cli import main
from carvana.data.pairs import find_pairs
from carvana.data.split import draw_split, read_split
from carvana.errors import CarvanaError
from carvana.recipe import load_recipe
from carvana.training.folds import runs_of, train_folds
from conftest import DATA, TINY

FAST = [part for setting in [*TINY, "training.epochs=1"] for part in ("--set", setting)]


def validation_cars(folder, tiny):
    pairs = find_pairs(tiny.root, DATA)
    splits = [read_split(folder / f"fold-{n}" / "split.csv", pairs).validation for n in (1, 2)]
    return [{pair.name.partition("_")[0] for pair in split} for split in splits]


def test_each_car_is_in_the_validation_of_one_fold(tiny):
    pairs = find_pairs(tiny.root, DATA)
    splits = [draw_split(pairs, DATA, fold) for _, fold in runs_of(tiny.root, 5)]
    held_out = sorted(pair for split in splits for pair in split.validation)
    assert held_out == pairs
    assert all(len(split.train) + len(split.validation) == len(pairs) for split in splits)
    with pytest.raises(CarvanaError, match="cannot be split in 21 folds; use fewer"):
        draw_split(pairs, DATA, (1, 21))


@pytest.mark.slow
def test_folds_are_trained_resumed_and_scored_together(tiny, tmp_path, capsys):
    folder, data = tmp_path / "runs", ["--data", str(tiny.root)]
    by_car = ["--set", "data.split=car"]
    train = ["train", *data, "--run", str(folder), *FAST, *by_car, "--folds", "2"]
    assert main(train) == 0
    cars = validation_cars(folder, tiny)
    assert sorted(car for some in cars for car in some) == [f"car{n}" for n in range(5)]
    capsys.readouterr()
    assert main(train) == 0
    assert capsys.readouterr().out.count("1 epoch trained already; nothing to do") == 2
    assert main([*train[:-1], "3"]) == 2
    assert "holds a run of another recipe: data.validation" in capsys.readouterr().err

    folds = [str(folder / f"fold-{number}") for number in (1, 2)]
    assert main(["score", *data, "--run", *folds]) == 0
    said = capsys.readouterr().out
    assert "over 20 images" in said
    metrics = [json.loads((folder / f"fold-{n}" / "metrics.json").read_text()) for n in (1, 2)]
    for fold, values in zip(folds, metrics, strict=True):
        assert f"{fold} {values['full_resolution_dice']:.6f} alone" in said

    again = ["train", *data, "--run", str(tmp_path / "b"), *FAST, *by_car, "--folds", "2"]
    assert main([*again, "--set", "training.seed=7"]) == 0
    capsys.readouterr()
    both = [*folds, *(str(tmp_path / "b" / f"fold-{n}") for n in (1, 2))]
    assert main(["score", *data, "--json", "--run", *both]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["count"] == 20
    for run, mean in result["members"].items():
        metrics = json.loads((Path(run) / "metrics.json").read_text())
        assert metrics["full_resolution_dice"] == mean

    out = tmp_path / "s.csv"
    assert main(["predict", "--images", str(tiny.test), "--out", str(out), "--run", *folds]) == 0
    assert out.read_text().count("\n") == 9


@pytest.mark.slow
def test_folds_over_a_cluster_with_a_worker_killed(dask_client, tiny, tmp_path):
    from carvana.cluster.folds import train_folds_on

    recipe = load_recipe("blog", [*TINY, "data.split=car", "training.epochs=3"])
    folder, pids = tmp_path / "runs", list(dask_client.run(os.getpid).values())

    def kill():
        while not any(folder.glob("fold-*/model.keras")):
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)
        killed.append(True)

    killed = []
    threading.Thread(target=kill, daemon=True).start()
    trained = train_folds_on(dask_client, "local:2", recipe, tiny.root, folder, 2)
    assert killed
    assert [run.name for run, _ in trained] == ["fold-1", "fold-2"]
    assert all(metrics["epochs"] == 3 for _, metrics in trained)
    logs = [(folder / f"fold-{number}.log").read_text() for number in (1, 2)]
    assert all("training on CPU" in log for log in logs)
    with pytest.raises(CarvanaError, match="21 folds are not trained:\n.*/fold-.*use fewer"):
        train_folds_on(dask_client, "local:2", recipe, tiny.root, tmp_path / "more", 21)


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
        (ResourceExhaustedError(None, None, "OOM"), "fold-2: out of memory"),
        (CarvanaError("car.jpg: is broken"), "fold-2: car.jpg: is broken"),
        (ZeroDivisionError("a bug"), "fold-2: ZeroDivisionError"),
    ],
)
def test_a_fold_that_fails_does_not_end_the_others(error, says, tmp_path, monkeypatch):
    monkeypatch.setattr("carvana.training.train.train", fail_in_fold(2, error))
    trained = []
    folds = train_folds("blog", tmp_path, tmp_path / "runs", 3)
    with pytest.raises(CarvanaError, match=says):
        for run, _ in folds:
            trained.append(run.name)
    assert trained == ["fold-1", "fold-3"]


def test_a_worker_returns_why_a_fold_failed(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    from carvana.cluster import folds as cluster

    monkeypatch.setattr("carvana.training.train.train", fail_in_fold(1, MemoryError()))
    monkeypatch.setattr(cluster, "prepare_worker", lambda: None)
    said = cluster.train_here(load_recipe("blog"), tmp_path, tmp_path / "fold-1", None, (1, 2))
    assert said.startswith("out of memory")
    assert "MemoryError" in (tmp_path / "fold-1.log").read_text()
