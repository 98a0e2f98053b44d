"""Folders are put in place whole, whatever happens to the process that writes them."""

import os
import signal
import subprocess
import sys

import pytest

from carvana.files import replacing_folder

WRITE = """
import os, signal, sys
from pathlib import Path
from carvana import files
replace = os.replace
def dying(old, new):
    replace(old, new)
    if sys.argv[2] == "two renames" and Path(old).name == "out":
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = dying
with files.replacing_folder(Path(sys.argv[1])) as folder:
    (folder / "model").write_text("new")
    if sys.argv[2] == "while writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def write(out, text):
    with replacing_folder(out) as folder:
        (folder / "model").write_text(text)


@pytest.mark.parametrize("when", ["while writing", "two renames", "never"])
def test_a_kill_leaves_a_whole_folder_and_the_next_writer_clears_up(when, tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    done = subprocess.run([sys.executable, "-c", WRITE, out, when], check=False)
    assert (done.returncode == -signal.SIGKILL) == (when != "never")
    if when == "two renames":
        assert not out.exists()
        with pytest.raises(ZeroDivisionError), replacing_folder(out):
            raise ZeroDivisionError
    assert (out / "model").read_text() == ("new" if when == "never" else "old")
    write(out, "newer")
    assert (out / "model").read_text() == "newer"
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(out) == ["model"]
    (tmp_path / "link").symlink_to(out)
    write(tmp_path / "link", "by a link")
    assert (out / "model").read_text() == "by a link"
    assert sorted(os.listdir(tmp_path)) == ["link", "out"]


def test_a_folder_that_a_living_process_writes_is_left_alone(tmp_path):
    out = tmp_path / "out"
    with replacing_folder(out) as first:
        (first / "model").write_text("first")
        subprocess.run([sys.executable, "-c", WRITE, out, "never"], check=True)
        assert (first / "model").exists()
        assert (out / "model").read_text() == "new"
    assert (out / "model").read_text() == "first"
