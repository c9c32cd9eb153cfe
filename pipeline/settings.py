"""Where a configuration comes from: a file, then options, then ``--set``; the last one wins."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from .config import EncoderConfig, GenerationConfig, Section, load_yaml, read_yaml
from .errors import UserError

S = TypeVar("S", bound=Section)
Source = str | Path | Mapping[str, Any] | Section | None
Assignments = Sequence[str] | Mapping[str, Any]
_OWN: dict[str, type[Section]] = {"generation": GenerationConfig, "encoder": EncoderConfig}
# first names of the trees that runs and suites write; what is below is checked where it is known
OF_TREES = (
    "task", "data", "encoder", "recipe", "evaluation", "generation", "dataset", "root", "captions",
    "captioning", "vqa", "seeds", "name", "title", "jobs", "caption_seeds", "repeat_images",
    "test_images", "test_questions",
)  # fmt: skip
# parts of the trees of runs and suites; a recipe may be a name instead
_SECTIONS = ("data", "encoder", "evaluation", "generation", "captions", "captioning", "vqa")


def read_source(
    source: Source, section: str = "", known: Mapping[str, type[Section]] | None = None
) -> dict[str, Any]:
    """Return the values of a configuration: a YAML file, a mapping, a section, or nothing.

    Args:
        section: name of the section that is wanted; where the source is a whole tree with such a
            section, its values are returned.
        known: further sections by name, of floors above; beside the one that is wanted every
            section that is known is checked too, so that nothing misspelt is passed over.

    Raises:
        UserError: the file cannot be read, holds no mapping, says something unknown, or is that of
            a run or a suite which says nothing of the section.
    """
    if source is None:
        return {}
    if isinstance(source, Section):
        values: Any = source.model_dump(mode="json")
    else:
        values = dict(source) if isinstance(source, Mapping) else read_yaml(source)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{source} is no configuration: it holds no names with values.")
    _check_kinds(values, origin_of(source))
    if section and isinstance(values.get(section), dict):
        _check_rest(values, _OWN | dict(known or {}), origin_of(source))
        return dict(values[section])
    if section and ("task" in values or "jobs" in values):
        whose = "suite" if "jobs" in values else "run"
        raise UserError(
            f"{source} is the configuration of a {whose} and says nothing of {section}.",
            f"See what can be set: aape options {section}.",
        )
    return values


def _check_rest(values: Mapping[str, Any], known: Mapping[str, type[Section]], origin: str) -> None:
    """Stop at a name of a tree that is unknown, or at one in a section of it."""
    for name, value in values.items():
        if name not in known and name not in OF_TREES:
            raise UserError(
                f"{origin} is not valid: {name}: it is neither a section nor a setting.",
                "See: aape options.",
            )
        if name in known and isinstance(value, Mapping):
            known[name].parse(value, origin, within=name)


def _check_kinds(values: Mapping[Any, Any], origin: str) -> None:
    """Stop where a name is no text, or a section no mapping: verbs look into both unasked."""
    for name, value in values.items():
        if not isinstance(name, str):
            raise UserError(f"{origin} is not valid: the name {name!r} is no text.")
        if name in _SECTIONS and not isinstance(value, Mapping | Section):
            raise UserError(
                f"{origin} is not valid: {name} is a section of names with values, not"
                f" {str(value)[:40]!r}.",
                f"See: aape options {name}.",
            )
    if not isinstance(values.get("task", ""), str):
        raise UserError(f"{origin} is not valid: task is one word, such as classification.")


def origin_of(source: Source) -> str:
    """Return what an error calls a configuration: its file, else what was set."""
    return str(source) if isinstance(source, str | Path) else "What was set"


def settle(
    cls: type[S],
    values: dict[str, Any],
    given: Mapping[str, Any],
    settings: Assignments = (),
    *,
    section: str = "",
    origin: str = "What was set",
) -> S:
    """Return a section from the values of a file, options that were given, and assignments.

    Args:
        values: of :func:`read_source`. given: by dotted name; None is what was not given.
        settings: ``["recipe.lr=3e-3"]``, or ``{"recipe.lr": 3e-3}``.
        section: may stand before the names of ``settings``: ``generation.samples=3``.

    Raises:
        UserError: a name is unknown, or a value is none that the setting may have.

    >>> from aape.pipeline.config import GenerationConfig
    >>> settle(GenerationConfig, {"samples": 3}, {"seed": 7}, ["sampling.top_p=0.5"]).sampling.top_p
    0.5
    """
    merged = _copied(values)
    words = [name for name, value in given.items() if value is not None]
    for name in words:
        _put(merged, name, given[name])
    for name, value in assigned(settings).items():
        short = name.removeprefix(f"{section}.") if section else name
        _put(merged, short, _typed(cls, short, value, known_as=name))
        words.append(short)
    try:
        return cls.parse(merged, origin)
    except UserError as error:
        raise _blamed(error, words) from error


def _blamed(error: UserError, words: Sequence[str]) -> UserError:
    """Return the error that names the option or assignment where it, not the file, is wrong."""
    cause = error.__cause__
    for problem in cause.errors() if isinstance(cause, ValidationError) else ():
        place = ".".join(map(str, problem["loc"]))
        for name in words:
            if f"{place}.".startswith(f"{name}."):
                return UserError(f"What was set is not valid: {place}: {problem['msg']}.")
    return error


def assigned(settings: Assignments) -> dict[str, Any]:
    """Return ``{"recipe.lr": "3e-3"}`` for ``["recipe.lr=3e-3"]``; a mapping is returned as it is.

    Raises:
        UserError: there is no equals sign.
    """
    if isinstance(settings, Mapping):
        return dict(settings)
    found: dict[str, Any] = {}
    for text in [settings] if isinstance(settings, str) else settings:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {text} is not of the form NAME=VALUE.", "Write recipe.lr=3e-3.")
        found[name.strip()] = value.strip()
    return found


def fields_of(cls: type[Section], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted name, the field and its default of every setting of a section, in order.

    A section in the section gives its own fields instead.
    """
    for name, field in cls.model_fields.items():
        default = field.get_default(call_default_factory=True)
        inner = _section(field.annotation)
        if inner is not None:
            yield from fields_of(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, default


def _section(annotation: Any) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _typed(cls: type[Section], name: str, value: Any, known_as: str) -> Any:
    """Return the value of an assignment as its field wants it; text is read as YAML."""
    here: type[Section] | None = cls
    annotation: Any = None
    parts = name.split(".")
    for i, part in enumerate(parts):
        if here is None:
            if annotation is not None and "dict" in str(annotation):
                break  # free names below, such as generation.vllm.options
            raise _unknown(cls, known_as)
        if part not in here.model_fields:
            raise _unknown(cls, known_as)
        annotation = here.model_fields[part].annotation
        here = _section(annotation)
        if i == len(parts) - 1 and here is not None and not isinstance(value, Mapping):
            raise UserError(
                f"{known_as} is a section, not a setting.", f"See: aape options {known_as}."
            )
    if not isinstance(value, str):
        return value
    if _has(annotation, str) and not _has(annotation, list, tuple):
        return value
    if _has(annotation, list, tuple) and not value.startswith("["):
        return [_read(word) for word in value.split(",") if word.strip()]
    return _read(value)


def _read(text: str) -> Any:
    """Return the value that a word stands for; what is no YAML is a text."""
    try:
        return load_yaml(text)
    except (yaml.YAMLError, ValueError):  # such as the date 2026-99-99
        return text


def _has(annotation: Any, *kinds: type) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(_has(part, *kinds) for part in get_args(annotation))
    return annotation in kinds or origin in kinds


def _unknown(cls: type[Section], name: str) -> UserError:
    names = [known for known, _, _ in fields_of(cls)]
    last = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    near = near or [known for known in names if known.rpartition(".")[2] == last][:3]
    guess = f"Did you mean {' or '.join(near)}? " if near else ""
    return UserError(f"There is no setting {name!r}.", f"{guess}All are in: aape options.")


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        inner = values.get(group)
        values[group] = inner if isinstance(inner, dict) else {}
        values = values[group]
    values[last] = value


def _copied(values: Any) -> Any:
    return {k: _copied(v) for k, v in values.items()} if isinstance(values, dict) else values
