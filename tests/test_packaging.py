"""What the package says about itself: dependencies, files, versions."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
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


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return requirements([line for line in lines if not line.startswith("#")])


def test_what_setup_installs_is_in_the_ranges_and_nothing_else():
    ranges = requirements(PROJECT["dependencies"], EXTRAS["dev"])
    assert pins().keys() == ranges.keys()
    for name, pin in pins().items():
        (version,) = (part.version for part in pin.specifier)
        assert str(pin.specifier) == f"=={version}"
        assert ranges[name].specifier.contains(version), name


@pytest.mark.parametrize("module", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_import_is_declared(module):
    declared = requirements(PROJECT["dependencies"], *EXTRAS.values())
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in (name.partition(".")[0] for name in names):
            if name not in sys.stdlib_module_names and not name.startswith("carvana"):
                assert canonicalize_name(PACKAGES.get(name, name)) in declared, name


def test_the_wheel_holds_every_file_of_the_package():
    globs = SETTINGS["tool"]["setuptools"]["package-data"]["carvana"]
    packed = {path for pattern in globs for path in (SOURCE / "carvana").glob(pattern)}
    packages = [SOURCE / "carvana", SOURCE / "carvana_sandbox"]
    files = {path for folder in packages for path in folder.rglob("*") if path.is_file()}
    files = {path for path in files if path.suffix != ".py"}
    assert packed == {path for path in files if "__pycache__" not in path.parts}


def test_versions_agree():
    (ruff,) = (part.version for part in pins()["ruff"].specifier)
    assert f"rev: v{ruff} " in (ROOT / ".pre-commit-config.yaml").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {carvana.__version__}\n" in citation
    assert f"\n## {carvana.__version__} (" in (ROOT / "CHANGELOG.md").read_text()


def test_the_workflow_runs_on_every_python_we_allow():
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    (versions,) = re.findall(r"python: \[(.*)\]", workflow)
    names = {f"Programming Language :: Python :: {v}" for v in re.findall(r"[\d.]+", versions)}
    assert names == {name for name in PROJECT["classifiers"] if "Python ::" in name}
