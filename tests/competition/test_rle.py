import csv
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from carvana.competition import rle


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_round_trip(mask):
    runs = rle.encode(mask)
    np.testing.assert_array_equal(rle.decode(runs, *mask.shape), mask)
    starts, lengths = rle.parse(runs).T
    assert (lengths > 0).all()
    assert (starts[1:] > (starts + lengths)[:-1]).all()  # they ascend and do not touch


@pytest.mark.parametrize(
    ("rows", "runs"),
    [
        (["000", "000"], ""),
        (["111", "111"], "1 6"),
        (["100", "000"], "1 1"),
        (["000", "001"], "6 1"),
        (["001", "100"], "3 2"),  # a run that continues in the next row
        (["010", "010"], "2 1 5 1"),  # by rows, not by columns
    ],
)
def test_by_hand(rows, runs):
    mask = np.array([[int(c) for c in row] for row in rows])
    assert rle.encode(mask) == runs
    assert rle.encode(mask * 255) == runs  # masks of 0/255 are the same masks


@pytest.mark.parametrize("runs", ["0 2", "6 2", "7 1"])
def test_runs_outside_the_picture_are_refused(runs):
    with pytest.raises(ValueError, match="outside 2x3"):
        rle.decode(runs, 2, 3)


def test_equals_the_competitions_own_csv(real):
    with zipfile.ZipFile(real / "train_masks.csv.zip") as archive:
        rows = list(csv.reader(io.StringIO(archive.read("train_masks.csv").decode())))[1:]
    assert len(rows) == 760
    with zipfile.ZipFile(real / "train_masks.zip") as archive:
        for name, runs in rows[::19]:
            gif = archive.read(f"train_masks/{name[:-4]}_mask.gif")
            assert rle.encode(np.asarray(Image.open(io.BytesIO(gif)))) == runs, name
