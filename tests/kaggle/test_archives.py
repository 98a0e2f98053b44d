import errno
import os
import stat
import zipfile

import pytest

from carvana.errors import CarvanaError
from carvana.kaggle import archives
from carvana.kaggle.archives import BrokenArchive
from kaggle_fixtures import write_zip

GOOD = {"train/": b"", "train/a.jpg": os.urandom(50_000), "train/b.jpg": b"b"}


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "train.zip", GOOD)


def test_checks_and_unpacks_the_folder_it_is_named_after(archive, tmp_path):
    assert archives.check(archive) == 50_001
    target = tmp_path / "data" / "train"
    archives.unpack(archive, target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        "a.jpg": GOOD["train/a.jpg"],
        "b.jpg": b"b",
    }
    assert os.listdir(target.parent) == ["train"]


def test_leaves_out_what_a_macintosh_adds(tmp_path):
    archive = write_zip(tmp_path / "train.zip", GOOD | {"__MACOSX/train/._a.jpg": b"x"})
    archives.unpack(archive, tmp_path / "data" / "train")
    assert os.listdir(tmp_path / "data") == ["train"]


def damage_cut(archive):
    os.truncate(archive, archive.stat().st_size // 2)


def damage_bit(archive):
    data = bytearray(archive.read_bytes())
    data[25_000] ^= 1
    archive.write_bytes(data)


def damage_replaced(archive):
    archive.write_text("<html>Please sign in</html>")


def damage_climbing(archive):
    write_zip(archive, GOOD | {"train/../../escaped": b"x"})


def damage_absolute(archive):
    write_zip(archive, GOOD | {f"{archive.parent}/escaped": b"x"})


def damage_windows(archive):
    write_zip(archive, GOOD | {"C:\\escaped": b"x"})


def damage_link(archive):
    link = zipfile.ZipInfo("train/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(link, str(archive.parent))
        opened.writestr("train/link/escaped", b"x")


def damage_pipe(archive):
    pipe = zipfile.ZipInfo("train/pipe")
    pipe.external_attr = (stat.S_IFIFO | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(pipe, b"")


def damage_bomb(archive):
    write_zip(archive, {"train/a.jpg": bytes(40 * 2**20)}, zipfile.ZIP_DEFLATED)


def damage_encrypted(archive):
    data = archive.read_bytes()
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.index(signature) + place
        data = data[:start] + bytes([data[start] | 1]) + data[start + 1 :]
    archive.write_bytes(data)


def damage_stray(archive):
    write_zip(archive, GOOD | {"validation/c.jpg": b"x"})


DAMAGES = {
    "is cut short or damaged": (damage_cut, damage_bit, damage_replaced),
    "climbs out of its folder": (damage_climbing,),
    "is an absolute path": (damage_absolute, damage_windows),
    "is a symbolic link": (damage_link,),
    "is neither a file nor a folder": (damage_pipe,),
    "over 100 times its own size": (damage_bomb,),
    "is encrypted": (damage_encrypted,),
    "holds 'validation/c.jpg', not train": (damage_stray,),
}


@pytest.mark.parametrize(
    ("damage", "line"),
    [(damage, line) for line, damages in DAMAGES.items() for damage in damages],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_archive_is_named_and_changes_nothing(archive, tmp_path, damage, line):
    damage(archive)
    target = tmp_path / "data" / "train"
    target.parent.mkdir()
    (target.parent / "kept").write_text("as before")
    with pytest.raises(BrokenArchive) as unpacked:
        archives.unpack(archive, target)
    assert str(unpacked.value).startswith(f"{archive}: ")
    assert line in str(unpacked.value)
    assert "\n" not in str(unpacked.value)
    assert os.listdir(target.parent) == ["kept"]
    assert sorted(os.listdir(tmp_path)) == ["data", "train.zip"]
    if damage is not damage_stray:
        with pytest.raises(BrokenArchive):
            archives.check(archive)


def test_a_full_disk_leaves_nothing_behind(archive, tmp_path, monkeypatch):
    def fail(packed, file, length):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives.shutil, "copyfileobj", fail)
    with pytest.raises(CarvanaError, match="train: cannot be written .No space left.*free some"):
        archives.unpack(archive, tmp_path / "data" / "train")
    assert os.listdir(tmp_path / "data") == []


def test_room_is_required_before_unpacking(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "require_room", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        archives.unpack(archive, tmp_path / "data" / "train")
    monkeypatch.undo()
    with pytest.raises(CarvanaError, match="what needs 1000000000.0 GB, the disk has .* free"):
        archives.require_room(tmp_path / "not" / "yet", 10**18, "what")


def test_what_a_killed_run_left_is_cleared(archive, tmp_path):
    left = tmp_path / "data" / ".train.unpacking" / "train"
    left.mkdir(parents=True)
    (left / "half.jpg").write_text("half")
    archives.unpack(archive, tmp_path / "data" / "train")
    assert sorted(os.listdir(tmp_path / "data" / "train")) == ["a.jpg", "b.jpg"]
    assert os.listdir(tmp_path / "data") == ["train"]


def test_an_absent_archive_is_named(tmp_path):
    with pytest.raises(CarvanaError, match="gone.zip: no such file"):
        archives.check(tmp_path / "gone.zip")


def test_sizes_as_people_say_them():
    texts = [archives.size_text(size) for size in (0, 999, 405_000_000, 7_800_000_000)]
    assert texts == ["0 bytes", "999 bytes", "405 MB", "7.8 GB"]


def test_a_zip_written_on_windows(tmp_path):
    archive = write_zip(tmp_path / "train.zip", {"train/a.jpg": b"a"})
    data = archive.read_bytes().replace(b"train/a.jpg", b"train\\a.jpg")
    archive.write_bytes(data)
    archives.check(archive)
    archives.unpack(archive, tmp_path / "data" / "train")
    assert (tmp_path / "data" / "train" / "a.jpg").read_bytes() == b"a"
    archive.write_bytes(data.replace(b"train\\a.jpg", b"..\\ain\\.jpg"))
    with pytest.raises(BrokenArchive, match="climbs out of its folder"):
        archives.check(archive)


def test_a_zip_without_its_folder(tmp_path):
    archive = write_zip(tmp_path / "train.zip", {"a.jpg": b"a", "b.jpg": b"b"})
    archives.unpack(archive, tmp_path / "data" / "train")
    assert sorted(os.listdir(tmp_path / "data" / "train")) == ["a.jpg", "b.jpg"]


def test_a_folder_is_completed_and_what_else_is_in_it_stays(archive, tmp_path):
    folder = tmp_path / "data" / "train"
    archives.unpack(archive, folder)
    first, second, *_ = sorted(folder.iterdir())
    whole = second.read_bytes()
    first.unlink()
    second.write_bytes(whole[:-1])  # a partial unzip
    (folder / ".DS_Store").write_bytes(b"macOS")
    archives.unpack(archive, folder)
    assert first.exists()
    assert second.read_bytes() == whole
    assert (folder / ".DS_Store").read_bytes() == b"macOS"
    second.write_bytes(b"x" * len(whole) + b"another")
    first.unlink()
    with pytest.raises(CarvanaError, match="is another file than the one to unpack .*move"):
        archives.unpack(archive, folder)
    assert second.read_bytes().endswith(b"another")
    assert not first.exists()  # it was found before anything was unpacked


def test_links_are_followed(archive, tmp_path):
    data, big = tmp_path / "data", tmp_path / "big"
    data.mkdir()
    (data / "train").symlink_to(big)
    with pytest.raises(CarvanaError, match=r"train: is a link to .*big, which does not exist"):
        archives.unpack(archive, data / "train")
    big.mkdir()
    archives.unpack(archive, data / "train")
    assert (data / "train").is_symlink()
    assert any(big.iterdir())
    (data / "test").write_text("a file")
    with pytest.raises(CarvanaError, match="test: is a file, and a folder belongs there"):
        archives.unpack(archive, data / "test")


def test_what_file_managers_add_and_a_folder_within_itself(tmp_path):
    members = {
        "train/train/": b"",
        "train/train/a.jpg": b"a",
        "desktop.ini": b"x",
        ".DS_Store": b"",
    }
    archive = write_zip(tmp_path / "train.zip", members)
    archives.unpack(archive, tmp_path / "train")
    assert os.listdir(tmp_path / "train") == ["a.jpg"]


def test_a_windows_zip_may_list_its_folder(tmp_path):
    archive = write_zip(tmp_path / "train.zip", {"train\\": b"", "train\\a.jpg": b"a"})
    archives.unpack(archive, tmp_path / "train")
    assert os.listdir(tmp_path / "train") == ["a.jpg"]


def test_unpacking_stays_within_a_folder_that_is_there(archive, tmp_path, monkeypatch):
    target = tmp_path / "train"  # which may be a disk of its own: nothing can be renamed to it
    target.mkdir()
    replace = os.replace

    def on_one_disk(source, place):
        assert target in source.parents
        replace(source, place)

    monkeypatch.setattr(archives.os, "replace", on_one_disk)
    archives.unpack(archive, target)
    assert sorted(os.listdir(target)) == ["a.jpg", "b.jpg"]


def test_a_link_to_itself_is_named(archive, tmp_path):
    target = tmp_path / "train"
    target.symlink_to(target)
    with pytest.raises(CarvanaError, match=r"train: is a link to .*which does not exist"):
        archives.unpack(archive, target)
