import contextlib
import csv
import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from carvana.competition import rle
from carvana.competition.score import score
from carvana.competition.submission import validate
from carvana.data.images import read_photograph
from carvana.data.resize import resize
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing
from carvana.prediction import rows as prediction_rows
from carvana.prediction import submission
from carvana.prediction.certainty import review_of
from carvana.prediction.label_maps import write_masks
from carvana.prediction.model import Model
from carvana.prediction.submission import merge, rows_of, write_submission
from carvana.recipe import load_recipe
from carvana.runs.trained import RunInfo
from conftest import HEIGHT, WIDTH, press_ctrl_c


def rows(path):
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.reader(file))


def test_from_photographs_to_a_scored_submission(trained, model, tmp_path):
    paths, _ = trained
    out = tmp_path / "submissions" / "tiny.csv.gz"
    write_submission(model, paths.test, out)
    assert validate(out, paths.sample_submission, HEIGHT, WIDTH).valid
    assert score(out, paths.root / "solution.csv").mean > 0.6
    visible = {f.name for f in out.parent.iterdir() if not f.name.startswith(".")}
    assert visible == {"tiny.csv.gz", "tiny.csv.gz.review.csv"}
    review = list(csv.reader(review_of(out).open()))[1:]
    assert sorted(name for name, _ in review) == sorted(f.name for f in paths.test.iterdir())


def test_masks_are_the_thresholded_bilinear_upsampling_of_the_probabilities(
    trained, model, tmp_path
):
    paths, _ = trained
    folder = tmp_path / "images"
    folder.mkdir()
    for name, size in (("wide.jpg", (300, 40)), ("tall.png", (33, 190)), ("one.jpeg", (1, 1))):
        Image.open(next(paths.test.iterdir())).resize(size).save(folder / name)
    write_submission(model, folder, tmp_path / "s.csv.gz")
    found = dict(rows(tmp_path / "s.csv.gz")[1:])
    assert list(found) == ["one.jpeg", "tall.png", "wide.jpg"]
    for name, runs in found.items():
        picture, _ = read_photograph(folder / name)
        small = resize(picture, model.recipe.input)
        probability = model.run.networks[0](small[None], training=False)
        full = tf.image.resize(probability, picture.shape[:2], "bilinear")[0, :, :, 0].numpy()
        mask = rle.decode(runs, *picture.shape[:2])
        unsure = np.abs(full - 0.5) < 1e-4  # batches of another size round differently
        np.testing.assert_array_equal(mask | unsure, (full > 0.5) | unsure)


def test_workers_change_no_row(trained, model, tmp_path):
    paths, _ = trained
    for workers in (1, 5):
        write_submission(model, paths.test, tmp_path / f"{workers}.csv", workers=workers)
    assert (tmp_path / "1.csv").read_text() == (tmp_path / "5.csv").read_text()


def test_threshold(trained, model, tmp_path):
    paths, _ = trained
    areas = []
    for threshold in (0.1, 0.5, 0.9):
        write_submission(model, paths.test, tmp_path / "s.csv.gz", threshold)
        areas.append(sum(rle.parse(r[1])[:, 1].sum() for r in rows(tmp_path / "s.csv.gz")[1:]))
    assert areas[0] > areas[1] > areas[2]


def test_broken_photograph_is_named_and_rows_made_so_far_are_used(
    trained, model, tmp_path, monkeypatch
):
    folder, out = _many(trained, tmp_path, 40), tmp_path / "s.csv.gz"
    write_submission(model, folder, out)
    whole = rows(out)
    out.unlink()
    good = (folder / "p_30.jpg").read_bytes()
    (folder / "p_30.jpg").write_bytes(good[:300])
    says = r"p_30\.jpg: is not a readable photograph.*rows of the other 39 images are kept"
    with pytest.raises(CarvanaError, match=says):
        write_submission(model, folder, out)
    assert not out.exists()
    (folder / "p_30.jpg").write_bytes(good)
    predicted = count_loads(monkeypatch)
    write_submission(model, folder, out)
    assert predicted == ["p_30.jpg"]
    assert rows(out) == whole


