"""What a figure will be at a size that was not measured: a line through smaller ones, and a check.

A figure is ``a + b·f(n)`` with neither below zero, where the algorithm says what f is: n, n^1.5 for
work that compares n rows with √n centres, √n for a search that looks at few of √n lists, n² for
each of n photos against each of n classes. The line is fitted to all sizes but the largest, which
it then has to meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

# the end of a figure's name: what stands beside it in brackets, how the row is called, and whether
# the second is modelled, too: other work on the machine decides what a clock says
_BESIDE = {
    ", own GiB": (", resident GiB", ", memory, GiB", True),
    ", s": (", clock s", ", s", False),
}
NOT_MODELLED = "–"
GROWTHS: dict[str, Callable[[float], float]] = {
    "1": lambda n: 0.0,
    "√n": lambda n: n**0.5,
    "n": lambda n: n,
    "n^1.5": lambda n: n**1.5,
    "n²": lambda n: n**2,
}


@dataclass(frozen=True)
class Line:
    """``a + b·f(n)``."""

    growth: str
    a: float
    b: float

    def __call__(self, n: float) -> float:
        return self.a + self.b * GROWTHS[self.growth](n)


def fitted(growth: str, points: Mapping[int, float]) -> Line:
    """Return the line of the least relative errors, a and b not below zero.

    >>> line = fitted("n", {100: 3.0, 200: 5.0})
    >>> round(line.a, 6), round(line.b, 6), round(line(400), 6)
    (1.0, 0.02, 9.0)
    >>> fitted("n", {100: 1.0, 200: 4.0}).a
    0.0
    """
    f = GROWTHS[growth]
    # relative errors: each point is divided by its value
    rows = [(1 / max(y, 1e-9), f(n) / max(y, 1e-9)) for n, y in points.items()]
    ones, slopes = [row[0] for row in rows], [row[1] for row in rows]
    aa, ab, bb = _dot(ones, ones), _dot(ones, slopes), _dot(slopes, slopes)
    only_a = Line(growth, sum(ones) / aa, 0.0)
    if not bb:
        return only_a
    only_b = Line(growth, 0.0, sum(slopes) / bb)
    determinant = aa * bb - ab * ab
    if determinant > 1e-12 * aa * bb:
        a = (bb * sum(ones) - ab * sum(slopes)) / determinant
        b = (aa * sum(slopes) - ab * sum(ones)) / determinant
        if a >= 0 and b >= 0:
            return Line(growth, a, b)

    def error(line: Line) -> float:
        return sum((line(n) / max(y, 1e-9) - 1) ** 2 for n, y in points.items())

    return min(only_a, only_b, key=error)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def growth_of(name: str, growths: Mapping[str, str]) -> str:
    """Return how a figure grows, by the longest key that its name starts with."""
    fits = [key for key in growths if name.startswith(key)]
    return growths[max(fits, key=len)] if fits else "n"


def table(
    title: str,
    measured: Mapping[int, Mapping[str, float]],
    growths: Mapping[str, str],
    target: int,
    unit: str,
) -> list[str]:
    """Return a Markdown table: every figure measured, modelled for the largest size, and beyond.

    Args:
        measured: figures by size; the largest checks the model of the others.
        growths: how figures grow, by the beginning of their names; ``NOT_MODELLED`` where a
            limit is reached beyond the measured sizes.
        target: the size that is only modelled.
        unit: what is counted.
    """
    sizes = sorted(measured)
    check = sizes[-1]
    head = [title, *(f"{n:,} {unit}" for n in sizes[:-1]), f"{check:,}: measured"]
    lines = [
        "| " + " | ".join([*head, "modelled", "a + b·f", f"**{target:,}, modelled**"]) + " |",
        "|---" * (len(head) + 3) + "|",
    ]
    for name in measured[check]:
        if name.endswith(tuple(second for second, *_ in _BESIDE.values())):
            continue  # stands in brackets
        names, called, modelled = _together(name, measured[check])
        growth = growth_of(name, growths)
        cells = [_cells(measured[n].get(each) for each in names) for n in sizes]
        for n, known in ((check, sizes[:-1]), (target, sizes)):
            points = [{size: measured[size][each] for size in known} for each in modelled]
            lines_through = [fitted(growth, each)(n) for each in points if growth in GROWTHS]
            cells.append(_cells(lines_through) if lines_through else NOT_MODELLED)
        cells.insert(-1, growth)
        lines.append("| " + " | ".join([called, *cells]) + " |")
    return lines


def _together(name: str, figures: Mapping[str, float]) -> tuple[list[str], str, list[str]]:
    """Return the figures of one row, how the row is called, and which of them are modelled."""
    for end, (second, called, both) in _BESIDE.items():
        beside = name.removesuffix(end) + second
        if name.endswith(end) and beside in figures:
            names = [name, beside]
            return names, name.removesuffix(end) + called, names if both else [name]
    return [name], name, [name]


def _cells(values: Iterable[float | None]) -> str:
    """Return a figure, with a second one in brackets."""
    first, *second = ["–" if value is None else shown(value) for value in values]
    return first + "".join(f" ({value})" for value in second)


def shown(value: float) -> str:
    """Return a figure of three digits, none after the point from a hundred on.

    >>> shown(0.01234), shown(5.678), shown(12345.6)
    ('0.012', '5.68', '12,346')
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 1 else f"{value:.3g}"
