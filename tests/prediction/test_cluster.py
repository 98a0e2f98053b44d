import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

distributed = pytest.importorskip(
    "distributed", reason="Dask is not installed: the extra [cluster]"
)

import carvana.cluster
from carvana.cli import main
from carvana.cluster import check_workers
from carvana.errors import CarvanaError, UsageError
from carvana.files import check_writable
from carvana.prediction import cluster
from carvana.prediction.certainty import review_of
from carvana.prediction.cluster import Trained, Workers
from carvana.prediction.predict import load
from carvana.prediction.rows import Job, Manifest
from carvana.prediction.shards import shards_of, write_masks, write_submission


@pytest.fixture(scope="module")
def many(trained, tmp_path_factory):
    """300 photographs, 19 shards."""
    folder = tmp_path_factory.mktemp("many")
    photographs = sorted(trained[0].test.iterdir())
    for number in range(300):
        shutil.copy(photographs[number % len(photographs)], folder / f"p_{number:03}.jpg")
    return folder


def predict(dask_client, trained, images, out, **options):
    workers = Workers(dask_client, "local:2", [trained[1]])
    write_submission(workers, images, out, make=workers.make, **options)


@pytest.mark.slow
def test_a_killed_worker_changes_no_byte(dask_client, trained, model, many, tmp_path, capfd):
    one, two = tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"
    write_submission(model, many, one)

    def kill():
        while len(list(shards_of(two).glob("*.csv"))) < 4:
            time.sleep(0.01)
        os.kill(next(iter(dask_client.run(os.getpid).values())), signal.SIGKILL)
        killed.append(True)

    killed = []
    threading.Thread(target=kill, daemon=True).start()
    predict(dask_client, trained, many, two)
    assert killed
    assert two.read_bytes() == one.read_bytes()
    assert review_of(two).read_text() == review_of(one).read_text()
    assert not shards_of(two).exists()
    said = capfd.readouterr()
    assert "local:2: 2 workers; Dask's dashboard: http://127.0.0.1:" in said.out
    assert "predicting: 100% 300/300" in said.err
    assert "oneDNN" not in said.err


def test_what_is_made_is_kept_and_what_cannot_be_read_is_named(
    dask_client, trained, model, many, tmp_path, capfd
):
    folder, out = shutil.copytree(many, tmp_path / "images"), tmp_path / "s.csv"
    write_submission(model, folder, out, part=(1, 2))
    good = (folder / "p_020.jpg").read_bytes()
    (folder / "p_020.jpg").write_bytes(good[:300])
    with pytest.raises(CarvanaError, match=r"p_020.jpg: is not a readable.*shard 1.*other 299 im"):
        predict(dask_client, trained, folder, out)
    (folder / "p_020.jpg").write_bytes(good)
    capfd.readouterr()
    predict(dask_client, trained, folder, out)
    assert "resuming after 299 of 300 images" in capfd.readouterr().out
    write_submission(model, folder, tmp_path / "one.csv")
    assert out.read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_label_maps(dask_client, trained, model, tmp_path):
    workers = Workers(dask_client, "local:2", [trained[1]])
    write_masks(workers, trained[0].test, tmp_path / "two", make=workers.make)
    write_masks(model, trained[0].test, tmp_path / "one")
    for path in (tmp_path / "one").iterdir():
        if path.is_file():
            assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_a_worker_that_lacks_something_is_named(dask_client, trained, many, tmp_path, monkeypatch):
    """The workers see what they see: here the dask_client believes that there is more."""
    out = tmp_path / "s.csv"
    shards_of(out).mkdir()
    names = sorted(path.name for path in many.iterdir())
    job = Job("key", shards_of(out), many)
    needs = (Trained.read([trained[1]]).sources, Trained.read([trained[1]]).fingerprint(), job)
    with pytest.raises(CarvanaError, match=r"worker tcp.*\.shards: is not what it is here"):
        check_workers(dask_client, cluster.check_here, *needs)
    Manifest("key", None, 16, [*names, "q.jpg"]).write(shards_of(out))
    with pytest.raises(CarvanaError, match=r"worker tcp.*: 1 photographs are not there .first: q"):
        check_workers(dask_client, cluster.check_here, *needs)
    elsewhere = replace(job, images=many / "gone")
    with pytest.raises(CarvanaError, match=r"worker tcp.*/gone: No such file .*share the folder"):
        check_workers(dask_client, cluster.check_here, *needs[:2], elsewhere)
    with pytest.raises(CarvanaError, match=r"worker tcp.*nothing: no such run or weights"):
        check_workers(dask_client, cluster.check_here, [str(tmp_path / "nothing")], *needs[1:])
    with monkeypatch.context() as patch:
        patch.setattr(Trained, "fingerprint", lambda self: "another")
        with pytest.raises(CarvanaError, match=r"worker tcp.*: is another model than here"):
            predict(dask_client, trained, many, out)
    monkeypatch.setattr(carvana.cluster, "__version__", "0.0.1")
    with pytest.raises(CarvanaError, match="2 workers cannot.*\n.*worker tcp.*here is 0.0.1"):
        predict(dask_client, trained, many, out)
    monkeypatch.undo()
    with pytest.raises(CarvanaError, match=r"worker tcp.*/gone: cannot be written .No such file"):
        check_workers(dask_client, check_writable, tmp_path / "gone")


