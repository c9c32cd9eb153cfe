"""The tasks on files in their official formats, through a run, as a user has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_captions import COLOURS, speaking_lm
from fakes import ColourEncoder
from PIL import Image

from aape.adapter.captions import run as caption_run
from aape.adapter.captions.answer_scores import BASELINE
from aape.adapter.captions.lm import FrozenLM
from aape.adapter.captions.run import evaluate_run, run_captions
from aape.adapter.captions.settings import CaptionConfig, CaptionRunConfig
from aape.pipeline.config import EncoderConfig
from aape.pipeline.errors import UserError

NAMES = list(COLOURS)


def draw(path: Path, number: int) -> str:
    """Write a picture of one colour and return the colour's name."""
    name = NAMES[number % len(NAMES)]
    values = np.array(COLOURS[name]) + np.random.default_rng(number).integers(-20, 20, (8, 8, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    return name


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco(root: Path) -> Path:
    for split, first, count in (("train", 0, 20), ("val", 100, 8)):
        images, rows = [], []
        for number in range(first, first + count):
            file = f"{number:012d}.jpg"
            name = draw(root / f"{split}2017" / file, number)
            images.append({"id": number, "file_name": file})
            texts = (f"a {name} field", f"all is {name}")
            rows += [{"image_id": number, "id": len(rows), "caption": text} for text in texts]
        content = {"images": images, "annotations": rows}
        write(root / "annotations" / f"captions_{split}2017.json", content)
    return root


def karpathy(root: Path) -> Path:
    """Four pictures a split, two colours: every caption is that of two test images."""
    images = []
    for number, split in enumerate(["restval", "train", "train", "train", *["test"] * 4]):
        file = f"COCO_val2014_{number:012d}.jpg"
        name = draw(root / "val2014" / file, number % 2)
        raw = [] if number == 3 else [f"a {name} field"]  # one image without captions
        sentences = [{"raw": text, "imgid": number, "sentid": number} for text in raw]
        images.append(
            {"filepath": "val2014", "filename": file, "imgid": number, "cocoid": number}
            | {"split": split, "sentences": sentences}
        )
    write(root / "dataset_coco.json", {"images": images, "dataset": "coco"})
    return root


def nocaps(root: Path) -> Path:
    images, rows = [], []
    for number, domain in enumerate(["in-domain", "near-domain", "out-domain"] * 2):
        name = draw(root / "validation" / f"{number:016x}.jpg", number)
        images.append({"id": number, "open_images_id": f"{number:016x}", "domain": domain})
        rows += [{"image_id": number, "caption": f"a {name} field"}] * 10
    write(root / "nocaps_val_4500_captions.json", {"images": images, "annotations": rows})
    return root


def sugarcrepe(root: Path) -> Path:
    for category in ("add_att", "swap_att"):
        rows = {}
        for number in range(4):
            name = draw(root / "val2017" / f"{number:012d}.jpg", number)
            rows[str(number)] = {
                "filename": f"{number:012d}.jpg",
                "caption": f"a {name} field",
                "negative_caption": f"a {NAMES[(number + 1) % 4]} field",
            }
        write(root / "data" / f"{category}.json", rows)
    return root


def vqav2(root: Path) -> Path:
    for split, first, count in (("train", 0, 16), ("val", 50, 8)):
        questions, annotations = [], []
        for number in range(first, first + count):
            name = draw(root / f"{split}2014" / f"COCO_{split}2014_{number:012d}.jpg", number)
            asked = {"image_id": number, "question_id": number * 1000}
            questions.append({**asked, "question": "what color is it?"})
            kind = "number" if number == first else "other"
            answers = [{"answer": name, "answer_id": i} for i in range(7)]
            answers += [{"answer": "gray", "answer_id": i} for i in range(7, 10)]
            annotations.append(
                {**asked, "question_type": "what color", "answer_type": kind, "answers": answers}
            )
        write(root / f"v2_OpenEnded_mscoco_{split}2014_questions.json", {"questions": questions})
        write(root / f"v2_mscoco_{split}2014_annotations.json", {"annotations": annotations})
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """A run trained on COCO's files of 2017, which have no validation split."""
    folder = tmp_path_factory.mktemp("official")
    patch = pytest.MonkeyPatch()
    patch.setenv("AAPE_HOME", str(folder / "home"))
    for name in ("load_encoder", "open_encoder"):
        patch.setattr(caption_run, name, lambda *_: ColourEncoder())
    patch.setattr(FrozenLM, "load", lambda *_: speaking_lm(128))
    config = CaptionRunConfig(
        dataset="coco",
        root=str(coco(folder / "coco")),
        encoder=EncoderConfig(name="fake"),
        captions=CaptionConfig(epochs=6, batch_size=8, lr=0.01),
        seeds=[1],
    )
    trained = run_captions(config, folder / "run")
    assert "4 of 20 training images" in " ".join(trained.notes)
    yield folder
    patch.undo()


def test_retrieval_on_its_own_data(run: Path) -> None:
    results = evaluate_run(run / "run", "retrieval")
    assert results.dataset == "coco"
    assert results.title.endswith("8 images, 16 captions")
    assert (run / "run" / "results" / "retrieval.md").exists()


def test_karpathy_counts_the_own_captions_alone(run: Path) -> None:
    """Two images share each caption; the first of each pair takes its place, as in the field."""
    root = karpathy(run / "karpathy")
    results = evaluate_run(run / "run", "retrieval", dataset="coco", root=str(root))
    assert "count as wrong answers for each other" in " ".join(results.notes)
    assert all(row["t2i R@1"] <= 50 for method in results.methods for row in method.seeds)


def test_sugarcrepe(run: Path) -> None:
    root = sugarcrepe(run / "sugarcrepe")
    results = evaluate_run(run / "run", "contrasts", dataset="sugarcrepe", root=str(root))
    assert results.metrics == ["add_att", "swap_att", "mean"]
    assert [method.name for method in results.methods] == ["x (zero-shot)", "h(x)"]
    assert (run / "run" / "sugarcrepe" / "results" / "contrasts.json").exists()


@pytest.mark.slow
def test_nocaps_by_domain_with_the_prefix_of_the_run(run: Path) -> None:
    root = nocaps(run / "nocaps")
    settings = {"steps": 30, "lr": 0.01, "batch_size": 8, "rows": ["both"]}
    results = evaluate_run(
        run / "run", "captioning", dataset="nocaps", root=str(root), settings=settings
    )
    by_domain = [f"CIDEr-D {domain}" for domain in ("in-domain", "near-domain", "out-domain")]
    assert results.metrics[-3:] == by_domain
    assert all(name in results.methods[0].seeds[0] for name in by_domain)
    written = next((run / "run" / "nocaps").rglob("captions_results.json"))
    assert [row["image_id"] for row in json.loads(written.read_text())] == list(range(6))
    assert not (run / "run" / "results" / "captioning.json").exists()


def test_vqav2_begins_with_the_captions_of_the_run(run: Path) -> None:
    root = vqav2(run / "vqa")
    settings = {"steps": 40, "caption_steps": 20, "lr": 0.01, "batch_size": 8, "rows": ["both"]}
    results = evaluate_run(run / "run", "vqa", dataset="vqav2", root=str(root), settings=settings)
    assert not (run / "run" / "vqav2" / "captioning").exists()
    assert len(list((run / "run" / "captioning").glob("both-*"))) == 1  # for any question set
    assert "20 steps on captions of 16 images, then 40 steps on 16 questions" in results.notes[2]
    (by_type,) = results.methods[1].details["accuracy by question type"]
    assert list(by_type) == ["what color"]
    assert results.metrics == ["accuracy", "number", "other", "closed-list accuracy"]
    row = results.methods[1].seeds[0]
    assert row["accuracy"] == pytest.approx((row["number"] + 7 * row["other"]) / 8)
    seeing = results.method("image tokens + AAPE").mean("accuracy")
    assert seeing > results.method(BASELINE).mean("accuracy")
    written = next((run / "run" / "vqav2").rglob("submission-0-shot.json"))
    assert json.loads(written.read_text())[0]["question_id"] == 50000


def test_questions_without_any_captions_say_what_to_do(run: Path) -> None:
    root = vqav2(run / "vqa")
    (run / "coco").rename(run / "away")
    try:
        settings = {"train_on": "captions", "steps": 1}
        with pytest.raises(UserError, match="vqav2 has no captions to train the prefix on"):
            evaluate_run(run / "run", "vqa", dataset="vqav2", root=str(root), settings=settings)
    finally:
        (run / "away").rename(run / "coco")
