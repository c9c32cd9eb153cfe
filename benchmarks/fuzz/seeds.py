"""Sound files of every kind that is read: small, made here, as people and tools write them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_CAPTIONS = ("a red kite over a field", "two birds; one of them is flying")
_QUESTION = "what colour is the bird?"


def picture(kind: str = "PNG", mode: str = "RGB", side: int = 12, seed: int = 0) -> bytes:
    """Return a small picture of noise."""
    shape = (side, side) if mode == "L" else (side, side, len(mode))
    values = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(values, mode).save(out, kind)
    return out.getvalue()


def photos(folder: Path) -> None:
    """Write a few photos that lists and tables name."""
    (folder / "images").mkdir(exist_ok=True)
    for name in ("1.png", "2.png", "000000000003.png", "000000000004.png"):
        (folder / "images" / name).write_bytes(picture())


def dumped(value: Any) -> bytes:
    """Return JSON as bytes."""
    return json.dumps(value).encode()


PICTURES: dict[str, bytes] = {
    "p.png": picture(),
    "alpha.png": picture("PNG", "RGBA"),
    "p.jpg": picture("JPEG"),
    "grey.jpg": picture("JPEG", "L"),
    "p.gif": picture("GIF"),
    "p.bmp": picture("BMP"),
    "p.webp": picture("WEBP"),
    "p.tif": picture("TIFF"),
    "p.ppm": picture("PPM"),
}

COCO = dumped(
    {
        "images": [{"id": 3, "file_name": "000000000003.png", "width": 12, "height": 12},
                   {"id": 4, "file_name": "000000000004.png", "width": 12, "height": 12}],
        "annotations": [{"id": 1, "image_id": 3, "caption": _CAPTIONS[0]},
                        {"id": 2, "image_id": 4, "caption": _CAPTIONS[1]}],
        "categories": [{"id": 1, "name": "bird"}],
    }
)  # fmt: skip
KARPATHY = dumped(
    {
        "images": [
            {"filename": f"{n}.png", "filepath": "images", "split": split, "imgid": n,
             "sentences": [{"raw": text, "tokens": text.split()} for text in _CAPTIONS]}
            for n, split in ((1, "train"), (2, "test"))
        ],
        "dataset": "toy",
    }
)  # fmt: skip
COOP = dumped({split: [["images/1.png", 0, "red kite"], ["images/2.png", 1, "owl"]]
               for split in ("train", "val", "test")})  # fmt: skip
SHAPES = dumped([[_QUESTION, "red", 1], ["what shape is in the image?", "circle", 1]])
SUGAR = dumped({"0": {"filename": "1.png", "caption": "a b", "negative_caption": "b a"}})
VQA_QUESTIONS = dumped({"questions": [{"question_id": 1, "image_id": 3, "question": _QUESTION}]})
VQA_ANSWERS = dumped(
    {"annotations": [{"question_id": 1, "image_id": 3, "question_type": "what colour",
                      "answer_type": "other", "answers": [{"answer": "red"}] * 10}]}
)  # fmt: skip
LABEL_STUDIO = dumped(
    [{"data": {"image": "/data/upload/1/1.png"},
      "annotations": [{"result": [{"type": "choices", "value": {"choices": ["owl"]}}]}]}]
)  # fmt: skip
TABLES: dict[str, bytes] = {
    "t.csv": b"path,label,split\nimages/1.png,owl,train\nimages/2.png,\"red kite\",test\n",
    "t.tsv": b"file_name\tcaption\nimages/1.png\ta bird\nimages/2.png\ttwo birds\n",
    "semi.csv": "filename;class\r\nimages\\1.png;Möwe\r\nimages\\2.png;Uhu\r\n".encode("utf-16"),
    "t.jsonl": b'{"image": "images/1.png", "label": "owl"}\n'
    b'{"image": "images/2.png", "label": "kite", "score": 0.5}\n',
    "t.json": dumped([{"path": "images/1.png", "label": "owl"},
                      {"path": "images/2.png", "label": ["kite"]}]),
    "metadata.csv": b"file_name,text\nimages/1.png,a bird\nimages/2.png,two birds\n",
    "one_hot.csv": b"filename,owl,kite\nimages/1.png,1,0\nimages/2.png,0,1\n",
    "pandas.json": dumped({"path": {"0": "images/1.png"}, "label": {"0": "owl"}}),
}  # fmt: skip
PROMPTS: dict[str, bytes] = {
    "cupl.json": dumped({"owl": ["An owl is grey.", "It has wings."], "kite": ["A red bird."]}),
    "one.json": dumped({"owl": "An owl is grey.", "kite": "A red bird."}),
    "hpt.json": dumped({"owl": [{"Entities": ["owl"], "Attributes": ["grey"],
                                 "Entity-to-Attribute Relationships": [
                                     {"entity": "owl", "attribute": "grey",
                                      "relationship": "is"}]}]}),
    "words.json": dumped({"owl": ["grey wings", "long tail"], "kite": ["red beak"]}),
    "p.csv": b"class_name,text,verdict\nowl,An owl is grey.,kept\nkite,Red.,kept\n",
}  # fmt: skip
MANIFEST = b"""\
name: toy
title: Toy
tasks: [classification, vqa]
category: bird
classes:
- {name: owl, folder: owl, aliases: [eagle owl]}
- kite
templates: ['a photo of a {}.']
queries: [{id: look, text: 'What does {article} {class} look like?'}]
layouts:
- {kind: table, files: [t.csv], path: path, label: label}
- {kind: image_folders, flat: .}
downloads: [{url: 'https://example.org/a.zip', file: a.zip, size: 10, extract: true}]
shares: [0.5, 0.2, 0.3]
licence: none
"""
QUERIES = b"What does {article} {class} look like?\n# a remark\nDescribe {class}.\n"


def tar(compressed: bool = False) -> bytes:
    """Return a tar of two pictures with their labels, as WebDataset has them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz" if compressed else "w") as archive:
        for number in range(2):
            members = {
                "png": picture(seed=number),
                "cls": b"1",
                "json": dumped({"caption": _CAPTIONS[0]}),
            }
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{number:04}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def zipped() -> bytes:
    """Return a zip of two small files, one of them packed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.txt", "one " * 50)
        archive.writestr("b/2.png", picture(), zipfile.ZIP_STORED)
    return out.getvalue()


def parquet() -> bytes:
    """Return a Parquet file of pictures and labels, with the features that Hugging Face writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": picture(seed=n), "path": f"{n}.png"} for n in range(3)]
    table = pa.table({"image": cells, "label": pa.array([0, 1, 0], pa.int64())})
    features = {"image": {"_type": "Image"}, "label": {"names": ["owl", "kite"],
                                                      "_type": "ClassLabel"}}  # fmt: skip
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(about), out)
    return out.getvalue()


