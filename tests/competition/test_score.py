import csv
import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from carvana.competition import rle
from carvana.competition.facts import HEIGHT, WIDTH
from carvana.competition.score import dice, score
from carvana.errors import CarvanaError

SHAPE = (9, 13)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(bool, SHAPE), hnp.arrays(bool, SHAPE))
def test_dice_from_run_lengths_is_that_of_the_pixels(a, b):
    total = a.sum() + b.sum()
    expected = 2 * (a & b).sum() / total if total else 1.0
    assert dice(rle.parse(rle.encode(a)), rle.parse(rle.encode(b))) == expected


def write(path, rows, header=("img", "rle_mask")):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


TRUE = [("a_01.jpg", "1 4"), ("a_02.jpg", "1 4"), ("a_03.jpg", ""), ("a_04.jpg", "9 1")]
ROWS = [("a_01.jpg", "3 4"), ("a_02.jpg", "1 4"), ("a_03.jpg", ""), ("a_04.jpg", "")]


def test_mean_parts_and_worst(tmp_path):
    parts = ("Public", "Private", "Private", "Ignored")
    true = [(name, runs, part) for (name, runs), part in zip(TRUE, parts, strict=True)]
    truth = write(tmp_path / "t.csv", true, ("img", "rle_mask", "Usage"))
    for name in ("s.csv", "s.csv.gz"):
        result = score(write(tmp_path / name, ROWS[::-1]), truth, worst=2)  # in any order
        assert result.mean == pytest.approx(2.5 / 3)
        assert result.count == 3
        assert result.parts == {"Public": 0.5, "Private": 1.0}
        assert result.worst == [(0.5, "a_01.jpg"), (1.0, "a_02.jpg")]
        assert result.views == {"01": 0.5, "02": 1.0, "03": 1.0}


def test_truth_without_usage_with_a_byte_order_mark(tmp_path):
    truth = write(tmp_path / "t.csv", ROWS)
    truth.write_bytes(b"\xef\xbb\xbf" + truth.read_bytes())
    assert b"\r\n" in truth.read_bytes()  # line ends of Windows
    result = score(write(tmp_path / "s.csv.gz", ROWS), truth)
    assert (result.mean, result.count, result.parts) == (1.0, 4, {})


@pytest.mark.parametrize(
    ("rows", "true", "says"),
    [
        (ROWS[:2], ROWS, r"2 of .*t\.csv's images are missing \(first: a_03\.jpg\)"),
        ([*ROWS, ROWS[0]], ROWS, r"line 6: a_01\.jpg is there twice"),
        ([*ROWS, ("b_01.jpg", "")], ROWS, r"line 6: b_01\.jpg is not in the truth"),
        ([("a_01.jpg", "1 x")], ROWS, r"s\.csv: a_01\.jpg: something that is not a whole"),
        ([("a_01.jpg", "1 4 2 4")], ROWS, r"s\.csv: a_01\.jpg: runs overlap"),
        ([("a_01.jpg", "0 4")], ROWS, r"s\.csv: a_01\.jpg: a run is out of bounds"),
        ([("a_01.jpg", "1 3000000")], ROWS, r"s\.csv: a_01\.jpg: a run is out of bounds"),
        ([("a_01.jpg",)], ROWS, r"line 2: a_01\.jpg is in a row without exactly two cells"),
        (ROWS, [*ROWS, ROWS[0]], r"t\.csv: a_01\.jpg is there twice"),
        (ROWS, [*ROWS[:3], ("a_04.jpg",)], r"t\.csv: a_04\.jpg has no mask"),
    ],
)
def test_faults_name_the_row(tmp_path, rows, true, says):
    with pytest.raises(CarvanaError, match=says):
        score(write(tmp_path / "s.csv", rows), write(tmp_path / "t.csv", true))


def shift(mask, by):
    runs = rle.parse(rle.encode(mask)) + np.array((by, 0))
    return " ".join(map(str, runs.ravel()))


@pytest.mark.parametrize(
    ("encode", "says"),
    [
        (rle.encode, ""),
        (lambda mask: shift(mask, -1), "numbered from 0 instead of 1"),
        (lambda mask: shift(mask, 1), "shifted by -1 pixel"),
        (lambda mask: rle.encode(~mask), "when inverted: are its runs those of the background"),
        (lambda mask: rle.encode(mask.T), "numbered down the columns: encode masks row by row"),
        (lambda mask: rle.encode(mask & (np.arange(WIDTH) < 300)), ""),  # only bad
    ],
)
def test_a_mistake_that_all_masks_share_is_named(encode, says, tmp_path):
    rng, rows, wrong = np.random.default_rng(1), [], []
    for number in range(5):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        top, left = rng.integers(100, 500, 2)
        mask[top : top + 300, left : left + 500] = True
        rows.append((f"p{number}.jpg", rle.encode(mask)))
        wrong.append((f"p{number}.jpg", encode(mask)))
    result = score(write(tmp_path / "s.csv", wrong), write(tmp_path / "t.csv", rows))
    assert (says in result.note) if says else result.note == ""
    assert result.views == {}  # which these names do not tell


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_temporary_folder_is_named(tmp_path, monkeypatch):
    truth = write(tmp_path / "t.csv", ROWS)
    full = lambda *_, **options: open("/dev/full", "w")  # noqa: E731, SIM115
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(CarvanaError, match=r"has no room for a copy of .*set TMPDIR to another"):
        score(truth, truth)


def test_what_a_spreadsheet_did_is_named(tmp_path):
    cut, truth = tmp_path / "cut.csv", tmp_path / "truth.csv"

    def cut_cells(first):
        runs = " ".join(f"{first + 3 * n} 2" for n in range(9000))
        write(truth, [("a.jpg", runs)])
        return score(write(cut, [("a.jpg", runs[:32767])]), truth)

    assert "32,767 characters: did Excel" in cut_cells(10_000).note
    with pytest.raises(CarvanaError, match="odd count .* 32,767 characters: did Excel"):
        cut_cells(1)
    for text in ("\ufeffimg;rle_mask\na.jpg;1 2\n", '"img";"rle_mask"\n', "img;rle_mask;\n"):
        cut.write_text(text)
        with pytest.raises(CarvanaError, match="has semicolons between its cells"):
            score(cut, truth)
