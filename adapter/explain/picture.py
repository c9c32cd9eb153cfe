"""An explanation as one picture: bars of what each term adds, and the sentences below."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import UserError
from ...pipeline.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .classes import ClassExplanation
    from .photo import NearSentence, PhotoExplanation

_KINDS = (".svg", ".png")
_STYLE: Any = {
    "svg.hashsalt": "aape",  # ids follow from the figure, and the same run has the same report
    "svg.fonttype": "none",
    "text.parse_math": False,  # a sentence may hold dollars
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_COLOURS = ("#1f5fd8", "#e0912f", "#7b8899")


def require_picture_name(path: str | Path) -> None:
    """Stop before any work if the file's name says no kind of picture that is drawn here."""
    if Path(path).suffix.lower() not in _KINDS:
        raise UserError(f"{path} is neither .svg nor .png.", "Name the picture so: --picture a.svg")


def draw_photo(found: PhotoExplanation, path: str | Path) -> None:
    """Draw what each term adds to the likeliest classes, beyond its average over all classes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 6.4), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1, 2.1), height_ratios=(3, 2.4))
        photo = figure.add_subplot(grid[0, 0])
        photo.axis("off")
        _show_photo(photo, found.photo)
        bars = figure.add_subplot(grid[0, 1])
        terms = list(found.classes[0].terms)
        width = 0.8 / len(found.classes)
        for place, answer in enumerate(found.classes):
            at = [i + (place - (len(found.classes) - 1) / 2) * width for i in range(len(terms) + 1)]
            parts = [answer.terms[name] - found.average[name] for name in terms]
            bars.barh(
                at, [*parts, sum(parts)], height=width * 0.92,
                color=_COLOURS[place % len(_COLOURS)],
                label=f"{_one_line(answer.name, 34)}  {answer.probability:.0%}",
            )  # fmt: skip
        bars.set_yticks(range(len(terms) + 1), [*terms, "together"])
        bars.invert_yaxis()
        bars.axvline(0, color="0.4", linewidth=0.8)
        bars.set_xlabel("added to the logit, beyond the average class")
        bars.legend(frameon=False, fontsize=9, loc="best")
        words = figure.add_subplot(grid[1, :])
        words.axis("off")
        words.text(0, 1, _words(found), va="top", fontsize=9, linespacing=1.35)
        _save(figure, path)


def draw_class(found: ClassExplanation, path: str | Path) -> None:
    """Draw what each sentence carries, and the confusions in words."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = found.sentences if len(found.sentences) <= 14 else [*found.sentences[:7],
                                                               *found.sentences[-7:]]  # fmt: skip
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 2.4 + 0.36 * max(len(shown), 1)), layout="constrained")
        axes = figure.add_subplot()
        values = [s.turns if s.carries is None else s.carries for s in shown]
        colours = [_COLOURS[0] if value > 0 else "#b5332a" for value in values]
        axes.barh(range(len(shown)), values, color=colours)
        axes.set_yticks(range(len(shown)), [_one_line(s.text, 70) for s in shown], fontsize=8)
        axes.invert_yaxis()
        axes.axvline(0, color="0.4", linewidth=0.8)
        photos = any(s.carries is not None for s in shown)
        axes.set_xlabel("lost without it, in logits" if photos else "turn of the class text")
        others = ", ".join(
            f"{c.name} ({c.taken_for_it + c.takes_it})" if not c.nearest_text else c.name
            for c in found.confused_with
        )
        axes.set_title(
            _one_line(f"{found.name}: what its sentences carry", 90)
            + f"\nconfused with: {_one_line(others or '–', 110)}",
            loc="left", fontsize=10,
        )  # fmt: skip
        _save(figure, path)


def _show_photo(axes: Any, photo: str) -> None:
    """Show the photo where there is one; a row of a feature file has none."""
    from ...pipeline.pictures import PictureError, read_picture

    try:
        small = read_picture(photo).image
    except PictureError:
        axes.text(0.5, 0.5, _one_line(photo, 30), ha="center", va="center")
        return
    small.thumbnail((448, 448))
    axes.imshow(small)


def _words(found: PhotoExplanation) -> str:
    plain = ", ".join(f"{row['name']} {row['probability']:.0%}" for row in found.zero_shot)
    lines = [f"zero-shot CLIP: {plain}", *textwrap.wrap(found.verdict, 130), ""]
    for title, near in (
        ("nearest to the photo", found.near_photo),
        ("nearest to its AAPE h(x)", found.near_aape),
    ):
        if near:
            lines += [f"{title}:", *[f"   {_sentence(each)}" for each in near[:3]]]
    return "\n".join(lines)


def _sentence(each: NearSentence) -> str:
    return f"{each.value:.2f}  [{_one_line(each.class_name, 24)}]  {_one_line(each.text, 96)}"


def _one_line(text: str, width: int) -> str:
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= width else clean[: width - 1] + "…"


def _save(figure: Figure, path: str | Path) -> None:
    kind = Path(path).suffix.lower()[1:]
    metadata = {"Date": None} if kind == "svg" else None
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata, facecolor="white")
