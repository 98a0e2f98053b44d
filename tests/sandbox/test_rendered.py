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
from carvana.errors import UsageError
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


@pytest.mark.parametrize("seed", [4, 5])  # a pickup; roof rails and a spoiler
def test_special_cars_are_as_in_the_real_data(seed):
    _, mask = studio.render(seed, 5)
    assert 0.09 < mask.mean() < 0.42  # 0.12 to 0.37 in the real masks
    rows = np.flatnonzero(mask.any(axis=1))
    assert rows[0] > 0 and rows[-1] < HEIGHT - 1
    # One solid body: few rows are broken more than a few times (wheels, mirrors and what is seen
    # between them), and nothing is speckled.
    assert len(rle.parse(rle.encode(mask))) < 4 * len(rows)


def test_archives_hold_the_competitions_names_and_kinds(folder):
    archives = (f"{name}.zip" for name in ("train", "test", "train_masks"))
    train, test, masks = (pictures(folder / name) for name in archives)
    for part, photographs in (("train", train), ("test", test)):
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
    images, solution = [name.removeprefix("test/") for name in test], table(folder / "solution.csv")
    sample = table(folder / "sample_submission.csv.zip")
    assert sample == [{"img": name, "rle_mask": "1 1"} for name in images]
    assert [row["img"] for row in solution] == images
    assert sorted(row["Usage"] for row in solution) == ["Private"] * 4 + ["Public"]
    assert not {name[:12] for name in images} & {stem[:12] for stem in stems}
    # What another process wrote is what this one renders, but for the JPEG's losses.
    drawn, truth = studio.render(int(stems[2][:12], 16), 3)
    assert drawn.dtype == np.uint8 and truth.dtype == bool
    assert np.array_equal(np.asarray(masks[f"train_masks/{stems[2]}_mask.gif"]) > 0, truth)
    assert np.abs(np.asarray(train[f"train/{stems[2]}.jpg"]).astype(int) - drawn).mean() < 4


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