def test_a_photograph_that_changed_since_its_row_was_made_is_predicted_again(
    trained, model, tmp_path, monkeypatch
):
    folder, out = shutil.copytree(trained[0].test, tmp_path / "images"), tmp_path / "s.csv.gz"
    write_submission(model, folder, out)
    whole = dict(rows(out))
    changed, other = "car5_02.jpg", "car6_01.jpg"
    with monkeypatch.context() as patch:
        patch.setattr(submission, "replacing", stop)
        with pytest.raises(KeyboardInterrupt):
            write_submission(model, folder, out)
    shutil.copy(folder / other, folder / changed)
    predicted = count_loads(monkeypatch)
    write_submission(model, folder, out)
    assert predicted == [changed]
    assert dict(rows(out)) == whole | {changed: whole[other]}


def test_rows_are_kept_for_the_same_photographs_of_another_date_or_folder(
    trained, model, tmp_path, monkeypatch
):
    out = tmp_path / "s.csv.gz"
    with monkeypatch.context() as patch:
        patch.setattr(submission, "replacing", stop)
        with pytest.raises(KeyboardInterrupt):
            write_submission(model, trained[0].test, out)
    copied = shutil.copytree(trained[0].test, tmp_path / "copied")
    for photograph in copied.iterdir():
        os.utime(photograph, (1, 1))
    predicted = count_loads(monkeypatch)
    write_submission(model, copied, out)
    assert predicted == []
    assert len(rows(out)) == 9


def stop(path):
    raise KeyboardInterrupt


def count_loads(monkeypatch):
    """Return a list that grows with the name of each photograph that is predicted."""
    names, load = [], Model._load

    def counted(self, photograph, turns):
        names.append(photograph.name)
        return load(self, photograph, turns)

    monkeypatch.setattr(Model, "_load", counted)
    return names


def test_names_that_a_csv_quotes(trained, model, tmp_path, monkeypatch):
    folder = tmp_path / "odd"
    folder.mkdir()
    photograph = next(trained[0].test.iterdir()).read_bytes()
    names = sorted(["a,b.jpg", 'say "c".jpg', "ü d.JPG", "e.f.g.jpg"])
    for name in names:
        (folder / name).write_bytes(photograph)
    with monkeypatch.context() as patch:
        patch.setattr(submission, "replacing", stop)
        with pytest.raises(KeyboardInterrupt):
            write_submission(model, folder, tmp_path / "s.csv.gz")
    write_submission(model, folder, tmp_path / "s.csv.gz")
    assert [row[0] for row in rows(tmp_path / "s.csv.gz")] == ["img", *names]
    assert score(tmp_path / "s.csv.gz", tmp_path / "s.csv.gz").mean == 1


def _many(trained, tmp_path, count):
    folder = tmp_path / "many"
    folder.mkdir(parents=True)
    photographs = sorted(trained[0].test.iterdir())
    for number in range(count):
        (folder / f"p_{number:02}.jpg").symlink_to(photographs[number % len(photographs)])
        if number == 30:
            (folder / "p_30.jpg").unlink()
            (folder / "p_30.jpg").write_bytes(photographs[0].read_bytes())
    return folder


