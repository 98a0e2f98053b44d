"""Downloads by the real client from the mock server; each trouble a user can meet is a test."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from carvana.competition.facts import SLUG, Paths
from carvana.errors import CarvanaError, UsageError
from carvana.kaggle import archives
from carvana.kaggle.download import CHUNK, FILES, download
from carvana_sandbox.faults import Fault, Faults
from conftest import press_ctrl_c
from kaggle_fixtures import (
    assert_train_is_there,
    files_in,
    instead,
    start_download,
    wait_until,
    write_zip,
)

HELD = 30 * CHUNK  # bytes of train.zip that are written when the server holds it there


def test_download_fetches_only_what_is_missing(sandbox, served, paths, capsys):
    server = sandbox()
    assert download(paths, "sample") == [paths.sample_submission]
    assert download(paths) == [paths.train, paths.train_masks, paths.train_masks_csv]
    assert_train_is_there(paths.root, served)
    output = capsys.readouterr()
    assert "data: fetching 3 archives, 4 MB; needs 8 MB in all, " in output.err
    assert output.out == ""
    assert download(paths, "all") == [paths.test]
    stored = [line for line in server.log if "/storage/" in line]
    names = ("sample_submission.csv", "train", "train_masks", "train_masks.csv", "test")
    assert stored == [f"GET /storage/{name}.zip 200" for name in names]
    server.log.clear()
    assert download(paths, "train") == []
    assert server.log == []  # not even the credentials were asked for
    assert "everything is in place (train); nothing to fetch" in capsys.readouterr().err


def test_an_archive_that_lies_there_is_used_if_it_is_sound(sandbox, served, paths, capsys):
    server = sandbox()
    paths.root.mkdir()
    # Fetched whole, and stopped before it was checked.
    shutil.copy(served / "train.zip", paths.root / "train.zip.part")
    masks = bytearray((served / "train_masks.zip").read_bytes())
    masks[20_000] ^= 1  # as new as Kaggle's and of its size: the client alone would keep it
    (paths.root / "train_masks.zip").write_bytes(masks)
    (paths.root / "train_masks.csv.zip").write_bytes(b"too short")
    shutil.copy(served / "sample_submission.csv.zip", paths.root)
    download(paths)
    assert_train_is_there(paths.root, served)
    stored = [line for line in server.log if "/storage/" in line]
    assert stored == [f"GET /storage/train_masks{ending}.zip 200" for ending in ("", ".csv")]
    assert "damaged" in capsys.readouterr().err


def test_killed_and_interrupted_then_rerun(sandbox, served, paths):
    server = sandbox()
    whole = (served / "train.zip").read_bytes()
    part = paths.root / "train.zip.part"
    sizes = [0]  # of the part before each run
    for stop in (1_234_567, 3_210_987):
        server.faults = Faults([Fault("hold", "train.zip", 0, after=stop - sizes[-1])])
        # The client writes chunk by chunk, so a kill loses less than one.
        sizes.append(sizes[-1] + (stop - sizes[-1]) // CHUNK * CHUNK)
        with start_download(paths.root, server.environment()) as process:
            wait_until(lambda: size_of(part) == sizes[-1], process)
            process.kill() if stop < 2_000_000 else press_ctrl_c(process)
        assert part.read_bytes() == whole[: sizes[-1]]
        assert not paths.train.exists()
    server.faults = Faults()
    download(paths)
    assert_train_is_there(paths.root, served)
    assert ranges_asked(server) == [f"{size}-" for size in sizes[1:]]  # nothing it had already


def size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def ranges_asked(server) -> list[str]:
    return [line.rsplit("=")[1] for line in server.log if "train.zip 206" in line]


def test_dropped_three_times_in_one_file(sandbox, served, paths, capsys):
    server = sandbox("drop on=train.zip after=1000000 times=3")
    download(paths)
    assert_train_is_there(paths.root, served)
    each = 1_000_000 // CHUNK * CHUNK
    assert ranges_asked(server) == [f"{each}-", f"{2 * each}-", f"{3 * each}-"]
    assert capsys.readouterr().err.count("train.zip: the connection was lost; trying again") == 3


def test_a_stalled_transfer_is_ended_and_resumed(sandbox, served, paths, monkeypatch):
    monkeypatch.setattr("carvana.kaggle.download.STALL_SECONDS", 1)
    server = sandbox("hold on=train.zip after=1000000", "hold on=train.zip after=500000")
    download(paths)
    assert_train_is_there(paths.root, served)
    assert len(ranges_asked(server)) == 2


def test_an_error_page_never_ends_up_in_a_file(sandbox, served, paths):
    """The client, going on with a part, writes what it is answered into it, whatever it is."""
    server = sandbox("drop on=train.zip after=1000000")

    def refuse_ranges(request):
        if "Range" in request.headers:
            server.faults.append(Fault.parse("503 on=/storage/train.zip times=2"))

    instead(server, "/train.zip", refuse_ranges)
    download(paths)
    assert_train_is_there(paths.root, served)
    asked = [line.split(" ", 2)[2] for line in server.log if "/storage/train.zip" in line]
    part = 1_000_000 // CHUNK * CHUNK
    # Cut short; going on: the first look, the refusal, the refusal that was written; all anew.
    assert asked == ["200", "200", f"503 bytes={part}-", "503", "200"]


def test_an_archive_that_arrives_damaged_is_fetched_once_more(sandbox, served, paths, capsys):
    sandbox("flip on=train_masks.zip times=3")
    with pytest.raises(
        CarvanaError, match="fetched twice, and both times it is cut .* in a browser"
    ):
        download(paths)
    assert "data/train: ready" in capsys.readouterr().err
    assert not paths.train_masks.exists()
    download(paths)  # damaged once
    assert_train_is_there(paths.root, served)
    assert "fetching it once more from the beginning" in capsys.readouterr().err


@pytest.mark.parametrize("from_folder", [True, False])
def test_disk_too_small_is_told_beforehand(sandbox, served, paths, monkeypatch, from_folder):
    server = sandbox()
    needed = 4 if from_folder else 8
    usage = shutil.disk_usage(paths.root.parent)._replace(free=needed * 10**6 - 500_000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CarvanaError, match=f"needs {needed} MB, the disk has . MB free; make room"):
        download(paths, source=served if from_folder else None)
    assert not any("/storage/" in line for line in server.log)
    assert files_in(paths.root) == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_disk_full_while_fetching(sandbox, served, paths):
    sandbox()
    paths.root.mkdir()
    part = paths.root / "train.zip.part"
    part.symlink_to("/dev/full")
    with pytest.raises(CarvanaError, match="train.zip: cannot be written .No space left"):
        download(paths)
    assert not paths.train.exists()
    part.unlink()
    download(paths)
    assert_train_is_there(paths.root, served)


def test_two_downloads_into_one_folder(sandbox, served, paths):
    server = sandbox(f"hold on=train.zip times=0 after={HELD + 1000}")
    part = paths.root / "train.zip.part"
    with start_download(paths.root, server.environment()) as first:
        wait_until(lambda: size_of(part) == HELD, first)
        with pytest.raises(CarvanaError, match="another download is writing it; wait"):
            download(paths)
        with pytest.raises(CarvanaError, match="another download is writing it; wait"):
            download(paths, source=served)
        first.kill()
    server.faults = Faults()
    download(paths)
    assert_train_is_there(paths.root, served)


@pytest.mark.parametrize("is_unpacked", [False, True])
def test_from_a_folder(served, paths, tmp_path, monkeypatch, is_unpacked):
    monkeypatch.setattr("carvana.kaggle.download.connect", lambda: pytest.fail("asked Kaggle"))
    folder = served
    if is_unpacked:
        folder = tmp_path / "unpacked"
        download(Paths(folder), "train", served)
    download(paths, "train", folder)
    found = files_in(paths.root)
    assert len(found) == 18  # 8 photographs and masks, 2 CSVs, no archive
    with zipfile.ZipFile(served / "train_masks.zip") as archive:
        assert all(found[name] == archive.read(name) for name in archive.namelist())


def test_from_a_folder_that_lacks_something(served, paths, tmp_path):
    source = tmp_path / "input"
    source.mkdir()
    shutil.copy(served / "train.zip", source)
    with pytest.raises(UsageError, match="holds neither train_masks.zip nor train_masks; give"):
        download(paths, "train", source)
    os.truncate(source / "train.zip", 1000)
    for name in FILES["train"][1:]:
        shutil.copy(served / name, source)
    with pytest.raises(CarvanaError, match="train.zip: is cut short or damaged"):
        download(paths, "train", source)
    assert files_in(paths.root) == {}


def test_from_the_single_zip_of_the_whole_competition(served, paths, tmp_path):
    archives = {path.name: path.read_bytes() for path in sorted(served.glob("*.zip"))}
    (tmp_path / "browser").mkdir()
    whole = write_zip(tmp_path / "browser" / f"{SLUG}.zip", archives)
    for source in (whole, whole.parent):
        root = tmp_path / f"from-{source.name}"
        download(Paths(root), "train", source)
        assert_train_is_there(root, served)
        assert download(Paths(root), "train", source) == []
    paths.root.mkdir()
    whole.rename(paths.root / whole.name)  # as a browser that saves into the data folder
    download(paths, "train")
    assert paths.train.is_dir()


def test_an_incomplete_folder_is_completed(sandbox, served, paths):
    sandbox()
    paths.train.mkdir(parents=True)
    with zipfile.ZipFile(served / "train.zip") as archive:
        (paths.train / "0.jpg").write_bytes(archive.read("train/0.jpg"))
        (paths.train / "1.jpg").write_bytes(archive.read("train/1.jpg")[:-1])  # a partial unzip
    (paths.train / ".DS_Store").touch()
    download(paths)
    (paths.train / ".DS_Store").unlink()
    assert_train_is_there(paths.root, served)
    for name in FILES["train"]:
        (paths.root / name).unlink()
    assert download(paths) == []  # the archives may be deleted
    (paths.train / "0.jpg").unlink()
    edited = paths.train / "4.jpg"
    edited.write_bytes(b"edited")  # by the user, whose file stays
    with pytest.raises(CarvanaError, match="is another file than the one to unpack .*move"):
        download(paths, "train", served)
    assert edited.read_bytes() == b"edited"
    assert not (paths.train / "0.jpg").exists()  # it was found before anything was unpacked


def test_what_is_in_the_way_is_found_before_anything_is_fetched(sandbox, paths):
    server = sandbox()
    paths.root.mkdir()
    paths.train.write_text("in the way")
    with pytest.raises(CarvanaError, match="train: is a file, and a folder belongs there"):
        download(paths, "train")
    assert server.log == []


@pytest.mark.parametrize(
    ("only", "source", "says"),
    [
        ("tests", "served", "--only tests: is none of sample, test, train, all"),
        ("train", "gone", "--from .*gone: no such folder or zip"),
        ("train", ".", "holds the data folder"),
        ("train", "served/train.zip", r"train\.zip: give the folder that holds it"),
        ("train", "holiday.zip", r"holds no train\.zip; give the folder with the competition's"),
    ],
)
def test_wrong_use_is_told_and_nothing_changes(served, paths, tmp_path, only, source, says):
    (tmp_path / "served").symlink_to(served)
    shutil.copy(served / "train.zip", tmp_path / "holiday.zip")
    with pytest.raises(CarvanaError, match=says) as told:
        download(paths, only, tmp_path / source)
    assert "delete" not in str(told.value)
    assert files_in(paths.root) == {}
