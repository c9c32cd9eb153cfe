"""Every reader of strangers' files, as a function of a folder in which one file is odd."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import seeds

Prepare = Callable[[Path], None]


@dataclass(frozen=True)
class Reader:
    """``read(folder, file)`` reads ``file``, of which ``sound`` are good examples by name."""

    name: str
    sound: Mapping[str, bytes]
    read: Callable[[Path, Path], Any]
    prepare: Prepare = seeds.photos
    share: float = 1.0


def _layout(layout: dict[str, Any], **manifest: Any) -> Callable[[Path, Path], Any]:
    """Read all of a data set of one layout."""
    from aape.pipeline.datasets.dataset import Dataset
    from aape.pipeline.datasets.manifest import Manifest

    about = {
        "name": "toy", "title": "Toy", "tasks": ["classification"], "licence": "none",
        "classes": ["red kite", "owl"], "layouts": [layout], **manifest,
    }  # fmt: skip
    parsed = Manifest.parse(about, "toy")

    def read(folder: Path, file: Path) -> Any:
        return Dataset(parsed, folder, parsed.layouts[0]).contents

    return read


def _look(folder: Path, file: Path) -> Any:
    from aape.pipeline.datasets.add import add_dataset

    return add_dataset(folder, "mine", out=folder.parent / "mine.yaml", force=True)


def _look_at_file(folder: Path, file: Path) -> Any:
    from aape.pipeline.datasets.add import add_dataset

    return add_dataset(file, "mine", out=folder.parent / "mine.yaml", force=True)


def _extract(folder: Path, file: Path) -> Any:
    from aape.pipeline.datasets.archives import extract

    target = folder / "out"
    target.mkdir(exist_ok=True)
    try:
        return extract(file, target)
    finally:
        shutil.rmtree(target)


def _weights(folder: Path, file: Path) -> Any:
    from aape.pipeline.encoders.weights import is_torchscript, read_state

    is_torchscript(file)  # asked on its own, too
    return read_state(file, "ViT-B-32")


def _picture(folder: Path, file: Path) -> Any:
    from aape.pipeline.errors import UserError
    from aape.pipeline.pictures import PictureError, read_picture

    try:
        return read_picture(file)
    except PictureError as error:
        raise UserError(str(error)) from error


def _features(folder: Path, file: Path) -> Any:
    from aape.adapter.classification.feature_file import FileSource

    source = FileSource(file)
    return source.texts, [source.split(name) for name in ("train", "val", "test")]


def _reply(folder: Path, file: Path) -> Any:
    """As the engine ``openai`` takes an answer apart, without a server."""
    from openai.types.chat import ChatCompletion

    from aape.pipeline.errors import UserError
    from aape.pipeline.prompts.engines import replies

    try:
        value = json.loads(file.read_bytes())
        reply: Any = ChatCompletion.construct(**value)
        choice = reply.choices[0]
        reason, text = replies.reason_of(choice), replies.text_of(choice.message)
        found = reason, text, replies.tokens_of(reply), replies.only_thought(choice.message, reason)
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
        raise UserError("An odd answer.") from error  # these the engine takes for a passing fault
    assert isinstance(reason, str)
    assert text is None or isinstance(text, str)
    assert 0 <= found[2] < 2**31
    return found


def _bank(folder: Path, file: Path) -> Any:
    import numpy as np

    from aape.pipeline.bank import PromptBank
    from aape.pipeline.bank.verify import verify_bank

    report = verify_bank(file)
    bank = PromptBank.open(file)
    bank.table.to_pylist()
    if not report.sound:
        return None
    return bank.vectors.take(np.arange(len(bank)))


def _index(folder: Path, file: Path) -> Any:
    from aape.pipeline.bank import PromptBank
    from aape.pipeline.bank.index import read_report

    return read_report(PromptBank.open(folder / "b.bank.parquet"))


def _parse(what: str) -> Callable[[Path, Path], Any]:
    """Read a file by ``module:function`` or ``module:Class.method`` of the package."""
    from importlib import import_module

    module, _, path = what.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return lambda folder, file: found(file)


def _with_bank(folder: Path) -> None:
    """Write a small bank with its index."""
    import numpy as np

    from aape.pipeline.bank import BankMetadata, PromptRow, write_bank

    about = BankMetadata.model_validate(
        {"dataset": "toy", "class_names": ["owl", "kite"], "encoder_id": "x",
         "encoder_fingerprint": "x@0", "dim": 4}
    )  # fmt: skip
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        PromptRow(prompt_id=f"p{n}", dataset="toy", class_id=n % 2, 
                  class_name=("owl", "kite")[n % 2],
                  text=f"text {n}", embedding=vectors[n], verdict="kept")
        for n in range(12)
    ]  # fmt: skip
    write_bank(folder / "b.bank.parquet", rows, about).reindex()


def _tensors(scratch: Path) -> dict[str, bytes]:
    import numpy as np

    from aape.pipeline.store import write_record, write_tensors

    write_tensors(scratch / "a.safetensors", {"w": np.ones((3, 2), np.float32)}, {"facts": "{}"})
    write_record(scratch / "a.json", {"kind": "x", "values": [1, 2.5, None], "name": "é"})
    return {name: (scratch / name).read_bytes() for name in ("a.safetensors", "a.json")}


def readers(scratch: Path) -> list[Reader]:
    """Return all readers; ``scratch`` is an empty folder for making sound files."""
    _with_bank(scratch)
    ours = _tensors(scratch)
    bank = (scratch / "b.bank.parquet").read_bytes()
    index = (scratch / "b.bank.faiss").read_bytes()
    tables = {name: text for name, text in seeds.TABLES.items() if name != "pandas.json"}
    from aape.adapter.config import Config

    config = Config().to_yaml().encode()
    coop = {"kind": "coop_split", "split_file": "c.json"}
    coco = {"kind": "coco_captions", "annotations": {"train": "c.json"},
            "images": ["images/{name}"]}  # fmt: skip
    karpathy = {"kind": "karpathy", "file": "c.json", "images": ["{folder}/{name}"]}
    nocaps = {"kind": "nocaps", "annotations": {"val": "c.json"}, "images": ["images/{name}"]}
    sugar = {"kind": "sugarcrepe", "files": {"add": "c.json"}, "images": ["images/{name}"]}
    lists = {"kind": "listing", "lists": {"train": ["l.txt"]}, "images": ["{path}"]}
    numbers = {**lists, "label": "number"}
    vqa = {"kind": "vqa", "splits": {"val": {"questions": "q.json", "annotations": "a.json",
                                             "images": ["images/{stem}.png"]}}}  # fmt: skip
    asked = {"kind": "question_table", "files": {"train": "c.csv"},
             "images": ["images/{stem}.png"]}  # fmt: skip
    table = {"kind": "table", "files": ["t.csv"], "path": "path", "label": "label"}
    easy = {"kind": "easy_vqa"}
    shapes = {"classes": ["red circle"]}
    mat = {"kind": "matlab", "style": "flowers"}
    return [
        Reader("datasets add, a table", tables, _look_at_file),
        Reader("datasets add, a folder of tables", tables, _look),
        Reader("datasets add, COCO", {"annotations.json": seeds.COCO}, _look),
        Reader("datasets add, Karpathy", {"dataset.json": seeds.KARPATHY}, _look),
        Reader("datasets add, Label Studio", {"export.json": seeds.LABEL_STUDIO}, _look_at_file),
        Reader("datasets add, Parquet", {"train.parquet": seeds.parquet()}, _look_at_file),
        Reader("datasets add, WebDataset", {"train-000.tar": seeds.tar()}, _look),
        Reader("tables", seeds.TABLES, _parse(
            "aape.pipeline.datasets.readers.text_tables:read_text_table")),
        Reader("CoOp's splits", {"c.json": seeds.COOP}, _layout(coop)),
        Reader("COCO", {"c.json": seeds.COCO}, _layout(coco)),
        Reader("Karpathy", {"c.json": seeds.KARPATHY}, _layout(karpathy)),
        Reader("NoCaps", {"c.json": seeds.COCO}, _layout(nocaps)),
        Reader("SugarCrepe", {"c.json": seeds.SUGAR}, _layout(sugar)),
        Reader("lists", {"l.txt": b"owl/1.png\nowl/2.png\n"}, _layout(lists)),
        Reader("lists with numbers", {"l.txt": b"1.png 1\n2.png 2 1 1\n"}, _layout(numbers)),
        Reader("VQA's questions", {"q.json": seeds.VQA_QUESTIONS}, _layout(vqa), _with_answers),
        Reader("VQA's answers", {"a.json": seeds.VQA_ANSWERS}, _layout(vqa), _with_questions),
        Reader("question tables", {"c.csv": b"image_id,question,answer\n3,what?,red\n4,who?,\n"},
               _layout(asked)),
        Reader("a table by its manifest", {"t.csv": seeds.TABLES["t.csv"]}, _layout(table)),
        Reader("easy-VQA", {"questions.json": seeds.SHAPES}, _layout(easy, **shapes), _easy),
        Reader("MATLAB", {"imagelabels.mat": seeds.matlab()}, _layout(mat), _flowers, 0.02),
        Reader("manifests", {"m.yaml": seeds.MANIFEST}, _parse(
            "aape.pipeline.datasets.catalogue:load_manifest")),
        Reader("configurations", {"c.yaml": config}, _parse(
            "aape.adapter.config:Config.from_yaml")),
        Reader("queries", {"q.txt": seeds.QUERIES}, _parse(
            "aape.pipeline.prompts.requests:read_queries")),
        Reader("published prompts", seeds.PROMPTS, _parse(
            "aape.pipeline.prompts.published:read_published")),
        Reader("archives", {"a.zip": seeds.zipped(), "a.tar": seeds.tar(),
                            "a.tar.gz": seeds.tar(True)}, _extract),
        Reader("pictures", seeds.PICTURES, _picture, share=2.0),
        Reader("feature files", {"f.safetensors": seeds.features()}, _features),
        Reader("answers of servers", {"r.json": seeds.reply()}, _reply),
        Reader("weights", {"w.pt": seeds.checkpoint(),
                           "w.safetensors": seeds.features()}, _weights),
        Reader("banks", {"b.bank.parquet": bank}, _bank),
        Reader("indexes of banks", {"b.bank.faiss": index}, _index, _with_bank_only(bank)),
        Reader("tensors of ours", {"a.safetensors": ours["a.safetensors"]}, _parse(
            "aape.pipeline.store:read_tensors")),
        Reader("records of ours", {"a.json": ours["a.json"]}, _parse(
            "aape.pipeline.store:read_record")),
        Reader("tables of results", {"r.json": _results(scratch)}, _parse(
            "aape.adapter.results:Results.load")),
    ]  # fmt: skip


def _results(scratch: Path) -> bytes:
    from aape.adapter.results import MethodResult, Results

    methods = [MethodResult("zero-shot", [{"seed": 1, "accuracy": 50.0}])]
    table = Results("classification", "fewshot/1", "toy", "x", ["accuracy"], methods, "accuracy")
    table.save(scratch / "r.json")
    import re

    # without its checksum, as anybody can write it
    return re.sub(rb',\s*"sha256": "\w+"', b"", (scratch / "r.json").read_bytes())


def _with_bank_only(bank: bytes) -> Prepare:
    return lambda folder: (folder / "b.bank.parquet").write_bytes(bank) and None


def _with_answers(folder: Path) -> None:
    seeds.photos(folder)
    (folder / "a.json").write_bytes(seeds.VQA_ANSWERS)


def _with_questions(folder: Path) -> None:
    seeds.photos(folder)
    (folder / "q.json").write_bytes(seeds.VQA_QUESTIONS)


def _easy(folder: Path) -> None:
    """The odd file is a link's target: both splits have it."""
    for split in ("train", "test"):
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "images" / "1.png").write_bytes(seeds.picture())
        (folder / split / "questions.json").symlink_to(folder / "questions.json")


def _flowers(folder: Path) -> None:
    from io import BytesIO

    import numpy as np
    from scipy.io import savemat

    (folder / "jpg").mkdir()
    out = BytesIO()
    savemat(out, {"trnid": np.array([[1]]), "valid": np.array([[2]]), "tstid": np.array([[3]])})
    (folder / "setid.mat").write_bytes(out.getvalue())
