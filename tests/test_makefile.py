"""The front door: what `make` runs, the environment it makes, and what it deletes."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from carvana.cli import build_parser

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the Makefile, its scripts, and what they need; the current one."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("data", "runs", "submissions"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text("kept")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*arguments: str, answer: str = "") -> subprocess.CompletedProcess:
    """Run make as a user would, also where these tests are run by make."""
    command = ["make", f"PYTHON={sys.executable}", *arguments]
    shell = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    shell.pop("MFLAGS", None)
    return subprocess.run(command, input=answer, capture_output=True, text=True, env=shell)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def commands(*arguments: str) -> list[list[str]]:
    """Return the words of the `carvana` commands that `make` would run."""
    done = make("--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    words = [shlex.split(line) for line in lines]
    return [rest for first, *rest in words if first == ".venv/bin/carvana"]


def stages(*arguments: str) -> list[str]:
    return [command for command, *_ in commands(*arguments)]


def test_targets_run_commands_that_there_are_and_help_lists_them(project):
    touch("data/solution.csv")
    for words in commands(*TARGETS, "PHOTOS=a.jpg b.jpg", "MESSAGE=it's mine"):
        build_parser().parse_args(words)
    phony = re.findall(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)
    assert sorted(" ".join(phony).split()) == sorted(TARGETS)
    said = make("help").stdout
    assert [line.split()[1] for line in said.splitlines()[:-1]] == TARGETS


def test_a_target_does_what_is_missing_and_no_more(project):
    touch(f".venv/ready-{'.'.join(map(str, sys.version_info[:2]))}")
    assert set(stages("submit")) == {"download", "train", "predict", "submit"}
    touch("data/train/a.jpg", "data/train_masks/a.gif")
    assert set(stages("report")) == {"train", "report"}
    touch("data/test/a.jpg", "data/sample_submission.csv")
    touch("runs/blog/recipe.toml", "runs/blog/model.keras")  # training was interrupted
    assert stages("predict") == ["train", "predict"]
    touch("runs/blog/metrics.json")
    assert stages("report") == ["report"]
    assert stages("submit") == ["predict", "submit"]
    touch("submissions/blog.csv.gz")
    assert stages("submit") == ["submit"]
    os.utime("runs/blog/model.keras", (2e9, 2e9))  # trained again
    assert stages("submit") == ["predict", "submit"]
    assert stages("train") == ["train"]  # which resumes


def test_make_says_what_is_wrong(project):
    assert "are one word each" in make("train", "DATA=my data").stderr
    assert "name the photographs" in make("--dry-run", "cutout").stderr
    done = make("setup", "PYTHON=no-such-python")
    assert done.returncode == 2
    assert "no-such-python" in done.stderr


# ---- environments


@pytest.fixture
def environment(project, monkeypatch):
    """The script that makes environments, and what it ran; nothing is installed."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / "scripts/environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ran = []

    def run(*command):
        module.ran.append(" ".join(command[1:]))
        if "venv" in command:
            touch(f"{command[-1]}/bin/pip")

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "VERSION", "3.12")
    return module


def test_a_python_too_old_or_too_new_is_named(environment, monkeypatch):
    for folder, version in ((".venv", "3.10"), (".venv", "3.14"), (".venv-oldest", "3.13")):
        monkeypatch.setattr(environment, "VERSION", version)
        with pytest.raises(SystemExit, match=rf"is Python {version}, and {folder} needs 3.11"):
            environment.main(folder)
        assert not Path(folder).exists()
    assert environment.ran == []


def test_an_environment_of_another_python_is_made_again_and_the_users_left(
    environment, monkeypatch
):
    for version, is_kept in (("3.11", False), ("3.11", True), ("3.12", False)):
        monkeypatch.setattr(environment, "VERSION", version)
        environment.main(".venv")
        assert Path(".venv/mine").exists() == is_kept
        assert Path(f".venv/ready-{version}").exists()
        touch(".venv/mine")
    touch(".venv-oldest/mine")
    with pytest.raises(SystemExit, match=r"\.venv-oldest was not made by this Makefile; move it"):
        environment.main(".venv-oldest")
    assert Path(".venv-oldest/mine").exists()


def test_setup_installs_the_pins_and_is_not_ready_when_that_fails(environment, monkeypatch):
    environment.main(".venv")
    assert environment.ran == [
        "-m venv .venv",
        "install --quiet --requirement requirements.txt",
        "install --quiet --no-deps --editable .",
    ]

    def fail(*command):
        raise SystemExit(1)

    Path(".venv/ready-3.12").unlink()
    monkeypatch.setattr(environment, "run", fail)
    with pytest.raises(SystemExit):
        environment.main(".venv")
    assert not Path(".venv/ready-3.12").exists()


# ---- deleting


def test_clean_deletes_what_the_kit_made_and_nothing_of_the_users(project):
    kept = ["runs/blog/model.keras", "submissions/blog.csv.gz", "data/train/a.jpg"]
    kept += ["data/demo/mine.txt", "runs/demo/model.keras", "submissions/demo.csv.gz"]  # the user's
    kept += ["data/cache/mine/thesis.txt", "data/cache/0123456789ab/mine.txt"]
    kept += ["data/cluster-demo/mine.txt"]
    gone = ["data/cache/ffffffffffff/.lock", "data/cache/ffffffffffff/a.123", ".pytest_cache/x"]
    gone += ["data/demo-kaggle/.made-by-demo", "data/demo-kaggle/train.zip"]
    gone += ["src/a/__pycache__/x.pyc"]
    touch(*kept, *gone)
    Path("dist").symlink_to("data/train")
    assert make("clean").returncode == 0
    assert [name for name in kept if not Path(name).exists()] == []
    assert [name for name in (*gone, "dist") if os.path.lexists(name)] == []

    gone = ["data/demo/.made-by-demo", "runs/demo/.made-by-demo"]
    gone += ["submissions/demo.csv.gz.review.csv", "data/cluster-demo/kaggle/rendered.json"]
    touch(*gone)
    Path("submissions/demo.csv.gz.rows").mkdir()
    assert make("clean").returncode == 0
    left = {path.name for name in ("data", "runs", "submissions") for path in Path(name).iterdir()}
    assert left == {"README.md", "blog", "blog.csv.gz", "cache", "train"}


def test_clean_runs_lists_and_asks(project):
    touch("runs/blog/model.keras", "submissions/blog.csv.gz")
    for answer in ("", "n\n", "yes\n"):
        done = make("clean-runs", answer=answer)
        assert "runs/blog\nsubmissions/blog.csv.gz" in done.stdout
        assert "nothing deleted" in done.stdout
        assert Path("runs/blog/model.keras").exists()
    assert make("clean-runs", answer="y\n").returncode == 0
    left = sorted(str(path) for path in Path().glob("[rs]u*/*"))
    assert left == ["runs/README.md", "submissions/README.md"]
    assert "no runs or submissions" in make("clean-runs").stderr


def test_the_wheel_is_built_afresh(project):
    touch(f".venv/ready-{'.'.join(map(str, sys.version_info[:2]))}")
    touch("build/lib/carvana/gone.py", "dist/carvana-0.1.0.whl", "dist/mine.txt", ".venv/bin/pip")
    Path(".venv/bin/pip").write_text('#!/bin/sh\necho "$@" > called\n')
    Path(".venv/bin/pip").chmod(0o755)
    assert make("wheel").returncode == 0
    assert Path("called").read_text() == "wheel --quiet --no-deps --wheel-dir dist .\n"
    assert not Path("build").exists()
    assert os.listdir("dist") == ["mine.txt"]
