"""aape bank: look into a prompt bank, search it, compare, merge and export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    from ..bank import PromptBank, statistics
    from . import print_bank, which_bank

    info = statistics.bank_info(PromptBank.open(which_bank.locate(words or [], bank)[0]))
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
    from ..bank import PromptBank, statistics
    from . import print_bank, which_bank

    counts = statistics.bank_statistics(PromptBank.open(which_bank.locate(words or [], bank)[0]))
    print_json(counts.model_dump()) if as_json else print_bank.print_statistics(counts, every)


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
    from ..bank import PromptBank
    from . import print_bank, which_bank

    path, name = which_bank.locate(words, bank, "The class")
    opened = PromptBank.open(path)
    columns = ["dataset", "class_id", "class_name", "query_id", "verdict", "text"]
    rows = [
        row
        for entry in opened.find_class(name, dataset)
        for row in opened.rows(entry.start, entry.start + entry.rows, columns).to_pylist()
    ]
    print_json(rows) if as_json else print_bank.print_table(columns, [row.values() for row in rows])


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
    from dataclasses import asdict

    from ..bank import PromptBank
    from ..encoders import load_encoder
    from . import print_bank, which_bank

    path, text = which_bank.locate(words, bank, "The text")
    opened = PromptBank.open(path)
    only = opened.find_class(of_class, dataset) if of_class else [None]
    encoder = load_encoder(opened.metadata.encoder_id, checkpoint=checkpoint, device=device)
    opened.check_encoder(encoder)
    query = encoder.encode_text([text])[0]
    found = [
        hit
        for entry in only
        for hit in (
            opened.search(query, number, entry.class_id, entry.dataset)
            if entry
            else opened.search(query, number, exact=exact)
        )
        if not dataset or hit.dataset == dataset
    ]
    hits = sorted(found, key=lambda hit: -hit.cosine)[:number]
    print_json([asdict(hit) for hit in hits]) if as_json else print_bank.print_hits(hits)


@bank_app.command("sql")
def bank_sql(
    words: Annotated[list[str], typer.Argument(metavar="[BANK] QUERY", show_default=False)],
    bank: BankOption = "",
    as_json: AsJson = False,
) -> None:
    """Run one SELECT (DuckDB) over the views `bank` and `classes`. Nothing can be written.

    Example: aape bank sql "SELECT class_name, count(*) AS n FROM bank GROUP BY 1 ORDER BY n"
    """
    from ..bank import PromptBank
    from . import print_bank, which_bank

    path, query = which_bank.locate(words, bank, "The query")
    result = PromptBank.open(path).sql(query)
    rows = result.to_pylist()
    if as_json:
        print_json(rows)
    else:
        print_bank.print_table(result.column_names, [row.values() for row in rows])


@bank_app.command("diff")
def bank_diff(before: Path, after: Path, as_json: AsJson = False) -> None:
    """Prompts added, removed and changed between two banks. Exit status 1 if they differ."""
    from ..bank import PromptBank, diff
    from . import print_bank

    found = diff.diff_banks(PromptBank.open(before), PromptBank.open(after))
    print_json(found.model_dump()) if as_json else print_bank.print_diff(found)
    raise typer.Exit(0 if found.same else 1)


@bank_app.command("merge")
def bank_merge(
    banks: Annotated[list[Path], typer.Argument(help="Two banks or more, of one encoder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bank to write.")],
    as_json: AsJson = False,
) -> None:
    """Join banks into one, with its index. A prompt that occurs in several is taken once."""
    from ..bank import merge, search
    from . import print_bank

    merged = merge.merge_banks(banks, out)
    if any(entry.kept for entry in merged.footer.classes):
        search.build_index(merged)
    summary = merge.summary(merged, banks)
    print_json(summary) if as_json else typer.echo(print_bank.merged_line(summary))


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
    from ..bank import PromptBank, export
    from ..errors import UserError
    from . import which_bank

    if not out:
        raise UserError("Where to write is missing.", "Give it with --out.")
    notes = export.export_bank(PromptBank.open(which_bank.locate(words or [], bank)[0]), kind, out)
    typer.echo("\n".join([f"Wrote {out}.", *notes]))


@bank_app.command("verify")
def bank_verify(words: BankWords = None, bank: BankOption = "", as_json: AsJson = False) -> None:
    """Check every byte of a bank and its index. Exit status 1 if something is damaged."""
    from ..bank import verify
    from . import print_bank, which_bank

    report = verify.verify_bank(which_bank.locate(words or [], bank)[0])
    print_json(report.model_dump()) if as_json else print_bank.print_verify(report)
    raise typer.Exit(0 if report.sound else 1)


@bank_app.command("reindex")
def bank_reindex(
    words: BankWords = None,
    bank: BankOption = "",
    kind: Annotated[
        str, typer.Option(help="auto (flat below 200,000 prompts, else ivf), flat, ivf or hnsw.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Build the FAISS index of a bank again and measure its recall against exact search."""
    from ..bank import PromptBank, search
    from . import print_bank, which_bank

    report = search.build_index(PromptBank.open(which_bank.locate(words or [], bank)[0]), kind)
    print_json(report.model_dump()) if as_json else print_bank.print_index(report)


@bank_app.command("card")
def bank_card(
    words: BankWords = None,
    bank: BankOption = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File; else the screen.")] = None,
) -> None:
    """Write where a bank's prompts come from, as Markdown."""
    from ..bank import PromptBank, card
    from ..files import write_text
    from . import which_bank

    text = card.bank_card(PromptBank.open(which_bank.locate(words or [], bank)[0]))
    write_text(out, text) if out else typer.echo(text)
