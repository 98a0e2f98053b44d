"""The front door: what `make` checks before it installs, and what it deletes."""

import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
STUB = """#!/bin/sh
# Stands for a Python: says its version, makes an empty environment.
case "$1" in
-c) echo {version} ;;
-m) mkdir -p .venv/bin; printf '#!/bin/sh\\n' > .venv/bin/pip; chmod +x .venv/bin/pip ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A folder with the Makefile and what it needs to be set up."""
    (tmp_path / "Makefile").write_text(MAKEFILE.read_text())
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    for name in ("data", "runs", "submissions", "src", "tests", "benchmarks"):
        (tmp_path / name).mkdir()
    for name in ("runs", "submissions"):
        (tmp_path / name / "README.md").write_text("kept")
    return tmp_path


def make(project, *arguments, version="3.12", answer=""):
    python = project / "python"
    python.write_text(STUB.format(version=version))
    python.chmod(0o755)
    return subprocess.run(
        ["make", "-s", f"PYTHON={python}", *arguments],
        cwd=project,
        input=answer,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("version", ["3.10", "3.14", "2.7"])
def test_a_python_too_old_or_too_new_is_named(project, version):
    done = make(project, "setup", version=version)
    assert done.returncode == 2
    assert f"is Python {version}, and 3.11 to 3.13 is needed" in done.stderr
    assert not (project / ".venv").exists()


def test_an_environment_of_another_python_is_made_again(project):
    assert make(project, "setup", version="3.11").returncode == 0
    (project / ".venv" / "old").touch()
    assert make(project, "setup", version="3.11").returncode == 0
    assert (project / ".venv" / "old").exists()
    assert make(project, "setup", version="3.13").returncode == 0
    assert not (project / ".venv" / "old").exists()


def test_an_environment_of_the_users_is_left_alone(project):
    (project / ".venv").mkdir()
    (project / ".venv" / "mine").touch()
    done = make(project, "setup")
    assert done.returncode == 2
    assert ".venv was not made by this Makefile; move it" in done.stderr
    assert (project / ".venv" / "mine").exists()


def test_clean_keeps_runs_submissions_and_what_is_the_users(project):
    kept = ["runs/blog/model.keras", "submissions/blog.csv.gz", "data/train/a.jpg"]
    kept += ["data/demo/mine.txt", "runs/demo/model.keras"]  # not of `make demo`
    kept += ["data/cache/mine/thesis.txt", "data/cache/0123456789ab/mine.txt"]
    cache = "data/cache/ffffffffffff"
    gone = [f"{cache}/.lock", f"{cache}/a.123", ".pytest_cache/x", "src/__pycache__/x.pyc"]
    gone += ["data/demo-kaggle/.made-by-demo", "data/demo-kaggle/train.zip"]
    for name in (*kept, *gone):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    assert make(project, "clean").returncode == 0
    assert [name for name in kept if not (project / name).exists()] == []
    assert [name for name in gone if (project / name).exists()] == []


def test_clean_runs_lists_and_asks(project):
    model = project / "runs" / "blog" / "model.keras"
    model.parent.mkdir()
    model.touch()
    (project / "submissions" / "blog.csv.gz").touch()
    for answer in ("", "n\n", "yes\n"):
        done = make(project, "clean-runs", answer=answer)
        assert "runs/blog" in done.stdout
        assert "nothing deleted" in done.stdout
        assert model.exists()
    assert make(project, "clean-runs", answer="y\n").returncode == 0
    left = sorted(str(path.relative_to(project)) for path in project.glob("[rs]u*/*"))
    assert left == ["runs/README.md", "submissions/README.md"]
