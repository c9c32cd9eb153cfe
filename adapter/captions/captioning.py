"""Image captioning with a frozen language model: no image, image tokens, AAPE, both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...pipeline.embed.texts import encode_texts
from ...pipeline.errors import UserError
from ...pipeline.files import write_json
from ...pipeline.progress import step
from ..metrics.clipscore import PREFIX, clip_score, ref_clip_score
from ..metrics.intervals import bootstrap_difference, small_set_note
from ..metrics.meteor_spice import available, java_scores
from ..metrics.ngrams import bleu, cider_d, rouge_l
from ..metrics.tokenize import tokenize_captions
from ..results import MethodResult, Results
from .choose_prefix import PHOTO_ROWS, ChosenPrefix, PrefixChoice, validation_captions
from .data import some
from .lm import FrozenLM
from .prefix import NAMES
from .rows import TrainedRow, caption_texts, group_of, image_inputs, note_of, text_row, with_h
from .settings import CaptioningConfig, Kind, PrefixConfig
from .train import CaptionAdapter, check_adapters
from .written import Written, count_cut, cut_note, write_texts

if TYPE_CHECKING:
    from ...pipeline.datasets import CaptionedImage, Dataset
    from ...pipeline.encoders.base import Encoder
    from ..run import RunFolder

METRICS = ["CIDEr-D", "BLEU-4", "BLEU-1", "ROUGE-L", "CLIPScore", "RefCLIPScore"]


def caption_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, java: bool = False
) -> tuple[dict[str, float], np.ndarray]:
    """Return the caption metrics in percent (CIDEr-D times 100), and CIDEr-D of each image (n,).

    Raises:
        UserError: the numbers of images differ, or an image has no reference.
    """
    written = tokenize_captions(candidates)
    truth = [tokenize_captions(group) for group in references]
    each = cider_d(written, truth)
    row = {"CIDEr-D": 100 * float(each.mean())}
    row |= {f"BLEU-{n + 1}": 100 * value for n, value in enumerate(bleu(written, truth))}
    row["ROUGE-L"] = 100 * float(rouge_l(written, truth).mean())
    if java:
        row |= {name: 100 * value for name, value in java_scores(written, truth).items()}
    return row, each


def write_coco_results(path: Path, images: Sequence[CaptionedImage], captions: list[str]) -> None:
    """Write captions in COCO's result format: ``[{"image_id": 1, "caption": "a dog"}]``."""
    rows = [
        {
            "image_id": int(image.image_id) if image.image_id.isdecimal() else image.image_id,
            "caption": caption,
        }
        for image, caption in zip(images, captions)
    ]
    write_json(path, rows)


def evaluate_captioning(
    dataset: Dataset,
    encoder: Encoder,
    adapters: Sequence[CaptionAdapter],
    *,
    config: CaptioningConfig | None = None,
    run: RunFolder | None = None,
    max_images: int = 0,
    source: Dataset | None = None,
    lm: FrozenLM | None = None,
    strict: bool = False,
) -> Results:
    """Train the four prefixes and score their captions of the test images; one adapter a seed.

    Args:
        run: trained prefixes, captions and the table go there and are reused from there.
        max_images: test images to use; 0 is all.
        source: data set to train on, if not ``dataset`` (NoCaps has no training captions).
        lm: an open language model instead of the configured one.
        strict: stop at an image that cannot be read, instead of leaving it out.

    Raises:
        UserError: no image has captions, an adapter belongs to another encoder, or the prefix with
            its text is longer than the context of the language model.
    """
    config = config or CaptioningConfig()
    check_adapters(adapters, encoder, "Captioning")
    asked = _captioned(dataset, max_images)
    limit = adapters[0].config.max_images
    texts = caption_texts(source or dataset, encoder, config.grid, limit, strict)
    test = _test_images(encoder, asked, config.grid, strict)
    lm = lm or FrozenLM.load(config.language_model)
    choice = caption_choice(lm, source or dataset, encoder, config, run, adapters[0])
    table = _Table(encoder, config, test)
    for adapter in adapters:
        seed = adapter.config.seed
        inputs = with_h(test.tokens, test.x, adapter)
        for kind in config.rows:
            row = text_row(lm, kind, texts, adapter, config, run)
            loss = choice.judge(row, adapter)
            with torch.no_grad():
                prefixes = row.prefix(inputs)
            written = write_texts(
                lm,
                [image.image_id for image in test.images],
                prefixes.__getitem__,
                config.decode,
                row.folder / "captions" if row.folder else None,
                f"Captions: {NAMES[kind]} (seed {seed})",
            )
            table.add(row, seed, loss, written)
            if row.folder:
                path = row.folder / "captions_results.json"
                write_coco_results(path, test.images, table.shown)
    results = table.results(dataset, lm, len(texts.x), choice.keep())
    results.details |= {
        "train images": len(texts.x),
        "samples": f"{table.last.name}, seed {adapters[-1].config.seed}, by CIDEr-D",
    }
    if run:
        run.save_results(results)
    return results


