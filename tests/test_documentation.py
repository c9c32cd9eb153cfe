"""What the documentation says is there: commands, options, files, links, variables, snippets."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import random_bank

import aape

REPOSITORY = Path(aape.__file__).resolve().parent
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")],
    key=lambda page: page.as_posix(),
)
NAMES = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
# a changelog speaks of what was; it is read for links alone
SPEAKING = [name for name in NAMES if name != "CHANGELOG.md"]
EVERY_PAGE = pytest.mark.parametrize("name", SPEAKING)
_FENCE = re.compile(r"^(```+)([\w-]*)[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
_FILE = re.compile(
    r"(?<![\w/.$~-])((?:adapter|pipeline|docs|tests|benchmarks|data_manifests|\.ci)/[\w./-]*\w/?)"
)
# where a user's word goes: they stand for themselves in a parser
_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_]*)\]")


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def blocks(text: str, *languages: str) -> Iterator[str]:
    for _, language, body in _FENCE.findall(text):
        if language in languages:
            yield body


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def shell_lines(text: str) -> Iterator[str]:
    """Every command of the shell blocks; continued lines are joined, comments are cut."""
    for body in blocks(text, "", "bash", "sh", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")


def words_of(line: str) -> list[str]:
    """Split one command as a shell does, without its comment and what follows it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in lexer:
        if word and set(word) <= set("|;&"):
            break
        words.append(word)
    return words


def commands(name: str) -> Iterator[tuple[str, bool]]:
    """Every command of aape on a page, and whether it stands whole in a block."""
    text = text_of(name)
    for line in shell_lines(text):
        for part in re.split(r"\s&&\s|\s\|\s", line):
            if re.match(r"(\S*/)?aape\s", part):
                yield part, True
    for span in _SPAN.findall(prose(text)):
        if re.match(r"aape\s[a-z-]", span):
            yield span, False


def resolve(words: list[str]):
    """Walk from the top of the command line to a verb; return it, its context and the rest."""
    import typer

    from aape.cli import app

    command = typer.main.get_command(app)
    context = command.make_context("aape", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        while words and words[0] in ("-q", "-v", "--quiet", "--verbose", "--version"):
            words = words[1:]
        if not words:
            return command, context, words
        if words[0].startswith("-"):
            return command, context, words
        assert words[0] in command.commands, f"aape has no verb {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
        context = command.make_context("", [], parent=context, resilient_parsing=True)
    return command, context, words


def problem_of(line: str, whole: bool) -> str:
    """Say what the command line has against a command; nothing of it is run.

    Args:
        line: as it is written. whole: it must be complete; in running text arguments may be left
            out, and an ellipsis stands for anything.
    """
    line = _PLACEHOLDER.sub(r"\1", line).replace("PHOTO…", "PHOTO")
    words = [word for word in words_of(line)[1:] if word not in ("…", "...")]
    words = [word for word in words if word not in ("-q", "-v")]  # they may stand anywhere
    try:
        command, context, rest = resolve(words)
        if hasattr(command, "commands"):
            left = [word for word in rest if word not in ("--help", "-h", "--version")]
            return f"what is {left[0]!r}?" if left else ""
        if "--help" in rest or "-h" in rest:
            return ""
        if whole:
            command.make_context("", list(rest), parent=context.parent)
            return ""
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        options = [word.split("=")[0] for word in rest if word.startswith("-") and word != "-"]
        unknown = [word for word in options if word not in known]
        return f"no option {unknown[0]}" if unknown else ""
    except AssertionError as error:
        return str(error)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return error.format_message()


@EVERY_PAGE
def test_every_command_is_one(name: str) -> None:
    found = list(commands(name))
    wrong = {line: said for line, whole in found if (said := problem_of(line, whole))}
    assert not wrong


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("aape fly", True), ("aape train --bnak x", True), ("aape bank search x -k many", True),
        ("aape bank fly", False), ("aape train --bnak", False), ("aape predict", True),
        ("aape --fly", False),
    ],
)  # fmt: skip
def test_a_wrong_command_is_noticed(line: str, whole: bool) -> None:
    assert problem_of(line, whole)


