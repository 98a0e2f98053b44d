import csv
import gzip
import zipfile

import pytest

from carvana.competition.submission import HEADER, read_rows, run_faults, validate
from carvana.errors import CarvanaError

NAMES = [f"car_{view:02}.jpg" for view in range(1, 5)]


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_text("img,rle_mask\n" + "".join(f"{name},1 1\n" for name in NAMES))
    return path


def check(tmp_path, sample, text):
    path = tmp_path / "submission.csv"
    path.write_text(text)
    return validate(path, sample, height=10, width=10)


def good(name="", runs=""):
    rows = dict.fromkeys(NAMES, "1 2 5 3") | ({name: runs} if name else {})
    return "img,rle_mask\n" + "".join(f"{n},{r}\n" for n, r in rows.items())


def test_a_good_one(tmp_path, sample):
    found = check(tmp_path, sample, good(NAMES[1], ""))
    assert found.valid
    assert (found.rows, found.empty) == (4, 1)  # an empty mask is allowed, and counted


def test_every_kind_of_compression(tmp_path, sample):
    (tmp_path / "plain.csv").write_text(good())
    with gzip.open(tmp_path / "s.csv.gz", "wt") as file:
        file.write(good())
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(tmp_path / "plain.csv", "s.csv")
    for name in ("plain.csv", "s.csv.gz", "s.zip"):
        assert validate(tmp_path / name, sample, 10, 10).valid


@pytest.mark.parametrize(
    ("runs", "kind"),
    [
        ("1 2 5", "an odd count of numbers"),
        ("1 2 a 5", "something that is not a whole number"),
        ("1 2 -5 5", "something that is not a whole number"),
        ("1.5 2", "something that is not a whole number"),
        ("5 3 1 2", "starts not ascending"),
        ("5 1 5 1", "starts not ascending"),
        ("1 4 4 3", "overlapping runs"),
        ("1 0 4 3", "zero length"),
        ("0 2", "start below 1 (pixels are numbered from 1, not 0)"),
        ("99 3", "out of bounds"),
        ("101 1", "out of bounds"),
    ],
)
def test_each_kind_of_run_fault_is_counted_and_its_line_shown(tmp_path, sample, runs, kind):
    found = check(tmp_path, sample, good(NAMES[2], runs))
    assert list(found.faults) == [kind]
    assert found.lines() == [f"1 x {kind}, first at line 4: {NAMES[2]}"]


@pytest.mark.parametrize("runs", ["", "  ", "1 100", "100 1", "1 3 4 2"])
def test_runs_to_the_very_edges_are_good(runs):
    assert run_faults(runs, 100) == []


def test_rows(tmp_path, sample):
    text = "img,rle\n" + "".join(
        f"{n},1 1\n" for n in (NAMES[0], NAMES[0], "other.jpg", NAMES[1] + ",2 2", NAMES[2])
    )
    found = check(tmp_path, sample, text)
    assert found.lines() == [
        "1 x wrong header, first at line 1: 'img,rle', not 'img,rle_mask'",
        f"1 x duplicate row, first at line 3: {NAMES[0]}, as in line 2",
        "1 x unknown image, first at line 4: other.jpg",
        f"1 x row without exactly two cells, first at line 5: {NAMES[1]} (3)",
        f"1 x missing image, first: {NAMES[3]}",
    ]


def test_all_faults_of_a_kind_are_counted(tmp_path, sample):
    found = check(tmp_path, sample, "img,rle_mask\n" + "".join(f"{n},1 0\n" for n in NAMES))
    assert found.faults["zero length"].count == 4


def test_cut_in_the_middle_of_a_row(tmp_path, sample):
    found = check(tmp_path, sample, good()[:-2])
    assert "last row without an end of line (cut short?)" in found.faults
    assert found.faults["last row without an end of line (cut short?)"].line == 5


