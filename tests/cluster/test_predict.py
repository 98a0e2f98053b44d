import importlib
import os
import shutil
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("distributed", reason="Dask is not installed: the extra [cluster]")

import carvana.cluster.dask
from carvana.cli import main
from carvana.cluster import predict as cluster
from carvana.cluster.dask import check_workers
from carvana.cluster.predict import make_on
from carvana.errors import CarvanaError, UsageError
from carvana.files import check_writable
from carvana.prediction.certainty import review_of
from carvana.prediction.label_maps import write_masks
from carvana.prediction.rows import About, Job
from carvana.prediction.submission import rows_of, write_submission
from carvana.runs.trained import RunInfo


@pytest.fixture(scope="module")
def dask_client():
    """A Dask cluster of two workers on this machine."""
    with carvana.cluster.dask.open_cluster("local:2") as client:
        yield client


def predict(dask_client, trained, images, out, **options):
    info = RunInfo.read(trained[1])
    write_submission(info, images, out, make=make_on(dask_client, "local:2", info), **options)


def test_label_maps(dask_client, trained, model, tmp_path):
    info = RunInfo.read(trained[1])
    make = make_on(dask_client, "local:2", info)
    write_masks(info, trained[0].test, tmp_path / "two", make=make)
    write_masks(model, trained[0].test, tmp_path / "one")
    for path in (tmp_path / "one").iterdir():
        if path.is_file():
            assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_a_worker_that_lacks_something_is_named(dask_client, trained, many, tmp_path, monkeypatch):
    """The workers see what they see: here the dask_client believes that there is more."""
    out = tmp_path / "s.csv"
    rows_of(out).mkdir()
    names = sorted(path.name for path in many[0].iterdir())
    job = Job("key", rows_of(out), many[0])
    info = RunInfo.read(trained[1])
    needs = (info.paths, info.fingerprint(), job)
    with pytest.raises(CarvanaError, match=r"worker tcp.*\.rows: is not what it is here"):
        check_workers(dask_client, cluster.check_here, *needs)
    About("key", None, dict.fromkeys([*names, "q.jpg"], 1)).write(rows_of(out), shared=False)
    with pytest.raises(CarvanaError, match=r"worker tcp.*: 1 photographs are not there .first: q"):
        check_workers(dask_client, cluster.check_here, *needs)
    elsewhere = replace(job, images=many[0] / "gone")
    with pytest.raises(CarvanaError, match=r"worker tcp.*/gone: No such file .*share the folder"):
        check_workers(dask_client, cluster.check_here, *needs[:2], elsewhere)
    with pytest.raises(CarvanaError, match=r"worker tcp.*nothing: no such run or weights"):
        check_workers(dask_client, cluster.check_here, [tmp_path / "nothing"], *needs[1:])
    with monkeypatch.context() as patch:
        patch.setattr(RunInfo, "fingerprint", lambda self: "another")
        with pytest.raises(CarvanaError, match=r"worker tcp.*: is another model than here"):
            predict(dask_client, trained, many[0], out)
    monkeypatch.setattr(carvana.cluster.dask, "__version__", "0.0.1")
    with pytest.raises(CarvanaError, match="2 workers cannot.*\n.*worker tcp.*here is 0.0.1"):
        predict(dask_client, trained, many[0], out)
    monkeypatch.undo()
    with pytest.raises(CarvanaError, match=r"worker tcp.*/gone: cannot be written .No such file"):
        check_workers(dask_client, check_writable, tmp_path / "gone")


def test_the_time_is_up(dask_client, trained, many, tmp_path):
    with pytest.raises(CarvanaError, match="stopped after 1e-06 minutes with 0 of 40 images"):
        predict(dask_client, trained, many[0], tmp_path / "s.csv", minutes=1e-6)


def test_addresses(trained, capsys, monkeypatch):
    command = ["predict", "--run", str(trained[1]), "--images", str(trained[0].test)]
    for wrong in ("local:0", "local:65", "local:x", "local", "host", "http://host:1", "a:b:1"):
        assert main([*command, "--out", "s.csv", "--cluster", wrong]) == 2
    monkeypatch.setattr(carvana.cluster.dask, "CONNECT_SECONDS", 0.5)
    assert main([*command, "--out", "s.csv", "--cluster", "tcp://127.0.0.1:9"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 8
    assert "tcp://127.0.0.1:9: no scheduler answers there" in said[-1]


def test_an_open_scheduler_is_told_of(capsys):
    for address in ("tcp://127.0.0.1:1", "tls://10.0.0.1:8786", "tcp://10.0.0.1:8786"):
        fake = SimpleNamespace(scheduler_info=lambda address=address: {"address": address})
        carvana.cluster.dask._warn_if_exposed(fake)
    assert capsys.readouterr().err.startswith("tcp://10.0.0.1:8786: is open to the network")


def test_workers_of_one_machine_take_a_gpu_each(monkeypatch):
    taken = []
    config = SimpleNamespace(
        list_physical_devices=lambda kind: ["gpu0", "gpu1"],
        set_visible_devices=lambda gpu, kind: taken.append(gpu),
    )
    monkeypatch.setattr(carvana.cluster.dask, "tf", SimpleNamespace(config=config))
    for number in (0, 1, 2, "tcp://10.0.0.1:9"):  # the last of a cluster that others started
        worker = SimpleNamespace(name=number)
        monkeypatch.setattr(carvana.cluster.dask.distributed, "get_worker", lambda w=worker: w)
        carvana.cluster.dask.prepare_worker()
    assert taken == ["gpu0", "gpu1", "gpu0"]


def test_without_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "carvana.cluster.dask")
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(UsageError, match="dask is not installed; in the kit's folder run pip in"):
        importlib.import_module("carvana.cluster.dask")


def test_a_killed_worker_and_a_broken_photograph_change_no_byte(
    dask_client, trained, model, many, tmp_path, capfd
):
    folder, out = shutil.copytree(many[0], tmp_path / "images"), tmp_path / "s.csv.gz"
    write_submission(model, folder, out, part=(1, 2))
    good = (folder / "p_21.jpg").read_bytes()
    (folder / "p_21.jpg").write_bytes(good[:300])
    info, workers = RunInfo.read(trained[1]), dask_client.run(os.getpid)

    def make_and_kill(*arguments):
        for number, made in enumerate(make_on(dask_client, "local:2", info)(*arguments)):
            if number == 0:
                os.kill(next(iter(workers.values())), signal.SIGKILL)
            yield made

    with pytest.raises(CarvanaError, match=r"p_21.jpg: is not a readable.*other 39 im"):
        write_submission(info, folder, out, make=make_and_kill)
    said = capfd.readouterr()
    assert "local:2: 2 workers; Dask's dashboard: http://127.0.0.1:" in said.out
    assert "oneDNN" not in said.err
    (folder / "p_21.jpg").write_bytes(good)
    predict(dask_client, trained, folder, out)
    said = capfd.readouterr()
    assert "resuming after 39 of 40 images" in said.out
    assert "predicting: 1 image in" in said.err
    assert out.read_bytes() == many[1].read_bytes()
    assert review_of(out).read_text() == review_of(many[1]).read_text()
    assert not rows_of(out).exists()
