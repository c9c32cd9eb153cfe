"""An explanation on the terminal: text of strangers is printed as it is, never as markup."""

from __future__ import annotations

from rich.markup import escape

from ...pipeline import terminal
from ...pipeline.counts import counted
from ..explain.classes import ClassExplanation
from ..explain.photo import PhotoExplanation


def print_explanation(found: PhotoExplanation | ClassExplanation) -> None:
    """Print what explains a photo or a class."""
    if isinstance(found, PhotoExplanation):
        _print_photo(found)
    else:
        _print_class(found)


def _print_photo(found: PhotoExplanation) -> None:
    console = terminal.output(highlight=False)
    truth = f", in truth {escape(found.truth)}" if found.truth else ""
    console.print(f"[bold]{escape(found.photo)}[/bold]{truth}")
    plain = ", ".join(f"{row['name']} {row['probability']:.0%}" for row in found.zero_shot)
    console.print(f"zero-shot: {escape(plain)}")
    table = terminal.table(
        console, title="what each term adds", title_justify="left", pad_edge=False
    )
    table.add_column("term")
    for answer in found.classes:
        kind = "" if answer.seen else " (new)"
        table.add_column(f"{escape(answer.name)}{kind}", justify="right", overflow="fold")
    table.add_column("average", justify="right", style="dim")
    for name in found.classes[0].terms:
        cells = [f"{answer.terms[name]:+.3f}" for answer in found.classes]
        table.add_row(name, *cells, f"{found.average[name]:+.3f}")
        if name == "zero-shot":
            for part in ("name", "descriptions"):
                if any(part in answer.of_zero_shot for answer in found.classes):
                    of = [
                        f"{a.of_zero_shot[part]:+.3f}" if part in a.of_zero_shot else "–"
                        for a in found.classes
                    ]
                    table.add_row(f"  of it, {part}", *of, "", style="dim")
    table.add_section()
    together = [f"{answer.logit:+.3f}" for answer in found.classes]
    table.add_row("logit", *together, f"{sum(found.average.values()):+.3f}", style="bold")
    table.add_row("probability", *[f"{answer.probability:.1%}" for answer in found.classes], "")
    console.print(table)
    console.print(escape(found.verdict))
    for title, near in (
        ("Sentences nearest to the photo", found.near_photo),
        ("Sentences nearest to its AAPE h(x)", found.near_aape),
        *(
            (f"Sentences that add the most to {answer.name}", answer.sentences)
            for answer in found.classes[:1]
        ),
    ):
        if near:
            console.print(f"\n[bold]{escape(title)}[/bold]")
            for each in near:
                console.print(
                    f"  {each.value:+.3f}  {escape(each.class_name)}: {escape(each.text)}"
                )
    for note in [*found.notes, *([found.aape] if found.aape else [])]:
        console.print(f"· {escape(note)}", style="dim")


def _print_class(found: ClassExplanation) -> None:
    console = terminal.output(highlight=False)
    kind = "seen in training" if found.seen else "new: no photo of it was trained on"
    console.print(f"[bold]{escape(found.name)}[/bold] (class {found.class_id}, {kind})")
    for test, values in found.accuracy.items():
        told = ", ".join(f"{method} {value:.1f} %" for method, value in values.items())
        where = "" if test == "accuracy" else f" on {test}"  # a single test set is called so
        console.print(f"accuracy{escape(where)}: {escape(told)}")
    if found.sentences:
        console.print("\n[bold]What its sentences carry[/bold] (lost without each)")
    for each in found.sentences:
        value = f"turns {each.turns:.4f}" if each.carries is None else f"{each.carries:+.4f}"
        console.print(f"  {value}  {escape(each.text)}")
    for other in found.confused_with:
        counts = (
            "nearest by its text"
            if other.nearest_text
            else counted(other.taken_for_it, "photo", "photos")
            + f" of {escape(found.name)} called so, {other.takes_it} the other way"
        )
        console.print(f"\n[bold]Confused with {escape(other.name)}[/bold]: {counts}")
        for pair in other.shared:
            console.print(f"  {pair.cosine:.2f}  {escape(pair.own)}  ~  {escape(pair.other)}")
    for note in found.notes:
        console.print(f"· {escape(note)}", style="dim")
