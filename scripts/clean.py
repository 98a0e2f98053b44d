"""Delete what the kit wrote. `make clean` and `make clean-runs` run this.

python3 scripts/clean.py data            # caches and what the demos made: minutes to make again
python3 scripts/clean.py data --runs     # all runs and submissions, after asking
"""

import re
import shutil
import sys
from pathlib import Path

CACHES = (".pytest_cache", ".ruff_cache", ".hypothesis", "build", "dist")


def clean(data: Path) -> None:
    """Delete caches and what the demos made. What others put beside them stays."""
    for name in CACHES:
        delete(Path(name))
    for folder in ("src", "tests", "benchmarks", "scripts"):
        for cache in sorted(Path(folder).rglob("__pycache__")):
            delete(cache)
    for lock in sorted(data.glob("cache/*/.lock")):  # in every folder of prepared pairs
        if re.fullmatch("[0-9a-f]{12}", lock.parent.name):
            delete(lock.parent)
    for marker in ("demo-kaggle/.made-by-demo", "demo/.made-by-demo"):
        if (data / marker).exists():
            delete((data / marker).parent)
    if (data / "cluster-demo/kaggle/rendered.json").exists():
        delete(data / "cluster-demo")
    if Path("runs/demo/.made-by-demo").exists():
        delete(Path("runs/demo"))
        for file in sorted(Path("submissions").glob("demo.csv.gz*")):
            delete(file)


def clean_runs() -> None:
    """List all runs and submissions, and delete them if the answer is y."""
    products = [
        path
        for folder in ("runs", "submissions")
        for path in sorted(Path(folder).glob("[!.]*"))
        if path.name != "README.md"
    ]
    if not products:
        sys.exit("no runs or submissions")
    print(*products, sep="\n")
    print("Delete all of these? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip() == "y":
        for path in products:
            delete(path)
    else:
        print("nothing deleted")


def delete(path: Path) -> None:
    """Delete a file or a folder, if it is there; of a link the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


if __name__ == "__main__":
    clean_runs() if "--runs" in sys.argv else clean(Path(sys.argv[1]))
