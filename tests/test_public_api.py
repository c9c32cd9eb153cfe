"""The public names: one function a verb, stubs that say the same, floors that only look down."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from places import REPOSITORY

import aape
from aape.adapter.config import Config
from aape.cli import app
from aape.pipeline.settings import fields_of

# how a command is spoken to or what it prints, which a function has no need of
OF_THE_TERMINAL = {"as_json", "words", "context"}
# options of one command alone that change what is printed
PRINTED = {"bank_stats": {"every"}}
# the old names of other verbs, for one version
OLD = {"train": {"task", "new_class_prompts"}}
# what a command splits off its words
FROM_WORDS = {
    "bank_show": {"class_name"},
    "bank_search": {"text"},
    "bank_sql": {"query"},
    "search": {"run", "photos", "text"},
    "ask": {"photos", "question"},
}
# an open encoder, an open language model
ONLY_IN_PYTHON = {
    "predict": {"encoder"},
    "explain": {"encoder"},
    "caption": {"encoder", "lm", "batch_size"},
    "ask": {"encoder", "lm"},
}


def commands() -> dict[str, Any]:
    """Every verb by the name of its function."""
    found: dict[str, Any] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", {})
        for name, child in children.items():
            walk(child, (*path, name))
        if not children:
            found["_".join(path).replace("-", "_")] = command

    walk(typer.main.get_command(app), ())
    return found


ONLY_IN_PYTHON |= {"serve": {"limits"}, "export": {"encoder"}}
# of the terminal alone: the limits one by one, and another word for --out
PRINTED |= {
    "serve": {"megabytes", "megapixels", "seconds", "per_minute", "batch"},
    "export": {"onnx"},
}


def options_of(name: str, command: Any) -> dict[str, Any]:
    hidden = OF_THE_TERMINAL | PRINTED.get(name, set()) | OLD.get(name, set())
    return {
        parameter.name: parameter.default
        for parameter in command.params
        if parameter.name not in hidden and parameter.name != "help"
    }


def plain(value: Any) -> Any:
    """A default as both sides may write it: nothing, empty text and an empty list are one."""
    if value is None or value == "" or value == [] or value == () or value is inspect._empty:
        return None
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, list | tuple) else value


def test_every_verb_is_a_function_and_every_function_a_verb():
    things = {name for name in aape.__all__ if inspect.isclass(getattr(aape, name))}
    others = {"add_baseline", "load_encoder", "load_manifest", "load_recipe", "open_dataset"}
    others |= {"open_model"}
    assert set(commands()) == set(aape.__all__) - things - others


@pytest.mark.parametrize("name", sorted(commands()))
def test_options_and_defaults_are_the_same(name):
    command = commands()[name]
    signature = inspect.signature(getattr(aape, name)).parameters
    mine = {
        key: plain(parameter.default)
        for key, parameter in signature.items()
        if key not in ONLY_IN_PYTHON.get(name, set()) and key not in FROM_WORDS.get(name, set())
    }
    theirs = {key: plain(value) for key, value in options_of(name, command).items()}
    assert mine == theirs
    assert inspect.getdoc(getattr(aape, name)), name


def test_help_shows_the_defaults_of_the_configuration():
    defaults = {name: value for name, _, value in fields_of(Config)}
    shown = {
        parameter.name: parameter.show_default
        for parameter in commands()["train"].params
        if isinstance(getattr(parameter, "show_default", None), str)
    }
    places = {
        "shots": "evaluation.shots", "seeds": "evaluation.seeds", "encoder": "encoder.name",
        "protocol": "evaluation.protocol", "baselines": "evaluation.baselines",
        "new_classes": "evaluation.new_classes", "names": "evaluation.names",
        "device": "encoder.device",
    }  # fmt: skip
    assert shown.pop("recipe") == Config().recipe.name
    assert set(shown) == set(places)
    for name, text in shown.items():
        value = defaults[places[name]]
        assert text == ",".join(map(str, value)) if isinstance(value, list) else str(value)


def test_stub_and_module_have_the_same_names():
    tree = ast.parse((REPOSITORY / "__init__.pyi").read_text(encoding="utf-8"))
    imported: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, "else an editor does not show it"
                imported[alias.name] = f".{node.module}"
    assert imported == aape._PUBLIC
    assert (REPOSITORY / "py.typed").exists()


def test_every_name_is_documented():
    for name in aape.__all__:
        assert (getattr(aape, name).__doc__ or "").strip(), name


def test_every_setting_is_explained():
    rows = aape.options()
    assert len(rows) > 150
    assert [row["name"] for row in rows if not row["meaning"]] == []
    assert [row["name"] for row in rows if "class '" in row["values"]] == []
    assert [row["name"] for row in aape.options("recipe.class_text")] == [
        "recipe.class_text.bases",
        "recipe.class_text.shares",
        "recipe.class_text.doubt",
    ]
    with pytest.raises(aape.UserError, match="Did you mean 'recipe'"):
        aape.options("receipe")


def test_import_loads_next_to_nothing():
    code = (
        "import sys; before = set(sys.modules); import aape;"
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('aape')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "pydantic", "typer", "yaml", "rich", "sklearn"}
    assert not heavy & {name.split(".")[0] for name in done.stdout.split()}


def test_the_wheel_has_every_package():
    if sys.version_info < (3, 11):
        pytest.skip("reads TOML with Python 3.11")
    import tomllib

    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {"aape"} | {
        ".".join(["aape", *path.parent.relative_to(REPOSITORY).parts])
        for floor in ("adapter", "pipeline", "data_manifests")
        for path in (REPOSITORY / floor).rglob("__init__.py")
    }
    assert set(listed["packages"]) == found


# --- the floors: cli > commands > adapter > pipeline; the method imports no sibling ---


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """What a module imports of aape, wherever in it, as full names without ``aape``."""
    own = path.relative_to(REPOSITORY).with_suffix("").parts
    package = own[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            rest = tuple((node.module or "").split(".")) if node.module else ()
            if not node.level and rest[:1] != ("aape",):
                continue
            head = (*base, *rest) if node.level else rest[1:]
            for alias in node.names:
                yield (*head, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("aape."):
                    yield tuple(alias.name.split(".")[1:])


def modules(*folder: str) -> list[Path]:
    return sorted(REPOSITORY.joinpath(*folder).rglob("*.py"))


def test_pipeline_never_looks_up():
    found = [(path.name, name) for path in modules("pipeline") for name in imports(path)
             if name[0] in ("adapter", "cli")]  # fmt: skip
    assert found == []


def test_nothing_but_the_entry_imports_the_command_line():
    paths = [*modules("pipeline"), *modules("adapter"), REPOSITORY / "__init__.py"]
    assert [path for path in paths for name in imports(path) if name[0] == "cli"] == []


def test_commands_are_called_by_the_command_line_alone():
    paths = [p for floor in ("pipeline", "adapter") for p in modules(floor)]
    found = [
        (str(path.relative_to(REPOSITORY)), name)
        for path in paths
        for name in imports(path)
        if "commands" in name and path.parent.name != "commands"
    ]
    assert found == []


def test_the_method_imports_no_sibling():
    found = [
        (path.name, name)
        for path in modules("adapter", "method")
        for name in imports(path)
        if name[0] == "adapter" and name[1] != "method"
    ]
    assert found == []
    below = {name[:2] for path in modules("adapter", "method") for name in imports(path)
             if name[0] == "pipeline"}  # fmt: skip
    assert below <= {("pipeline", part) for part in ("config", "errors", "files", "store")}


def test_the_reader_of_imports_sees_what_is_there(tmp_path, monkeypatch):
    folder = tmp_path / "adapter" / "method"
    folder.mkdir(parents=True)
    path = folder / "x.py"
    path.write_text(
        "from ...pipeline import errors\n"
        "def f():\n    from ..metrics.recall import g\n    import aape.cli\n"
        "from . import terms\nfrom aape.adapter.run import RunFolder\n"
    )
    monkeypatch.setitem(globals(), "REPOSITORY", tmp_path)
    assert set(imports(path)) == {
        ("pipeline", "errors"),
        ("adapter", "metrics", "recall", "g"),
        ("cli",),
        ("adapter", "method", "terms"),
        ("adapter", "run", "RunFolder"),
    }


def test_one_thing_is_accepted_wherever_several_are():
    """A text that is taken for a sequence would be read letter by letter."""
    for name in aape.__all__:
        function = getattr(aape, name)
        if not inspect.isfunction(function):
            continue
        for parameter in inspect.signature(function).parameters.values():
            wanted = str(parameter.annotation)
            if parameter.name == "settings":  # NAME=VALUE, one or several, or a mapping
                continue
            assert not wanted.startswith(("Sequence", "Iterable", "list")), (name, parameter.name)


def test_what_is_neither_one_nor_several_is_one_sentence(tmp_path):
    with pytest.raises(aape.UserError, match="seeds is"):
        aape.train(features=tmp_path / "none.safetensors", seeds=object())
