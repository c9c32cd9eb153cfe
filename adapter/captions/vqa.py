"""Visual question answering with a frozen language model: "[image] Q: … A:".

Rows as in captioning, beside the most frequent answer per question type. The prefix is trained on
captions, as for captioning, and then on questions (``train_on="questions"``); or on captions alone
and shown 0, 1, 2 or 4 answered questions before the one asked, as MAGMA and LiMBeR do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..metrics.intervals import bootstrap_difference, small_set_note
from ..metrics.vqa import mean_by, write_submission
from ..metrics.wups import WordNet
from ..results import MethodResult, Results
from .answer_scores import BASELINE, Scorer, accuracy_note, most_frequent, usual_answer
from .choose_prefix import ChosenPrefix
from .data import some
from .lm import FrozenLM
from .prefix import NAMES, PrefixInputs
from .question_training import (
    QuestionTexts,
    answered,
    captions_before,
    distinct_images,
    of_images,
    prompt_of,
    question_choice,
    question_row,
    question_texts,
    training_questions,
)
from .rows import CaptionTexts, TrainedRow, group_of, image_inputs, note_of, with_h
from .settings import Kind, VqaConfig
from .train import CaptionAdapter, check_adapters
from .written import Written, count_cut, cut_note, write_texts

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset, Question
    from ...pipeline.encoders.base import Encoder
    from ..run import RunFolder


def evaluate_vqa(
    dataset: Dataset,
    encoder: Encoder,
    adapters: Sequence[CaptionAdapter],
    *,
    config: VqaConfig | None = None,
    run: RunFolder | None = None,
    max_questions: int = 0,
    source: Dataset | None = None,
    first_stage: RunFolder | None = None,
    lm: FrozenLM | None = None,
    strict: bool = False,
) -> Results:
    """Train the four prefixes and score their answers to the test questions; one adapter a seed.

    Args:
        run: trained prefixes, answers and the table go there and are reused from there.
        max_questions: test questions to use; 0 is all.
        source: captioned data set that the prefix begins with, if ``dataset`` has no captions.
        first_stage: where prefixes trained on captions are kept, if not in ``run``.
        lm: an open language model instead of the configured one.
        strict: stop at an image that cannot be read, instead of leaving out its questions.

    Raises:
        UserError: there are no answered questions, or a prompt is longer than the context.
    """
    config = config or VqaConfig()
    check_adapters(adapters, encoder, "Question answering")
    limit = adapters[0].config.max_images
    asked = training_questions(dataset, limit)
    train = question_texts(encoder, asked, config.grid, "training", strict)
    asked = some(answered(dataset.questions("test"), "test"), max_questions)
    captions = captions_before(source or dataset, encoder, config, limit, strict)
    test = _test_questions(encoder, asked, config.grid, strict)
    lm = lm or FrozenLM.load(config.language_model)
    table = _Table(config, train.questions, test.questions)
    folder = run.path / "vqa" if run else None
    choice = question_choice(lm, dataset, encoder, config, run, source)
    for adapter in adapters:
        seed = adapter.config.seed
        inputs = with_h(train.tokens, train.x, adapter)
        asked = with_h(test.tokens, test.x, adapter)
        for kind in config.rows:
            row = question_row(lm, kind, train, captions, adapter, config, run, first_stage)
            loss = choice.judge(row, adapter)
            contexts = _Contexts(lm, row, inputs, asked, train, test)
            for shots in config.shots:
                name = _name(kind, shots, config)
                texts = write_texts(
                    lm,
                    test.ids,
                    contexts.of(shots, seed),
                    config.decode,
                    folder / row.name / f"answers-{shots}-shot" if folder else None,
                    f"Answers: {name} (seed {seed})",
                    table.vocabulary,
                )
                table.add(name, row, seed, loss, texts)
                if folder:
                    path = folder / row.name / f"submission-{shots}-shot.json"
                    write_submission(path, test.ids, table.shown)
    chosen = choice.keep()
    learned = _training_note(config, captions, len(train.questions), len(train.images))
    results = table.results(dataset, encoder, lm, config, test, learned, chosen)
    results.details |= {
        "train questions": len(train.questions),
        "samples": f"{table.methods[-1].name}, seed {adapters[-1].config.seed}",
    }
    if run:
        run.save_results(results)
    return results


@dataclass
class _TestQuestions:
    """The questions of readable images, and their n images: tokens (n, t, e), x (n, d)."""

    questions: list[Question]
    image: Sequence[int]
    """The row of each question's image."""
    tokens: Tensor
    x: np.ndarray

    @property
    def ids(self) -> list[str]:
        return [question.question_id for question in self.questions]


def _test_questions(
    encoder: Encoder, asked: Sequence[Question], grid: int, strict: bool
) -> _TestQuestions:
    about, _ = distinct_images(asked)
    tokens, x, kept = image_inputs(encoder, about, grid, "test", strict)
    questions, image = of_images(asked, [about[i] for i in kept])
    return _TestQuestions(questions, image, tokens, x)


