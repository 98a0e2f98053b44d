import os
import shutil

import pytest
from PIL import Image

from carvana.cli import main


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
    with pytest.raises(Exception, match="no such file"):
        main(["validate", "gone.csv", "--debug"])
    for wrong in ("score", "train --recipe nope --run r", "cutout a.jpg --weights nope --out c"):
        assert main(wrong.split()) == 2
        assert capsys.readouterr().err.count("\n") == 1
    absurdities = "--threshold 1.5,--workers 0,--workers 100000,--minutes 0,--minutes x"
    absurdities += ",--part 0/4,--part 5/4,--part x/y,--part 3,--weights sharp"
    for absurd in map(str.split, absurdities.split(",")):
        with pytest.raises(SystemExit) as error:
            main(["predict", *absurd, "--run", "r", "--out", "o.csv"])
        assert error.value.code == 2


def test_commands_that_run_batches_use_onednn_unless_told_not_to(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("carvana.backend.cpuinfo", lambda: "flags : avx avx2")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "")  # so that it is restored afterwards
    for command, before, after in (
        (["plan", str(tmp_path / "gone"), "--out", str(tmp_path / "my.toml")], None, "1"),
        (["plan", str(tmp_path / "gone"), "--out", str(tmp_path / "my.toml")], "0", "0"),
        (["cutout", "gone.jpg", "--weights", "quick", "--out", str(tmp_path)], None, None),
    ):
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
        if before:
            monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", before)
        assert main(command) > 0
        assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == after


def test_from_training_to_a_cutout_without_the_run(trained, tmp_path, capsys):
    paths, run = trained[0], shutil.copytree(trained[1], tmp_path / "run")
    recipe = ["--recipe", str(run / "recipe.toml")]
    assert main(["train", *recipe, "--data", str(paths.root), "--run", str(run)]) == 0
    *_, figures, last = capsys.readouterr().out.splitlines()
    assert figures.startswith(f"{run}: 40 epochs, 80 steps, validation dice 0.")
    assert last == f"next: `carvana predict` or `carvana report`, with --run {run}"
    weights, out, csv = (str(tmp_path / name) for name in ("w.npz", "cut", "s.csv"))
    assert main(["weights", "--run", str(run), "--out", weights]) == 0
    photos = [str(path) for path in sorted(paths.test.iterdir())]
    assert main(["cutout", *photos, "--weights", weights, "--out", out]) == 0
    assert f"{out}: 8 written" in capsys.readouterr().out
    assert Image.open(tmp_path / "cut" / "car5_01.png").mode == "RGBA"
    images = ["--images", str(paths.test)]
    assert main(["predict", "--weights", weights, *images, "--out", csv]) == 0
    assert (tmp_path / "s.csv").read_text().count("\n") == 9
