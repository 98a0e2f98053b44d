"""Make an environment for the kit. `make setup` and `make test-oldest` run this.

    python3 scripts/environment.py .venv              # the versions that requirements.txt pins
    python3 scripts/environment.py .venv-oldest       # the oldest that pyproject.toml allows

Any Python 3 can read this file, so that one that is too old is told so.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "{}.{}".format(*sys.version_info)
ALLOWED = {  # the oldest TensorFlow has no wheel for Python 3.13
    ".venv": ("3.11", "3.12", "3.13"),
    ".venv-oldest": ("3.11", "3.12"),
}


def main(folder: str) -> None:
    allowed = ALLOWED[folder]
    if VERSION not in allowed:
        sys.exit(
            f"{sys.executable} is Python {VERSION}, and {folder} needs {', '.join(allowed[:-1])} "
            f"or {allowed[-1]}; name one: make PYTHON=python{allowed[0]}"
        )
    path = Path(folder)
    made_by_make = path / f"python-{VERSION}"
    if path.exists() and not any(path.glob("python-*")):
        sys.exit(f"{folder} was not made by this Makefile; move it, then run make again")
    if not made_by_make.exists() or folder == ".venv-oldest":
        shutil.rmtree(path, ignore_errors=True)  # of another Python, or of other versions
        run(sys.executable, "-m", "venv", folder)
        made_by_make.touch()
    pip = (f"{folder}/bin/pip", "install", "--quiet")
    if folder == ".venv":
        run(*pip, "--requirement", "requirements.txt")
        run(*pip, "--no-deps", "--editable", ".")
    else:
        constraints = path / "constraints.txt"
        constraints.write_text("\n".join(oldest(Path("pyproject.toml").read_text())) + "\n")
        print(f"Python {VERSION}", constraints.read_text(), sep="\n")
        run(*pip, "--constraint", str(constraints), "--editable", ".[dev]")
    (path / f"ready-{VERSION}").touch()


def oldest(pyproject: str) -> "list[str]":
    """Return the first version of each range among the dependencies and those of the tests."""
    import tomllib  # here: Python 3.10 has none

    project = tomllib.loads(pyproject)["project"]
    ranges = project["dependencies"] + project["optional-dependencies"]["dev"]
    return [re.sub(">=([^,]*).*", r"==\1", line) for line in ranges if ">=" in line]


def run(*command: str) -> None:
    """Run a command; leave with its exit code if it fails."""
    code = subprocess.call(command)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
