"""How a prefix learns to answer: on captions first, then on questions; and what validates it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.errors import UserError
from ...pipeline.files import hash_value
from ...pipeline.progress import step
from .answer_scores import usual_answer
from .choose_prefix import PHOTO_ROWS, ChosenPrefix, PrefixChoice, validation_captions
from .data import some
from .lm import FrozenLM
from .prefix_training import Example
from .rows import (
    CaptionTexts,
    TrainedRow,
    caption_texts,
    image_inputs,
    text_row,
)
from .settings import Kind, VqaConfig
from .train import CaptionAdapter

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset, Question
    from ...pipeline.encoders.base import Encoder
    from ..run import RunFolder

_VALIDATION_IMAGES = 128


def prompt_of(question: str) -> str:
    """Return the text between the image and the answer.

    >>> prompt_of("what is on the desk")
    ' Q: what is on the desk? A:'
    """
    return f" Q: {' '.join(question.split()).rstrip('?').rstrip()}? A:"


@dataclass
class QuestionTexts(CaptionTexts):
    """Answered questions about distinct images; an example is the prompt and answer of one.

    Attributes:
        place: for each question the position of its image.
    """

    questions: list[Question]
    images: list[Path]
    place: list[int]


def question_texts(
    encoder: Encoder,
    questions: list[Question],
    grid: int,
    what: str = "training",
    strict: bool = False,
) -> QuestionTexts:
    """Return questions as what a prefix learns from, or is judged on.

    Those about an image that cannot be read are left out, unless ``strict``.
    """
    images, _ = distinct_images(questions)
    tokens, x, kept = image_inputs(encoder, images, grid, what, strict)
    images = [images[i] for i in kept]
    questions, place = of_images(questions, images)
    examples = [
        Example(place[i], prompt_of(question.question), f" {usual_answer(question.answers)}")
        for i, question in enumerate(questions)
    ]
    key = hash_value([[question.question_id, *question.answers] for question in questions])
    return QuestionTexts(tokens, x, examples, [encoder.fingerprint, key], questions, images, place)


def training_questions(dataset: Dataset, limit: int) -> list[Question]:
    """Return the answered training questions, about ``limit`` images (0 is all).

    Raises:
        UserError: there are none.
    """
    return _of_some_images(answered(dataset.questions("train"), "training"), limit)


def question_row(
    lm: FrozenLM,
    kind: Kind,
    train: QuestionTexts,
    captions: CaptionTexts | None,
    adapter: CaptionAdapter,
    config: VqaConfig,
    run: RunFolder | None,
    first_stage: RunFolder | None,
) -> TrainedRow:
    """Train a prefix as ``config`` says, or reuse it.

    Args:
        captions: what it learns first, if anything.
        first_stage: where prefixes trained on captions are kept, if not in ``run``.
    """
    row = None
    if captions:
        stage, place = config.on_captions(), first_stage or run
        row = text_row(lm, kind, captions, adapter, stage, place)
    if row is not None and config.train_on == "captions":
        return row
    return text_row(lm, kind, train, adapter, config, run, "vqa", start=row)


def question_choice(
    lm: FrozenLM,
    dataset: Dataset,
    encoder: Encoder,
    config: VqaConfig,
    run: RunFolder | None,
    source: Dataset | None = None,
) -> PrefixChoice:
    """Return what judges the rows: validation questions, else captions, else a rule.

    A prefix that learned on captions alone stays with captioning; nothing is kept of it here.
    """
    folder = run.path / "vqa" if run and config.train_on == "questions" else None
    texts, what = None, "there are no validation questions"
    try:
        questions = answered(dataset.questions("val"), "validation")
    except UserError:
        questions = []
    if questions:
        questions = _of_some_images(questions, _VALIDATION_IMAGES)[: 4 * _VALIDATION_IMAGES]
        judged = question_texts(encoder, questions, config.grid)
        texts = CaptionTexts(judged.tokens, judged.x, judged.examples, judged.key)
        what = f"{len(questions)} validation questions"
    elif texts := validation_captions(source or dataset, encoder, config.grid):
        what = f"{len(texts.x)} validation captions (there are no validation questions)"
    return PrefixChoice("vqa", lm, encoder, config, texts, what, folder)


def train_question_prefix(
    dataset: Dataset,
    encoder: Encoder,
    adapter: CaptionAdapter,
    config: VqaConfig,
    run: RunFolder,
    lm: FrozenLM,
) -> ChosenPrefix:
    """Train the rows that see the image, of one seed, and keep the one that validation chooses.

    Raises:
        UserError: no training question has an answer.
    """
    limit = adapter.config.max_images
    train = question_texts(encoder, training_questions(dataset, limit), config.grid)
    captions = captions_before(dataset, encoder, config, limit)
    choice = question_choice(lm, dataset, encoder, config, run)
    for kind in PHOTO_ROWS:
        row = question_row(lm, kind, train, captions, adapter, config, run, None)
        choice.judge(row, adapter)
    chosen = choice.keep()
    assert chosen is not None
    return chosen


def answered(questions: Sequence[Question], what: str) -> list[Question]:
    """Return the questions that have an answer; how many do not is said.

    Raises:
        UserError: none has one.
    """
    kept = [question for question in questions if any(a.strip() for a in question.answers)]
    if len(kept) < len(questions):
        step(f"{len(questions) - len(kept)} {what} questions have no answer and are left out.")
    if not kept:
        raise UserError(f"No {what} question has an answer.", "Check the annotation file.")
    return kept


def distinct_images(questions: Sequence[Question]) -> tuple[list[Path], list[int]]:
    """Return the distinct images, and for each question the position of its image."""
    place: dict[Path, int] = {}
    rows = [place.setdefault(question.path, len(place)) for question in questions]
    return list(place), rows


def of_images(
    questions: Sequence[Question], images: Sequence[Path]
) -> tuple[list[Question], list[int]]:
    """Return the questions about some images, and for each the position of its image."""
    place = {path: number for number, path in enumerate(images)}
    kept = [question for question in questions if question.path in place]
    return kept, [place[question.path] for question in kept]


def captions_before(
    dataset: Dataset, encoder: Encoder, config: VqaConfig, limit: int, strict: bool = False
) -> CaptionTexts | None:
    """Return the captions that the prefix learns first; none where there are none."""
    wanted = config.train_on == "captions"
    if not wanted and not config.caption_steps:
        return None
    try:
        train = dataset.captions("train")
    except UserError:
        train = []
    if any(text.strip() for image in train for text in image.captions):
        return caption_texts(dataset, encoder, config.grid, limit, strict)
    if wanted:
        raise UserError(
            f"{dataset.manifest.name} has no captions to train the prefix on.",
            "Use train_on: questions, or a run that was trained on captions that are here.",
        )
    return None


def _of_some_images(questions: list[Question], limit: int) -> list[Question]:
    images = list(dict.fromkeys(question.image_id for question in questions))
    chosen = set(some(images, limit))
    return [question for question in questions if question.image_id in chosen]
