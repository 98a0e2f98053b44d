"""docs/architecture.md says where things are and which way imports point; so they do."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MODULES = sorted(SOURCE.rglob("*.py"))
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROWS = [row.split(", ") for row in re.search(r"^cli → .*", PAGE, re.MULTILINE)[0].split(" → ")]
PLACE = {wing: row for row, wings in enumerate(ROWS) for wing in wings}
SMALL = set(ROWS[-1])


def imports(path: Path) -> list[ast.ImportFrom]:
    """Return what a file imports of the kit, wherever in it."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    from_kit = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return [node for node in from_kit if re.match(r"carvana(_sandbox)?\b", node.module or "")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_says_its_job_and_imports_only_what_stands_below(path):
    text, where = path.read_text(encoding="utf-8"), path.relative_to(SOURCE).with_suffix("").parts
    assert not text or re.match(r'"""[^\n]{10,}[.:]("""\n|\n\n)', text), "no sentence on its job"
    if where[0] == "carvana_sandbox" or where[1] in ("__init__", "__main__"):
        return
    for node in imports(path):
        package, *names = node.module.split(".")
        wing = names[0] if names else "__version__"
        if package == "carvana_sandbox":
            assert where[1] == "cli" or names == ["cars", "rendered"]
        elif wing not in (where[1], "__version__") and (where[1], wing) != ("recipe", "networks"):
            below = PLACE[where[1]] < PLACE[wing] or {where[1], wing} <= SMALL
            assert below, f"{where[1]} imports {node.module}"


def test_the_page_names_every_folder():
    for folder in {path.parent.relative_to(SOURCE) for path in MODULES}:
        assert folder.name in ("cars", "carvana", "recipes") or f"`{folder.name}/`" in PAGE


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("docs/**/*.py")],
    ids=lambda path: path.name,
)
def test_what_no_other_test_runs_imports_what_is_there(path):
    for node in imports(path):
        module = importlib.import_module(node.module)
        assert all(hasattr(module, each.name) for each in node.names), node.module
