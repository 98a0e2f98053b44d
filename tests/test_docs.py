"""README and docs: every link leads somewhere; every command parses, after what it needs."""

import argparse
import ast
import functools
import importlib.metadata
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import carvana
from carvana.cli import build_parser
from carvana.prediction.model import Model
from carvana.recipe import load_recipe

ROOT = Path(__file__).parents[1]
FRONT = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES = [*FRONT, *sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("src/**/*.md")])]
RECIPES = sorted(ROOT.glob("src/carvana/recipes/*.toml"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MAKEFILE = (ROOT / "Makefile").read_text()
VARIABLES = re.findall(r"^(?:export )?([A-Z]+) *=", MAKEFILE, re.MULTILINE)
PROGRAMS = ("carvana", "dask", "pip", "python")  # of .venv, once it is activated
ACTIVATE = "source .venv/bin/activate"
MINE = ("my.toml", "mine.toml", "own.toml", "path/to/it.toml")  # stand for a reader's own recipe
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, *languages: str) -> list[str]:
    """Return a page's fenced blocks in some languages, and, as "sh", its indented commands."""
    text = page.read_text()
    fence = rf"^```(?:{'|'.join(languages)})\n(.*?)^```"
    found = re.findall(fence, text, re.MULTILINE | re.DOTALL)
    if "sh" in languages:
        found += re.findall(
            rf"^(?:    |#     )((?:make|{'|'.join(PROGRAMS)}) .*)", text, re.MULTILINE
        )
    return found


def lines(block: str) -> list[list[str]]:
    """Return the words of each command of a block."""
    joined = block.replace("\\\n", " ").replace("$SLURM_ARRAY_TASK_ID", "3")
    words = (shlex.split(line, comments=True) for line in joined.splitlines())
    return [each for each in words if each]


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


# ---- commands


def check(words: list[str]) -> None:
    """Make sure that a command would start after `make setup`."""
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program == "carvana":
        options = build_parser().parse_args(rest)
        if "recipe" in options and options.recipe not in MINE:
            load_recipe(options.recipe, options.set)
    elif program == "make":
        assert {word.partition("=")[0] for word in rest if "=" in word} <= {*VARIABLES}, words
        for run in commands_of_make(*rest):
            check(run)
    elif program == "python":
        script = rest[0]
        if not script.startswith("exports/"):  # which an export writes
            text = (ROOT / script).read_text()
            assert all(f'"{word}"' in text for word in rest if word.startswith("--")), words
    elif program == "pip":
        assert rest[0] == "install"
        for name, extra in re.findall(r"([\w.-]+)\[([\w-]+)\]", " ".join(rest)):
            metadata = None if name == "." else importlib.metadata.metadata(name)
            assert extra in (metadata.get_all("Provides-Extra") if metadata else EXTRAS)
    elif program == "cp":
        assert (ROOT / rest[0]).is_file(), words
    else:
        assert program in ("cd", "dask", "export", "git", "pre-commit", "source"), words


@functools.cache
def commands_of_make(*words: str) -> list[list[str]]:
    """Return the `carvana` commands that a target would run."""
    command = ["make", "--dry-run", *words, f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [run for run in lines(done.stdout) if run[0] == ".venv/bin/carvana"]


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda page: page.name)
def test_every_command_and_script_starts(page):
    for block in blocks(page, "sh"):
        for words in lines(block):
            check(words)
    scripts = blocks(page, "bash")
    subprocess.run(["bash", "-n"], input="\n".join(scripts), text=True, check=True)
    for block in scripts:
        for words in lines(re.sub(r'python -c ".*?"', "", block, flags=re.DOTALL)):
            if words[0] in ("carvana", "make"):
                check(words)


@pages
def test_commands_in_sentences_have_their_options(page):
    commands = build_parser()._subparsers._group_actions[0].choices
    for span in re.findall(r"(?<!`)`((?:\.venv/bin/)?(?:carvana|make) [^`]+)`", page.read_text()):
        program, name, *rest = shlex.split(span)
        if program == "make":
            targets = [word for word in (name, *rest) if "=" not in word]
            assert all(re.search(rf"^{each}:", MAKEFILE, re.MULTILINE) for each in targets), span
            continue
        options = {each for action in commands[name]._actions for each in action.option_strings}
        for nested in commands[name]._actions:
            if isinstance(nested, argparse._SubParsersAction):
                assert rest[0] in nested.choices, span
        assert {word for word in rest if word.startswith("--")} <= options, span


@pages
def test_the_environment_is_activated_and_has_what_commands_need(page):
    text = "\n".join(blocks(page, "sh", "bash"))
    text = text.replace("python benchmarks/train_on_jax.py", "")  # has an environment of its own
    bare = re.search(rf"^(?:{'|'.join(PROGRAMS)}) ", text, re.MULTILINE)
    if bare:
        assert ACTIVATE in text[: bare.start()], f"{page.name}: {bare[0]}"
        assert "make setup" in text[: text.index(ACTIVATE)]
    for extra, use in (("export", "carvana export "), ("cluster", " --cluster ")):
        if use in text:
            assert f"pip install -e '.[{extra}]'" in text[: text.index(use)]


def test_the_held_out_cars_are_laid_out_twice_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("src/carvana/shipped", "data/train", "data/train_masks"):
        Path(folder).mkdir(parents=True)
    header, *cars = (ROOT / "src/carvana/shipped/cars.csv").read_text().splitlines()
    cars = cars[::10]
    Path("src/carvana/shipped/cars.csv").write_text("\n".join([header, *cars, ""]))
    names = [car.split(",")[0] for car in cars]
    for name in names:
        Path(f"data/train/{name}_01.jpg").touch()
        Path(f"data/train_masks/{name}_01_mask.gif").touch()
    rows = [f"{name}_01.jpg,1 1\n" for name in names]
    Path("data/train_masks.csv").write_text("img,rle_mask\n" + "".join(rows))
    for block in 2 * blocks(ROOT / "docs" / "reproduction.md", "bash"):
        subprocess.run(["bash", "-e"], input=block, text=True, check=True)
    held_out = sum(car.split(",")[2] == "test" for car in cars)
    assert len(list(Path("held_out").glob("*.jpg"))) == held_out > 0
    assert len(Path("held_out.csv").read_text().splitlines()) == held_out + 1
    assert len(list(Path("cars254/train").glob("*.jpg"))) == len(cars) - held_out
    assert all(mask.is_file() for mask in Path("cars254/train_masks").glob("*.gif"))


# ---- Python, figures, length


@pages
def test_every_python_block_calls_the_api_as_it_is(page):
    for block in blocks(page, "python"):
        for call in ast.walk(ast.parse(block)):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            of, name = call.func.value, call.func.attr
            if isinstance(of, ast.Name) and of.id == "carvana":
                assert name in carvana.__all__
                signature = inspect.signature(getattr(carvana, name))
            elif isinstance(of, ast.Name) and of.id == "model":
                signature = inspect.signature(getattr(Model, name).__get__(object()))
            else:
                continue
            signature.bind(*call.args, **{keyword.arg: None for keyword in call.keywords})


@pytest.mark.parametrize("name", ["quick", "sharp", "sharper"])
def test_scores_agree(name):
    row = re.search(rf"^\| `{name}` \|.*", (ROOT / "README.md").read_text(), re.MULTILINE)[0]
    card = (ROOT / f"src/carvana/shipped/{name}.md").read_text()
    recipe = (ROOT / f"src/carvana/recipes/{name}.toml").read_text()
    scored = re.search(r"Scored (0\.\d+)", recipe)[1]
    assert f"mean Dice {scored} " in card
    assert float(row.split("|")[3]) == float(scored)


def test_the_readme_is_short_and_links_every_page():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 110
    for page in ROOT.glob("docs/*.md"):
        assert f"docs/{page.name}" in readme
