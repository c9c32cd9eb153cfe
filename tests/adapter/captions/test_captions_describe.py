"""Captions and answers for new photos: which prefix speaks, what is said, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_captions import FakeDataset, speaking_lm
from fakes import ColourEncoder
from PIL import Image
from typer.testing import CliRunner

from aape import cli
from aape.adapter.captions import choose_prefix, describe
from aape.adapter.captions import run as caption_run
from aape.adapter.captions.captioning import evaluate_captioning
from aape.adapter.captions.choose_prefix import ChosenPrefix, PrefixChoice, RowLoss, validation_loss
from aape.adapter.captions.data import training_and_validation
from aape.adapter.captions.prefix import Prefix, PrefixInputs
from aape.adapter.captions.prefix_training import Example, prefix_loss
from aape.adapter.captions.rows import TrainedRow, caption_texts
from aape.adapter.captions.run import run_captions
from aape.adapter.captions.settings import (
    CaptionConfig,
    CaptioningConfig,
    CaptionRunConfig,
    PrefixConfig,
    VqaConfig,
)
from aape.adapter.captions.vqa import evaluate_vqa
from aape.adapter.run import RunFolder
from aape.pipeline.config import EncoderConfig
from aape.pipeline.errors import UserError
from aape.pipeline.store import read_record, write_record

STEPS = {"steps": 60, "lr": 0.03, "batch_size": 16}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with photos and a run that was trained on them and evaluated in both tasks."""
    folder = tmp_path_factory.mktemp("describe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAPE_HOME", str(folder / "home"))
        data, encoder = FakeDataset(folder), ColourEncoder()
        patch.setattr(caption_run, "open_dataset", lambda name, root=None: data)
        for name in ("load_encoder", "open_encoder"):
            patch.setattr(caption_run, name, lambda *_: encoder)
        config = CaptionRunConfig(
            dataset="fake",
            encoder=EncoderConfig(name="fake"),
            captions=CaptionConfig(epochs=3, batch_size=8, lr=0.01),
            seeds=[1],
        )
        run_captions(config, folder / "run")
        run = RunFolder(folder / "run")
        _, adapters = caption_run.open_adapters(run)
        evaluate_captioning(
            data, encoder, adapters, config=CaptioningConfig(**STEPS), run=run, lm=speaking_lm()
        )
        evaluate_vqa(
            data, encoder, adapters, run=run, lm=speaking_lm(),
            config=VqaConfig(**STEPS, caption_steps=10, rows=["image", "both"]),
        )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def home(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(place / "home"))


def test_the_row_with_the_least_loss_is_kept(place: Path) -> None:
    path = place / "run" / "captioning" / "chosen.json"
    chosen = ChosenPrefix.model_validate(read_record(path))
    losses = {row.kind: row.loss for row in chosen.losses}
    assert set(losses) == {"none", "image", "aape", "both"}
    seeing = {kind: loss for kind, loss in losses.items() if kind != "none"}
    assert chosen.kind == min(seeing, key=lambda kind: seeing[kind])
    assert losses[chosen.kind] < losses["none"]
    assert "16 validation captions" in chosen.sentence()
    table = json.loads((place / "run" / "results" / "captioning.json").read_text())
    assert any(chosen.sentence() in note for note in table["notes"])


def test_new_photos_are_captioned_and_answered_about(place: Path) -> None:
    names = {path: name for name, path in FakeDataset(place).rows}
    photos = list(names)[8:12]
    Image.new("RGB", (8, 8), (225, 28, 33)).save(place / "new.png")
    given = [*photos, place / "new.png"]
    lm, encoder = speaking_lm(), ColourEncoder()
    captions = list(describe.caption(place / "run", given, encoder=encoder, lm=lm))
    assert [row.path for row in captions] == given
    for row, name in zip(captions, [*(names[path] for path in photos), "red"]):
        assert row.text in (f"a {name} field", f"all is {name}")
        assert row.ended
    answers = list(describe.ask(place / "run", given, "what color is it", encoder=encoder, lm=lm))
    assert [row.text for row in answers] == [*(names[path] for path in photos), "red"]


def test_the_prefix_is_that_of_the_evaluation(place: Path) -> None:
    """The captions of the test images are those of the table, whatever the batch."""
    lm, encoder = speaking_lm(), ColourEncoder()
    chosen = ChosenPrefix.model_validate(read_record(place / "run" / "captioning" / "chosen.json"))
    written = place / "run" / "captioning" / chosen.row / "captions_results.json"
    expected = {str(row["image_id"]): row["caption"] for row in json.loads(written.read_text())}
    test = FakeDataset(place).captions("test")
    for size in (1, 32):
        found = describe.caption(
            place / "run", [image.path for image in test], encoder=encoder, lm=lm,
            batch_size=size,
        )  # fmt: skip
        assert [row.text for row in found] == [expected[image.image_id] for image in test]


