"""Mutants of a module, by the operators of Cosmic Ray (https://cosmic-ray.readthedocs.io).

Its operators are used as a library, on text: the module on disk is never touched. A draw first
chooses places of the module, then one of the mutants of each, since an addition has a dozen and a
number two. What changes only an annotation or a docstring is no mutant.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names


@dataclass(frozen=True)
class Mutant:
    """One small change of a module.

    Attributes:
        module: path from the root of the repository.
        line: number of the line, from 1.
        was, now: that line before and after, without the space around it.
        text: the module as changed.
    """

    module: str
    line: int
    was: str
    now: str
    text: str

    @property
    def change(self) -> tuple[str, str, str]:
        """What names a mutant wherever its line has gone."""
        return self.module, self.was, self.now


def draw(module: str, source: str, count: int, seed: int) -> list[Mutant]:
    """Return up to ``count`` mutants of different places of a module, in the order of its lines."""
    generator = random.Random(f"{seed}/{module}")
    places = _places(source)
    order = sorted(places)
    generator.shuffle(order)
    sound, found = _meaning(source), []
    for place in order:
        mutants = places[place]
        generator.shuffle(mutants)
        made = next(_made(module, source, sound, mutants), None)
        if made is not None:
            found.append(made)
        if len(found) == count:
            break
    return sorted(found, key=lambda mutant: mutant.line)


def find(module: str, source: str, was: str, now: str) -> Mutant | None:
    """Return the mutant of a change drawn from an earlier text; None if the line is gone."""
    lines = source.splitlines()
    for (line, _, _), mutants in sorted(_places(source).items()):
        if lines[line - 1].strip() == was:
            for mutant in _made(module, source, _meaning(source), mutants):
                if mutant.now == now:
                    return mutant
    return None


def places_of(source: str) -> int:
    """Return in how many places a module can be changed."""
    return len(_places(source))


def _places(source: str) -> dict[tuple[int, int, str], list[tuple[str, int]]]:
    """Return the mutants at each place: (line, column, kind) -> operators and occurrences."""
    places: dict[tuple[int, int, str], list[tuple[str, int]]] = defaultdict(list)
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments():  # those of names that the user gives
            continue
        operator = kind()
        starts = (start for node in nodes for start, _ in operator.mutation_positions(node))
        family = name.split("/")[-1].split("_")[0]
        for occurrence, (line, column) in enumerate(starts):
            places[line, column, family].append((name, occurrence))
    return places


def _made(module: str, source: str, sound: str, mutants: list[tuple[str, int]]) -> Iterator[Mutant]:
    for name, occurrence in mutants:
        try:
            text = mutate_code(source, get_operator(name)(), occurrence)
        except AttributeError:  # Cosmic Ray's, of exceptions with a dot in their name
            continue
        if text is None or _meaning(text) in ("", sound):
            continue
        yield Mutant(module, *_change(source.splitlines(), text.splitlines()), text)


def _change(before: list[str], after: list[str]) -> tuple[int, str, str]:
    """Return the number of the first line that changes, and the lines that do before and after."""
    steps = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    first = next(step for step in steps if step[0] != "equal")
    was, now = before[first[1] : first[2]], after[first[3] : first[4]]
    return first[1] + 1, *(" ".join(line.strip() for line in part).strip() for part in (was, now))


def _meaning(source: str) -> str:
    """Return the program without annotations and docstrings; empty where it is none."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.arguments):  # a `*` alone is no product
            node.args, node.posonlyargs, node.kwonlyargs = (
                [*node.posonlyargs, *node.args, *node.kwonlyargs], [], []
            )  # fmt: skip
            node.defaults, node.kw_defaults = [*node.defaults, *filter(None, node.kw_defaults)], []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            body[0] = ast.Pass()
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
