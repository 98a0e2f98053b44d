"""README and docs: every link leads somewhere, every command block is one that works."""

import re
import shlex
from pathlib import Path

import pytest

from carvana import __all__ as api
from carvana.cli import build_parser
from carvana.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("src/**/*.md")])
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z]+) *=", (ROOT / "Makefile").read_text(), re.MULTILINE))
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def heading_links(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            assert re.fullmatch(r"https?://[\w.-]+\.[a-z]+(/[\w./%?=&#~-]*)?", target), target
            continue
        path, _, heading = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        assert not heading or heading in heading_links(linked), f"{page.name}: {target}"


@pages
def test_every_command_parses(page):
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True) or [""]
            if program == "make":
                names = {word for word in words if "=" not in word}
                assert names, line
                assert names <= TARGETS, line
                settings = dict(word.split("=", 1) for word in words if "=" in word)
                assert settings.keys() <= VARIABLES, line
                if settings.get("RECIPE") != "my.toml":  # which stands for a reader's own
                    load_recipe(settings.get("RECIPE", "blog"))
                extra = shlex.split(settings.get("ARGS", ""))
                build_parser().parse_args(["train", "--run", "runs/mine", *extra])
            elif program.removeprefix(".venv/bin/") == "carvana":
                build_parser().parse_args(words)
            elif program.removeprefix(".venv/bin/") == "python":
                assert (ROOT / words[0]).is_file(), line
            else:
                assert program in ("", "cp", "export", "git", "pip", "source"), line


@pages
def test_every_python_block_compiles_and_calls_the_api(page):
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")
        assert set(re.findall(r"carvana\.(\w+)\(", block)) <= set(api)


def test_the_readme_is_short_and_links_every_page():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 120
    for page in ROOT.glob("docs/*.md"):
        assert f"docs/{page.name}" in readme
