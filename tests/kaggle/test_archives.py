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


@pytest.mark.parametrize(
    "members",
    [
        GOOD,
        GOOD | {"__MACOSX/train/._a.jpg": b"x", "desktop.ini": b"x", ".DS_Store": b""},
        {"train/" + name: data for name, data in GOOD.items()},  # the folder within itself
        {"a.jpg": GOOD["train/a.jpg"], "b.jpg": b"b"},  # without its folder
        {name.replace("/", "\\"): data for name, data in GOOD.items()},  # written on Windows
    ],
)
def test_checks_and_unpacks_the_folder_it_is_named_after(tmp_path, members):
    archive = write_zip(tmp_path / "train.zip", members)
    target = tmp_path / "data" / "train"
    left = tmp_path / "data" / ".train.unpacking" / "train"  # by a run that was killed
    left.mkdir(parents=True)
    (left / "half.jpg").write_text("half")
    archives.check(archive)
    archives.unpack(archive, target)
    unpacked = {path.name: path.read_bytes() for path in target.iterdir()}
    assert unpacked == {"a.jpg": GOOD["train/a.jpg"], "b.jpg": b"b"}
    assert os.listdir(target.parent) == ["train"]


def flip_bit(archive):
    data = bytearray(archive.read_bytes())
    data[25_000] ^= 1
    archive.write_bytes(data)


def encrypt(archive):
    data = bytearray(archive.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1
    archive.write_bytes(data)


def bomb(archive):
    write_zip(archive, {"train/a.jpg": bytes(17 * 2**20)}, zipfile.ZIP_DEFLATED)


def add(name, kind=stat.S_IFREG):
    def damage(archive):
        entry = zipfile.ZipInfo(name.format(archive.parent))
        entry.external_attr = (kind | 0o777) << 16
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr(entry, str(archive.parent))

    return damage


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (flip_bit, "is cut short or damaged"),
        (add("train/../../escaped"), "climbs out of its folder"),
        (add("train\\..\\..\\escaped"), "climbs out of its folder"),
        (add("{}/escaped"), "is an absolute path"),
        (add("C:\\escaped"), "is an absolute path"),
        (add("train/link", stat.S_IFLNK), "is a symbolic link"),
        (add("train/pipe", stat.S_IFIFO), "is neither a file nor a folder"),
        (bomb, "over 100 times its own size"),
        (encrypt, "is encrypted"),
        (add("validation/c.jpg"), "holds 'validation/c.jpg', not train"),
    ],
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
    (data / "loop").symlink_to(data / "loop")
    with pytest.raises(CarvanaError, match=r"loop: is a link to .*which does not exist"):
        archives.unpack(archive, data / "loop")


def test_unpacking_stays_within_a_folder_that_is_there(archive, tmp_path, monkeypatch):
    target = tmp_path / "train"  # which may be a disk of its own: nothing can be renamed to it
    target.mkdir()
    moved, replace = [], os.replace
    monkeypatch.setattr(archives.os, "replace", lambda *a: moved.append(a[0]) or replace(*a))
    archives.unpack(archive, target)
    assert sorted(os.listdir(target)) == ["a.jpg", "b.jpg"]
    assert all(target in source.parents for source in moved)
