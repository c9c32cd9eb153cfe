"""What every setting means, from the one place where it is defined: ``aape options``."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..pipeline.config import Section
from ..pipeline.errors import unknown_name
from ..pipeline.settings import fields_of


def options(section: str = "") -> list[dict[str, Any]]:
    """Return every setting of a section with its values, default and meaning.

    Args:
        section: ``recipe``, ``evaluation``, ``generation.sampling`` …, one setting such as
            ``recipe.lr``, or nothing for all. Else a word: every setting whose name contains it.

    Returns:
        ``name``, ``values``, ``default`` and ``meaning`` of each, in the order of a file.

    Raises:
        UserError: there is no such section, and no name contains the word.

    >>> [row["default"] for row in options("evaluation.shots")]
    [16]
    >>> [row["name"] for row in options("unlabelled")]
    ['data.unlabelled']
    """
    found = list(_all())
    if not section:
        return found
    inside = [row for row in found if f"{row['name']}.".startswith(f"{section}.")]
    inside = inside or [row for row in found if section in row["name"]]
    if not inside:
        parts = [row["name"].split(".") for row in found]
        known = {".".join(part[:i]) for part in parts for i in range(1, len(part))}
        words = {word for part in parts for word in part[-1].split("_")}
        raise unknown_name("section of the options", section, known, also=words)
    return inside


def _all() -> Iterator[dict[str, Any]]:
    from ..pipeline.config import GenerationConfig
    from .captions.settings import CaptionConfig, CaptioningConfig, VqaConfig
    from .config import Config
    from .method.recipe import load_recipe

    default = Config().model_dump(mode="json") | {
        "recipe": load_recipe("default").model_dump(mode="json")
    }
    sections: list[tuple[str, type[Section], dict[str, Any] | None]] = [
        ("", Config, default),
        ("generation.", GenerationConfig, None),
        ("captions.", CaptionConfig, None),
        ("captioning.", CaptioningConfig, None),
        ("vqa.", VqaConfig, None),
    ]
    for prefix, cls, values in sections:
        values = cls().model_dump(mode="json") if values is None else values
        for name, field, default in fields_of(cls):
            yield {
                "name": prefix + name,
                "values": _values(field),
                "default": _at(values, name, default),
                "meaning": field.description or "",
            }


def _at(values: Any, name: str, default: Any) -> Any:
    """Return a value by its dotted name; what no record holds has its default."""
    for part in name.split("."):
        if part not in values:
            return default
        values = values[part]
    return values


def _values(field: FieldInfo) -> str:
    """Return which values a setting may have, in words.

    >>> from aape.pipeline.config import EncoderConfig
    >>> _values(EncoderConfig.model_fields["batch_size"])
    'whole number, at least 1'
    """
    limits = []
    for rule in field.metadata:
        for name, words in (
            ("ge", "at least"),
            ("gt", "above"),
            ("le", "at most"),
            ("lt", "below"),
        ):
            value = getattr(rule, name, None)
            if value is not None:
                limits.append(f"{words} {value:g}")
        if getattr(rule, "min_length", None):
            limits.append("one or more")
    return ", ".join([_kind(field.annotation), *limits])


def _kind(annotation: Any) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    if annotation is type(None):
        return "nothing"
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in parts)
    if origin in (list, tuple):
        inner = next((part for part in parts if part is not Ellipsis), str)
        return f"list of {_kind(inner)}"
    if origin is dict or annotation is dict:
        return "names with values"
    if hasattr(annotation, "__metadata__"):
        return _kind(annotation.__origin__)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return str(annotation)
