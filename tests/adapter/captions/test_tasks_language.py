"""Captioning and question answering from pictures to table, with reuse after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_captions import FakeDataset, speaking_lm, tiny_lm
from fakes import ColourEncoder

from aape.adapter.captions import rows as trained_rows
from aape.adapter.captions import written as kept_texts
from aape.adapter.captions.answer_scores import BASELINE, most_frequent
from aape.adapter.captions.captioning import caption_scores, evaluate_captioning, write_coco_results
from aape.adapter.captions.lm import FrozenLM
from aape.adapter.captions.question_training import captions_before, prompt_of
from aape.adapter.captions.settings import CaptionConfig, CaptioningConfig, DecodeConfig, VqaConfig
from aape.adapter.captions.train import CaptionAdapter, train_captions
from aape.adapter.captions.vqa import evaluate_vqa
from aape.adapter.captions.written import write_texts
from aape.adapter.results import Results
from aape.adapter.run import RunFolder
from aape.pipeline.datasets import CaptionedImage, Question
from aape.pipeline.errors import UserError
from aape.pipeline.files import hash_value


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    data, encoder = FakeDataset(tmp_path), ColourEncoder()
    adapter = train_captions(data, encoder, config=CaptionConfig(epochs=2, batch_size=8))
    return data, encoder, [adapter]


def test_captioning_from_pictures_to_table(
    parts: tuple[FakeDataset, ColourEncoder, list[CaptionAdapter]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, encoder, adapters = parts
    run = RunFolder(tmp_path / "run")
    config = CaptioningConfig(
        steps=60, lr=0.01, batch_size=8, decode=DecodeConfig(max_tokens=8), grid=1
    )
    results = evaluate_captioning(data, encoder, adapters, config=config, run=run, lm=speaking_lm())
    assert [m.name for m in results.methods] == [
        "no image", "image tokens", "AAPE", "image tokens + AAPE"
    ]  # fmt: skip
    blind, seeing = results.method("no image"), results.method("image tokens + AAPE")
    assert seeing.mean("CIDEr-D") > blind.mean("CIDEr-D") + 50
    assert results.method("AAPE").mean("CIDEr-D") > blind.mean("CIDEr-D") + 50
    low, high = results.intervals["image tokens + AAPE - no image"]["CIDEr-D"]
    assert 0 < low < high
    assert {sample["good"] for sample in results.samples} == {True, False}
    written = next((run.path / "captioning").glob("both-*/captions_results.json"))
    rows = json.loads(written.read_text())
    assert set(rows[0]) == {"image_id", "caption"}
    assert isinstance(rows[0]["image_id"], int)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("generated again")

    monkeypatch.setattr(kept_texts, "answer", refuse)
    again = evaluate_captioning(data, encoder, adapters, config=config, run=run, lm=speaking_lm())
    assert [m.seeds for m in again.methods] == [m.seeds for m in results.methods]
    kept = Results.load(run.results_path("captioning"))
    assert kept.method("AAPE").seeds == results.method("AAPE").seeds


def test_images_without_captions_and_texts_that_never_end(
    parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, encoder, adapters = parts

    class Bare(FakeDataset):
        def __init__(self) -> None:
            self.rows = data.rows

        def captions(self, split: str) -> list[CaptionedImage]:
            first, *rest = super().captions(split)
            return [CaptionedImage(first.image_id, first.path, (" ",)), *rest]

    lm = speaking_lm()
    monkeypatch.setattr(lm, "stops", set())
    run = RunFolder(tmp_path / "run")
    config = CaptioningConfig(steps=1, rows=["both"], decode=DecodeConfig(max_tokens=3), grid=1)
    results = evaluate_captioning(Bare(), encoder, adapters, config=config, run=run, lm=lm)
    assert results.title.startswith("Captions of 15 images")
    assert results.details["train images"] == 15
    assert results.methods[0].details["cut at max_tokens"] == [15]
    assert "texts cut at 3 tokens: image tokens + AAPE 15 of 15" in results.notes
    written = next((run.path / "captioning").glob("both-*/captions_results.json"))
    assert all(len(row["caption"].split()) <= 3 for row in json.loads(written.read_text()))


def test_vqa_from_pictures_to_table(parts, tmp_path: Path) -> None:
    data, encoder, adapters = parts
    run = RunFolder(tmp_path / "run")
    config = VqaConfig(steps=40, lr=0.01, batch_size=8, rows=["none", "both"], grid=1)
    results = evaluate_vqa(data, encoder, adapters, config=config, run=run, lm=speaking_lm())
    assert results.method(BASELINE).mean("accuracy") == 25  # four colours, equally often
    assert results.method("image tokens + AAPE").mean("accuracy") > 60
    assert results.method("no image").mean("accuracy") <= 25
    assert results.method("image tokens + AAPE").mean("closed-list accuracy") > 60
    path = next((run.path / "vqa").glob("both-*/submission-0-shot.json"))
    assert set(json.loads(path.read_text())[0]) == {"question_id", "answer"}
    assert results.intervals[f"image tokens + AAPE - {BASELINE}"]["accuracy"][0] > 0


def test_shots_and_training_on_captions(parts, tmp_path: Path) -> None:
    data, encoder, adapters = parts
    config = VqaConfig(
        steps=1, rows=["aape"], shots=[0, 2], train_on="captions", batch_size=4, vocabulary=2
    )
    lm = tiny_lm(context=256)
    results = evaluate_vqa(
        data,
        encoder,
        adapters,
        config=config,
        lm=lm,
        max_questions=5,
        run=RunFolder(tmp_path / "r"),
    )
    assert [m.name for m in results.methods] == [BASELINE, "AAPE, 0-shot", "AAPE, 2-shot"]
    with pytest.raises(UserError, match="positions; tiny has 24"):
        evaluate_vqa(
            data, encoder, adapters, config=config, lm=tiny_lm(context=24), max_questions=5
        )


def test_most_frequent_answer_by_hand() -> None:
    def ask(kind: str, *answers: str) -> Question:
        return Question("q", "i", Path(), "?", answers, kind)

    train = [ask("a", "x"), ask("a", "y", "y", "x"), ask("a", "y"), ask("b", "z")] + [ask("c", "z")]
    assert most_frequent(train, [ask("a", "?"), ask("b", "?"), ask("new", "?")]) == ["y", "z", "y"]


def test_prompt_form() -> None:
    assert prompt_of("what is\non the  desk") == " Q: what is on the desk? A:"
    assert prompt_of("is it red ?") == " Q: is it red? A:"


def test_finished_texts_are_kept_and_damaged_ones_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, asked = tiny_lm(), []
    monkeypatch.setattr(kept_texts, "_AT_ONCE", 2)

    def fake_answer(_lm, contexts, _config, _vocabulary):
        asked.extend(contexts)
        if len(asked) > 4:
            raise KeyboardInterrupt
        return [(f"text {context}", True, 0) for context in contexts]

    monkeypatch.setattr(kept_texts, "answer", fake_answer)
    ids, config = list("abcdef"), DecodeConfig()

    def go() -> list:
        return write_texts(lm, ids, lambda i: i, config, tmp_path / "log", "test")  # type: ignore[arg-type, return-value]

    with pytest.raises(KeyboardInterrupt):
        go()
    files = sorted(tmp_path.glob("log-*/*.jsonl"))
    assert len(files) == 2
    files[1].write_text(files[1].read_text().replace("text 2", "text 9"))  # by something else
    asked.clear()
    assert [text for text, _, _ in go()] == [f"text {i}" for i in range(6)]
    assert asked == [2, 3, 4, 5]
    asked.clear()
    go()
    assert asked == []


def test_texts_that_an_earlier_version_kept_in_one_file_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, asked = DecodeConfig(), []

    def answer(_lm, contexts, *_):
        asked.extend(contexts)
        return [("new", True, -1)]

    monkeypatch.setattr(kept_texts, "answer", answer)
    name = hash_value([config.model_dump(mode="json"), []])[:8]
    old = tmp_path / f"log-{name}.jsonl"
    whole = '{"id": "a", "text": "ü", "ended": false, "choice": 3}'
    odd = '{"id": "b", "text": 7, "ended": false, "choice": 3}'
    old.write_text(f'\n{whole}\n\n{odd}\n["b"]\n\n{{"id": "b", "text": "to', encoding="utf-8")
    for again in range(2):
        found = write_texts(tiny_lm(), ["a", "b"], lambda i: i, config, tmp_path / "log", "test")  # type: ignore[arg-type, return-value]
        assert found == [("ü", False, 3), ("new", True, -1)]
        assert asked == [1], again
    assert not old.exists()


def test_caption_files_and_non_ascii(tmp_path: Path) -> None:
    images = [CaptionedImage("42", Path(), ("a",)), CaptionedImage("train/7", Path(), ("b",))]
    write_coco_results(tmp_path / "r.json", images, ["un café", "日本語"])
    rows = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert rows == [
        {"image_id": 42, "caption": "un café"},
        {"image_id": "train/7", "caption": "日本語"},
    ]
    scores, each = caption_scores(["un café noir", "日本語"], [["un café noir"], ["日本語"]])
    assert scores["BLEU-1"] == pytest.approx(100)
    assert np.all(each > 0)


def test_questions_without_answers_are_left_out(parts) -> None:
    data, encoder, adapters = parts

    class Empty(FakeDataset):
        def __init__(self) -> None:
            self.rows = data.rows

        def questions(self, split: str) -> list[Question]:
            first = super().questions(split)[0]
            return [Question("e", first.image_id, first.path, "what?", ("", " "))]

    with pytest.raises(UserError, match="No training question has an answer"):
        evaluate_vqa(Empty(), encoder, adapters, lm=speaking_lm())
    with pytest.raises(UserError, match="at least one adapter"):
        evaluate_vqa(data, encoder, [], lm=speaking_lm())


def test_captioning_and_answering_share_the_first_stage(
    parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, encoder, adapters = parts
    run = RunFolder(tmp_path / "run")
    common = {"lr": 0.01, "batch_size": 8, "rows": ["both"], "grid": 1}
    captioning = CaptioningConfig.model_validate({**common, "steps": 10})
    evaluate_captioning(data, encoder, adapters, config=captioning, run=run, lm=speaking_lm())
    trained: list[int] = []
    train = trained_rows.train_prefix

    def watch(*arguments, **options):
        trained.append(arguments[4].steps)
        return train(*arguments, **options)

    monkeypatch.setattr(trained_rows, "train_prefix", watch)
    vqa = VqaConfig.model_validate({**common, "steps": 5, "caption_steps": 10})
    results = evaluate_vqa(data, encoder, adapters, config=vqa, run=run, lm=speaking_lm())
    assert trained == [10, 5]
    assert len(list((run.path / "captioning").glob("both-*"))) == 1  # reused, not made again
    assert "10 steps on captions of 16 images, then 5 steps" in " ".join(results.notes)


def test_where_a_tokenizer_drops_line_breaks_texts_end_with_the_end_token():
    lm = tiny_lm()
    whole = lm.tokenizer

    class Drops:
        eos_token_id = 2

        def __call__(self, text: str, **options):
            return {"input_ids": [] if text == "\n" else whole(text, **options)["input_ids"]}

    other = FrozenLM(lm.model, Drops(), "drops")
    assert other.newline == 2
    assert other.stops >= {2}
    Drops.eos_token_id = None  # type: ignore[assignment]
    lm.model.config.eos_token_id = None
    with pytest.raises(UserError, match="neither a line break nor an end token"):
        FrozenLM(lm.model, Drops(), "drops")


def test_captions_come_first_only_where_they_are_and_are_wanted(tmp_path: Path) -> None:
    class Silent(FakeDataset):
        def captions(self, split: str) -> list[CaptionedImage]:
            raise UserError("no captions")

    class Blank(FakeDataset):
        def captions(self, split: str) -> list[CaptionedImage]:
            return [replace(image, captions=(" ",)) for image in super().captions(split)]

    encoder, dataset = ColourEncoder(), FakeDataset(tmp_path, 12)
    assert captions_before(dataset, encoder, VqaConfig(caption_steps=0), 0) is None
    texts = captions_before(dataset, encoder, VqaConfig(caption_steps=5), 0)
    assert texts is not None
    assert len(texts.x) == 4
    for kind in (Silent, Blank):
        without = kind(tmp_path, 12)
        assert captions_before(without, encoder, VqaConfig(caption_steps=5), 0) is None
        with pytest.raises(UserError, match="no captions to train the prefix on"):
            captions_before(without, encoder, VqaConfig(train_on="captions"), 0)
