"""What the package says about itself: dependencies, files, versions."""

import ast
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import carvana

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = {  # of modules named otherwise
    **{"PIL": "pillow", "cv2": "opencv-python-headless", "ai_edge_litert": "ai-edge-litert"},
    **{"pillow_heif": "pillow-heif", "tomli_w": "tomli-w", "dask": "distributed"},
}


def requirements(*lists: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for lines in lists for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


PINS = requirements(
    [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[0] != "#"]
)


def test_what_setup_installs_is_in_the_ranges_and_nothing_else():
    ranges = requirements(PROJECT["dependencies"], EXTRAS["dev"])
    assert PINS.keys() == ranges.keys()
    for name, pin in PINS.items():
        (version,) = (part.version for part in pin.specifier)
        assert str(pin.specifier) == f"=={version}"
        assert ranges[name].specifier.contains(version), name


def test_every_import_is_declared():
    declared = requirements(PROJECT["dependencies"], *EXTRAS.values())
    modules = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.partition(".")[0])
    foreign = modules - sys.stdlib_module_names - {"carvana", "carvana_sandbox"}
    assert {canonicalize_name(PACKAGES.get(name, name)) for name in foreign} <= declared.keys()


def test_the_wheel_holds_every_file_of_the_package():
    globs = SETTINGS["tool"]["setuptools"]["package-data"]["carvana"]
    packed = {path for pattern in globs for path in (SOURCE / "carvana").glob(pattern)}
    packages = [SOURCE / "carvana", SOURCE / "carvana_sandbox"]
    files = {path for folder in packages for path in folder.rglob("*") if path.is_file()}
    files = {path for path in files if path.suffix != ".py"}
    assert packed == {path for path in files if "__pycache__" not in path.parts}


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {carvana.__version__}\n" in citation
    assert f"\n## {carvana.__version__} (" in (ROOT / "CHANGELOG.md").read_text()