@dataclass
class _TestImages:
    """Readable images with their captions; tokens (n, t, e), x (n, d)."""

    images: list[CaptionedImage]
    tokens: Tensor
    x: np.ndarray

    @property
    def references(self) -> list[list[str]]:
        return [[text for text in image.captions if text.strip()] for image in self.images]


def _captioned(dataset: Dataset, limit: int) -> list[CaptionedImage]:
    test = some(dataset.captions("test"), limit)
    test = [image for image in test if any(text.strip() for text in image.captions)]
    if not test:
        raise UserError(f"{dataset.manifest.name} has no captioned images to test on.")
    return test


def _test_images(
    encoder: Encoder, asked: Sequence[CaptionedImage], grid: int, strict: bool
) -> _TestImages:
    paths = [image.path for image in asked]
    tokens, x, kept = image_inputs(encoder, paths, grid, "test", strict)
    return _TestImages([asked[i] for i in kept], tokens, x)


class _Table:
    """The rows of the table as they are made: scores of every seed, the captions shown last."""

    def __init__(self, encoder: Encoder, config: CaptioningConfig, test: _TestImages) -> None:
        self.encoder, self.config, self.test = encoder, config, test
        self.references = test.references
        self.methods = {
            kind: MethodResult(NAMES[kind], [], group=group_of(kind), note=note_of(kind))
            for kind in config.rows
        }
        self.each: dict[Kind, list[np.ndarray]] = {}
        self.shown: list[str] = []

    @property
    def last(self) -> MethodResult:
        """The last row, whose captions are shown."""
        return self.methods[self.config.rows[-1]]

    def add(
        self, row: TrainedRow, seed: int, loss: float | None, written: Sequence[Written]
    ) -> None:
        """Score the captions of one row and seed."""
        method = self.methods[row.kind]
        if loss is not None:
            method.details.setdefault("validation loss", []).append(round(loss, 4))
        self.shown = [text.text for text in written]
        scores, cider = caption_scores(self.shown, self.references, java=self.config.java)
        scores |= _clip_scores(self.encoder, self.test.x, self.shown, self.references)
        scores |= _by_domain(self.test.images, self.shown, self.references)
        method.seeds.append({"seed": seed, **scores})
        method.parameters, method.seconds = row.parameters, row.seconds
        count_cut(method, [text.ended for text in written])
        self.each.setdefault(row.kind, []).append(cider)

    def results(
        self, dataset: Dataset, lm: FrozenLM, trained_on: int, chosen: ChosenPrefix | None
    ) -> Results:
        """Return the table with its notes, intervals and examples."""
        config, images, methods = self.config, self.test.images, list(self.methods.values())
        java = [name for name, reason in available().items() if config.java and not reason]
        domains = [name for name in self.last.seeds[-1] if name.startswith("CIDEr-D ")]
        return Results(
            task="captioning",
            protocol="captioning/1",
            dataset=dataset.manifest.name,
            encoder=self.encoder.id,
            metrics=[*METRICS, *java, *domains],
            methods=methods,
            best="CIDEr-D",
            title=f"Captions of {len(images)} images by {lm.name} (frozen)",
            units=dict.fromkeys([*METRICS[1:], *java], "%"),
            notes=[
                *small_set_note(len(images), "images"),
                f"{config.steps} steps of {config.batch_size} captions a row, from {trained_on}"
                " images; rows of a seed see the same batches",
                *cut_note(methods, len(images), config.decode.max_tokens),
                f"CLIPScore and RefCLIPScore (times 100) are of {self.encoder.id}, not of OpenAI's"
                " ViT-B/32",
                *([f"for new photos: {chosen.sentence()}"] if chosen else []),
                *([self.encoder.notes] if self.encoder.notes else []),
            ],
            intervals=_intervals(self.each),
            samples=_samples(images, self.shown, self.each[self.config.rows[-1]][-1]),
            details={"config": config.model_dump(mode="json")},
        )


