import contextlib
import csv
import itertools
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import filelock
import pytest
from PIL import Image

from carvana.cli import main
from carvana.competition import rle
from carvana.competition.score import score
from carvana.competition.submission import read_rows, validate
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing
from carvana.prediction import rows as prediction_rows
from carvana.prediction import submission
from carvana.prediction.certainty import review_of
from carvana.prediction.label_maps import write_masks
from carvana.prediction.submission import merge, rows_of, write_submission
from carvana.recipe import load_recipe
from carvana.runs.trained import RunInfo
from conftest import HEIGHT, WIDTH


def rows(path):
    return [cells for _, cells in read_rows(path)]


def rows_made(out):
    """The photographs whose rows lie beside a submission that is not finished."""
    files = rows_of(out).glob("????????????.csv")
    lines = [line for file in files for line in file.read_bytes().splitlines(True)[1:]]
    return {line.split(b",")[0] for line in lines if line.endswith(b"\n")}


def test_from_photographs_to_a_scored_submission(trained, model, tmp_path, capsys):
    paths, _ = trained
    out = tmp_path / "submissions" / "tiny.csv.gz"
    out.parent.mkdir()
    out.symlink_to(out)  # which is replaced
    write_submission(model, paths.test, out, workers=1)
    assert not validate(out, paths.sample_submission, HEIGHT, WIDTH).faults
    assert main(["score", str(out), "--truth", str(paths.root / "solution.csv"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["mean"] > 0.6
    assert (result["count"], result["parts"]) == (8, {"Public": result["mean"]})
    visible = {f.name for f in out.parent.iterdir() if not f.name.startswith(".")}
    assert visible == {"tiny.csv.gz", "tiny.csv.gz.review.csv"}
    review = list(csv.reader(review_of(out).open()))[1:]
    assert sorted(name for name, _ in review) == sorted(f.name for f in paths.test.iterdir())
    write_submission(model, paths.test, tmp_path / "threads.csv.gz", workers=5)
    assert (tmp_path / "threads.csv.gz").read_bytes() == out.read_bytes()


def test_a_threshold_and_rows_of_another_one(trained, model, tmp_path, predicted, capsys):
    folder, out = trained[0].test, tmp_path / "s.csv.gz"
    write_submission(model, folder, out, 0.9, part=(1, 1))
    areas = []
    for threshold in (0.1, 0.5, 0.9):
        write_submission(model, folder, out, threshold)
        areas.append(sum(rle.parse(runs)[:, 1].sum() for _, runs in rows(out)[1:]))
    assert areas[0] > areas[1] > areas[2]
    assert len(predicted) == 4 * 8
    said = capsys.readouterr().out
    assert said.count("rows of another model, recipe or threshold; starting over") == 1


def test_a_broken_photograph_is_named_and_the_other_rows_are_used(
    many, model, tmp_path, predicted, monkeypatch
):
    folder, out = shutil.copytree(many[0], tmp_path / "images"), tmp_path / "s.csv.gz"
    good = (folder / "p_01.jpg").read_bytes()
    (folder / "p_01.jpg").write_bytes(good[:300])
    sizes, network = [], model._networks[0]
    with monkeypatch.context() as patch:
        patch.setattr(model, "_networks", [lambda x: sizes.append(len(x)) or network(x)])
        says = r"p_01\.jpg: is not a readable photograph.*rows of the other 39 images are kept"
        with pytest.raises(CarvanaError, match=says):
            write_submission(model, folder, out)
    assert sizes == [model.batch_size] * -(-39 // model.batch_size)  # always full
    assert not out.exists()
    (folder / "p_01.jpg").write_bytes(good)
    predicted.clear()
    write_submission(model, folder, out)
    assert predicted == ["p_01.jpg"]
    assert out.read_bytes() == many[1].read_bytes()


def test_a_row_belongs_to_its_photograph_by_name_and_size(trained, model, tmp_path, predicted):
    photographs = sorted(trained[0].test.iterdir())
    folder, out = tmp_path / "images", tmp_path / "s.csv.gz"
    folder.mkdir()
    names = sorted(["a,b.jpg", "changed.jpg", 'say "c".jpg', "ü d.JPG", "e.f.g.jpg"])
    for name, photograph in zip(names, photographs, strict=False):
        shutil.copy(photograph, folder / name)
    write_submission(model, folder, out, part=(1, 1))
    elsewhere = shutil.copytree(folder, tmp_path / "copied")
    shutil.copy(photographs[6], elsewhere / "changed.jpg")
    shutil.copy(photographs[7], elsewhere / "a new.jpg")
    for photograph in elsewhere.iterdir():
        os.utime(photograph, (1, 1))
    predicted.clear()
    write_submission(model, elsewhere, out)
    assert sorted(predicted) == ["a new.jpg", "changed.jpg"]
    assert [name for name, _ in rows(out)] == ["img", *sorted([*names, "a new.jpg"])]
    write_submission(model, elsewhere, tmp_path / "afresh.csv.gz")
    assert out.read_bytes() == (tmp_path / "afresh.csv.gz").read_bytes()
    assert score(out, out).mean == 1


def test_a_stopped_prediction_resumes_and_ends_with_the_same_rows(
    many, trained, model, tmp_path, predicted, monkeypatch, capsys
):
    """Stopped by the clock, a full disk and Ctrl-C, and while the submission is written."""
    folder, out = many[0], tmp_path / "s.csv.gz"
    out.write_bytes(b"old")
    with monkeypatch.context() as patch:  # each photograph takes a second
        clock = SimpleNamespace(monotonic=itertools.count().__next__)
        patch.setattr(prediction_rows, "time", clock)
        with pytest.raises(CarvanaError, match="stopped after 0.25 minutes with 15 of 40 images"):
            write_submission(model, folder, out, minutes=0.25)
    assert len(rows_made(out)) == 15

    to_line, seen = prediction_rows.to_line, []

    def stop_after_ten(error):
        count = itertools.count()

        def write(cells):
            if next(count) == 10:
                seen.append(len(rows_made(out)))  # what a kill leaves
                raise error
            return to_line(cells)

        return write

    with monkeypatch.context() as patch:
        full = OSError(28, "No space left on device")
        patch.setattr(prediction_rows, "to_line", stop_after_ten(full))
        with pytest.raises(CarvanaError, match="cannot be written .No space.*made so far are kept"):
            write_submission(model, folder, out)
        patch.setattr(prediction_rows, "to_line", stop_after_ten(KeyboardInterrupt()))
        command = ["predict", "--run", trained[1], "--images", folder, "--out", out]
        assert main(list(map(str, command))) == 130
    assert seen == [25, 35]
    assert "resuming after 25 of 40 images" in capsys.readouterr().out

    with next(rows_of(out).glob("*.csv")).open("ab") as file:
        for damaged in (b"no commas", b"\0" * 4096, b"p_39.jpg,abc,0.9,1 2", b"p_39.jpg,12,x,"):
            file.write(damaged + b"\n")
        file.write(b"p_39.jpg,0123,1 2 3")  # a row cut short
    (rows_of(out) / "mine.csv").write_text("img,rle_mask\np_38.jpg,1 2\n")  # not the kit's
    (rows_of(out) / "folder.csv").mkdir()

    @contextlib.contextmanager
    def on_a_full_disk(path):
        with replacing(path) as temporary:
            yield temporary
            raise full

    predicted.clear()
    with monkeypatch.context() as patch:
        patch.setattr(submission, "replacing", on_a_full_disk)
        with pytest.raises(CarvanaError, match=r"s\.csv\.gz: cannot be written .No space left"):
            write_submission(model, folder, out)
    assert out.read_bytes() == b"old"
    write_submission(model, folder, out)
    assert sorted(predicted) == [f"p_{number}.jpg" for number in range(35, 40)]
    assert out.read_bytes() == many[1].read_bytes()
    assert {file.name for file in rows_of(out).iterdir()} == {"mine.csv", "folder.csv"}


def test_label_maps_that_were_stopped_are_completed(trained, model, tmp_path, predicted):
    folder, (whole, stopped) = trained[0].test, (tmp_path / "whole", tmp_path / "stopped")
    write_masks(model, folder, whole)
    write_masks(model, folder, stopped, part=(1, 2))
    predicted.clear()
    write_masks(model, folder, stopped)
    assert sorted(predicted) == sorted(path.name for path in folder.iterdir())[1::2]
    for path in whole.iterdir():
        assert (stopped / path.name).read_bytes() == path.read_bytes()
    assert sorted(os.listdir(stopped)) == sorted(os.listdir(whole))


def test_parts_made_apart_or_together_make_the_same_file(
    many, trained, model, tmp_path, predicted, monkeypatch, capsys
):
    monkeypatch.setattr(prediction_rows, "MOST_OPEN", 3)
    folder, whole = many
    outs = [tmp_path / str(number) / "s.csv.gz" for number in range(1, 5)]
    for number, out in enumerate(outs, 1):
        write_submission(model, folder, out, part=(number, 4))
        assert not out.exists()
    apart, together = tmp_path / "apart.csv.gz", tmp_path / "together.csv.gz"
    assert merge(apart, [rows_of(out) for out in outs]) == 40
    for number in (3, 1, 4, 2, 2):  # on a shared folder, one of them twice
        write_submission(model, folder, together, part=(number, 4))
    write_submission(model, folder, together)
    assert len(predicted) == 40 + 40
    for out in (apart, together):
        assert out.read_bytes() == whole.read_bytes()
        assert review_of(out).read_text() == review_of(whole).read_text()
    write_submission(model, trained[0].test, tmp_path / "few.csv", part=(9, 9))  # of 8 photographs
    said = capsys.readouterr().out
    assert "part 4 of 4 is made, 10 photographs" in said
    assert "part 9 of 9 is made, 0 photographs" in said


def test_the_same_rows_made_twice_at_once_do_no_harm(many, model, tmp_path):
    folder, out = many[0], tmp_path / "s.csv.gz"
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(write_submission, model, folder, out, part=(1, 1)) for _ in range(2)]
    assert [each.result() for each in both] == [None, None]
    assert len(rows_made(out)) == 40
    first = next(rows_of(out).glob("*.csv"))
    first.with_name("again.csv").write_bytes(first.read_bytes()[:2000])  # in any case
    write_submission(model, folder, out)
    assert out.read_bytes() == many[1].read_bytes()


def test_what_does_not_merge_is_named(trained, model, tmp_path):
    folder = shutil.copytree(trained[0].test, tmp_path / "images")
    parts = {}
    for name, number, threshold in (("a", 1, None), ("other", 2, 0.9)):
        out = tmp_path / name / "s.csv"
        write_submission(model, folder, out, threshold, part=(number, 2))
        parts[name] = rows_of(out)
    write_masks(model, folder, tmp_path / "maps", part=(1, 1))
    out = tmp_path / "s.csv"
    for error, says, folders in (
        (CarvanaError, r"car5_02\.jpg: has no mask yet; run the `carvana predict`", [parts["a"]]),
        (UsageError, r"other.s\.csv.*rows of another model, recipe, threshold", parts.values()),
        (UsageError, "holds no run lengths, but the rows of", [tmp_path / "maps" / ".masks.rows"]),
        (UsageError, r"holds no photographs\.json", [parts["a"], tmp_path]),
    ):
        with pytest.raises(error, match=says):
            merge(out, list(folders))
    with pytest.raises(UsageError, match="rows of another model, recipe, .*; choose another"):
        write_submission(model, folder, tmp_path / "a" / "s.csv", 0.9, part=(2, 2))
    (folder / "car6_04.jpg").unlink()
    with pytest.raises(UsageError, match="or set of photographs; choose another"):
        write_submission(model, folder, tmp_path / "a" / "s.csv", part=(2, 2))
    assert not out.exists()


def test_what_cannot_be_predicted_is_named(trained, model, tmp_path):
    test, out = trained[0].test, tmp_path / "s.csv.gz"
    for name in ("s.txt", "s", "s.csv.zip"):
        with pytest.raises(UsageError, match="name ends in"):
            write_submission(model, test, tmp_path / name)
    (tmp_path / "none").mkdir()
    with pytest.raises(CarvanaError, match="none: holds no photograph"):
        write_submission(model, tmp_path / "none", out)
    with (
        filelock.FileLock(tmp_path / ".s.csv.gz.lock"),
        pytest.raises(CarvanaError, match=r"s\.csv\.gz: another prediction is writing it"),
    ):
        write_submission(model, test, out)
    with pytest.raises(UsageError, match="holds the photographs; choose another --masks"):
        write_masks(model, test, test)
    classes = RunInfo(recipe=load_recipe("own", ["data.classes={background=0, a=1}"]))
    with pytest.raises(UsageError, match="--threshold goes with masks of two colours"):
        write_masks(classes, test, tmp_path / "maps", threshold=0.9)
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / "none" / name)
    with pytest.raises(UsageError, match=r"a\.jpg and a\.png would both write"):
        write_masks(model, tmp_path / "none", tmp_path / "maps")


def test_what_is_passed_over_is_said_once(model, tmp_path, capsys):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").touch()
    write_masks(model, tmp_path, tmp_path / "maps")
    assert capsys.readouterr().err.count("ignoring files that are not images: 1 .txt") == 1