def test_the_time_is_up(dask_client, trained, many, tmp_path):
    with pytest.raises(CarvanaError, match="stopped after 0.01 minutes"):
        predict(dask_client, trained, many, tmp_path / "s.csv", minutes=0.01)
    assert list(shards_of(tmp_path / "s.csv").iterdir())


def test_what_a_model_is_known_without_tensorflow(trained):
    for sources in ([trained[1]], [trained[1], trained[1]], ["sharp"]):
        run, known = load(sources).run, Trained.read(sources)
        assert known.fingerprint() == run.fingerprint()
        assert (known.recipe, known.usual) == (run.recipe, run.usual)


def test_addresses(trained, capsys, monkeypatch):
    command = ["predict", "--run", str(trained[1]), "--images", str(trained[0].test)]
    for wrong in ("local:0", "local:65", "local:x", "local", "host", "http://host:1", "a:b:1"):
        assert main([*command, "--out", "s.csv", "--cluster", wrong]) == 2
    monkeypatch.setattr(carvana.cluster, "CONNECT_SECONDS", 0.5)
    assert main([*command, "--out", "s.csv", "--cluster", "tcp://127.0.0.1:9"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 8
    assert "tcp://127.0.0.1:9: no scheduler answers there" in said[-1]


def test_an_open_scheduler_is_told_of(capsys):
    for address in ("tcp://127.0.0.1:1", "tls://10.0.0.1:8786", "tcp://10.0.0.1:8786"):
        fake = SimpleNamespace(scheduler_info=lambda address=address: {"address": address})
        carvana.cluster._warn_if_exposed(fake)
    assert capsys.readouterr().err.startswith("tcp://10.0.0.1:8786: is open to the network")


def test_workers_of_one_machine_take_a_gpu_each(monkeypatch):
    taken = []
    config = SimpleNamespace(
        list_physical_devices=lambda kind: ["gpu0", "gpu1"],
        set_visible_devices=lambda gpu, kind: taken.append(gpu),
    )
    monkeypatch.setattr(carvana.cluster, "tf", SimpleNamespace(config=config))
    for number in (0, 1, 2, None):  # None: of a cluster that others started
        carvana.cluster.use_own_gpu(number)
    assert taken == ["gpu0", "gpu1", "gpu0"]


def test_without_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "carvana.cluster")
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(UsageError, match="dask is not installed; run pip install"):
        import carvana.cluster as again

        assert again
