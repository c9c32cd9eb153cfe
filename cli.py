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
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at a photo that cannot be read; else it is left out.")
]
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

    Example: aape bank show cars.bank.parquet "2012 Audi TT RS Coupe"
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


# --- datasets ---

datasets_app = typer.Typer(
    no_args_is_help=True,
    help="Data sets: which are known, what of them is here, fetch them, add your own.",
)
app.add_typer(datasets_app, name="datasets")

DatasetName = Annotated[str, typer.Argument(metavar="NAME", help="Name, alias or manifest file.")]
DatasetRoot = Annotated[
    Path | None, typer.Option("--root", help="Folder of the data set, if not in $AAPE_DATA.")
]


@datasets_app.command("list")
def datasets_list(as_json: AsJson = False) -> None:
    """The data sets that have a manifest, and which of them are here."""
    from .pipeline.datasets import render

    rows = render.list_rows()
    print_json(rows) if as_json else render.print_list(rows)


@datasets_app.command("show")
def datasets_show(name: DatasetName, as_json: AsJson = False) -> None:
    """Classes, prompts, splits, licence of a data set, and where to get it."""
    from .pipeline.datasets import load_manifest, render

    manifest = load_manifest(name)
    print_json(render.describe(manifest)) if as_json else render.print_manifest(manifest)


