"""The demo without its work: what it prints, and what it leaves alone."""

import pytest

from carvana.errors import UsageError
from carvana_sandbox import demo


@pytest.fixture
def run_demo(tmp_path, monkeypatch):
    """Run the demo in a temporary folder; its stages do nothing."""

    def write_competition(folder, *_):
        (folder / demo.MARKER).write_text("{}")
        (folder / "train.zip").write_bytes(b"")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "write_competition", write_competition)
    monkeypatch.setattr(demo.sys, "executable", "true")
    path = type(tmp_path)
    return lambda: demo.demo(path("data"), path("runs"), path("submissions"))


def test_it_says_what_it_does_in_lines_that_fit_a_terminal(run_demo, capfd):
    run_demo()
    lines = capfd.readouterr().out.splitlines()
    assert "takes about three minutes" in lines[0]
    assert sum(line.startswith("$ carvana ") for line in lines) == 6
    assert "The score is of rendered cars: it has no rank on the real leaderboard." in lines
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ("data/demo/train", "demo: was not made by the demo.*rename it"),
        ("runs/demo/model.keras", "demo: was not made by the demo.*rename it"),
        ("submissions/demo.csv.gz", "is not of a demo, which would replace it"),
    ],
)
def test_what_it_did_not_make_is_refused_and_stays(run_demo, tmp_path, theirs, says):
    (tmp_path / theirs).parent.mkdir(parents=True)
    (tmp_path / theirs).write_text("mine")
    with pytest.raises(UsageError, match=says):
        run_demo()
    assert (tmp_path / theirs).read_text() == "mine"
    assert not (tmp_path / "data" / "demo-kaggle").exists()  # with which the demo begins