def features() -> bytes:
    """Return a feature file as ``aape train --features`` reads it."""
    from safetensors.numpy import save

    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {"class_text.features": rng.normal(size=(2, 4))}
    for split in ("train", "val", "test"):
        arrays[f"{split}.features"] = rng.normal(size=(6, 4)).astype(np.float32)
        arrays[f"{split}.labels"] = np.arange(6) % 2
    about = {"classnames": json.dumps(["owl", "kite"]), "encoder": "x", "logit_scale": "100.0",
             "base_ids": "[0]", "new_ids": "[1]"}  # fmt: skip
    return save(arrays, metadata=about)


def checkpoint() -> bytes:
    """Return weights as a training loop saves them."""
    import torch

    out = io.BytesIO()
    state = {"visual.proj": torch.zeros(3, 2), "logit_scale": torch.ones(())}
    torch.save({"epoch": 3, "name": "x", "state_dict": state}, out)
    return out.getvalue()


def matlab() -> bytes:
    """Return labels as Flowers102 has them."""
    from scipy.io import savemat

    out = io.BytesIO()
    savemat(out, {"labels": np.array([[1, 2, 1]], np.uint8)})
    return out.getvalue()


def reply() -> bytes:
    """Return the answer of a server."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "A bird.", "reasoning_content": "Hm."},
    }
    return dumped({"id": "1", "object": "chat.completion", "created": 1, "model": "m",
                   "choices": [choice], "usage": {"completion_tokens": 9}})  # fmt: skip
