"""The front door: what `make` checks before it installs, and what it deletes."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
STUB = """#!/bin/sh
# Stands for a Python: says its version, makes an environment of programs that write down a call.
case "$1" in
-c) echo {version} ;;
-m) mkdir -p "$3/bin"
    for name in pip pytest python; do
        printf '#!/bin/sh\\necho "$0 $*" >> calls\\n' > "$3/bin/$name"
        chmod +x "$3/bin/$name"
    done ;;
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


def test_setup_installs_the_pins_and_leaves_them_alone(project):
    assert make(project, "setup").returncode == 0
    assert (project / "calls").read_text().splitlines() == [
        ".venv/bin/pip install --quiet --requirement requirements.txt",
        ".venv/bin/pip install --quiet --no-deps --editable .",
    ]


def test_the_oldest_versions_are_the_first_of_each_range(project):
    shutil.copy(MAKEFILE.with_name("pyproject.toml"), project)
    done = make(project, "test-oldest", "ARGS=tests/test_recipe.py", version="3.11")
    assert done.returncode == 0, done.stderr
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    wanted = [*table["dependencies"], *table["optional-dependencies"]["dev"]]
    constraints = (project / ".venv-oldest" / "constraints.txt").read_text().splitlines()
    assert constraints == [line.replace(">=", "==") for line in wanted if ">=" in line]
    install, version, tests = (project / "calls").read_text().splitlines()
    assert "--constraint .venv-oldest/constraints.txt --editable .[dev]" in install
    assert "python --version" in version
    assert tests == ".venv-oldest/bin/pytest tests/test_recipe.py"
    assert not (project / ".venv").exists()


def test_the_oldest_versions_need_a_python_they_run_on_and_an_environment_of_their_own(project):
    done = make(project, "test-oldest", version="3.13")
    assert done.returncode == 2
    assert "the oldest versions need Python 3.11 or 3.12" in done.stderr
    (project / ".venv-oldest").mkdir()
    (project / ".venv-oldest" / "mine").touch()
    done = make(project, "test-oldest", version="3.11")
    assert done.returncode == 2
    assert ".venv-oldest was not made by this Makefile; move it" in done.stderr
    assert (project / ".venv-oldest" / "mine").exists()


def test_the_wheel_is_built_afresh(project):
    for name in ("build/lib/carvana/gone.py", "dist/carvana-0.1.0.whl", "dist/mine.txt"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    assert make(project, "wheel").returncode == 0
    assert (project / "calls").read_text().splitlines()[-1] == (
        ".venv/bin/pip wheel --quiet --no-deps --wheel-dir dist ."
    )
    assert [path.name for path in project.glob("*/*") if path.parent.name in ("build", "dist")] == [
        "mine.txt"
    ]


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
