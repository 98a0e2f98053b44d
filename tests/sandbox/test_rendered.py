import contextlib
import csv
import io
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from carvana.competition import rle
from carvana.competition.facts import HEIGHT, VIEWS, WIDTH
from carvana.errors import CarvanaError, UsageError
from carvana_sandbox.cars import rendered, studio

SIDES = 5  # views that are rendered: from the nose to the side


def shoot(car_seed):
    """Photograph a car, in a process of its own, from the first few sides alone."""
    rendered.VIEWS = SIDES
    return rendered.shoot(car_seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A rendered competition of one car to train on and one to test."""
    folder = tmp_path_factory.mktemp("competition")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendered, "VIEWS", SIDES)
        patch.setattr(rendered, "shoot", shoot)
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


def pictures(path):
    """The pictures of an archive, by their names."""
    with zipfile.ZipFile(path) as archive:
        return {name: Image.open(io.BytesIO(archive.read(name))) for name in archive.namelist()}


def table(path):
    """The rows of a CSV, whether it is in a zip or not."""
    text = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            text = archive.read(path.stem)
    return list(csv.DictReader(io.StringIO(text.decode())))


@pytest.fixture(scope="module")
def cars(folder):
    """The photographs and masks of both cars, as arrays, view after view."""
    masks = [np.asarray(each) > 0 for each in pictures(folder / "train_masks.zip").values()]
    test = [rle.decode(row["rle_mask"], HEIGHT, WIDTH) for row in table(folder / "solution.csv")]
    photographs = (pictures(folder / f"{name}.zip").values() for name in ("train", "test"))
    shown = ([np.asarray(each).astype(int) for each in each_car] for each_car in photographs)
    return list(zip(shown, (masks, test), strict=True))


def assert_is_as_in_the_real_data(mask):
    assert 0.09 < mask.mean() < 0.42  # 0.12 to 0.37 in the real masks
    rows = np.flatnonzero(mask.any(axis=1))
    assert rows[0] > 0 and rows[-1] < HEIGHT - 1
    # One solid body: few rows are broken more than a few times (wheels, mirrors and what is seen
    # between them), and nothing is speckled.
    assert len(rle.parse(rle.encode(mask))) < 4 * len(rows)


@pytest.mark.parametrize("seed", [4, 5])  # a pickup; roof rails and a spoiler
def test_special_cars(seed):
    assert_is_as_in_the_real_data(studio.render(seed, 5)[1])


def test_cars_look_like_the_real_ones(cars):
    for photographs, masks in cars:
        for mask in masks:
            assert_is_as_in_the_real_data(mask)
        assert masks[-1].mean() > 1.1 * masks[0].mean()  # the side, the nose
        colours = [np.median(p[m], axis=0) for p, m in zip(photographs, masks, strict=True)]
        assert np.ptp(colours, axis=0).max() < 80  # from everywhere the same paint
    (photographs, masks), (other_photographs, other_masks) = cars
    assert np.mean(masks[-1] ^ other_masks[-1]) > 0.005
    assert np.abs(photographs[-1] - other_photographs[-1]).mean() > 3


def test_archives_hold_the_competitions_names_and_kinds(folder):
    train, masks = pictures(folder / "train.zip"), pictures(folder / "train_masks.zip")
    for part, photographs in (("train", train), ("test", pictures(folder / "test.zip"))):
        assert len(photographs) == SIDES
        for name, photo in photographs.items():
            assert re.fullmatch(part + r"/[0-9a-f]{12}_0[1-5]\.jpg", name)
            assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", (WIDTH, HEIGHT))
    stems = [name.removeprefix("train/").removesuffix(".jpg") for name in train]
    assert list(masks) == [f"train_masks/{stem}_mask.gif" for stem in stems]
    assert sorted(p.name for p in folder.iterdir()) == sorted((*rendered.FILES, rendered.MARKER))
    rows = table(folder / "train_masks.csv.zip")
    assert [row["img"] for row in rows] == [f"{stem}.jpg" for stem in stems]
    for row, mask in zip(rows, masks.values(), strict=True):
        assert (mask.format, mask.mode, mask.size) == ("GIF", "P", (WIDTH, HEIGHT))
        assert np.unique(mask).tolist() == [0, 1]
        assert np.unique(mask.convert("RGB")).tolist() == [0, 255]
        assert row["rle_mask"] == rle.encode(np.asarray(mask))
    # What another process wrote is what this one renders, but for the JPEG's losses.
    drawn, truth = studio.render(int(stems[2][:12], 16), 3)
    assert drawn.dtype == np.uint8 and truth.dtype == bool
    assert np.array_equal(np.asarray(masks[f"train_masks/{stems[2]}_mask.gif"]) > 0, truth)
    assert np.abs(np.asarray(train[f"train/{stems[2]}.jpg"]).astype(int) - drawn).mean() < 4


def test_sample_and_solution_cover_the_test_photographs(tmp_path, no_rendering):
    rendered.write_competition(tmp_path, 40, 20, 1)
    images = [name.removeprefix("test/") for name in names(tmp_path / "test.zip")]
    sample = table(tmp_path / "sample_submission.csv.zip")
    solution = table(tmp_path / "solution.csv")
    assert sample == [{"img": name, "rle_mask": "1 1"} for name in images]
    assert [row["img"] for row in solution] == images
    usage = [row["Usage"] for row in solution]
    assert (usage.count("Public"), usage.count("Private")) == (80, 240)
    train = {name[6:18] for name in names(tmp_path / "train.zip")}
    test = {name[:12] for name in images}
    assert len(train) == 40 and len(test) == 20 and not train & test


@pytest.mark.parametrize("harm", [None, "other arguments", "missing", "cut short"])
def test_only_what_is_not_the_same_and_complete_is_written_again(tmp_path, no_rendering, harm):
    rendered.write_competition(tmp_path, 2, 1, 1)
    whole = {name: (tmp_path / name).read_bytes() for name in rendered.FILES}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    if harm == "other arguments":
        rendered.write_competition(tmp_path, 2, 1, 2)
        assert (tmp_path / "train.zip").read_bytes() != whole["train.zip"]
    elif harm == "missing":
        (tmp_path / "train.zip").unlink()
    elif harm:
        (tmp_path / "train.zip").write_bytes(whole["train.zip"][:-9])
    rendered.write_competition(tmp_path, 2, 1, 1)
    assert {name: (tmp_path / name).read_bytes() for name in rendered.FILES} == whole
    assert json.loads((tmp_path / rendered.MARKER).read_text())["seed"] == 1
    now = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert (now == before) == (harm is None)


@pytest.mark.parametrize("marker", [None, "mine", "[]"])
def test_archives_that_were_not_rendered_are_not_replaced(tmp_path, no_rendering, marker):
    (tmp_path / "train.zip").write_text("Kaggle's")
    if marker:
        (tmp_path / rendered.MARKER).write_text(marker)
    with pytest.raises(UsageError, match=r"holds train\.zip, which was not rendered here"):
        rendered.write_competition(tmp_path, 2, 1, 1)
    assert (tmp_path / "train.zip").read_text() == "Kaggle's"


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_trouble_leaves_nothing_half_written(tmp_path, no_rendering, monkeypatch, trouble):
    add, left = rendered._add, iter(range(VIEWS + 4))

    def add_or_stop(archive, name, *data):
        if name.endswith(".jpg") and next(left, None) is None:
            raise trouble
        add(archive, name, *data)

    monkeypatch.setattr(rendered, "_add", add_or_stop)
    with pytest.raises((KeyboardInterrupt, CarvanaError), match="^$|No space left"):
        rendered.write_competition(tmp_path, 1, 1, 1)
    whole = {"train.zip", "train_masks.zip", "train_masks.csv.zip"}
    assert {path.name for path in tmp_path.iterdir()} == {rendered.MARKER, *whole}
    assert len(names(tmp_path / "train.zip")) == VIEWS


@pytest.mark.parametrize("arguments", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_numbers_out_of_range_are_refused(tmp_path, arguments):
    with pytest.raises(UsageError, match="at least one car"):
        rendered.write_competition(tmp_path, *arguments)