@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGINT])
def test_stopped_prediction_resumes_and_ends_with_the_same_rows(
    trained, model, tmp_path, monkeypatch, stop_signal
):
    folder, out = _many(trained, tmp_path, 160), tmp_path / "s.csv.gz"
    write_submission(model, folder, out)
    whole = rows(out)
    out.unlink()
    command = [sys.executable, "-m", "carvana", "predict", "--run", trained[1]]
    process = subprocess.Popen([*command, "--images", folder, "--out", out])
    end = time.monotonic() + 120
    while len(rows_made(out)) < 20:
        assert time.monotonic() < end
        time.sleep(0.005)
    if stop_signal == signal.SIGINT:
        press_ctrl_c(process)
    else:
        process.kill()
    assert process.wait() == (130 if stop_signal == signal.SIGINT else -stop_signal)
    assert not out.exists()
    done = rows_made(out)
    with next(rows_of(out).glob("*.csv")).open("ab") as file:
        for damaged in (b"no commas", b"\0" * 4096, b"p_159.jpg,abc,0.9,1 2", b"p_159.jpg,12,x,"):
            file.write(damaged + b"\n")
        file.write(b"p_159.jpg,0123,1 2 3")  # a row cut short
    (rows_of(out) / "mine.csv").write_text("img,rle_mask\np_158.jpg,1 2\n")  # not the kit's
    (rows_of(out) / "folder.csv").mkdir()
    calls = count_loads(monkeypatch)
    write_submission(model, folder, out)
    assert len(calls) == 160 - len(done)  # rows that were made are not made again
    assert rows(out) == whole
    assert {file.name for file in rows_of(out).iterdir()} == {"mine.csv", "folder.csv"}


def rows_made(out):
    """The photographs whose rows lie beside a submission that is not finished."""
    files = rows_of(out).glob("????????????.csv")
    lines = [line for file in files for line in file.read_bytes().splitlines(True)[1:]]
    return {line.split(b",")[0] for line in lines if line.endswith(b"\n")}


def test_another_models_rows_are_not_used(trained, model, tmp_path, monkeypatch, capsys):
    out = tmp_path / "s.csv.gz"
    with monkeypatch.context() as patch:
        patch.setattr(submission, "replacing", stop)
        with pytest.raises(KeyboardInterrupt):
            write_submission(model, trained[0].test, out, 0.9)
    assert len(rows_made(out)) == 8
    predicted = count_loads(monkeypatch)
    write_submission(model, trained[0].test, out, 0.1)
    assert len(predicted) == 8
    assert "rows of another model, recipe or threshold; starting over" in capsys.readouterr().out


def test_two_predictions_into_one_file(trained, model, tmp_path):
    with (
        filelock.FileLock(tmp_path / ".s.csv.gz.lock"),
        pytest.raises(CarvanaError, match=r"s\.csv\.gz: another prediction is writing it"),
    ):
        write_submission(model, trained[0].test, tmp_path / "s.csv.gz")


