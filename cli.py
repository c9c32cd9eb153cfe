"""The command line: parse, call the public function of the same name, print. Nothing else.

Heavy imports stay inside the verbs, so that ``aape --help`` is instant.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="aape",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Adapt CLIP-like models to your own images with what language models know about them.",
)


def print_json(value: Any) -> None:
    """Print a value for other programs: one JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


# --- bank ---

bank_app = typer.Typer(
    no_args_is_help=True,
    help="Look into a prompt bank, search it, compare, merge and export it. Where BANK is left "
    "out, the only bank in the current folder is meant.",
)
app.add_typer(bank_app, name="bank")

BankWords = Annotated[list[str] | None, typer.Argument(metavar="[BANK]", show_default=False)]
BankOption = Annotated[str, typer.Option("--bank", help="The bank, if not named in place.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
OfDataset = Annotated[str, typer.Option("--dataset", help="One data set of a bank of several.")]


@bank_app.command("info")
def bank_info(words: BankWords = None, bank: BankOption = "", as_json: AsJson = False) -> None:
    """What a bank holds and what made it, without reading its rows."""
    from .pipeline.bank import PromptBank, locate, render, statistics

    info = statistics.bank_info(PromptBank.open(locate.locate(words or [], bank)[0]))
    print_json(info) if as_json else render.print_info(info)


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
    from .pipeline.bank import PromptBank, locate, render, statistics

    counts = statistics.bank_statistics(PromptBank.open(locate.locate(words or [], bank)[0]))
    print_json(counts.model_dump()) if as_json else render.print_statistics(counts, every)


@bank_app.command("show")
def bank_show(
    words: Annotated[list[str], typer.Argument(metavar="[BANK] CLASS", show_default=False)],
    bank: BankOption = "",
    dataset: OfDataset = "",
    as_json: AsJson = False,
) -> None:
    """The prompts of a class, named by its id or its name, with their verdicts.

    Example: aape bank show cars.bank.parquet "Audi TT RS Coupe 2012"
    """
    from .pipeline.bank import PromptBank, locate, render

    path, name = locate.locate(words, bank, "The class")
    opened = PromptBank.open(path)
    columns = ["dataset", "class_id", "class_name", "query_id", "verdict", "text"]
    rows = [
        row
        for entry in opened.find_class(name, dataset)
        for row in opened.rows(entry.start, entry.start + entry.rows, columns).to_pylist()
    ]
    print_json(rows) if as_json else render.print_table(columns, [row.values() for row in rows])


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

    from .pipeline.bank import PromptBank, locate, render
    from .pipeline.encoders import load_encoder

    path, text = locate.locate(words, bank, "The text")
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
    print_json([asdict(hit) for hit in hits]) if as_json else render.print_hits(hits)


@bank_app.command("sql")
def bank_sql(
    words: Annotated[list[str], typer.Argument(metavar="[BANK] QUERY", show_default=False)],
    bank: BankOption = "",
    as_json: AsJson = False,
) -> None:
    """Run one SELECT (DuckDB) over the views `bank` and `classes`. Nothing can be written.

    Example: aape bank sql "SELECT class_name, count(*) AS n FROM bank GROUP BY 1 ORDER BY n"
    """
    from .pipeline.bank import PromptBank, locate, render

    path, query = locate.locate(words, bank, "The query")
    result = PromptBank.open(path).sql(query)
    rows = result.to_pylist()
    if as_json:
        print_json(rows)
    else:
        render.print_table(result.column_names, [row.values() for row in rows])


@bank_app.command("diff")
def bank_diff(before: Path, after: Path, as_json: AsJson = False) -> None:
    """Prompts added, removed and changed between two banks. Exit status 1 if they differ."""
    from .pipeline.bank import PromptBank, diff, render

    found = diff.diff_banks(PromptBank.open(before), PromptBank.open(after))
    print_json(found.model_dump()) if as_json else render.print_diff(found)
    raise typer.Exit(0 if found.same else 1)


@bank_app.command("merge")
def bank_merge(
    banks: Annotated[list[Path], typer.Argument(help="Two banks or more, of one encoder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bank to write.")],
) -> None:
    """Join banks into one. A prompt that occurs in several is taken once."""
    from .pipeline.bank import merge

    typer.echo(repr(merge.merge_banks(banks, out)))


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
    from .pipeline.bank import PromptBank, export, locate
    from .pipeline.errors import UserError

    if not out:
        raise UserError("Where to write is missing.", "Give it with --out.")
    notes = export.export_bank(PromptBank.open(locate.locate(words or [], bank)[0]), kind, out)
    typer.echo("\n".join([f"Wrote {out}.", *notes]))


@bank_app.command("verify")
def bank_verify(words: BankWords = None, bank: BankOption = "", as_json: AsJson = False) -> None:
    """Check every byte of a bank and its index. Exit status 1 if something is damaged."""
    from .pipeline.bank import locate, render, verify

    report = verify.verify_bank(locate.locate(words or [], bank)[0])
    print_json(report.model_dump()) if as_json else render.print_verify(report)
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
    from .pipeline.bank import PromptBank, index, locate, render

    report = index.build_index(PromptBank.open(locate.locate(words or [], bank)[0]), kind)
    print_json(report.model_dump()) if as_json else render.print_index(report)


@bank_app.command("card")
def bank_card(
    words: BankWords = None,
    bank: BankOption = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File; else the screen.")] = None,
) -> None:
    """Write where a bank's prompts come from, as Markdown."""
    from .pipeline.bank import PromptBank, card, locate
    from .pipeline.files import write_text

    text = card.bank_card(PromptBank.open(locate.locate(words or [], bank)[0]))
    write_text(out, text) if out else typer.echo(text)


def main() -> None:
    """Run the command line: a :class:`UserError` is one clear sentence and exit status 2."""
    from .pipeline.errors import UserError

    try:
        app(standalone_mode=True)
    except UserError as error:
        typer.secho(f"aape: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("aape: interrupted; run the same command again to go on.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