def test_commands_are_found_at_all() -> None:
    found = [line for name in SPEAKING for line, _ in commands(name)]
    assert len(found) > 60
    assert sum(line.startswith("aape train") for line in found) > 5


@EVERY_PAGE
def test_every_option_that_is_named_is_one(name: str) -> None:
    import typer

    from aape.cli import app

    def options(command) -> Iterator[str]:
        for option in command.params:
            yield from (*option.opts, *option.secondary_opts)
        for child in getattr(command, "commands", {}).values():
            yield from options(child)

    known = {*options(typer.main.get_command(app)), "--help"}
    for script in (REPOSITORY / "benchmarks").rglob("*.py"):
        known |= set(re.findall(r'"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    said = {word for span in _SPAN.findall(prose(text_of(name))) for word in span.split()[:1]}
    assert not {word for word in said if word.startswith("--")} - known


@EVERY_PAGE
def test_every_make_target_is_one(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    text = text_of(name)
    lines = [*shell_lines(text), *_SPAN.findall(prose(text))]
    said = {word for line in lines for word in re.findall(r"^make ([a-z-]+)", line)}
    assert said <= targets


@EVERY_PAGE
def test_every_script_takes_its_options(name: str) -> None:
    text = text_of(name)
    for line in [*shell_lines(text), *_SPAN.findall(prose(text))]:
        match = re.match(r"python3? (benchmarks/\S+\.py)(.*)", line)
        if not match:
            continue
        assert (REPOSITORY / match[1]).exists(), line
        script = text_of(match[1])
        for option in re.findall(r"(?<=\s)--[a-z-]+", match[2]):
            assert f'"{option}"' in script, (line, option)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = REPOSITORY / name
    for pair in _LINK.findall(prose(text_of(name))):
        target, _, anchor = (pair[0] or pair[1]).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = (page.parent / target) if target else page
        assert place.exists(), target
        if anchor and place.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [slug(heading) for heading in headings], f"{target}#{anchor}"


def slug(heading: str) -> str:
    """Return the anchor that MkDocs gives a heading."""
    from unicodedata import normalize

    plain = normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@EVERY_PAGE
def test_every_file_that_is_named_is_there(name: str) -> None:
    text = text_of(name)
    spans = [*_SPAN.findall(prose(text)), *shell_lines(text)]
    named = {found.rstrip("/") for span in spans for found in _FILE.findall(span)}
    lost = [found for found in sorted(named) if not list(REPOSITORY.glob(found))]
    assert not lost


def test_every_page_is_in_the_site() -> None:
    listed = set(re.findall(r":\s*([\w/]+\.md)$", text_of("mkdocs.yml"), re.MULTILINE))
    pages = {name.removeprefix("docs/") for name in NAMES if name.startswith("docs/")}
    assert listed == pages


def test_the_tree_of_files_is_the_present_one() -> None:
    import runpy

    module = runpy.run_path(str(REPOSITORY / "docs" / "tree_of_files.py"))
    page = text_of("CONTRIBUTING.md")
    assert module["written"](page) == page, "run: python docs/tree_of_files.py"


def test_the_api_page_names_all_that_is_public() -> None:
    import runpy

    module = runpy.run_path(str(REPOSITORY / "docs" / "public_names.py"))
    page = module["on_page_markdown"](text_of("docs/api.md"))
    assert page.count("\n::: aape.") == len(aape.__all__)


def test_tests_that_the_notebook_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", text_of("docs/notebook/own_photos.md")))
    files = {path.name: path for path in (REPOSITORY / "tests").rglob("test_*.py")}
    missing = [
        f"{file}::{test}"
        for file, test in sorted(named)
        if file not in files or f"def {test}(" not in files[file].read_text(encoding="utf-8")
    ]
    assert len(named) > 40
    assert not missing


def test_the_list_of_environment_variables_is_complete() -> None:
    said = set(re.findall(r"^\| `([A-Z_]+)`", text_of("docs/environment.md"), re.MULTILINE))
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("pipeline", "adapter", "tests")
        for path in (REPOSITORY / folder).rglob("*.py")
        if path != Path(__file__).resolve()
    )
    read = set(re.findall(r"\bAAPE_[A-Z_]*[A-Z]\b", code))
    read |= set(re.findall(r"environ(?:\.get\(|\[)\s*\"([A-Z_]+)\"", code))
    of_tests = {"PYTHONPATH", "TERM", "TMUX", "TERM_PROGRAM", "TOKENIZERS_PARALLELISM"}
    assert not read - said - of_tests
    assert not {name for name in said if name.startswith("AAPE_")} - read


# --- Python ---


def python_blocks() -> list[tuple[str, int, str]]:
    return [
        (name, index, body)
        for name in SPEAKING
        for index, body in enumerate(blocks(text_of(name), "python"))
    ]


@pytest.mark.parametrize(
    ("name", "body"),
    [pytest.param(name, body, id=f"{name}-{index}") for name, index, body in python_blocks()],
)
def test_every_snippet_calls_what_there_is(name: str, body: str) -> None:
    """It compiles, and each call of a public function fits that function's signature."""
    for node in ast.walk(ast.parse(body)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if not isinstance(called, ast.Attribute) or ast.unparse(called.value) != "aape":
            continue
        assert called.attr in aape.__all__, ast.unparse(node)
        named = {keyword.arg: None for keyword in node.keywords if keyword.arg}
        signature = inspect.signature(getattr(aape, called.attr))
        signature.bind_partial(*[None for _ in node.args], **named)


def test_the_snippet_of_the_bank_runs(tmp_path, monkeypatch) -> None:
    from aape.pipeline.bank import write_bank

    monkeypatch.chdir(tmp_path)
    cars = random_bank.metadata(class_names=random_bank.NAMES[:3])
    write_bank("cars.bank.parquet", random_bank.rows(), cars)
    names: dict = {"embedding": random_bank.random_unit(1)[0]}
    for body in blocks(text_of("docs/bank.md"), "python"):
        exec(compile(body, "docs/bank.md", "exec"), names)
    assert names["P"].shape[0] == 3


@pytest.mark.slow
def test_the_notebook_runs(tmp_path) -> None:
    """Its cells, one after the other, in a process and a folder of their own."""
    notebook = json.loads(text_of("docs/first_steps.ipynb"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    assert not any(cell["outputs"] for cell in cells), "outputs are not committed"
    script = tmp_path / "first_steps.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY.parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path) -> None:
    """Strictly: every link, anchor and documented name exists, and nothing is fetched."""
    pytest.importorskip("material", reason="the site needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(tmp_path)]
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY.parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "api.html").read_text(encoding="utf-8")
    assert 'id="aape.pipeline.bank.PromptBank"' in page
    loaded = re.findall(
        r'(?:src|href)="(https?://[^"]+)"[^>]*(?:rel="stylesheet"|></script>)', page
    )
    assert not loaded


def test_pip_installs_every_package_and_every_file_beside_it() -> None:
    """`pip install .` is what the README says; a folder that is not listed would be missing."""
    from setuptools.config.pyprojecttoml import read_configuration

    settings = read_configuration(REPOSITORY / "pyproject.toml")["tool"]["setuptools"]
    lost = []
    for path in REPOSITORY.glob("[a-z]*/**/*"):
        parts = path.relative_to(REPOSITORY).parts
        if parts[0] not in ("adapter", "pipeline", "data_manifests") or "__pycache__" in parts:
            continue
        package = ".".join(["aape", *parts[:-1]])
        patterns = settings["package-data"].get(package, [])
        shipped = path.suffix == ".py" or any(path.match(pattern) for pattern in patterns)
        if path.is_file() and not (package in settings["packages"] and shipped):
            lost.append(path.relative_to(REPOSITORY).as_posix())
    assert not lost


def test_the_readme_is_short() -> None:
    words = re.sub(r"\]\([^)]*\)", "]", text_of("README.md")).split()
    assert len([word for word in words if re.search(r"\w", word)]) <= 900
