import json
from pathlib import Path

import pytest
from PIL import Image

from carvana.cli import main
from conftest import TINY


def test_exit_codes_and_single_lines(tmp_path, capsys, tiny):
    sample = str(tiny.sample_submission)
    assert main(["validate", sample, "--sample", sample]) == 0
    assert capsys.readouterr().out.endswith("valid\n")
    bad = tmp_path / "bad.csv"
    bad.write_text("img,rle_mask\nx.jpg,1\n")
    assert main(["validate", str(bad), "--sample", sample]) == 1
    assert "1 x unknown image, first at line 2: x.jpg" in capsys.readouterr().out
    assert main(["validate", "gone.csv", "--sample", sample]) == 1
    assert capsys.readouterr().err == "carvana validate: gone.csv: no such file\n"
    assert main(["score"]) == 2
    assert main(["train", "--recipe", "nope", "--run", str(tmp_path / "r")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    absurdities = "--threshold 1.5,--workers 0,--workers 100000,--minutes 0,--minutes x"
    absurdities += ",--part 0/4,--part 5/4,--part x/y,--part 3"
    for absurd in map(str.split, absurdities.split(",")):
        with pytest.raises(SystemExit) as wrong:
            main(["predict", *absurd, "--run", "r", "--out", "o.csv"])
        assert wrong.value.code == 2


def test_score_as_json(capsys, tiny):
    solution = tiny.root / "solution.csv"
    answer = tiny.root / "answer.csv"
    lines = solution.read_text().splitlines()
    answer.write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    assert main(["score", str(answer), "--truth", str(solution), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["mean"], result["count"], result["parts"]) == (1.0, 8, {"Public": 1.0})


def test_debug_shows_the_traceback(tiny):
    with pytest.raises(Exception, match="no such file"):
        main(["validate", "gone.csv", "--debug"])


def test_from_training_to_a_cutout_without_the_run(tmp_path, tiny, capsys):
    run, weights = tmp_path / "run", str(tmp_path / "w.npz")
    settings = [part for setting in TINY for part in ("--set", setting)]
    assert main(["train", "--data", str(tiny.root), "--run", str(run), *settings]) == 0
    *_, figures, last = capsys.readouterr().out.splitlines()
    assert figures.startswith(f"{run}: 2 epochs, 4 steps, validation dice 0.")
    assert last == f"next: `carvana predict` or `carvana report`, with --run {run}"
    assert Image.open(run / "history.png").width > 500
    assert main(["weights", "--run", str(run), "--out", weights]) == 0
    photos = [str(path) for path in sorted(tiny.test.iterdir())]
    out = str(tmp_path / "cut")
    assert main(["cutout", *photos, "--weights", weights, "--out", out]) == 0
    assert f"{out}: 8 written" in capsys.readouterr().out
    assert Image.open(tmp_path / "cut" / "car5_01.png").mode == "RGBA"
    csv = tmp_path / "s.csv"
    images = ["--images", str(tiny.test)]
    assert main(["predict", "--weights", weights, *images, "--out", str(csv)]) == 0
    assert csv.read_text().count("\n") == 9
    capsys.readouterr()
    assert main(["weights", "--run", str(run), "--out", str(tmp_path / "w.zip")]) == 2
    assert main(["cutout", *photos, "--weights", "nope", "--out", out]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    with pytest.raises(SystemExit) as wrong:
        main(["cutout", *photos, "--weights", weights, "--run", str(run), "--out", out])
    assert wrong.value.code == 2


def test_the_readme_has_no_blanks_left():
    readme = Path(__file__).parents[1] / "README.md"
    assert "@@" not in readme.read_text()
