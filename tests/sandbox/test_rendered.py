import contextlib
import csv
import functools
import io
import json
import re
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

from carvana.competition import rle
from carvana.competition.facts import HEIGHT, VIEWS, WIDTH
from carvana.errors import CarvanaError, UsageError
from carvana_sandbox.cars import rendered, studio

CAR = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A rendered competition of one car to train on and one to test."""
    folder = tmp_path_factory.mktemp("competition")
    rendered.write_competition(folder, train_cars=1, test_cars=1, seed=5)
    return folder


@pytest.fixture
def no_rendering(monkeypatch):
    """Hand out empty shots, so that only the bookkeeping runs."""

    @contextlib.contextmanager
    def shots(seeds):
        views = range(1, VIEWS + 1)
        yield (
            rendered.Shot(f"{seed:012x}_{view:02d}", b"jpeg", b"gif", f"{seed + view} 1")
            for seed in seeds
            for view in views
        )

    monkeypatch.setattr(rendered, "_shots", shots)


def names(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def picture(path, name):
    with zipfile.ZipFile(path) as archive:
        return Image.open(io.BytesIO(archive.read(name)))


def table(path):
    if path.suffix != ".zip":
        return list(csv.DictReader(io.StringIO(path.read_text())))
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        assert name == path.stem
        return list(csv.DictReader(io.StringIO(archive.read(name).decode())))


# ----------------------------------------------------------------------------------------- render


shot = functools.lru_cache(studio.render)  # what a test only looks at is rendered once


def test_render_gives_the_competitions_shapes_and_the_same_again():
    photo, mask = shot(CAR, 5)
    assert photo.shape == (HEIGHT, WIDTH, 3) and photo.dtype == np.uint8
    assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool
    studio.stage.cache_clear()
    studio.grain_sheet.cache_clear()
    again = studio.render(CAR, 5)
    assert np.array_equal(photo, again[0]) and np.array_equal(mask, again[1])


@pytest.mark.parametrize("seed", range(6))
def test_mask_covers_what_a_car_covers_in_the_real_data(seed):
    for view in (1, 5):
        mask = shot(seed, view)[1]
        assert 0.09 < mask.mean() < 0.42  # 0.12 to 0.37 in the real masks
        rows = np.flatnonzero(mask.any(axis=1))
        assert rows[0] > 0 and rows[-1] < HEIGHT - 1
        # One solid body: from its first to its last pixel few rows are broken more than a few
        # times (wheels, mirrors and what is seen between them), and nothing is speckled.
        runs = rle.parse(rle.encode(mask))
        assert len(runs) < 4 * len(rows)


def test_views_differ_but_show_one_car():
    photos, masks = zip(*(shot(CAR, view) for view in (1, 5, 9, 13)), strict=True)
    shares = [mask.mean() for mask in masks]
    for one, other in ((0, 1), (1, 2), (2, 3)):
        assert np.mean(masks[one] ^ masks[other]) > 0.03
    # A side shows more of a car than its nose; the same paint and height from everywhere.
    assert min(shares[1], shares[3]) > 1.1 * max(shares[0], shares[2])
    tops = [np.flatnonzero(mask.any(axis=1))[0] for mask in masks]
    assert np.ptp(tops) < 0.08 * HEIGHT
    colours = [np.median(photo[mask], axis=0) for photo, mask in zip(photos, masks, strict=True)]
    assert np.ptp(colours, axis=0).max() < 80


def test_cars_differ():
    (photo, mask), (other_photo, other_mask) = shot(1, 5), shot(2, 5)
    assert np.mean(mask ^ other_mask) > 0.005
    assert np.abs(photo.astype(int) - other_photo).mean() > 3


def test_outside_the_mask_stands_the_empty_studio(monkeypatch):
    photo, mask = shot(CAR, 5)
    clear = np.zeros((2, 2, 3), np.uint8), np.s_[:1, :1]
    monkeypatch.setattr(studio, "paint", lambda *_: clear)
    empty, nothing = studio.render(CAR, 5)
    assert not nothing.any()
    changed = (photo != empty).any(axis=2)
    # Beside the car lie pixels that it covers by less than half, and the lens's blur.
    near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0
    assert not (changed & ~near).any()
    assert changed[mask].mean() > 0.97
    # The shadow darkens the floor, yet is not in the mask.
    backdrop = studio.stage(CAR).backdrop.astype(int)
    assert ((backdrop - empty > 40).all(axis=2) & ~mask).sum() > 5_000


def test_brightness_alone_does_not_find_the_car():
    def best_dice(seed):
        photo, mask = shot(seed, 5)
        grey = photo.mean(axis=2)
        found = (grey < level for level in range(40, 240, 20))
        return max(2 * (f & mask).sum() / (f.sum() + mask.sum()) for f in found)

    assert np.mean([best_dice(seed) for seed in range(6)]) < 0.85


@pytest.mark.parametrize(("seed", "view"), [(0, 0), (0, 17), (-1, 1)])
def test_render_refuses_what_is_out_of_range(seed, view):
    with pytest.raises(ValueError, match="views run from 1 to 16"):
        studio.render(seed, view)


# ------------------------------------------------------------------------------ write_competition


def test_archives_hold_the_competitions_names(folder):
    train, test = names(folder / "train.zip"), names(folder / "test.zip")
    pattern = r"/[0-9a-f]{12}_(0[1-9]|1[0-6])\.jpg"
    assert len(set(train)) == len(set(test)) == VIEWS
    assert all(re.fullmatch("train" + pattern, name) for name in train)
    assert all(re.fullmatch("test" + pattern, name) for name in test)
    masks = [n.replace("train/", "train_masks/").replace(".jpg", "_mask.gif") for n in train]
    assert names(folder / "train_masks.zip") == masks
    assert sorted(p.name for p in folder.iterdir()) == sorted((*rendered.FILES, rendered.MARKER))


def test_photographs_and_masks_are_of_the_real_kind(folder):
    name = names(folder / "train.zip")[2]
    photo = picture(folder / "train.zip", name)
    assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", (WIDTH, HEIGHT))
    mask = picture(folder / "train_masks.zip", names(folder / "train_masks.zip")[2])
    assert (mask.format, mask.mode, mask.size) == ("GIF", "P", (WIDTH, HEIGHT))
    assert np.unique(mask).tolist() == [0, 1]
    assert np.unique(mask.convert("RGB")).tolist() == [0, 255]
    # What other processes wrote is what this one renders, but for the JPEG's losses.
    drawn, truth = studio.render(int(name[6:18], 16), 3)
    assert np.array_equal(np.asarray(mask) > 0, truth)
    assert np.abs(np.asarray(photo).astype(int) - drawn).mean() < 4


def test_train_masks_csv_matches_the_masks(folder):
    rows = table(folder / "train_masks.csv.zip")
    archived = names(folder / "train_masks.zip")
    assert len(rows) == len(archived)
    for row, name in list(zip(rows, archived, strict=True))[::5]:
        assert row["img"] == name.removeprefix("train_masks/").replace("_mask.gif", ".jpg")
        assert row["rle_mask"] == rle.encode(np.asarray(picture(folder / "train_masks.zip", name)))


def test_sample_and_solution_cover_the_test_photographs(folder):
    images = [name.removeprefix("test/") for name in names(folder / "test.zip")]
    sample, solution = table(folder / "sample_submission.csv.zip"), table(folder / "solution.csv")
    assert sample == [{"img": name, "rle_mask": "1 1"} for name in images]
    assert [row["img"] for row in solution] == images
    assert all(rle.decode(row["rle_mask"], HEIGHT, WIDTH).any() for row in solution)
    assert {row["Usage"] for row in solution} == {"Public", "Private"}


def test_train_and_test_cars_are_disjoint(tmp_path, no_rendering):
    rendered.write_competition(tmp_path, 40, 20, 1)
    train = {name[6:18] for name in names(tmp_path / "train.zip")}
    test = {name[5:17] for name in names(tmp_path / "test.zip")}
    assert len(train) == 40 and len(test) == 20 and not train & test
    usage = [row["Usage"] for row in table(tmp_path / "solution.csv")]
    assert usage.count("Public") == 80  # a quarter


def test_a_second_run_does_nothing(tmp_path, no_rendering):
    rendered.write_competition(tmp_path, 2, 1, 1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    rendered.write_competition(tmp_path, 2, 1, 1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("harm", ["other arguments", "missing", "cut short"])
def test_a_run_renews_what_is_not_the_same_and_whole(tmp_path, no_rendering, harm):
    rendered.write_competition(tmp_path, 2, 1, 1)
    whole = {name: (tmp_path / name).read_bytes() for name in rendered.FILES}
    if harm == "other arguments":
        rendered.write_competition(tmp_path, 2, 1, 2)
        assert (tmp_path / "train.zip").read_bytes() != whole["train.zip"]
    elif harm == "missing":
        (tmp_path / "train.zip").unlink()
    else:
        (tmp_path / "train.zip").write_bytes(whole["train.zip"][:-9])
    rendered.write_competition(tmp_path, 2, 1, 1)
    assert {name: (tmp_path / name).read_bytes() for name in rendered.FILES} == whole
    assert json.loads((tmp_path / rendered.MARKER).read_text())["seed"] == 1


@pytest.mark.parametrize("marker", [None, "mine", "[]"])
def test_archives_that_were_not_rendered_are_not_replaced(tmp_path, no_rendering, marker):
    (tmp_path / "train.zip").write_text("Kaggle's")
    if marker:
        (tmp_path / rendered.MARKER).write_text(marker)
    with pytest.raises(UsageError, match=r"holds train\.zip, which was not rendered here"):
        rendered.write_competition(tmp_path, 2, 1, 1)
    assert (tmp_path / "train.zip").read_text() == "Kaggle's"


@pytest.mark.parametrize("after", [5, 20])  # amid the train and amid the test photographs
def test_an_interrupt_leaves_nothing_half_written(tmp_path, no_rendering, monkeypatch, after):
    whole = rendered._shots

    @contextlib.contextmanager
    def interrupted(seeds):
        def some(shots):
            for count, shot in enumerate(shots):
                if count == after:
                    raise KeyboardInterrupt
                yield shot

        with whole(seeds) as shots:
            yield some(shots)

    monkeypatch.setattr(rendered, "_shots", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rendered.write_competition(tmp_path, 1, 1, 1)
    left = {path.name for path in tmp_path.iterdir()} - {rendered.MARKER}
    assert left <= {"train.zip", "train_masks.zip", "train_masks.csv.zip"}
    assert bool(left) == (after >= VIEWS)
    assert all(names(tmp_path / name) for name in left)


def test_a_full_disk_is_named(tmp_path, no_rendering, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(CarvanaError, match="No space left"):
        rendered.write_competition(tmp_path, 1, 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == [rendered.MARKER]  # which is not whole


@pytest.mark.parametrize("arguments", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_numbers_out_of_range_are_refused(tmp_path, arguments):
    with pytest.raises(UsageError, match="at least one car"):
        rendered.write_competition(tmp_path, *arguments)
