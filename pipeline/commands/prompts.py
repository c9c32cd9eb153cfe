"""aape generate-prompts and import-prompts: from class names to a bank."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import echo
from .options import Config, Settings, print_json

app = typer.Typer()


@app.command("generate-prompts")
def generate_prompts_verb(
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", help="Data set; may be repeated.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every data set that has classes.")] = False,
    engine: Annotated[
        str, typer.Option(help="auto, vllm, transformers, openai, ray or import.")
    ] = "",
    engine_python: Annotated[str, typer.Option(help="Interpreter that has vllm.")] = "",
    model: Annotated[str, typer.Option(help="smollm2, a folder, or a model id.")] = "",
    samples: Annotated[int | None, typer.Option(min=1, help="Samples per query and class.")] = None,
    queries: Annotated[
        str, typer.Option(help="A file of your own, one a line; auto: written from --about.")
    ] = "",
    about: Annotated[
        str, typer.Option(help="The photos in one sentence, for --queries auto.")
    ] = "",
    contrast: Annotated[
        str,
        typer.Option(
            help="Ask what sets a class apart from those it is taken for, as told by texts, by "
            "training photos, or auto."
        ),
    ] = "",
    other_names: Annotated[
        int | None, typer.Option(min=0, help="Ask so often for another name of each class.")
    ] = None,
    control: Annotated[
        str, typer.Option(help="waffle: random words and characters instead of a language model.")
    ] = "",
    source: Annotated[
        Path | None, typer.Option("--from", help="Published file, with --engine import.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The bank; a folder for several.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Other texts, as reproducible as these.")] = None,
    base_url: Annotated[str, typer.Option(help="Server of the engine openai.")] = "",
    encoder: Annotated[str, typer.Option(help="Dual encoder that embeds the prompts.")] = "auto",
    checkpoint: Annotated[str, typer.Option(help="Local weights of the encoder.")] = "",
    config: Config = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """Have a language model describe the classes of data sets, and write prompt banks.

    Interrupt it and run it again: it goes on. Example: aape generate-prompts --dataset cars
    """
    from ..prompts import verbs

    banks = verbs.generate_prompts(
        dataset or (), every, engine, engine_python, model, samples, queries, control, source, out,
        seed, base_url, encoder, checkpoint, config, settings or (), about, contrast, other_names,
    )  # fmt: skip
    print_json(banks) if as_json else echo("\n".join(bank["path"] for bank in banks))


@app.command("import-prompts")
def import_prompts_verb(
    file: Annotated[Path, typer.Argument(help="JSON as CuPL, LaFTer, HPT … publish it.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Data set it describes.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The bank.")] = None,
    kind: Annotated[str, typer.Option("--format", "-f", help="auto, or the name of a format.")] = (
        "auto"
    ),
    allow_unmatched: Annotated[
        bool, typer.Option(help="Go on where names match no class, or classes have no prompts.")
    ] = False,
    encoder: Annotated[str, typer.Option(help="Dual encoder that embeds the prompts.")] = "auto",
    checkpoint: Annotated[str, typer.Option(help="Local weights of the encoder.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """Turn a published file of prompts into a bank, with a report of how its names matched.

    Example: aape import-prompts cars_prompts_full.json --dataset cars
    """
    from ..prompts import verbs

    report = verbs.import_prompts(file, dataset, out, kind, allow_unmatched, encoder, checkpoint)
    print_json(report) if as_json else echo(report.to_text())
