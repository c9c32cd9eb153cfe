"""Visual question answering with a frozen language model: "[image] Q: … A:".

Rows as in captioning, beside the most frequent answer per question type. The prefix is trained on
captions, as for captioning, and then on questions (``train_on="questions"``); or on captions alone
and shown 0, 1, 2 or 4 answered questions before the one asked, as MAGMA and LiMBeR do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import UserError
from ..metrics.intervals import bootstrap_difference, small_set_note
from ..metrics.vqa import mean_by, write_submission
from ..metrics.wups import WordNet
from ..results import MethodResult, Results
from .answer_scores import BASELINE, Scorer, accuracy_note, most_frequent, usual_answer
from .data import some
from .lm import NAMES, FrozenLM, Kind, PrefixInputs
from .prefix import (
    CaptionTexts,
    TrainedRow,
    image_inputs,
    with_h,
)
from .question_training import (
    QuestionTexts,
    VqaConfig,
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
from .train import CaptionAdapter
from .written import count_cut, cut_note, write_texts

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
    if not adapters:
        raise UserError("Question answering needs at least one adapter trained on captions.")
    for adapter in adapters:
        adapter.check_encoder(encoder)
    limit = adapters[0].config.max_images
    asked = training_questions(dataset, limit)
    train = question_texts(encoder, asked, config.grid, "training", strict)
    asked = some(answered(dataset.questions("test"), "test"), max_questions)
    captions = captions_before(source or dataset, encoder, config, limit, strict)
    about, _ = distinct_images(asked)
    test_tokens, test_x, kept = image_inputs(encoder, about, config.grid, "test", strict)
    test, test_row = of_images(asked, [about[i] for i in kept])
    lm = lm or FrozenLM.load(config.language_model)
    counted = Counter(usual_answer(question.answers) for question in train.questions)
    vocabulary = [entry for entry, _ in counted.most_common(config.vocabulary)]
    scorer = Scorer(test, WordNet.find(config.wordnet or None))
    baseline = most_frequent(train.questions, test)
    methods = [MethodResult(BASELINE, [scorer.row(baseline, None)])]
    each: dict[str, list[np.ndarray]] = {BASELINE: [scorer.each(baseline)]}
    folder = run.path / "vqa" if run else None
    choice = question_choice(lm, dataset, encoder, config, run, source)
    shown: list[str] = []
    for adapter in adapters:
        seed = adapter.config.seed
        inputs = with_h(train.tokens, train.x, adapter)
        asked = with_h(test_tokens, test_x, adapter)
        for kind in config.rows:
            row = question_row(lm, kind, train, captions, adapter, config, run, first_stage)
            loss = choice.judge(row, adapter)
            for shots in config.shots:
                name = NAMES[kind] + (f", {shots}-shot" if shots or len(config.shots) > 1 else "")
                contexts = _Contexts(lm, row, inputs, asked, train, test, test_row)
                texts = write_texts(
                    lm,
                    [question.question_id for question in test],
                    contexts.of(shots, seed),
                    config.decode,
                    folder / row.name / f"answers-{shots}-shot" if folder else None,
                    f"Answers: {name} (seed {seed})",
                    vocabulary,
                )
                shown = [written.text for written in texts]
                ranked = [vocabulary[written.choice] for written in texts] if vocabulary else None
                method = _find_or_add(methods, name, kind, row)
                if loss is not None:
                    method.details.setdefault("validation loss", []).append(round(loss, 4))
                method.seeds.append({"seed": seed, **scorer.row(shown, ranked)})
                count_cut(method, [written.ended for written in texts])
                for what, groups in scorer.groups.items():
                    by_type = mean_by(groups, scorer.each(shown))
                    method.details.setdefault(f"accuracy by {what} type", []).append(by_type)
                each.setdefault(name, []).append(scorer.each(shown))
                if folder:
                    path = folder / row.name / f"submission-{shots}-shot.json"
                    write_submission(path, [q.question_id for q in test], shown)
    chosen = choice.keep()
    metrics = list(methods[-1].seeds[0])[1:]
    results = Results(
        task="vqa",
        protocol="vqa/1",
        dataset=dataset.manifest.name,
        encoder=encoder.id,
        metrics=metrics,
        methods=methods,
        best="accuracy",
        title=f"{len(test)} questions about {len(test_x)} images, {lm.name} (frozen)",
        units=dict.fromkeys(metrics, "%"),
        notes=[
            *small_set_note(len(test), "questions"),
            accuracy_note(test),
            _training_note(config, captions, len(train.questions), len(train.images)),
            *cut_note(methods, len(test), config.decode.max_tokens),
            *scorer.notes,
            *([f"for new photos: {chosen.sentence()}"] if chosen else []),
            *([encoder.notes] if encoder.notes else []),
        ],
        intervals=_intervals(each),
        samples=_samples(test, shown, scorer.each(shown)),
        details={
            "config": config.model_dump(mode="json"),
            "train questions": len(train.questions),
            "samples": f"{methods[-1].name}, seed {adapters[-1].config.seed}",
        },
    )
    if run:
        run.save_results(results)
    return results


class _Contexts:
    """Embeddings of "[image] Q: … A:" with answered questions before it."""

    def __init__(
        self,
        lm: FrozenLM,
        row: TrainedRow,
        inputs: PrefixInputs,
        asked: PrefixInputs,
        train: QuestionTexts,
        test: Sequence[Question],
        test_row: Sequence[int],
    ) -> None:
        self.lm, self.train, self.test = lm, train, test
        self.test_row = test_row
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
            text = prompt_of(self.test[index].question)
            parts += [self.asked[self.test_row[index]], self.lm.embed(self.lm.ids(text))]
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


def _find_or_add(
    methods: list[MethodResult], name: str, kind: Kind, row: TrainedRow
) -> MethodResult:
    for method in methods:
        if method.name == name:
            return method
    group = (
        "ours" if kind in ("aape", "both") else "control" if kind in ("none", "x") else "baseline"
    )
    note = "a tuned prefix of the same length that never sees the image" if kind == "none" else ""
    methods.append(
        MethodResult(name, [], group, note, parameters=row.parameters, seconds=row.seconds)
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
