import csv
import gzip
import zipfile

import pytest

from carvana.competition.submission import HEADER, read_rows, run_faults, validate
from carvana.errors import CarvanaError

NAMES = [f"car_{view:02}.jpg" for view in range(1, 5)]


def rows(names=NAMES, runs="1 1"):
    return "img,rle_mask\n" + "".join(f"{name},{runs}\n" for name in names)


def good(name="", runs=""):
    return rows(runs="1 2 5 3").replace(f"{name},1 2 5 3", f"{name},{runs}")


@pytest.fixture
def check(tmp_path):
    """Validate a text against a sample."""

    def validated(text, sample=NAMES, side=10):
        path, listed = tmp_path / "submission.csv", tmp_path / "sample.csv"
        path.write_text(text, encoding="utf-8")
        listed.write_text(rows(sample), encoding="utf-8")
        return validate(path, listed, side, side)

    return validated


def test_good_ones_of_every_kind_of_compression(check, tmp_path):
    found = check(good(NAMES[1], ""))
    assert not found.faults
    assert (found.rows, found.empty) == (4, 1)  # an empty mask is allowed, and counted
    plain, sample = tmp_path / "submission.csv", tmp_path / "sample.csv"
    (tmp_path / "s.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(plain, "s.csv")
        archive.write(plain, "__MACOSX/._s.csv")
    for name in ("s.csv.gz", "s.zip"):
        assert not validate(tmp_path / name, sample, 10, 10).faults


@pytest.mark.parametrize(
    ("runs", "kind"),
    [
        ("1 2 5", "an odd count of numbers"),
        ("1 2 a 5", "something that is not a whole number"),
        ("5 3 1 2", "starts not ascending"),
        ("5 1 5 1", "starts not ascending"),
        ("1 4 4 3", "overlapping runs"),
        ("1 0 4 3", "zero length"),
        ("0 2", "start below 1 (pixels are numbered from 1, not 0)"),
        ("99 3", "out of bounds"),
    ],
)
def test_each_kind_of_run_fault_is_counted_and_its_line_shown(check, runs, kind):
    found = check(good(NAMES[2], runs))
    assert found.lines() == [f"1 x {kind}, first at line 4: {NAMES[2]}"]


@pytest.mark.parametrize("runs", ["", "  ", "1 100", "100 1", "1 3 4 2"])
def test_runs_to_the_very_edges_are_good(runs):
    assert run_faults(runs, 100) == []


def wrong_header(text):
    return f"1 x wrong header, first at line 1: {text!r}, not 'img,rle_mask'"


MIXED = [NAMES[0], NAMES[0], "other.jpg", NAMES[1] + ",2 2", NAMES[2]]
MIXED_FAULTS = [
    wrong_header("img,rle"),
    f"1 x duplicate row, first at line 3: {NAMES[0]}, as in line 2",
    "1 x unknown image, first at line 4: other.jpg",
    f"1 x row without exactly two cells, first at line 5: {NAMES[1]} (3)",
    f"1 x missing image, first: {NAMES[3]}",
]
CUT_SHORT = f"1 x last row without an end of line (cut short?), first at line 5: {NAMES[3]}"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (rows(runs="1 0"), [f"4 x zero length, first at line 2: {NAMES[0]}"]),
        (rows(MIXED).replace("rle_mask", "rle"), MIXED_FAULTS),
        (good()[:-1], [CUT_SHORT]),
        ("", [wrong_header(""), f"4 x missing image, first: {NAMES[0]}"]),
        ("\ufeff" + rows(), [wrong_header("\ufeffimg,rle_mask")]),
    ],
)
def test_faults_of_rows(check, text, lines):
    assert check(text).lines() == lines


def test_unreadable_files_are_named(check, tmp_path):
    check(good())
    plain, sample = (tmp_path / "submission.csv").read_text(), tmp_path / "sample.csv"
    packed = gzip.compress(plain.encode() * 1000)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", plain)
        archive.writestr("b.csv", plain)
    for name, content, says in (
        ("cut.csv.gz", packed[:-20], "cut.csv.gz: cannot be read .Compressed file ended"),
        ("plain.csv.gz", plain.encode(), "plain.csv.gz: cannot be read"),
        ("s.zip", b"no zip", "s.zip: cannot be read .File is not a zip file"),
        ("b.csv", b"\xff\xfe\x00", "b.csv: cannot be read .*can't decode byte"),
        ("two.zip", None, "two.zip: holds 2 CSV files; zip one alone"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CarvanaError, match=says):
            validate(tmp_path / name, sample)
    sample.write_text("hello\n")
    with pytest.raises(CarvanaError, match="is not a sample submission"):
        validate(tmp_path / "submission.csv", sample)


def test_masks_longer_than_the_csv_modules_default_limit(check, tmp_path):
    runs = " ".join(f"{start} 1" for start in range(1, 60_001, 2))
    assert len(runs) > 131_072
    assert not check(good(NAMES[0], runs), side=300).faults
    assert next(read_rows(tmp_path / "submission.csv"))[1] == HEADER
    assert csv.field_size_limit() == 131_072  # the process's own stays


def test_semicolons_are_named_and_the_rest_is_checked(check):
    for mark in ("", "\ufeff"):
        found = check(mark + "img;rle_mask\na.jpg;1 2\nb.jpg;0 2\n", ["a.jpg", "b.jpg"])
        assert list(found.faults) == [
            "semicolons between the cells instead of commas",
            "start below 1 (pixels are numbered from 1, not 0)",
        ]


def test_cells_cut_by_excel_are_named(check):
    full = " ".join(f"{2 * start} 1" for start in range(1, 20_000))[:32_767]
    found = check(good(NAMES[0], full), side=2000)
    assert "cell cut at 32,767 characters, as Excel does" in found.faults
    longer = good(NAMES[0], full).replace("1 2 5 3", full + "0 1 300000 1")  # then it is chance
    assert not any("Excel" in kind for kind in check(longer, side=2000).faults)


def test_names_in_another_unicode_form_are_named(check):
    names = ["Citro\u00ebn.jpg", "Citroe\u0308n.jpg"]
    for name, sample in (names, names[::-1]):
        found = check(rows([name]), [sample])
        assert list(found.faults) == ["name in another Unicode form than the sample's (NFC, NFD)"]
