"""Image captioning with a frozen language model: no image, image tokens, AAPE, both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field

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
from .decode import DecodeConfig
from .lm import KINDS, NAMES, FrozenLM, Kind, PrefixConfig
from .prefix import (
    caption_row,
    caption_texts,
    image_inputs,
    with_h,
)
from .train import CaptionAdapter
from .written import count_cut, cut_note, write_texts

if TYPE_CHECKING:
    from ...pipeline.datasets import CaptionedImage, Dataset
    from ...pipeline.encoders.base import Encoder
    from ..run import RunFolder

METRICS = ["CIDEr-D", "BLEU-4", "BLEU-1", "ROUGE-L", "CLIPScore", "RefCLIPScore"]


class CaptioningConfig(PrefixConfig):
    """Training of the prefix, language model and decoding."""

    language_model: str = Field(default="smollm2", description="smollm2, a folder, or a model id")
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    rows: list[Kind] = Field(
        default=list(KINDS), min_length=1, description="what the language model is shown"
    )
    java: bool = Field(default=False, description="METEOR and SPICE too, where Java has them")


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
    if not adapters:
        raise UserError("Captioning needs at least one adapter trained on captions.")
    for adapter in adapters:
        adapter.check_encoder(encoder)
    test = some(dataset.captions("test"), max_images)
    test = [image for image in test if any(text.strip() for text in image.captions)]
    if not test:
        raise UserError(f"{dataset.manifest.name} has no captioned images to test on.")
    limit = adapters[0].config.max_images
    texts = caption_texts(source or dataset, encoder, config.grid, limit, strict)
    paths = [image.path for image in test]
    test_tokens, test_x, kept = image_inputs(encoder, paths, config.grid, "test", strict)
    test = [test[i] for i in kept]
    references = [[text for text in image.captions if text.strip()] for image in test]
    lm = lm or FrozenLM.load(config.language_model)

    choice = caption_choice(lm, source or dataset, encoder, config, run, adapters[0])
    methods = [_method(kind) for kind in config.rows]
    each: dict[Kind, list[np.ndarray]] = {}
    shown: list[str] = []
    for adapter in adapters:
        test_inputs = with_h(test_tokens, test_x, adapter)
        seed = adapter.config.seed
        for kind, method in zip(config.rows, methods):
            row = caption_row(lm, kind, texts, adapter, config, run)
            if (loss := choice.judge(row, adapter)) is not None:
                method.details.setdefault("validation loss", []).append(round(loss, 4))
            with torch.no_grad():
                prefixes = row.prefix(test_inputs)
            written = write_texts(
                lm,
                [image.image_id for image in test],
                prefixes.__getitem__,
                config.decode,
                row.folder / "captions" if row.folder else None,
                f"Captions: {NAMES[kind]} (seed {seed})",
            )
            captions = [text for text, _, _ in written]
            scores, cider = caption_scores(captions, references, java=config.java)
            scores |= _clip_scores(encoder, test_x, captions, references)
            scores |= _by_domain(test, captions, references)
            method.seeds.append({"seed": seed, **scores})
            method.parameters, method.seconds = row.parameters, row.seconds
            count_cut(method, [ended for _, ended, _ in written])
            if row.folder:
                write_coco_results(row.folder / "captions_results.json", test, captions)
            each.setdefault(kind, []).append(cider)
            shown = captions
    chosen = choice.keep()
    last = each[config.rows[-1]][-1]
    columns = methods[-1].seeds[-1]
    java = [name for name, reason in available().items() if config.java and not reason]
    results = Results(
        task="captioning",
        protocol="captioning/1",
        dataset=dataset.manifest.name,
        encoder=encoder.id,
        metrics=[*METRICS, *java, *(name for name in columns if name.startswith("CIDEr-D "))],
        methods=methods,
        best="CIDEr-D",
        title=f"Captions of {len(test)} images by {lm.name} (frozen)",
        units=dict.fromkeys([*METRICS[1:], *java], "%"),
        notes=[
            *small_set_note(len(test), "images"),
            f"{config.steps} steps of {config.batch_size} captions a row, from {len(texts.x)}"
            " images; rows of a seed see the same batches",
            *cut_note(methods, len(test), config.decode.max_tokens),
            f"CLIPScore and RefCLIPScore (times 100) are of {encoder.id}, not of OpenAI's ViT-B/32",
            *([f"for new photos: {chosen.sentence()}"] if chosen else []),
            *([encoder.notes] if encoder.notes else []),
        ],
        intervals=_intervals(each),
        samples=_samples(test, shown, last),
        details={
            "config": config.model_dump(mode="json"),
            "train images": len(texts.x),
            "samples": f"{methods[-1].name}, seed {adapters[-1].config.seed}, by CIDEr-D",
        },
    )
    if run:
        run.save_results(results)
    return results


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
        choice.judge(caption_row(lm, kind, texts, adapter, config, run), adapter)
    chosen = choice.keep()
    assert chosen is not None
    return chosen


def _method(kind: Kind) -> MethodResult:
    note = {"none": "a tuned prefix of the same length that never sees the image"}.get(kind, "")
    group = (
        "ours" if kind in ("aape", "both") else "control" if kind in ("none", "x") else "baseline"
    )
    return MethodResult(NAMES[kind], [], group=group, note=note)


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
