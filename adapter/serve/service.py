"""What a server can be asked: the run opened for each verb, and nothing about this machine.

All methods run in the one thread that owns the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ...pipeline.errors import UserError
from ...pipeline.progress import step
from ...pipeline.settings import read_source
from .answers import ExplainedLabel, Explanation, Found, Label, Labels, Sentence, Text
from .limits import without_path

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder
    from ..open_model import Answer, AskedClasses, OpenModel

T = TypeVar("T")
VERBS = ("predict", "explain", "search", "caption", "ask")
START_WITH = {  # what the command lacks where a verb is not offered
    "predict": "Serve a run of classification.",
    "explain": "Serve a run of classification.",
    "search": "Start it with --photos FOLDER.",
    "caption": "Start it with --captions RUN, where `aape eval captioning RUN` has ended.",
    "ask": "Start it with --captions RUN, where `aape eval vqa RUN` has ended.",
}


@dataclass(frozen=True)
class PhotoQuestion:
    """A photo (3, h, w), the classes to choose from, and whether the answer is explained."""

    pixels: torch.Tensor
    top: int
    classes: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    explain: bool = False


@dataclass(frozen=True)
class SearchQuestion:
    """What to look for among the photos: a sentence, or another photo."""

    text: str
    like: Path | None
    k: int


class Service:
    """The opened parts; what is absent is not offered.

    Attributes:
        model: for predict and explain. explained: the run with its bank, for sentences.
        photos: what search looks through. photo_root: names are told relative to it.
        captioner, answerer: a run of captions, opened for each of the two.
    """

    def __init__(
        self,
        model: OpenModel | None = None,
        *,
        explained: Any = None,
        photos: Any = None,
        photo_root: Path | None = None,
        captioner: Any = None,
        answerer: Any = None,
    ) -> None:
        self.model, self.explained = model, explained
        self.photos, self.photo_root = photos, photo_root
        self.captioner, self.answerer = captioner, answerer

    @property
    def offers(self) -> list[str]:
        """The verbs that can be asked."""
        parts = (self.model, self.model, self.photos, self.captioner, self.answerer)
        return [verb for verb, part in zip(VERBS, parts) if part is not None]

    def warm_up(self) -> None:
        """Label a blank photo by a name, so that the first request does not wait for libraries."""
        from PIL import Image

        if self.model is not None:
            self.model.encoder.encode_text(["a photo"])
            blank = Image.new("RGB", (64, 64))
            self.model.features(self.model.encoder.transform(blank)[None])

    def classify(
        self, questions: Sequence[PhotoQuestion]
    ) -> list[Labels | Explanation | Exception]:
        """Answer photos together; one bad question does not spoil the others."""
        assert self.model is not None
        answers: list[Any] = [None] * len(questions)
        shapes: dict[tuple[int, ...], list[int]] = {}
        for place, question in enumerate(questions):
            shapes.setdefault(tuple(question.pixels.shape), []).append(place)
        for places in shapes.values():
            x = self.model.features(torch.stack([questions[place].pixels for place in places]))
            for row, place in zip(x, places):
                try:
                    answers[place] = self._classified(row[None], questions[place])
                except UserError as error:
                    answers[place] = error
        return answers

    def _classified(self, x: torch.Tensor, question: PhotoQuestion) -> Labels | Explanation:
        assert self.model is not None
        asked = self.model.classes(question.classes, question.also)
        if not question.explain:
            (found,) = self.model.answers(x, asked, question.top, terms=False)
            return Labels(labels=[_label(one) for one in found])
        (found,) = self.model.answers(x, asked, question.top)
        near, near_aape, notes = self._sentences(x[0], asked)
        return Explanation(
            labels=[
                ExplainedLabel(**_label(one).model_dump(), logit=one.logit, terms=one.terms)
                for one in found
            ],
            zero_shot=[_label(one) for one in self.model.zero_shot(x, asked, question.top)[0]],
            sentences=near,
            aape_sentences=near_aape,
            notes=notes,
        )

    def _sentences(
        self, x: torch.Tensor, asked: AskedClasses
    ) -> tuple[list[Sentence], list[Sentence], list[str]]:
        if self.explained is None:
            return [], [], ["The bank of the run is not open here, so no sentences are shown."]
        from ..explain.photo import explain_features

        found = explain_features(self.explained, x, "the photo", top=1)
        near, near_aape = (
            [Sentence(text=one.text, class_name=one.class_name, cosine=one.value) for one in which]
            for which in (found.near_photo, found.near_aape)
        )
        return near, near_aape, [note for note in (*found.notes, found.aape) if note]

    def search(self, questions: Sequence[SearchQuestion]) -> list[list[Found] | Exception]:
        """Find photos by a sentence or by another photo."""
        answers: list[Any] = []
        for question in questions:
            try:
                hits = (
                    self.photos.like(question.like, question.k)
                    if question.like is not None
                    else self.photos.text(question.text, question.k)
                )
                answers.append(
                    [Found(name=self._name_of(hit.path), cosine=float(hit.cosine)) for hit in hits]
                )
            except UserError as error:
                answers.append(_told(error, question.like))
        return answers

    def caption(self, photos: Sequence[Path]) -> list[Text | Exception]:
        """Caption photos together."""
        return [_text(row) for row in self.captioner.texts(list(photos))]

    def ask(self, questions: Sequence[tuple[Path, str]]) -> list[Text | Exception]:
        """Answer questions about photos; the same question about several is one batch."""
        from ..captions.question_training import prompt_of
        from ..captions.settings import DecodeConfig

        decode = DecodeConfig(max_tokens=8)
        answers: list[Any] = [None] * len(questions)
        for text in dict.fromkeys(question for _, question in questions):
            places = [i for i, (_, question) in enumerate(questions) if question == text]
            photos = [questions[i][0] for i in places]
            rows = self.answerer.texts(photos, prompt_of(text), decode)
            for i, row in zip(places, rows):
                answers[i] = _text(row)
        return answers

    def _name_of(self, path: Path) -> str:
        root = self.photo_root
        inside = root is not None and path.is_relative_to(root)
        return path.relative_to(root).as_posix() if inside and root is not None else path.name


def open_service(
    run: str | Path,
    *,
    captions: str | Path | None = None,
    photos: str | Path | None = None,
    bank: str | Path | None = None,
    encoder: Encoder | None = None,
    checkpoint: str = "",
    device: str = "",
) -> Service:
    """Open a run for all that it can be asked; what it cannot is said once, at the start.

    Args:
        run: a run of classification, or of captions. captions: a run of captions beside it, by
            default the run itself where it has them.
        photos: a folder that may be searched. bank: of the run, where it moved.

    Raises:
        UserError: the run can be asked nothing.
    """
    from ..captions.search import PhotoSearch
    from ..explain.opened import open_run
    from ..open_model import OpenModel
    from ..run import RunFolder

    folder = RunFolder.open(run)
    service = Service()
    if read_source(folder.path / "config.yaml").get("task") == "captions":
        captions = captions or run
    else:
        service.model = OpenModel.open(run, encoder=encoder, checkpoint=checkpoint, device=device)
        encoder = service.model.encoder
        service.explained = _opened("sentences", lambda: open_run(run, bank=bank, encoder=encoder))
        if captions is None and _has_prefix(folder.path):
            captions = run
    if captions is not None:
        _open_captions(service, captions, encoder, checkpoint)
    if photos is not None:
        service.photo_root = Path(photos)
        eyes = encoder or "auto"  # that of the run of captions, where there is one
        service.photos = _opened(
            "search",
            lambda: PhotoSearch([photos], run=captions, encoder=eyes, checkpoint=checkpoint),
        )
    if not service.offers:
        raise UserError(f"{run} can be asked nothing here.", "The lines above say why.")
    return service


def _has_prefix(folder: Path) -> bool:
    """Say whether a run of classification was trained on captions too, as those of suites are."""
    from ..captions.choose_prefix import FILE

    places = [f"{where}{task}/{FILE}" for task in ("captioning", "vqa") for where in ("", "*/")]
    return any(next(folder.glob(place), None) is not None for place in places)


def _open_captions(
    service: Service, run: str | Path, encoder: Encoder | None, checkpoint: str
) -> None:
    from ..captions.describe import Describer

    captioner = _opened(
        "caption",
        lambda: Describer.open(run, "captioning", encoder=encoder, checkpoint=checkpoint),
    )
    lm = None
    if captioner is not None:  # both share what is large
        encoder, lm = captioner.encoder, captioner.lm
    service.captioner = captioner
    service.answerer = _opened(
        "ask", lambda: Describer.open(run, "vqa", encoder=encoder, lm=lm, checkpoint=checkpoint)
    )


def _opened(what: str, open_part: Callable[[], T]) -> T | None:
    """Return what is opened, or nothing, and then say why."""
    try:
        return open_part()
    except UserError as error:
        step(f"Not offered: {what}. {error}")
    return None


def _label(one: Answer) -> Label:
    return Label(
        label=one.label, class_id=one.class_id, p=min(1.0, max(0.0, one.p)), trained=one.trained
    )


def _text(row: Any) -> Text | Exception:
    if row.error:
        return _told(UserError(f"The photo cannot be read: {row.error}."), row.path)
    return Text(text=row.text, ended=row.ended)


def _told(error: UserError, photo: Path | None) -> UserError:
    """Return an error without any place on this machine."""
    text = error.message if photo is None else without_path(error, photo) + "."
    return UserError(text)