def test_disk_full_keeps_the_rows_and_the_old_submission(trained, model, tmp_path, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    paths, out = trained[0], tmp_path / "s.csv.gz"
    out.write_bytes(b"old")

    @contextlib.contextmanager
    def on_a_full_disk(path):
        with replacing(path):
            yield Path("/dev/full")

    with monkeypatch.context() as patch:
        patch.setattr(submission, "replacing", on_a_full_disk)
        with pytest.raises(CarvanaError, match=r"s\.csv\.gz: cannot be written .No space left"):
            write_submission(model, paths.test, out)
    assert out.read_bytes() == b"old"
    assert len(rows_made(out)) == 8
    write_submission(model, paths.test, out)
    assert len(rows(out)) == 9


def test_what_cannot_be_predicted_is_named(trained, model, tmp_path):
    for name in ("s.txt", "s", "s.csv.zip"):
        with pytest.raises(UsageError, match="name ends in"):
            write_submission(model, trained[0].test, tmp_path / name)
    (tmp_path / "none").mkdir()
    with pytest.raises(CarvanaError, match="none: holds no photograph"):
        write_submission(model, tmp_path / "none", tmp_path / "s.csv")


def test_two_photographs_never_make_one_label_map(trained, model, tmp_path):
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    with pytest.raises(UsageError, match=r"a\.jpg and a\.png would both write"):
        write_masks(model, tmp_path, tmp_path / "maps")
    with pytest.raises(UsageError, match="holds the photographs; choose another --masks"):
        write_masks(model, trained[0].test, trained[0].test)


def test_parts_made_apart_merge_to_the_same_file(trained, model, tmp_path, capsys):
    folder, whole = _many(trained, tmp_path, 100), tmp_path / "whole.csv.gz"
    write_submission(model, folder, whole)
    outs = [tmp_path / str(number) / "s.csv.gz" for number in range(1, 5)]
    for number, out in enumerate(outs, 1):
        write_submission(model, folder, out, part=(number, 4))
        assert not out.exists()
    apart, together = tmp_path / "apart.csv.gz", tmp_path / "together.csv.gz"
    assert merge(apart, [rows_of(out) for out in outs]) == 100
    for number in (3, 1, 4, 2):  # on a shared folder
        write_submission(model, folder, together, part=(number, 4))
    write_submission(model, folder, together)
    for out in (apart, together):
        assert out.read_bytes() == whole.read_bytes()
        assert review_of(out).read_text() == review_of(whole).read_text()
    assert "part 4 of 4 is made, 25 photographs" in capsys.readouterr().out


def test_a_part_does_its_share_once(trained, model, tmp_path, monkeypatch):
    folder, out = _many(trained, tmp_path, 100), tmp_path / "s.csv.gz"
    predicted = count_loads(monkeypatch)
    for _ in range(2):
        write_submission(model, folder, out, part=(2, 3))
    assert sorted(predicted) == [f"p_{number:02}.jpg" for number in range(1, 100, 3)]
    few = _many(trained, tmp_path / "few", 2)
    write_submission(model, few, tmp_path / "few.csv", part=(9, 9))  # of two photographs


def test_what_does_not_merge_is_named(trained, model, tmp_path):
    folder = _many(trained, tmp_path, 40)
    parts = {}
    for name, number, threshold in (("a", 1, None), ("b", 2, None), ("other", 2, 0.9)):
        out = tmp_path / name / "s.csv"
        write_submission(model, folder, out, threshold, part=(number, 2))
        parts[name] = rows_of(out)
    out = tmp_path / "s.csv"
    with pytest.raises(
        CarvanaError, match=r"p_01\.jpg: has no mask yet; run the `carvana predict`"
    ):
        merge(out, [parts["a"]])
    with pytest.raises(
        UsageError, match=r"other.s\.csv.*rows of another model, recipe or threshold than"
    ):
        merge(out, [parts["a"], parts["other"]])
    write_masks(model, folder, tmp_path / "maps", part=(1, 1))
    with pytest.raises(UsageError, match="holds no run lengths, but the rows of label maps"):
        merge(out, [tmp_path / "maps" / ".masks.rows"])
    with pytest.raises(UsageError, match=r"holds no photographs\.json"):
        merge(out, [parts["a"], tmp_path])
    with pytest.raises(UsageError, match="another model, recipe or threshold; choose another"):
        write_submission(model, folder, tmp_path / "a" / "s.csv", 0.9, part=(2, 2))
    (folder / "p_39.jpg").unlink()
    with pytest.raises(UsageError, match="rows of other photographs; choose another"):
        write_submission(model, folder, tmp_path / "a" / "s.csv", part=(2, 2))
    assert not out.exists()


def test_rows_are_kept_when_photographs_are_added(trained, model, tmp_path, monkeypatch):
    folder, out = _many(trained, tmp_path, 60), tmp_path / "s.csv.gz"
    with monkeypatch.context() as patch:
        patch.setattr(submission, "replacing", stop)
        with pytest.raises(KeyboardInterrupt):
            write_submission(model, folder, out)
    shutil.copy(folder / "p_30.jpg", folder / "a_new.jpg")  # the first by name
    predicted = count_loads(monkeypatch)
    write_submission(model, folder, out)
    assert predicted == ["a_new.jpg"]
    assert len(rows(out)) == 62


def test_the_time_is_up(trained, model, tmp_path, monkeypatch):
    folder, out = _many(trained, tmp_path, 100), tmp_path / "s.csv.gz"
    with pytest.raises(CarvanaError, match="stopped after 0.002 minutes with .* of 100 images"):
        write_submission(model, folder, out, minutes=0.002)
    done = len(rows_made(out))
    assert done < 100
    predicted = count_loads(monkeypatch)
    write_submission(model, folder, out)
    assert len(predicted) == 100 - done
    assert len(rows(out)) == 101


def test_two_processes_that_make_the_same_rows_do_no_harm(trained, model, tmp_path):
    folder, out = _many(trained, tmp_path, 40), tmp_path / "s.csv.gz"
    write_submission(model, folder, tmp_path / "alone.csv.gz")
    command = [sys.executable, "-m", "carvana", "predict", "--run", trained[1], "--part", "1/1"]
    both = [subprocess.Popen([*command, "--images", folder, "--out", out]) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    assert len(rows_made(out)) == 40
    first = next(rows_of(out).glob("*.csv"))
    first.with_name("again.csv").write_bytes(first.read_bytes()[:2000])  # in any case
    write_submission(model, folder, out)
    assert out.read_bytes() == (tmp_path / "alone.csv.gz").read_bytes()


def test_more_files_of_rows_than_may_be_open(trained, model, tmp_path, monkeypatch):
    monkeypatch.setattr("carvana.prediction.rows.MOST_OPEN", 3)
    folder, out = _many(trained, tmp_path, 40), tmp_path / "s.csv.gz"
    write_submission(model, folder, tmp_path / "alone.csv.gz")
    for number in range(1, 9):
        write_submission(model, folder, out, part=(number, 8))
    write_submission(model, folder, out)
    assert out.read_bytes() == (tmp_path / "alone.csv.gz").read_bytes()


def test_a_disk_that_fills_up_keeps_the_rows_made(trained, model, tmp_path, monkeypatch):
    folder, out = _many(trained, tmp_path, 40), tmp_path / "s.csv.gz"
    written, to_line = [], prediction_rows.to_line

    def full(cells):
        written.append(cells)
        if len(written) > 20:
            raise OSError(28, "No space left on device")
        return to_line(cells)

    with monkeypatch.context() as patch:
        patch.setattr(prediction_rows, "to_line", full)
        with pytest.raises(CarvanaError, match="cannot be written .No space.*made so far are kept"):
            write_submission(model, folder, out)
    assert len(rows_made(out)) == 20
    predicted = count_loads(monkeypatch)
    write_submission(model, folder, out)
    assert len(predicted) == 20


def test_a_link_to_itself_is_replaced(trained, model, tmp_path):
    out = tmp_path / "s.csv.gz"
    out.symlink_to(out)
    write_submission(model, trained[0].test, out)
    assert len(rows(out)) == 9


def test_what_is_passed_over_is_said_once(trained, model, tmp_path, capsys):
    photographs = _many(trained, tmp_path, 2)
    (photographs / "notes.txt").touch()
    write_masks(model, photographs, tmp_path / "maps")
    assert capsys.readouterr().err.count("ignoring files that are not images: 1 .txt") == 1


def test_a_threshold_of_classes_is_refused(trained, model, tmp_path):
    recipe = load_recipe("own", ["data.classes={background=0, a=1}"])
    classes = RunInfo(recipe=recipe)
    with pytest.raises(UsageError, match="--threshold goes with masks of two colours"):
        write_masks(classes, trained[0].test, tmp_path / "maps", threshold=0.9)


def test_batches_are_always_full(trained, model, tmp_path, monkeypatch):
    folder, batch = _many(trained, tmp_path, 40), model.batch_size
    (folder / "p_01.jpg").unlink()
    (folder / "p_01.jpg").write_bytes(b"broken")
    sizes, network = [], model._networks[0]
    monkeypatch.setattr(model, "_networks", [lambda x: sizes.append(len(x)) or network(x)])
    with pytest.raises(CarvanaError, match=r"p_01\.jpg: is not a readable"):
        write_submission(model, folder, tmp_path / "s.csv")
    assert sizes == [batch] * -(-39 // batch)