def test_results_appear_before_all_photos_are_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    kept = describe.open_photos

    def watch(encoder: Any, paths: list[Path], **options: Any) -> Any:
        batches.append(len(paths))
        return kept(encoder, paths, **options)

    monkeypatch.setattr(describe, "open_photos", watch)
    found = describe.caption(
        place / "run", place / "pictures", encoder=ColourEncoder(), lm=speaking_lm()
    )
    assert batches == []
    next(found)
    assert batches == [4]
    assert len(list(found)) == 47
    assert batches == [4, 8, 16, 20]


def test_unreadable_photos_are_named_and_left_out(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = place / "broken.png"
    broken.write_bytes(b"no picture")
    good = place / "pictures" / "0.png"
    lm, encoder = speaking_lm(), ColourEncoder()
    rows = list(describe.caption(place / "run", [broken, good], encoder=encoder, lm=lm))
    assert rows[0].error
    assert not rows[0].text
    assert rows[1].text
    monkeypatch.setattr(describe, "load_encoder", lambda *_: encoder)
    monkeypatch.setattr(describe.FrozenLM, "load", lambda *_: lm)
    # the run records the model's name "tiny", which is no folder here
    done = CliRunner().invoke(
        cli.app, ["caption", str(place / "run"), str(broken), str(good), "--json"]
    )
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert set(lines[0]) == {"path", "error"}
    assert lines[1] == {"path": str(good), "text": rows[1].text, "ended": True}
    assert str(broken) in done.stderr
    words = ["ask", str(place / "run"), str(good), "what color is it?"]
    plain = CliRunner().invoke(cli.app, words)
    assert plain.stdout == f"{good}  red\n"
    with pytest.raises(UserError, match="None of the photos"):
        CliRunner().invoke(
            cli.app, ["caption", str(place / "run"), str(broken)], catch_exceptions=False
        )
    with pytest.raises(UserError, match="A photo and a question"):
        CliRunner().invoke(cli.app, words[:3], catch_exceptions=False)


def bare_copy(place: Path, tmp_path: Path) -> Path:
    """The run as training left it, without any prefix."""
    import shutil

    ignored = shutil.ignore_patterns("captioning*", "vqa*", "results")
    return Path(shutil.copytree(place / "run", tmp_path / "bare", ignore=ignored))


def test_a_run_without_a_prefix_says_what_makes_one(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bare_copy(place, tmp_path)
    photo, encoder, lm = place / "pictures" / "0.png", ColourEncoder(), speaking_lm()
    with pytest.raises(UserError, match=f"aape eval captioning {run}.*--train"):
        describe.caption(run, photo, encoder=encoder, lm=lm)
    with pytest.raises(UserError, match=f"aape eval vqa {run}"):
        describe.ask(run, photo, "what color is it?", encoder=encoder, lm=lm)
    monkeypatch.setattr(describe, "open_dataset", lambda name, root=None: FakeDataset(place))
    monkeypatch.setattr(describe, "PrefixConfig", lambda: PrefixConfig(**STEPS))
    row = next(describe.caption(run, photo, train=True, encoder=encoder, lm=lm))
    assert row.text in ("a red field", "all is red")
    chosen = ChosenPrefix.model_validate(read_record(run / "captioning" / "chosen.json"))
    assert {row.kind for row in chosen.losses} == {"image", "aape", "both"}
    # and from now on without --train, and without the data
    monkeypatch.setattr(describe, "open_dataset", None)
    assert next(describe.caption(run, photo, encoder=encoder, lm=lm)) == row


def test_a_strangers_run_cannot_lead_elsewhere(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    run = Path(shutil.copytree(place / "run", tmp_path / "stranger"))
    path = run / "captioning" / "chosen.json"
    kept = read_record(path)
    photo, encoder = place / "pictures" / "0.png", ColourEncoder()

    def refused(match: str, lm: Any = None, **changes: Any) -> None:
        write_record(path, kept | changes)  # a stranger counts checksums, too
        with pytest.raises(UserError, match=match):
            describe.caption(run, photo, encoder=encoder, lm=lm)

    refused("no plain name", row="../../elsewhere")
    refused("--language-model", language_model="/models/mine")
    refused("--language-model", language_model="../mine")
    refused("grid", grid=10**6)
    refused("is damaged", lm=speaking_lm(), aape_tokens=1000)
    refused("is damaged", lm=speaking_lm(), kind="none")
    refused("features of", lm=speaking_lm(), encoder="other@1")
    refused("has no prefix for aape caption", generator="another")
    refused("is not there", lm=speaking_lm(), row="nothing")
    prefix = run / "captioning" / kept["row"] / "prefix.safetensors"
    prefix.write_bytes(prefix.read_bytes()[:1000])
    refused("is damaged", lm=speaking_lm())


def test_another_evaluation_is_chosen_by_name(place: Path, tmp_path: Path) -> None:
    run = bare_copy(place, tmp_path)
    for name in ("daquar", "coco"):
        (run / name / "vqa").mkdir(parents=True)
        (run / name / "vqa" / "chosen.json").write_text("{}")
    folder = RunFolder(run)
    assert describe._rows_folder(folder, "vqa", "coco") == run / "coco" / "vqa"
    assert describe._rows_folder(folder, "captioning", "") == run / "captioning"
    with pytest.raises(UserError, match="several evaluations: coco, daquar"):
        describe._rows_folder(folder, "vqa", "")
    with pytest.raises(UserError, match="on other data: coco, daquar"):
        describe._rows_folder(folder, "vqa", "vqav2")


def test_validation_loss_is_the_mean_over_tokens() -> None:
    lm = speaking_lm()
    torch.manual_seed(0)
    inputs = PrefixInputs(torch.randn(3, 1, 4), torch.randn(3, 6), torch.randn(3, 6))
    prefix = Prefix("both", (1, 4), 6, lm.width, lm.scale)
    texts = ["red", "a green field", "all is blue"]
    examples = [Example(i, "", text) for i, text in enumerate(texts)]
    with torch.no_grad():
        whole = prefix_loss(
            lm, prefix(inputs), [[]] * 3, [[*lm.ids(text), lm.newline] for text in texts]
        )
    for size in (1, 2, 16):
        found = validation_loss(lm, prefix, inputs, examples, size)
        assert found == pytest.approx(float(whole), rel=1e-5)


def test_without_validation_there_is_a_rule() -> None:
    lm, encoder = speaking_lm(), ColourEncoder()
    choice = PrefixChoice("vqa", lm, encoder, PrefixConfig(), None, "nothing to judge on", None)
    assert choice.best() is None

    class Adapter:
        hash = "h"
        config = CaptionConfig(seed=3)

    prefix = Prefix("none", (1, 1), 1, lm.width, lm.scale)
    for kind in ("none", "image", "both"):
        choice.judge(TrainedRow(kind, prefix, [], 0.0, None, 0, f"{kind}-row"), Adapter())  # type: ignore[arg-type]
    best = choice.best()
    assert best is not None
    assert (best.kind, best.seed, best.losses) == ("both", 3, [])
    assert "by rule" in best.sentence()


def test_the_sentence_names_the_best_of_each_row() -> None:
    rows = [("image", 1, 2.5), ("image", 2, 2.4), ("both", 1, 2.3), ("none", 1, 3.0)]
    losses = [RowLoss(kind=kind, seed=seed, loss=loss) for kind, seed, loss in rows]
    chosen = ChosenPrefix(
        task="captioning", row="r", kind="both", seed=1, grid=2, aape_tokens=1, encoder="e",
        language_model="l", generator="g", judged_on="9 validation captions", losses=losses,
    )  # fmt: skip
    assert chosen.sentence() == (
        "Prefix: image tokens + AAPE, seed 1, as validation chose: loss 2.300 on 9 validation"
        " captions; image tokens 2.400, no image 3.000."
    )
    alone = chosen.model_copy(update={"losses": losses[2:]})
    assert alone.sentence() == (
        "Prefix: image tokens + AAPE, seed 1, the only one trained: loss 2.300 on 9 validation"
        " captions; no image 3.000."
    )


def test_a_prefix_is_not_trained_on_what_validates_it(place: Path) -> None:
    """Where there is no validation split, held-out images are left out of both stages."""

    class NoValidation(FakeDataset):
        def captions(self, split: str) -> list:
            if split == "val":
                raise UserError("no val")
            return super().captions(split)

    data, encoder = NoValidation(place), ColourEncoder()
    train, validation = training_and_validation(data)  # type: ignore[arg-type]
    texts = caption_texts(data, encoder, 2, 0)  # type: ignore[arg-type]
    assert len(texts.x) == len(train) < len(data.captions("train"))
    judged = choose_prefix.validation_captions(data, encoder, 2)  # type: ignore[arg-type]
    assert judged is not None
    assert len(judged.x) == len(validation)