def caption_choice(
    lm: FrozenLM,
    dataset: Dataset,
    encoder: Encoder,
    config: PrefixConfig,
    run: RunFolder | None,
    adapter: CaptionAdapter,
) -> PrefixChoice:
    """Return what judges the rows of a run on validation captions, as many as ``h`` had at most."""
    texts = validation_captions(dataset, encoder, config.grid, adapter.config.max_validation)
    what = f"{len(texts.x)} validation captions" if texts else "there are no validation captions"
    folder = run.path / "captioning" if run else None
    return PrefixChoice("captioning", lm, encoder, config, texts, what, folder)


def train_caption_prefix(
    dataset: Dataset,
    encoder: Encoder,
    adapter: CaptionAdapter,
    config: PrefixConfig,
    run: RunFolder,
    lm: FrozenLM,
) -> ChosenPrefix:
    """Train the rows that see the image, of one seed, and keep the one that validation chooses.

    Raises:
        UserError: no training image has captions.
    """
    texts = caption_texts(dataset, encoder, config.grid, adapter.config.max_images)
    choice = caption_choice(lm, dataset, encoder, config, run, adapter)
    for kind in PHOTO_ROWS:
        choice.judge(text_row(lm, kind, texts, adapter, config, run), adapter)
    chosen = choice.keep()
    assert chosen is not None
    return chosen


def _clip_scores(
    encoder: Encoder, x: np.ndarray, captions: list[str], references: list[list[str]]
) -> dict[str, float]:
    flat = [PREFIX + text for group in references for text in group]
    vectors = encode_texts(encoder, [PREFIX + text for text in captions] + flat)
    written, truth = vectors[: len(captions)], vectors[len(captions) :]
    ends = np.cumsum([len(group) for group in references])
    groups = np.split(truth, ends[:-1])
    return {
        "CLIPScore": 100 * float(clip_score(x, written).mean()),
        "RefCLIPScore": 100 * float(ref_clip_score(x, written, groups).mean()),
    }


def _by_domain(
    test: Sequence[CaptionedImage], captions: list[str], references: list[list[str]]
) -> dict[str, float]:
    """CIDEr-D (times 100) within each of NoCaps' domains, each with its own idf as its server."""
    found = {}
    for domain in sorted({image.domain for image in test if image.domain}):
        rows = [index for index, image in enumerate(test) if image.domain == domain]
        scores, _ = caption_scores([captions[i] for i in rows], [references[i] for i in rows])
        found[f"CIDEr-D {domain}"] = scores["CIDEr-D"]
    return found


def _intervals(each: dict[Kind, list[np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    pairs: list[tuple[Kind, Kind]] = [
        ("both", "image"), ("aape", "image"), ("aape", "x"), ("both", "none"), ("image", "none"),
        ("aape", "none"),
    ]  # fmt: skip
    return {
        f"{NAMES[a]} - {NAMES[b]}": {
            "CIDEr-D": bootstrap_difference(np.mean(each[a], 0) - np.mean(each[b], 0))
        }
        for a, b in pairs
        if a in each and b in each
    }


def _samples(
    test: Sequence[CaptionedImage], captions: list[str], score: np.ndarray
) -> list[dict[str, Any]]:
    """Ten of the best and ten of the worst captions of the last row, with their pictures."""
    order = np.argsort(-score, kind="stable")
    ten = min(10, len(order) // 2)
    rows = []
    for index in [*order[:ten], *order[len(order) - ten :]]:
        rows.append(
            {
                "image": str(test[index].path),
                "truth": test[index].captions[0],
                "output": captions[index],
                "good": bool(index in order[:ten]),
                "score": f"CIDEr-D {100 * score[index]:.0f}",
            }
        )
    if not rows:
        step("Too few images for examples.")
    return rows