@datasets_app.command("check")
def datasets_check(
    name: DatasetName,
    root: DatasetRoot = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every image: finds damaged files.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What is missing, file by file, and whether the counts are the published ones.

    Exit status 1 if anything is missing or unreadable.
    """
    from .pipeline.datasets import load_manifest
    from .pipeline.datasets.check import check_dataset

    check = check_dataset(load_manifest(name), root, decode=decode)
    print_json(check.as_dict()) if as_json else typer.echo("\n".join(check.lines()))
    raise typer.Exit(0 if check.complete else 1)


@datasets_app.command("fetch")
def datasets_fetch(name: DatasetName, root: DatasetRoot = None, as_json: AsJson = False) -> None:
    """Download what is free to download: resumed, verified, extracted."""
    from .pipeline.datasets import load_manifest
    from .pipeline.datasets.fetch import default_root, fetch_dataset

    manifest = load_manifest(name)
    folder = root or default_root(manifest)
    files = [str(path) for path in fetch_dataset(manifest, folder)]
    result = {"name": manifest.name, "root": str(folder), "files": files}
    print_json(result) if as_json else typer.echo(f"{manifest.name} is in {folder}")


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
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Use your own images: writes a manifest whose class names you can edit.

    Few photos? --shares 0.75 0 0.25 trains on three of four.
    """
    from .pipeline.datasets.add import add_dataset

    added = add_dataset(source, name, out=out, force=force, shares=shares, strict=strict)
    print_json(added.as_dict()) if as_json else typer.echo("\n".join(added.lines()))


# --- train and classification ---

eval_app = typer.Typer(no_args_is_help=True, help="Evaluate one of the four tasks, or all.")
app.add_typer(eval_app, name="eval")
Baselines = Annotated[
    str,
    typer.Option(
        help="Comma-separated names, or all, fast (no training), slow (CoOp, CoCoOp), none."
    ),
]
Seeds = Annotated[str, typer.Option(help="Of the shots, comma-separated; 0 is a seed.")]


@app.command("train")
def train(
    bank: Annotated[str, typer.Option(help="Prompt bank; it knows data set and encoder.")] = "",
    features: Annotated[str, typer.Option(help="Cached features (safetensors).")] = "",
    task: Annotated[str, typer.Option(help="classification, or captions (no bank).")] = (
        "classification"
    ),
    shots: Annotated[int, typer.Option(min=1, help="Training images a class.")] = 16,
    seeds: Seeds = "1,2,3",
    protocol: Annotated[
        str, typer.Option(help="fewshot, base2new, generalized, cross-dataset, domain.")
    ] = "base2new",
    recipe: Annotated[str, typer.Option(help="default, literal, or a YAML file.")] = "default",
    distillation: Annotated[
        float | None, typer.Option("--lambda", min=0, help="Weight of the distillation.")
    ] = None,
    control: Annotated[
        str,
        typer.Option(
            help="Rows with one thing changed, comma-separated: language (shuffled, template, "
            "waffle, no-distillation), parts (no-generator, no-query, no-seen-terms, …), "
            "aggregators (random-prompt, mean-prompt, mlp-prompt), or their single names."
        ),
    ] = "",
    baselines: Baselines = "all",
    target: Annotated[
        list[str] | None, typer.Option(help="Banks or feature files that are only tested on.")
    ] = None,
    new_class_prompts: Annotated[
        bool, typer.Option("--new-class-prompts", help="New classes use LLM prompts too.")
    ] = False,
    repeat_images: Annotated[
        bool, typer.Option("--repeat-images", help="Fill up classes with too few images.")
    ] = False,
    init_seed: Annotated[int | None, typer.Option(help="Of weights; else the shots'.")] = None,
    order_seed: Annotated[int | None, typer.Option(help="Of batches; else the shots'.")] = None,
    dataset: Annotated[str, typer.Option(help="One data set of a bank of several.")] = "",
    root: Annotated[str, typer.Option(help="Folder of the images.")] = "",
    encoder: Annotated[str, typer.Option(help="The bank's by default.")] = "auto",
    checkpoint: Annotated[str, typer.Option(help="Local weights of the encoder.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    strict: Strict = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train the adapter and print it beside every baseline on the same features and shots.

    Example: aape train --bank cars.bank.parquet --shots 16 --seeds 1,2,3

    With captions: aape train --task captions --dataset coco; then aape eval retrieval RUN.
    """
    if task != "classification":
        place = {"name": encoder, "checkpoint": checkpoint, "device": device, "strict": strict}
        asked = {"dataset": dataset, "root": root, "encoder": place, "distillation": distillation}
        show(train_on_captions(task, asked, whole_numbers(seeds, "--seeds"), out), as_json)
        return
    from .adapter.config import Config
    from .adapter.recipes import load_recipe
    from .adapter.tasks.classification_run import default_folder, run_classification

    values = load_recipe(recipe).model_dump()
    if distillation is not None:
        values["distillation"] = distillation
    evaluation = {
        "protocol": protocol, "shots": shots, "seeds": whole_numbers(seeds, "--seeds"),
        "init_seed": init_seed, "order_seed": order_seed, "controls": words_of(control),
        "baselines": words_of(baselines), "new_class_prompts": new_class_prompts,
    }  # fmt: skip
    data = {
        "bank": bank, "dataset": dataset, "root": root, "features": features,
        "targets": target or [], "repeat_images": repeat_images,
    }  # fmt: skip
    place = {"name": encoder, "checkpoint": checkpoint, "device": device, "strict": strict}
    config = Config.parse(
        {"data": data, "encoder": place, "recipe": values, "evaluation": evaluation},
        "The command line",
    )
    show(run_classification(config, out or default_folder(config)), as_json)


@eval_app.command("classification")
def eval_classification(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    protocol: Annotated[str, typer.Option(help="Another protocol than the run's.")] = "",
    baselines: Annotated[str, typer.Option(help="Other baselines than the run's.")] = "",
    control: Annotated[str, typer.Option(help="Controls to add, comma-separated.")] = "",
    target: Annotated[list[str] | None, typer.Option(help="As for aape train.")] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run again, or by another protocol; what is finished is reused."""
    from .adapter.config import Config
    from .adapter.run import RunFolder
    from .adapter.tasks.classification_run import run_classification

    folder = RunFolder.open(run)
    values = Config.from_yaml(folder.path / "config.yaml").model_dump()
    changes = {
        "protocol": protocol,
        "baselines": words_of(baselines),
        "controls": words_of(control),
    }
    values["evaluation"] |= {name: value for name, value in changes.items() if value}
    values["encoder"]["strict"] = strict or values["encoder"]["strict"]
    values["data"]["targets"] = target or values["data"]["targets"]
    show(run_classification(Config.parse(values, "The command line"), folder.path), as_json)


@app.command("predict")
def predict_verb(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    images: Annotated[
        list[Path], typer.Argument(help="Photos, folders of them, or quoted patterns.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Labels for each photo.")] = 3,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Choose among these alone; repeat it.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="A class without any photo, by name; repeat it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a CSV file.")] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Label new photos with a trained adapter; classes it never saw are judged by their names.

    Example: aape predict runs/products inbox/ --also "bow tie" --out labels.csv

    The run: aape train --bank products.bank.parquet --protocol fewshot --out runs/products
    """
    from .adapter.predict import predict, to_csv
    from .pipeline.files import write_text

    found = predict(run, images, top=top, classes=classes or (), more=also or (), strict=strict)
    if out:
        write_text(out, to_csv(found))
    if as_json:
        print_json([row.as_dict() for row in found])
    elif out:
        typer.echo(out)
    else:
        for row in found:
            typer.echo(row.line())


@app.command("sweep")
def sweep_verb(
    sources: Annotated[list[str], typer.Argument(help="Banks and feature files.")],
    shots: Annotated[
        str, typer.Option(help="Training images a class; several make learning curves.")
    ] = "16",
    seeds: Seeds = "1,2,3",
    recipes: Annotated[str, typer.Option(help="Names or YAML files, comma-separated.")] = "default",
    protocol: Annotated[str, typer.Option(help="As for aape train.")] = "base2new",
    baselines: Baselines = "all",
    control: Annotated[str, typer.Option(help="As for aape train.")] = "",
    repeat_images: Annotated[
        bool, typer.Option("--repeat-images", help="Fill up classes with too few images.")
    ] = False,
    processes: Annotated[int, typer.Option(min=0, help="At once; 0 is one a processor.")] = 0,
    ray: Annotated[
        str | None,
        typer.Option(help="Run on a Ray cluster: host:port, auto, or local to start one."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all runs.")] = Path(
        "runs/sweep"
    ),
    as_json: AsJson = False,
) -> None:
    """Train on many data sets and seeds in parallel; a finished training is never repeated.

    Example: aape sweep cars.bank.parquet pets.bank.parquet --recipes default,literal

    Learning curves: aape sweep cars.bank.parquet --protocol fewshot --shots 1,2,4,8,16
    """
    from dataclasses import asdict

    from .adapter.config import Config
    from .adapter.recipes import load_recipe
    from .adapter.sweep import sweep
    from .adapter.table import print_results

    evaluation = {
        "protocol": protocol, "seeds": whole_numbers(seeds, "--seeds"),
        "controls": words_of(control), "baselines": words_of(baselines),
    }  # fmt: skip
    configs = [
        Config.parse(
            {
                "data": {
                    "features" if s.endswith(".safetensors") else "bank": s,
                    "repeat_images": repeat_images,
                },
                "encoder": {"device": device},
                "recipe": load_recipe(recipe).model_dump(),
                "evaluation": evaluation | {"shots": number},
            },
            "The command line",
        )
        for recipe in words_of(recipes)
        for number in whole_numbers(shots, "--shots")
        for s in sources
    ]
    address = "" if ray == "local" else ray
    tables, averages = sweep(configs, out, processes, address)
    if as_json:
        print_json([asdict(table) for table in [*tables, *averages]])
        return
    for table in [*tables, *(averages if len(sources) > 1 else [])]:
        print_results(table)


def show(results: Any, as_json: bool) -> None:
    """Print a results table for a reader or for a program."""
    from dataclasses import asdict

    from .adapter.table import print_results

    print_json(asdict(results)) if as_json else print_results(results)


def words_of(text: str) -> list[str]:
    """Split a comma-separated option."""
    return [word.strip() for word in text.split(",") if word.strip()]


def whole_numbers(text: str, option: str) -> list[int]:
    """Split a comma-separated option into numbers."""
    from .pipeline.errors import UserError

    try:
        return [int(word) for word in words_of(text)]
    except ValueError as error:
        raise UserError(f"{option} takes whole numbers, not {text!r}.", "Write 1,2,3.") from error


# --- caption tasks ---


def train_on_captions(task: str, asked: dict[str, Any], seeds: list[int], out: Path | None) -> Any:
    """Train on captions for the verb ``train``."""
    from .adapter.tasks.caption_run import CaptionRunConfig, run_captions
    from .pipeline.errors import UserError, unknown_name

    if task != "captions":
        raise unknown_name("task of train", task, ["classification", "captions"])
    if not asked["dataset"]:
        raise UserError("Training on captions needs a data set.", "Name one: --dataset shapes.")
    weight = asked.pop("distillation")
    captions = {} if weight is None else {"distillation": weight}
    values = {**asked, "captions": captions, "seeds": seeds}
    return run_captions(CaptionRunConfig.parse(values, "The command line"), out)


CaptionRun = Annotated[Path, typer.Argument(help="A run folder of aape train --task captions.")]
OtherData = Annotated[str, typer.Option("--dataset", help="Test data, if not the run's own.")]
OtherRoot = Annotated[str, typer.Option("--root", help="Its folder.")]
LanguageModel = Annotated[
    str, typer.Option("--language-model", help="smollm2, a folder, or a model of the hub.")
]
Steps = Annotated[int | None, typer.Option(min=0, help="Training steps of the prefix.")]
Grid = Annotated[int | None, typer.Option(min=1, help="Image tokens: grid x grid.")]
AapeTokens = Annotated[
    int | None, typer.Option(min=1, help="Slots that the AAPE fills; the paper has one.")
]
Strategy = Annotated[str, typer.Option(help="greedy, beam or sample.")]


def prefix_settings(
    language_model: str, steps: int | None, grid: int | None, slots: int | None, **more: Any
) -> dict[str, Any]:
    """Collect the settings that were given."""
    own = {"language_model": language_model, "steps": steps, "grid": grid, "aape_tokens": slots}
    given = {**own, **more}
    return {name: value for name, value in given.items() if value is not None}


@eval_app.command("retrieval")
def eval_retrieval(
    run: CaptionRun,
    dataset: OtherData = "",
    root: OtherRoot = "",
    max_images: Annotated[int, typer.Option(min=0, help="Test images; 0 is all.")] = 0,
    contrasts: Annotated[
        bool, typer.Option("--contrasts", help="Caption against hard negative (SugarCrepe).")
    ] = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Image-text retrieval with x, h(x) and their mixture, both directions."""
    from .adapter.tasks.caption_run import evaluate_run

    task = "contrasts" if contrasts else "retrieval"
    found = evaluate_run(run, task, dataset=dataset, root=root, limit=max_images, strict=strict)
    show(found, as_json)


@eval_app.command("captioning")
def eval_captioning(
    run: CaptionRun,
    dataset: OtherData = "",
    root: OtherRoot = "",
    language_model: LanguageModel = "smollm2",
    steps: Steps = None,
    grid: Grid = None,
    aape_tokens: AapeTokens = None,
    strategy: Strategy = "greedy",
    beams: Annotated[int, typer.Option(min=1)] = 4,
    max_tokens: Annotated[int, typer.Option(min=1)] = 24,
    java: Annotated[bool, typer.Option("--java", help="METEOR and SPICE too.")] = False,
    max_images: Annotated[int, typer.Option(min=0, help="Test images; 0 is all.")] = 0,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Captions by a frozen language model: no image, image tokens, AAPE, both."""
    from .adapter.tasks.caption_run import evaluate_run

    decode = {"strategy": strategy, "beams": beams, "max_tokens": max_tokens}
    settings = {
        **prefix_settings(language_model, steps, grid, aape_tokens),
        "decode": decode,
        "java": java,
    }
    show(
        evaluate_run(
            run,
            "captioning",
            dataset=dataset,
            root=root,
            settings=settings,
            limit=max_images,
            strict=strict,
        ),
        as_json,
    )


@eval_app.command("vqa")
def eval_vqa(
    run: CaptionRun,
    dataset: OtherData = "",
    root: OtherRoot = "",
    language_model: LanguageModel = "smollm2",
    steps: Steps = None,
    grid: Grid = None,
    aape_tokens: AapeTokens = None,
    shots: Annotated[str, typer.Option(help="Answered questions shown, comma-separated.")] = "0",
    train_on: Annotated[str, typer.Option(help="questions, or captions (zero-shot).")] = (
        "questions"
    ),
    caption_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps on captions before those on questions.")
    ] = None,
    wordnet: Annotated[str, typer.Option(help="Folder of WordNet's files, for WUPS.")] = "",
    max_questions: Annotated[int, typer.Option(min=0, help="Test questions; 0 is all.")] = 0,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Answers by a frozen language model, beside the most frequent answer per type."""
    from .adapter.tasks.caption_run import evaluate_run

    settings = {
        **prefix_settings(
            language_model, steps, grid, aape_tokens, caption_steps=caption_steps
        ),
        "shots": whole_numbers(shots, "--shots"), "train_on": train_on, "wordnet": wordnet,
    }  # fmt: skip
    show(
        evaluate_run(
            run,
            "vqa",
            dataset=dataset,
            root=root,
            settings=settings,
            limit=max_questions,
            strict=strict,
        ),
        as_json,
    )


# --- suites and reports ---


@app.command("demo")
def demo(
    fast: Annotated[
        bool, typer.Option("--fast", help="Reduced size: a check, no figures.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the results go.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """See it work, offline: descriptions, bank, training, four tasks, report.

    Uses the embedded default: SmolLM2 writes, the encoder `lite` embeds, the data set is `shapes`.
    It is the suite `embedded` of aape eval all. Run it again and it says what it reuses.
    """
    suite(f"embedded{'-fast' if fast else ''}", out, skip_missing=False, as_json=as_json)


@eval_app.command("all")
def eval_all(
    name: Annotated[
        str, typer.Option("--suite", help="A suite's name (aape suites) or a YAML file.")
    ] = "embedded",
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the results go.")] = Path("runs"),
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out data sets that are not here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a suite: banks, all tasks on all its data sets, one report."""
    suite(name, out, skip_missing, as_json)


@app.command("suites")
def suites(as_json: AsJson = False) -> None:
    """List the suites that `aape eval all --suite NAME` runs, and what is in them."""
    from .adapter.suites import SUITES

    if as_json:
        print_json({name: item.model_dump(mode="json") for name, item in SUITES.items()})
        return
    for name, item in SUITES.items():
        jobs = "; ".join(f"{job.folder} ({', '.join(job.tasks)})" for job in item.jobs)
        typer.echo(f"{name}: {item.title}\n    {jobs}")


@app.command("report")
def report(
    run: Annotated[Path, typer.Argument(help="A run folder with results.")],
    as_json: AsJson = False,
) -> None:
    """Write report.html for a run folder from the tables in it."""
    from dataclasses import asdict

    from .adapter.report import report_run

    results, path = report_run(run)
    if as_json:
        print_json([asdict(item) for item in results])
    else:
        typer.echo(path)


def suite(name: str, out: Path, skip_missing: bool, as_json: bool) -> None:
    """Run a suite below ``out`` and print its tables."""
    from dataclasses import asdict

    from .adapter.suite import run_suite
    from .adapter.suites import load_suite
    from .adapter.table import print_results

    chosen = load_suite(name)
    results = run_suite(chosen, out / chosen.name, skip_missing=skip_missing)
    if as_json:
        print_json([asdict(item) for item in results])
        return
    for item in results:
        print_results(item)
    typer.echo(f"Report: {out / chosen.name / 'report.html'}")


# --- generation ---


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
    queries: Annotated[Path | None, typer.Option(help="Your own queries, one a line.")] = None,
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
    config: Annotated[Path | None, typer.Option(help="YAML with a GenerationConfig.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """Have a language model describe the classes of data sets, and write prompt banks.

    Interrupt it and run it again: it goes on. Example: aape generate-prompts --dataset cars
    """
    from .pipeline import generation_plan

    plan = generation_plan.plan(
        dataset or [],
        every=every,
        config_file=config,
        out=out,
        queries=queries,
        control=control,
        source=source,
        options={
            "engine": engine,
            "model": model,
            "samples": samples,
            "seed": seed,
            "vllm.python": engine_python,
            "server.base_url": base_url,
        },
    )
    banks = plan.run(encoder, checkpoint)
    print_json(banks) if as_json else typer.echo("\n".join(bank["path"] for bank in banks))


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
    from .pipeline import generation_plan
    from .pipeline.datasets import load_manifest

    report = generation_plan.import_file(
        file, load_manifest(dataset), out, kind, allow_unmatched, encoder, checkpoint
    )
    print_json(report.model_dump()) if as_json else typer.echo(report.to_text())


# --- encoders ---


@app.command("encoders")
def encoders_verb(
    everything: Annotated[bool, typer.Option("--all", help="All models of open_clip.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the encoders, whether their weights are on this machine, and their licence."""
    from dataclasses import asdict

    from .pipeline.encoders import list_encoders

    rows = list_encoders(everything)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        here = "here" if row.available else "not here"
        typer.echo(f"{row.name:<45} {here:<9} {row.licence:<26} {row.notes}".rstrip())


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
