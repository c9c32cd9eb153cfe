"""COCO, Flickr30k, nocaps and VQAv2 in miniature, as their downloads lie on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drawn_pictures import Pictures

_COLOURS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple")
_THINGS = ("dog", "ball", "boat", "kite", "chair", "horse", "bench", "truck")
_CAPTIONS = (
    "A {} {} on the ground.",
    "There is a {} {} in the picture",
    "a photo of one {} {}.",
    "A {} {} seen from the side. ",
    "Someone left a {} {} here.",
)


@dataclass(frozen=True)
class Sizes:
    """Images in each split."""

    train: int = 24
    val: int = 8
    test: int = 12

    def rows(self) -> Iterator[tuple[int, str]]:
        """Yield a running number and the split of every image."""
        number = 0
        for part in ("train", "val", "test"):
            for _ in range(getattr(self, part)):
                yield number, part
                number += 1


def subject(number: int) -> tuple[str, str]:
    """What a picture shows."""
    return _COLOURS[number % len(_COLOURS)], _THINGS[(number // 3) % len(_THINGS)]


def captions(number: int, count: int = 5) -> list[str]:
    """Captions of a picture, a blank at an end here and there as people write."""
    extra = " It is number {}."
    return [
        _CAPTIONS[i % 5].format(*subject(number)) + (extra.format(number) if i >= 5 else "")
        for i in range(count)
    ]


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _sentences(number: int, first: int) -> dict[str, Any]:
    texts = captions(number)
    return {
        "sentids": [first + i for i in range(len(texts))],
        "sentences": [
            {"tokens": text.lower().strip(" .").split(), "raw": text, "imgid": number,
             "sentid": first + i}
            for i, text in enumerate(texts)
        ],
    }  # fmt: skip


def coco(data: Path, pictures: Pictures, sizes: Sizes) -> None:
    """The release of 2014 with its annotations, and Karpathy's file, whose ``restval`` trains."""
    root, rows = data / "coco", []
    releases: dict[str, dict[str, list]] = {}
    for number, part in sizes.rows():
        # of the training images some are val2014's: Karpathy's restval
        release = "train2014" if part == "train" and number % 3 else "val2014"
        split = "restval" if part == "train" and release == "val2014" else part
        file = f"COCO_{release}_{coco_id(number):012d}.jpg"
        pictures.write(root / release / file, number, part)
        rows.append({"filepath": release, "filename": file, "imgid": number, "split": split,
                     "cocoid": coco_id(number), **_sentences(number, number * 5)})  # fmt: skip
        content = releases.setdefault(release, {"images": [], "annotations": []})
        content["images"].append(
            {"license": 3, "file_name": file, "id": coco_id(number), "height": 48, "width": 48}
        )
        content["annotations"] += [
            {"image_id": coco_id(number), "id": number * 5 + i, "caption": text}
            for i, text in enumerate(captions(number))
        ]
    _json(root / "dataset_coco.json", {"images": rows, "dataset": "coco"})
    for release, content in releases.items():
        file = root / "annotations" / f"captions_{release}.json"
        _json(file, {"info": {"year": 2014}, "licenses": [], **content})


def coco_id(number: int) -> int:
    """An id of COCO: not in order, not from 1."""
    return 391895 + (number * 7919) % 180000


def flickr30k(data: Path, pictures: Pictures, sizes: Sizes) -> None:
    """``flickr30k-images/1000092795.jpg`` and Karpathy's file, which has no ``filepath``."""
    root, rows = data / "flickr30k", []
    for number, part in sizes.rows():
        file = f"{1000092795 + number * 31}.jpg"
        pictures.write(root / "flickr30k-images" / file, number, part)
        rows.append({"filename": file, "imgid": number, "split": part,
                     **_sentences(number, number * 5)})  # fmt: skip
    _json(root / "dataset_flickr30k.json", {"images": rows, "dataset": "flickr30k"})


def nocaps(data: Path, pictures: Pictures, sizes: Sizes) -> None:
    """Ten captions an image, its domain, and its Open Images id, which names the file."""
    root = data / "nocaps"
    images, annotations = [], []
    for number in range(sizes.test):
        name = f"{number * 0x13EA2087 + 0x13EA2087020901:016x}"
        pictures.write(root / "validation" / f"{name}.jpg", number, "test", 1)
        domain = ("in-domain", "near-domain", "out-domain")[number % 3]
        images.append({"id": number, "open_images_id": name, "file_name": f"{name}.jpg",
                       "domain": domain, "license": 0, "width": 48, "height": 48,
                       "coco_url": "", "date_captured": "2018-11-06 11:04:33"})  # fmt: skip
        annotations += [
            {"image_id": number, "id": number * 10 + i, "caption": text}
            for i, text in enumerate(captions(number, 10))
        ]
    _json(root / "nocaps_val_4500_captions.json",
          {"licenses": [], "info": {}, "images": images, "annotations": annotations})  # fmt: skip


def vqav2(data: Path, pictures: Pictures, sizes: Sizes) -> None:
    """Questions and ten answers each, in four files; the photos are those of ``../coco``."""
    root = data / "vqav2"
    by_release: dict[str, list[int]] = {"train2014": [], "val2014": []}
    for number, part in sizes.rows():
        release = "train2014" if part == "train" and number % 3 else "val2014"
        by_release[release].append(number)
    for release, numbers in by_release.items():
        questions, annotations = [], []
        for number in numbers:
            colour, thing = subject(number)
            asked = [
                (f"What color is the {thing}?", colour, "what color is the", "other"),
                (f"Is there a {thing}?", "yes", "is there a", "yes/no"),
                ("How many things are there?", "1", "how many", "number"),
            ]
            for i, (question, answer, kind, sort) in enumerate(asked):
                key = {"image_id": coco_id(number), "question_id": coco_id(number) * 1000 + i}
                questions.append({**key, "question": question})
                answers = [answer] * 8 + ["no", "many things"]
                annotations.append(
                    {**key, "question_type": kind, "answer_type": sort,
                     "multiple_choice_answer": answer,
                     "answers": [{"answer": text, "answer_confidence": "yes", "answer_id": n}
                                 for n, text in enumerate(answers, start=1)]}
                )  # fmt: skip
        about = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": release}
        _json(root / f"v2_OpenEnded_mscoco_{release}_questions.json",
              {**about, "task_type": "Open-Ended", "questions": questions})  # fmt: skip
        _json(root / f"v2_mscoco_{release}_annotations.json", {**about, "annotations": annotations})


WRITERS = {"coco": coco, "flickr30k": flickr30k, "nocaps": nocaps, "vqav2": vqav2}
