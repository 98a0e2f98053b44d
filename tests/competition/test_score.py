import csv
import gzip
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from carvana.competition import rle
from carvana.competition.facts import HEIGHT, WIDTH
from carvana.competition.score import dice, mean_by_view, score
from carvana.errors import CarvanaError

two_masks = st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


@given(two_masks)
def test_dice_from_run_lengths_is_that_of_the_pixels(masks):
    a, b = masks
    total = a.sum() + b.sum()
    expected = 2 * (a & b).sum() / total if total else 1.0
    assert dice(*(rle.parse(rle.encode(mask)) for mask in masks)) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("", "", 1), ("1 5", "", 0), ("", "1 5", 0), ("1 4", "3 4", 0.5), ("1 4", "1 4", 1)],
)
def test_dice_by_hand(a, b, expected):
    assert dice(rle.parse(a), rle.parse(b)) == expected


def write(path, rows, header=("img", "rle_mask")):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def truth(tmp_path):
    rows = [
        ("a_01.jpg", "1 4", "Public"),
        ("a_02.jpg", "1 4", "Private"),
        ("a_03.jpg", "", "Private"),
        ("a_04.jpg", "9 1", "Ignored"),
    ]
    return write(tmp_path / "truth.csv", rows, ("img", "rle_mask", "Usage"))


ROWS = [("a_01.jpg", "3 4"), ("a_02.jpg", "1 4"), ("a_03.jpg", ""), ("a_04.jpg", "")]


def test_mean_parts_and_worst(tmp_path, truth):
    for name in ("s.csv", "s.csv.gz"):
        rows = random.Random(0).sample(ROWS, 4)  # in any order
        result = score(write(tmp_path / name, rows), truth, worst=2)
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
    ("rows", "says"),
    [
        (ROWS[:2], r"2 of .*truth\.csv's images are missing \(first: a_03\.jpg\)"),
        ([*ROWS, ROWS[0]], r"line 6: a_01\.jpg is there twice"),
        ([*ROWS, ("b_01.jpg", "")], r"line 6: b_01\.jpg is not in the truth"),
        ([("a_01.jpg", "1 x"), *ROWS[1:]], r"s\.csv: a_01\.jpg: something that is not a whole"),
        ([("a_01.jpg", "1 4 2 4"), *ROWS[1:]], r"s\.csv: a_01\.jpg: runs overlap"),
        ([("a_01.jpg", "0 4"), *ROWS[1:]], r"s\.csv: a_01\.jpg: a run is out of bounds"),
        ([("a_01.jpg", "1 3000000"), *ROWS[1:]], r"s\.csv: a_01\.jpg: a run is out of bounds"),
        ([("a_01.jpg",), *ROWS[1:]], r"line 2: a_01\.jpg is in a row without exactly two cells"),
    ],
)
def test_faults_name_the_row(tmp_path, truth, rows, says):
    with pytest.raises(CarvanaError, match=says):
        score(write(tmp_path / "s.csv", rows), truth)


def test_broken_truth_is_named(tmp_path):
    made = write(tmp_path / "s.csv", ROWS)
    for rows, says in (
        ([*ROWS, ROWS[0]], r"t\.csv: a_01\.jpg is there twice"),
        ([*ROWS[:3], ("a_04.jpg",)], r"t\.csv: a_04\.jpg has no mask"),
    ):
        with pytest.raises(CarvanaError, match=says):
            score(made, write(tmp_path / "t.csv", rows))


def test_real_masks_score_as_their_pixels_do(real, tmp_path):
    with (real / "solution.csv").open() as file:
        rows = list(csv.DictReader(file))[:6]
    masks = [rle.decode(row["rle_mask"], 1280, 1918) for row in rows]
    shifted = [np.roll(mask, (3, 5), (0, 1)) for mask in masks]
    truth = write(tmp_path / "t.csv", [(r["img"], r["rle_mask"]) for r in rows])
    names = [row["img"] for row in rows]
    made = write(
        tmp_path / "s.csv", [(n, rle.encode(m)) for n, m in zip(names, shifted, strict=True)]
    )
    expected = [
        2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(masks, shifted, strict=True)
    ]
    assert score(made, truth).mean == pytest.approx(np.mean(expected), abs=1e-12)


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
    rng, mask = np.random.default_rng(1), np.zeros((HEIGHT, WIDTH), bool)
    truth, made = tmp_path / "truth.csv", tmp_path / "made.csv"
    rows, wrong = ["img,rle_mask"], ["img,rle_mask"]
    for number in range(5):
        top, left = rng.integers(100, 500, 2)
        mask[:] = False
        mask[top : top + 300, left : left + 500] = True
        rows.append(f"{number}.jpg,{rle.encode(mask)}")
        wrong.append(f"{number}.jpg,{encode(mask)}")
    truth.write_text("\n".join(rows) + "\n")
    made.write_text("\n".join(wrong) + "\n")
    note = score(made, truth).note
    assert (says in note) if says else note == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_temporary_folder_is_named(truth, monkeypatch):
    full = lambda *_, **options: open("/dev/full", "w")  # noqa: E731, SIM115
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(CarvanaError, match=r"has no room for a copy of .*set TMPDIR to another"):
        score(truth, truth)


def test_what_a_spreadsheet_did_is_named(tmp_path):
    cut, truth = tmp_path / "cut.csv", tmp_path / "truth.csv"
    for first, count in ((10_000, "even"), (1, "odd")):  # of the numbers that are left
        runs = " ".join(f"{first + 3 * n} 2" for n in range(9000))
        truth.write_text(f"img,rle_mask\na.jpg,{runs}\n")
        cut.write_text(f"img,rle_mask\na.jpg,{runs[:32767]}\n")
        if count == "even":
            assert "32,767 characters: did Excel" in score(cut, truth).note
        else:
            with pytest.raises(CarvanaError, match="odd count .* 32,767 characters: did Excel"):
                score(cut, truth)
    for text in ("\ufeffimg;rle_mask\na.jpg;1 2\n", '"img";"rle_mask"\n', "img;rle_mask;\n"):
        cut.write_text(text)
        with pytest.raises(CarvanaError, match="has semicolons between its cells"):
            score(cut, truth)


def test_names_without_views_have_no_mean_by_view():
    assert mean_by_view([(0.5, "p1.jpg"), (0.7, "p2.jpg")]) == {}
    assert mean_by_view([(0.5, "a_01.jpg"), (0.7, "b_01.jpg")]) == {"01": pytest.approx(0.6)}
