"""aape datasets: which are known, what of them is here, fetch them, add your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import echo
from .options import AsJson, Strict, print_json

datasets_app = typer.Typer(
    no_args_is_help=True,
    help="Data sets: which are known, what of them is here, fetch them, add your own.",
)
DatasetName = Annotated[str, typer.Argument(metavar="NAME", help="Name, alias or manifest file.")]
DatasetRoot = Annotated[
    Path | None, typer.Option("--root", help="Folder of the data set, if not in $AAPE_DATA.")
]


@datasets_app.command("list")
def datasets_list(as_json: AsJson = False) -> None:
    """The data sets that have a manifest, and which of them are here."""
    from ..datasets import verbs
    from . import print_datasets

    rows = verbs.datasets_list()
    print_json(rows) if as_json else print_datasets.print_list(rows)


@datasets_app.command("show")
def datasets_show(name: DatasetName, as_json: AsJson = False) -> None:
    """Classes, prompts, splits, licence of a data set, where to get it, and a few of its photos.

    Photos are drawn by the protocols of kitty, iTerm2 and sixel, where the terminal is known to
    have one. AAPE_PICTURES=kitty, iterm, sixel or none says which.
    """
    from ..datasets import load_manifest, verbs
    from . import print_datasets, print_examples

    if as_json:
        print_json(verbs.datasets_show(name))
        return
    manifest = load_manifest(name)
    print_datasets.print_manifest(manifest)
    print_examples.print_examples(manifest)


@datasets_app.command("remove")
def datasets_remove(name: DatasetName, as_json: AsJson = False) -> None:
    """Forget a data set of your own: its manifest goes, its photos and tables stay."""
    from ..datasets import verbs

    removed = verbs.datasets_remove(name)
    print_json(removed) if as_json else echo(removed.line())


@datasets_app.command("check")
def datasets_check(
    name: DatasetName,
    root: DatasetRoot = None,
    decode: Annotated[
        bool,
        typer.Option("--decode", help="Read every photo whole: finds damage inside, too."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What is missing or cannot be read, file by file, and whether counts are the published ones.

    Exit status 1 if anything is missing or unreadable. Of photos, headers and ends are looked at.
    """
    from ..datasets import verbs

    check = verbs.datasets_check(name, root, decode)
    print_json(check) if as_json else echo("\n".join(check.lines()))
    raise typer.Exit(0 if check.complete else 1)


@datasets_app.command("fetch")
def datasets_fetch(name: DatasetName, root: DatasetRoot = None, as_json: AsJson = False) -> None:
    """Download what is free to download: resumed, verified, extracted."""
    from ..datasets import verbs

    found = verbs.datasets_fetch(name, root)
    print_json(found) if as_json else echo(f"{found['name']} is in {found['root']}")


@datasets_app.command("add")
def datasets_add(
    source: Annotated[Path, typer.Argument(metavar="PATH", help="Folder or table of images.")],
    name: Annotated[str, typer.Option("--name", help="How to ask for it later.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where the manifest goes.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a manifest.")] = False,
    shares: Annotated[
        tuple[float, float, float],
        typer.Option(help="Of train, val and test, where your images have no split."),
    ] = (0.5, 0.2, 0.3),
    path_column: Annotated[str, typer.Option(help="Column of the photos or their paths.")] = "",
    label_column: Annotated[str, typer.Option(help="Column of the classes; none: no classes.")] = (
        ""
    ),
    caption_column: Annotated[
        list[str] | None, typer.Option(help="Column of captions; give it again for another.")
    ] = None,
    split_column: Annotated[
        str, typer.Option(help="Column of the splits; none: there is none.")
    ] = (""),
    split_as: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SPLIT", help="What a split is: train, val, test or none."),
    ] = None,
    configuration: Annotated[str, typer.Option(help="Which of several configurations.")] = "",
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out rows whose photo is not there.")
    ] = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Use your own images: writes a manifest whose class names you can edit.

    Few photos? --shares 0.75 0 0.25 trains on three of four.
    """
    from ..datasets import verbs

    added = verbs.datasets_add(
        source, name, out, force, shares, path_column, label_column, caption_column or (),
        split_column, split_as or (), configuration, skip_missing, strict,
    )  # fmt: skip
    print_json(added) if as_json else echo("\n".join(added.lines()))
