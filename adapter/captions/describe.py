"""Captions of new photos, and answers about them, by a run and a frozen language model.

Texts appear as they are finished: a small first batch, then larger ones. Which prefix speaks is
what validation chose (see :mod:`.choose_prefix`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from ...pipeline.datasets import open_dataset
from ...pipeline.encoders import load_encoder
from ...pipeline.errors import UserError, require_text
from ...pipeline.files import exclusive
from ...pipeline.progress import step
from ..run import RunFolder, own_weights
from .captioning import train_caption_prefix
from .choose_prefix import FILE, ChosenPrefix, open_prefix, read_choice
from .decode import answer
from .listed_photos import listed_photos, open_photos
from .lm import FrozenLM
from .prefix import Prefix, pool_tokens
from .question_training import prompt_of, train_question_prefix
from .rows import with_h
from .run import open_adapters
from .settings import CaptionRunConfig, DecodeConfig, PrefixConfig, VqaConfig
from .train import CaptionAdapter

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder

Task = Literal["captioning", "vqa"]
_FIRST_BATCH = 4  # texts; batches double up to the configured size
_MAKES = {"captioning": "aape eval captioning", "vqa": "aape eval vqa"}
_VERBS = {"captioning": "aape caption", "vqa": "aape ask"}
EMBEDDED = "smollm2"


@dataclass(frozen=True)
class PhotoText:
    """What was said of one photo; ``error`` says why there is nothing.

    ``ended`` is false where the text was cut at the most tokens allowed.
    """

    path: Path
    text: str
    ended: bool = True
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        if self.error:
            return {"path": str(self.path), "error": self.error}
        return {"path": str(self.path), "text": self.text, "ended": self.ended}


class Describer:
    """A run opened for new photos: encoder, ``h``, prefix and language model.

    Attributes:
        chosen: the prefix that is used; ``chosen.sentence()`` says why.
    """

    def __init__(
        self,
        chosen: ChosenPrefix,
        adapter: CaptionAdapter,
        prefix: Prefix,
        encoder: Encoder,
        lm: FrozenLM,
    ) -> None:
        self.chosen, self.adapter, self.prefix = chosen, adapter, prefix
        self.encoder, self.lm = encoder, lm

    @classmethod
    def open(
        cls,
        run: str | Path,
        task: Task,
        *,
        dataset: str = "",
        train: bool = False,
        language_model: str = "",
        encoder: Encoder | None = None,
        lm: FrozenLM | None = None,
        checkpoint: str = "",
    ) -> Describer:
        """Open a run for ``captioning`` or ``vqa``; see :func:`caption` for what is given.

        Raises:
            UserError: the run has no prefix for the task, or belongs to another encoder.
        """
        folder = RunFolder(run)
        config, adapters = open_adapters(folder)
        rows = _rows_folder(folder, task, dataset)
        chosen = read_choice(rows)
        if chosen is not None and chosen.generator not in {one.hash for one in adapters}:
            chosen = None  # of another training of h
        if chosen is None and not train:
            raise UserError(
                f"{folder.path} has no prefix for {_VERBS[task]} yet.",
                f"Make one with: {_MAKES[task]} {folder.path} (it also fills the table), or add"
                " --train.",
            )
        place = config.encoder
        if encoder is None:
            weights = own_weights(place.name, place.checkpoint, checkpoint)
            encoder = load_encoder(place.name, weights, place.device)
        for adapter in adapters:
            adapter.check_encoder(encoder)
        lm = lm or FrozenLM.load(_language_model(chosen, language_model))
        if chosen is None:
            chosen = _train(task, folder, config, encoder, adapters[0], lm)
            rows = folder.path / task
        if chosen.encoder != encoder.fingerprint or chosen.task != task:
            raise UserError(
                f"The prefix in {rows} was trained for {chosen.task} on features of"
                f" {chosen.encoder}.",
                "Train it again with --train.",
            )
        adapter = next(one for one in adapters if one.hash == chosen.generator)
        return cls(chosen, adapter, open_prefix(rows, chosen, lm), encoder, lm)

    def texts(
        self, paths: Sequence[Path], prompt: str = "", decode: DecodeConfig | None = None
    ) -> Iterator[PhotoText]:
        """Yield what is said of each photo, in order, a batch at a time.

        Args:
            paths: photos; one that cannot be read gets an ``error``.
            prompt: text between photo and answer.
            decode: how texts are chosen.
        """
        decode = decode or DecodeConfig()
        asked = self.lm.embed(self.lm.ids(prompt) if prompt else [])
        start, size = 0, min(_FIRST_BATCH, decode.batch_size)
        while start < len(paths):
            part = paths[start : start + size]
            yield from self._batch(part, asked, decode)
            start += size
            size = min(2 * size, decode.batch_size)

    def _batch(
        self, paths: Sequence[Path], asked: torch.Tensor, decode: DecodeConfig
    ) -> list[PhotoText]:
        wanted = self.chosen.kind in ("image", "both")
        opened = open_photos(self.encoder, paths, tokens=wanted)
        found = {i: PhotoText(paths[i], "", error=why) for i, why in opened.unreadable.items()}
        if opened.kept:
            tokens = torch.zeros(len(opened.kept), 1, 1)
            if opened.tokens is not None:
                tokens = pool_tokens(opened.tokens, self.chosen.grid)
            with torch.no_grad():
                prefixes = self.prefix(with_h(tokens, np.asarray(opened.x), self.adapter))
            lm = self.lm
            contexts = [
                torch.cat([one.to(lm.device, lm.embedding.dtype), asked]) for one in prefixes
            ]
            for i, (text, ended, _) in zip(opened.kept, answer(lm, contexts, decode)):
                found[i] = PhotoText(paths[i], text, ended)
        return [found[i] for i in range(len(paths))]


def caption(
    run: str | Path,
    photos: str | Path | Sequence[str | Path],
    *,
    train: bool = False,
    dataset: str = "",
    strategy: str = "greedy",
    beams: int = 4,
    max_tokens: int = 24,
    language_model: str = "",
    encoder: Encoder | None = None,
    lm: FrozenLM | None = None,
    batch_size: int = 32,
    checkpoint: str = "",
) -> Iterator[PhotoText]:
    """Caption photos; results appear as they are finished.

    Args:
        run: a run trained on captions, whose prefixes ``aape eval captioning`` trained.
        photos: files, or folders that are searched at any depth.
        train: train prefixes now if the run has none, on its own data set.
        dataset: the evaluation whose prefix is used, if the run was evaluated on other data too.
        strategy: how a text is chosen: ``greedy``, ``beam`` or ``sample``.
        beams: of ``beam``. max_tokens: of a caption.
        language_model: where the model lies, if the run used a local one.
        encoder: an open encoder instead of the run's.
        lm: an open language model instead of the run's.
        batch_size: photos that are described at once; results do not depend on it.
        checkpoint: local weights of the encoder, where the run was made with such.

    Raises:
        UserError: at once, if there are no photos, the run has no prefix (the command that makes
            one is named), or it belongs to another encoder.
    """
    values = {"strategy": strategy, "beams": beams, "max_tokens": max_tokens,
              "batch_size": batch_size}  # fmt: skip
    decode = DecodeConfig.parse(values, "The way of choosing a text")
    paths = listed_photos([photos] if isinstance(photos, str | Path) else photos)
    opened = Describer.open(
        run, "captioning", dataset=dataset, train=train, language_model=language_model,
        encoder=encoder, lm=lm, checkpoint=checkpoint,
    )  # fmt: skip
    step(opened.chosen.sentence())
    return opened.texts(paths, "", decode)


def ask(
    run: str | Path,
    photos: str | Path | Sequence[str | Path],
    question: str,
    *,
    train: bool = False,
    dataset: str = "",
    max_tokens: int = 8,
    language_model: str = "",
    encoder: Encoder | None = None,
    lm: FrozenLM | None = None,
    checkpoint: str = "",
) -> Iterator[PhotoText]:
    """Answer a question about photos; results appear as they are finished.

    As :func:`caption`, with prefixes that ``aape eval vqa`` trained on questions.

    Raises:
        UserError: at once, as for :func:`caption`, or if there is no question.
    """
    if not question.strip():
        raise UserError("There is no question.", 'Ask one: "what colour is it?"')
    require_text(question, "The question")
    paths = listed_photos([photos] if isinstance(photos, str | Path) else photos)
    opened = Describer.open(
        run, "vqa", dataset=dataset, train=train, language_model=language_model,
        encoder=encoder, lm=lm, checkpoint=checkpoint,
    )  # fmt: skip
    step(opened.chosen.sentence())
    return opened.texts(paths, prompt_of(question), DecodeConfig(max_tokens=max_tokens))


def _rows_folder(folder: RunFolder, task: Task, dataset: str) -> Path:
    """Return the folder of prefixes: the run's own, or that of an evaluation on other data.

    Raises:
        UserError: there are several, and none was named.
    """
    own = folder.path / task
    others = {path.parent.parent.name: path.parent for path in folder.path.glob(f"*/{task}/{FILE}")}
    if dataset:
        if dataset in others:
            return others[dataset]
        known = f"those on other data: {', '.join(sorted(others))}" if others else "none"
        raise UserError(f"{folder.path} has no {task} prefix of {dataset!r}; it has {known}.")
    if (own / FILE).exists() or not others:
        return own
    if len(others) > 1:
        raise UserError(
            f"{folder.path} has prefixes of several evaluations: {', '.join(sorted(others))}.",
            "Choose one with --dataset.",
        )
    return next(iter(others.values()))


def _language_model(chosen: ChosenPrefix | None, given: str) -> str:
    """Return the model to load: the one given, or the one recorded if that is no local folder.

    A run may come from somebody else, whose word for a folder on this machine is not taken.
    """
    if given or chosen is None:
        return given or EMBEDDED
    spec = chosen.language_model
    if spec.startswith((".", "/", "~")) or "\\" in spec or Path(spec).exists():
        raise UserError(
            f"The prefix was trained with the local language model {spec!r}, and a run's own word"
            " for where models lie is not taken.",
            "Give it with --language-model.",
        )
    return spec


def _train(
    task: Task,
    folder: RunFolder,
    config: CaptionRunConfig,
    encoder: Encoder,
    adapter: CaptionAdapter,
    lm: FrozenLM,
) -> ChosenPrefix:
    """Train and choose prefixes on the run's own data set."""
    data = open_dataset(config.dataset, Path(config.root) if config.root else None)
    step(f"Training prefixes on {data.manifest.name}; they are kept in {folder.path}.")
    with exclusive(folder.path / task, "evaluating"):
        if task == "captioning":
            return train_caption_prefix(data, encoder, adapter, PrefixConfig(), folder, lm)
        return train_question_prefix(data, encoder, adapter, VqaConfig(), folder, lm)
