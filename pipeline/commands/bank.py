"""aape bank: look into a prompt bank, search it, compare, merge and export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import echo
from .options import AsJson, print_json

bank_app = typer.Typer(
    no_args_is_help=True,
    help="Look into a prompt bank, search it, compare, merge and export it. Where BANK is left "
    "out, the only bank in the current folder is meant.",
)
BankWords = Annotated[list[str] | None, typer.Argument(metavar="[BANK]", show_default=False)]
BankOption = Annotated[str, typer.Option("--bank", help="The bank, if not named in place.")]
OfDataset = Annotated[str, typer.Option("--dataset", help="One data set of a bank of several.")]


@bank_app.command("info")
def bank_info(words: BankWords = None, bank: BankOption = "", as_json: AsJson = False) -> None:
    """What a bank holds and what made it, without reading its rows."""
    from ..bank import verbs
    from . import print_bank, which_bank

    info = verbs.bank_info(which_bank.split_words(words or [], bank)[0])
    print_json(info) if as_json else print_bank.print_info(info)


@bank_app.command("stats")
def bank_stats(
    words: BankWords = None,
    bank: BankOption = "",
    every: Annotated[
        bool, typer.Option("--all", help="List every class, not the poorest.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prompts kept and dropped, with the reason, by class and by query."""
    from ..bank import verbs
    from . import print_bank, which_bank

    counts = verbs.bank_stats(which_bank.split_words(words or [], bank)[0])
    print_json(counts) if as_json else print_bank.print_statistics(counts, every)


@bank_app.command("show")
def bank_show(
    words: Annotated[list[str], typer.Argument(metavar="[BANK] CLASS", show_default=False)],
    bank: BankOption = "",
    dataset: OfDataset = "",
    as_json: AsJson = False,
) -> None:
    """The prompts of a class, named by its id or its name, with their verdicts.

    Example: aape bank show cars.bank.parquet "2012 Audi TT RS Coupe"
    """
    from ..bank import verbs
    from . import print_bank, which_bank

    named, name = which_bank.split_words(words, bank, "The class")
    rows = verbs.bank_show(name, named, dataset)
    if as_json:
        print_json(rows)
    else:
        print_bank.print_prompts(verbs.SHOWN, [list(row.values()) for row in rows])


@bank_app.command("search")
def bank_search(
    words: Annotated[list[str], typer.Argument(metavar="[BANK] TEXT", show_default=False)],
    bank: BankOption = "",
    number: Annotated[int, typer.Option("-k", min=1, help="How many prompts.")] = 10,
    of_class: Annotated[str, typer.Option("--class", help="Only this class, by id or name.")] = "",
    dataset: OfDataset = "",
    exact: Annotated[bool, typer.Option("--exact", help="Look at every prompt, not the index.")] = (
        False
    ),
    checkpoint: Annotated[str, typer.Option(help="Weights of the bank's encoder, if local.")] = "",
    device: Annotated[str, typer.Option(help="Where the encoder runs.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """The prompts nearest in meaning to a text, through the bank's own encoder and FAISS.

    Example: aape bank search "a small two-seater" -k 5
    """
    from ..bank import verbs
    from . import print_bank, which_bank

    named, text = which_bank.split_words(words, bank, "The text")
    hits = verbs.bank_search(text, named, number, of_class, dataset, exact, checkpoint, device)
    print_json(hits) if as_json else print_bank.print_hits(hits)


@bank_app.command("sql")
def bank_sql(
    words: Annotated[list[str], typer.Argument(metavar="[BANK] QUERY", show_default=False)],
    bank: BankOption = "",
    as_json: AsJson = False,
) -> None:
    """Run one SELECT (DuckDB) over the views `bank` and `classes`. Nothing can be written.

    Example: aape bank sql "SELECT class_name, count(*) AS n FROM bank GROUP BY 1 ORDER BY n"
    """
    from ..bank import verbs, which
    from ..bank.sql import bounded_memory, rows_of
    from . import print_bank, which_bank

    named, query = which_bank.split_words(words, bank, "The query")
    with bounded_memory():
        if as_json:
            print_json(verbs.bank_sql(query, named))
            return
        # with the names of columns where no row has any
        found = which.named_bank(named).sql(query)
    print_bank.print_table(found.column_names, [list(row.values()) for row in rows_of(found)])


@bank_app.command("diff")
def bank_diff(before: Path, after: Path, as_json: AsJson = False) -> None:
    """Prompts added, removed and changed between two banks. Exit status 1 if they differ."""
    from ..bank import verbs
    from . import print_bank

    found = verbs.bank_diff(before, after)
    print_json(found) if as_json else print_bank.print_diff(found)
    raise typer.Exit(0 if found.same else 1)


@bank_app.command("merge")
def bank_merge(
    banks: Annotated[list[Path], typer.Argument(help="Two banks or more, of one encoder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bank to write.")],
    parts: Annotated[
        int, typer.Option(min=0, help="A folder of so many parts, for banks beyond memory.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Join banks into one, with its index. A prompt that occurs in several is taken once.

    With --parts the bank is a folder, which is read like a file. One bank can be split like this.
    """
    from ..bank import verbs
    from . import print_bank

    merged = verbs.bank_merge(banks, out, parts)
    print_json(merged) if as_json else echo(print_bank.merged_line(merged))


@bank_app.command("export")
def bank_export(
    words: BankWords = None,
    out: Annotated[str, typer.Option("--out", "-o", help="File, or folder for hf.")] = "",
    kind: Annotated[
        str, typer.Option("--format", "-f", help="cupl-json, csv, parquet or hf.")
    ] = "cupl-json",
    bank: BankOption = "",
) -> None:
    """Write a bank in the format of other tools.

    cupl-json: kept texts by class name. csv: all columns but the embedding. parquet: all columns,
    plain. hf: a folder that `datasets.load_dataset` reads, with the card as README.
    """
    from ..bank import verbs
    from ..errors import UserError
    from . import which_bank

    if not out:
        raise UserError("Where to write is missing.", "Give it with --out.")
    notes = verbs.bank_export(out, which_bank.split_words(words or [], bank)[0], kind)
    echo("\n".join([f"Wrote {out}.", *notes]))


@bank_app.command("verify")
def bank_verify(words: BankWords = None, bank: BankOption = "", as_json: AsJson = False) -> None:
    """Check every byte of a bank and its index. Exit status 1 if something is damaged."""
    from ..bank import verbs
    from . import print_bank, which_bank

    report = verbs.bank_verify(which_bank.split_words(words or [], bank)[0])
    print_json(report) if as_json else print_bank.print_verify(report)
    raise typer.Exit(0 if report.sound else 1)


@bank_app.command("reindex")
def bank_reindex(
    words: BankWords = None,
    bank: BankOption = "",
    kind: Annotated[
        str,
        typer.Option(
            help="auto (flat below 200,000 prompts, ivf below a million, else ivfpq), flat, ivf, "
            "ivfpq or hnsw."
        ),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Build the FAISS index of a bank again and measure its recall against exact search."""
    from ..bank import verbs
    from . import print_bank, which_bank

    report = verbs.bank_reindex(which_bank.split_words(words or [], bank)[0], kind)
    print_json(report) if as_json else print_bank.print_index(report)


@bank_app.command("card")
def bank_card(
    words: BankWords = None,
    bank: BankOption = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File; else the screen.")] = None,
) -> None:
    """Write where a bank's prompts come from, as Markdown."""
    from ..bank import verbs
    from . import which_bank

    text = verbs.bank_card(which_bank.split_words(words or [], bank)[0], out)
    echo(text if out is None else f"Wrote {out}.")