class _Table:
    """The rows of the table as they are made: scores of every seed, the answers shown last."""

    def __init__(
        self, config: VqaConfig, train: Sequence[Question], test: Sequence[Question]
    ) -> None:
        counted = Counter(usual_answer(question.answers) for question in train)
        self.vocabulary = [entry for entry, _ in counted.most_common(config.vocabulary)]
        self.scorer = Scorer(test, WordNet.find(config.wordnet or None))
        baseline = most_frequent(train, test)
        self.methods = [MethodResult(BASELINE, [self.scorer.row(baseline, None)])]
        self.each: dict[str, list[np.ndarray]] = {BASELINE: [self.scorer.each(baseline)]}
        self.shown: list[str] = []

    def add(
        self,
        name: str,
        row: TrainedRow,
        seed: int,
        loss: float | None,
        texts: Sequence[Written],
    ) -> None:
        """Score the answers of one row and seed."""
        self.shown = [written.text for written in texts]
        words = self.vocabulary
        ranked = [words[written.choice] for written in texts] if words else None
        method = _find_or_add(self.methods, name, row)
        if loss is not None:
            method.details.setdefault("validation loss", []).append(round(loss, 4))
        method.seeds.append({"seed": seed, **self.scorer.row(self.shown, ranked)})
        count_cut(method, [written.ended for written in texts])
        each = self.scorer.each(self.shown)
        for what, groups in self.scorer.groups.items():
            by_type = mean_by(groups, each)
            method.details.setdefault(f"accuracy by {what} type", []).append(by_type)
        self.each.setdefault(name, []).append(each)

    def results(
        self,
        dataset: Dataset,
        encoder: Encoder,
        lm: FrozenLM,
        config: VqaConfig,
        test: _TestQuestions,
        learned: str,
        chosen: ChosenPrefix | None,
    ) -> Results:
        """Return the table with its notes, intervals and examples."""
        questions = test.questions
        metrics = list(self.methods[-1].seeds[0])[1:]
        return Results(
            task="vqa",
            protocol="vqa/1",
            dataset=dataset.manifest.name,
            encoder=encoder.id,
            metrics=metrics,
            methods=self.methods,
            best="accuracy",
            title=f"{len(questions)} questions about {len(test.x)} images, {lm.name} (frozen)",
            units=dict.fromkeys(metrics, "%"),
            notes=[
                *small_set_note(len(questions), "questions"),
                accuracy_note(questions),
                learned,
                *cut_note(self.methods, len(questions), config.decode.max_tokens),
                *self.scorer.notes,
                *([f"for new photos: {chosen.sentence()}"] if chosen else []),
                *([encoder.notes] if encoder.notes else []),
            ],
            intervals=_intervals(self.each),
            samples=_samples(questions, self.shown, self.scorer.each(self.shown)),
            details={"config": config.model_dump(mode="json")},
        )


def _name(kind: Kind, shots: int, config: VqaConfig) -> str:
    return NAMES[kind] + (f", {shots}-shot" if shots or len(config.shots) > 1 else "")


class _Contexts:
    """Embeddings of "[image] Q: … A:" with answered questions before it."""

    def __init__(
        self,
        lm: FrozenLM,
        row: TrainedRow,
        inputs: PrefixInputs,
        asked: PrefixInputs,
        train: QuestionTexts,
        test: _TestQuestions,
    ) -> None:
        self.lm, self.train, self.test = lm, train, test
        self.row, self.inputs = row, inputs
        with torch.no_grad():
            self.asked = row.prefix(asked)

    def of(self, shots: int, seed: int) -> Any:
        """Return the function from a test question's position to its context (l, w)."""

        def context(index: int) -> Tensor:
            parts = []
            order = np.random.default_rng([seed, index]).permutation(len(self.train.questions))
            for other in order[:shots]:
                question = self.train.questions[other]
                with torch.no_grad():
                    shown = self.row.prefix(self.inputs.take([self.train.place[other]]))[0]
                text = f"{prompt_of(question.question)} {usual_answer(question.answers)}\n"
                parts += [shown, self.lm.embed(self.lm.ids(text))]
            text = prompt_of(self.test.questions[index].question)
            parts += [self.asked[self.test.image[index]], self.lm.embed(self.lm.ids(text))]
            return torch.cat([part.to(self.lm.device, self.lm.embedding.dtype) for part in parts])

        return context


def _training_note(
    config: VqaConfig, captions: CaptionTexts | None, questions: int, images: int
) -> str:
    parts = []
    if captions:
        steps = config.on_captions().steps
        parts.append(f"{steps} steps on captions of {len(captions.x)} images")
    if captions is None or config.train_on == "questions":
        parts.append(f"{config.steps} steps on {questions} questions about {images} images")
    batches = f"{config.batch_size} texts a step; rows of a seed see the same batches"
    return f"the prefix learned in {', then '.join(parts)}; {batches}"


def _find_or_add(methods: list[MethodResult], name: str, row: TrainedRow) -> MethodResult:
    for method in methods:
        if method.name == name:
            return method
    methods.append(
        MethodResult(
            name,
            [],
            group_of(row.kind),
            note_of(row.kind),
            parameters=row.parameters,
            seconds=row.seconds,
        )
    )
    return methods[-1]


def _intervals(each: dict[str, list[np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    names = list(each)
    pairs = [(name, BASELINE) for name in names[1:]]
    pairs += [(NAMES["both"], NAMES["image"])]
    pairs += [(NAMES["aape"], NAMES[kind]) for kind in ("x", "none")]
    return {
        f"{a} - {b}": {"accuracy": bootstrap_difference(np.mean(each[a], 0) - np.mean(each[b], 0))}
        for a, b in pairs
        if a in each and b in each
    }


def _samples(
    test: Sequence[Question], answers: Sequence[str], score: np.ndarray
) -> list[dict[str, Any]]:
    """Ten right and ten wrong answers of the last row, of as many images as possible."""
    order = np.random.default_rng(0).permutation(len(test))
    _, first = np.unique([str(test[i].path) for i in order], return_index=True)
    order = [*order[np.sort(first)], *np.delete(order, first)]  # new images before other questions
    rows = []
    for good in (True, False):
        chosen = [i for i in order if (score[i] > 0) == good][:10]
        rows += [
            {
                "image": str(test[i].path),
                "question": test[i].question,
                "truth": usual_answer(test[i].answers),
                "output": answers[i],
                "good": good,
            }
            for i in chosen
        ]
    return rows