def test_no_header_at_all_and_empty_file(tmp_path, sample):
    assert "wrong header" in check(tmp_path, sample, f"{NAMES[0]},1 1\n").faults
    found = check(tmp_path, sample, "")
    assert set(found.faults) >= {"wrong header", "missing image"}
    assert found.faults["missing image"].count == 4


def test_unreadable_files_are_named(tmp_path, sample):
    path = tmp_path / "s.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(good() * 1000)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CarvanaError, match=r"s\.csv\.gz: is cut short or broken"):
        validate(path, sample)
    path.write_text(good())
    with pytest.raises(CarvanaError, match=r"s\.csv\.gz: cannot be read"):
        validate(path, sample)
    (tmp_path / "s.zip").write_text("no zip")
    with pytest.raises(CarvanaError, match=r"s\.zip: is cut short or broken"):
        validate(tmp_path / "s.zip", sample)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CarvanaError, match=r"b\.csv: is not a text file"):
        validate(tmp_path / "b.csv", sample)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", good())
        archive.writestr("b.csv", good())
    with pytest.raises(CarvanaError, match=r"two\.zip: holds 2 CSV files; zip one alone"):
        validate(tmp_path / "two.zip", sample)
    with pytest.raises(CarvanaError, match=r"gone\.csv: no such file"):
        validate(tmp_path / "gone.csv", sample)
    with pytest.raises(CarvanaError, match=r"is not a sample submission"):
        validate(tmp_path / "plain", _write(tmp_path / "notes.csv", "hello\n"))


def _write(path, text):
    path.write_text(text)
    return path


def test_masks_longer_than_the_csv_modules_default_limit(tmp_path, sample):
    runs = " ".join(f"{start} 1" for start in range(1, 60_001, 2))
    path = _write(tmp_path / "noisy.csv", good(NAMES[0], runs))
    assert len(runs) > 131_072
    limit = csv.field_size_limit()
    assert limit == 131_072  # no import of the kit's has changed it for the process
    assert validate(path, sample, 300, 300).valid
    assert next(read_rows(path))[1] == HEADER
    assert csv.field_size_limit() == limit


def kinds(tmp_path, text, sample="img,rle_mask\na.jpg,1 1\nb.jpg,1 1\n"):
    """The faults of a submission, by kind."""
    (tmp_path / "s.csv").write_text(text, encoding="utf-8")
    (tmp_path / "sample.csv").write_text(sample, encoding="utf-8")
    found = validate(tmp_path / "s.csv", tmp_path / "sample.csv")
    return {kind: fault.count for kind, fault in found.faults.items()}


def test_semicolons_are_named_and_the_rest_is_checked(tmp_path):
    assert kinds(tmp_path, "img;rle_mask\na.jpg;1 2\nb.jpg;0 2\n") == {
        "semicolons between the cells instead of commas": 1,
        "start below 1 (pixels are numbered from 1, not 0)": 1,
    }


def test_cells_cut_by_excel_are_named(tmp_path):
    full = " ".join(f"{2 * start} 1" for start in range(1, 20_000))[:32_767]
    assert "cut at 32,767 characters, as Excel does" in " ".join(
        kinds(tmp_path, f"img,rle_mask\na.jpg,{full}\nb.jpg,1 2\n")
    )
    longer = full + "0 1 300000 1"  # then 32,767 is chance
    assert not any(
        "Excel" in k for k in kinds(tmp_path, f"img,rle_mask\na.jpg,{full}\nb.jpg,{longer}\n")
    )


def test_names_in_another_unicode_form_are_named(tmp_path):
    composed, decomposed = "Citro\u00ebn.jpg", "Citroe\u0308n.jpg"
    for name, sample in ((composed, decomposed), (decomposed, composed)):
        text = "img,rle_mask\n{},1 2\n"
        found = kinds(tmp_path, text.format(name), text.format(sample))
        assert found == {"name in another Unicode form than the sample's (NFC, NFD)": 1}
