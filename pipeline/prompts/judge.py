"""From answers to rows of a bank: cut, count, embed, judge, write. Generated and imported alike.

n drafts, d embedding width.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import VerdictConfig
from ..datasets.manifest import Manifest
from ..errors import UserError
from ..files import hash_value
from ..progress import step
from ..provenance import installed_versions
from ..store import finished_record, write_record
from .engines.base import Answer
from .requests import ModelIdentity, Request
from .verdicts import KEPT, ClassNames, judge_class, prompt_text

if TYPE_CHECKING:
    from ..bank import BankMetadata, PromptRow, WrittenQueries
    from ..encoders.base import Encoder

_TOOLS = ("aape", "torch", "transformers", "open_clip_torch", "pyarrow", "faiss-cpu", "numpy")


@dataclass
class Draft:
    """One row of a bank in the making: a request, its answer, and what was made of it."""

    request: Request
    model: ModelIdentity
    answer: Answer | None = None
    text: str = ""
    complete: bool = False
    tokens: int = 0
    verdict: str = ""


class Judge:
    """Texts, token counts, embeddings and verdicts. The encoder is loaded at first use."""

    def __init__(self, encoder: Encoder | None, config: VerdictConfig) -> None:
        self._encoder, self.config = encoder, config

    @property
    def encoder(self) -> Encoder:
        """The encoder given, or the default one."""
        if self._encoder is None:
            from ..encoders import load_encoder

            self._encoder = load_encoder("auto")
        return self._encoder

    def judge(self, drafts: Sequence[Draft], classes: ClassNames, *, cut: bool = True) -> None:
        """Give every draft its text and verdict. Drafts of a class must all be there, in order.

        ``cut`` is off for published texts, which are taken word for word.
        """
        from ..embed.texts import encode_texts

        names = [draft for draft in drafts if draft.request.kind == "name"]
        _judge_names(names, classes)
        groups: dict[int, list[Draft]] = {}
        for draft in drafts:
            if draft.request.kind != "name":
                groups.setdefault(draft.request.class_id, []).append(draft)
        rows = [draft for group in groups.values() for draft in group]
        fresh = [draft for draft in rows if not draft.verdict]
        for draft in fresh:
            assert draft.answer is not None
            if cut:
                draft.text, draft.complete = prompt_text(
                    draft.answer.text,
                    draft.request.class_name,
                    finished=draft.answer.finish_reason != "length",
                    sentences=self.config.max_sentences,
                )
            else:
                draft.text, draft.complete = draft.answer.text, True
        counted = fresh + names
        for draft, count in zip(counted, self.encoder.count_tokens([d.text for d in counted])):
            draft.tokens = count
        embeddings = encode_texts(self.encoder, [draft.text for draft in rows])  # (n, d)
        start = 0
        for class_id, group in groups.items():
            verdicts = judge_class(
                [draft.text for draft in group],
                [draft.complete for draft in group],
                [draft.tokens for draft in group],
                embeddings[start : start + len(group)],
                class_id,
                classes,
                self.config,
                token_limit=self.encoder.context_length,
                apart=[draft.request.kind == "contrast" for draft in group],
            )
            for draft, verdict in zip(group, verdicts):
                draft.verdict = verdict
            start += len(group)


def _judge_names(drafts: Sequence[Draft], classes: ClassNames) -> None:
    """Give other names of classes their text and verdict."""
    from .other_names import judge_names, name_in

    groups: dict[int, list[Draft]] = {}
    for draft in drafts:
        assert draft.answer is not None
        draft.text = name_in(draft.answer.text)
        groups.setdefault(draft.request.class_id, []).append(draft)
    for class_id, group in groups.items():
        verdicts = judge_names([draft.text for draft in group], class_id, classes)
        for draft, verdict in zip(group, verdicts):
            draft.verdict = verdict


def check_overwrite(path: Path, dataset: str) -> None:
    """Refuse to write a bank over that of another data set, or over something else.

    Raises:
        UserError: ``path`` holds one.
    """
    from ..bank import PromptBank
    from ..bank.which import looks_like_bank

    try:
        found = PromptBank.open(path).metadata.dataset if path.exists() else dataset
    except UserError as error:
        # a bank that is damaged is written anew; one cut short is known by its answers
        if path.is_file() and (looks_like_bank(path) or Path(f"{path}.answers").is_dir()):
            return
        raise UserError(
            f"{path} is there and is no prompt bank.", "Choose another --out, or remove it first."
        ) from error
    if found != dataset:
        raise UserError(
            f"{path} is a bank of the data set {found!r}, not of {dataset!r}.",
            "Choose another --out.",
        )


def write_drafts(
    path: Path,
    drafts: Sequence[Draft],
    manifest: Manifest,
    judge: Judge,
    *,
    note: Path,
    own: WrittenQueries | None = None,
) -> None:
    """Write bank and index, unless the bank on disk was made from the very same parts.

    ``note`` remembers what the bank was made from; ``own`` are the queries that the language model
    wrote, if it did.
    """
    from ..bank import write_bank

    parts = {
        "keys": sorted(draft.request.key for draft in drafts),
        "verdicts": judge.config.model_dump(mode="json"),
        "encoder": judge.encoder.fingerprint,
        "manifest": manifest.hash,
    }
    if own is not None and own.queries:
        parts["own"] = own.model_dump(mode="json")
    recipe = hash_value(parts)
    if _is_up_to_date(path, note, recipe):
        return
    metadata = bank_metadata(manifest, judge.encoder)
    if own is not None:
        metadata = metadata.model_copy(update={"own_queries": own})
    bank = write_bank(path, bank_rows(drafts, judge.encoder), metadata)
    kept = sum(draft.verdict == KEPT for draft in drafts)
    if kept:
        bank.reindex()
    write_record(note, {"recipe": recipe, "content": bank.content_hash})
    step(f"Wrote {path}: {len(bank):,} prompts, {kept:,} of them kept.")
    if not kept:
        step("None is worth keeping, so there is nothing to search; see the verdicts.")


def _is_up_to_date(path: Path, note: Path, recipe: str) -> bool:
    """Say whether the bank on disk was made from these parts, and every byte of it is sound."""
    from ..bank import PromptBank
    from ..bank.verify import verify_bank

    known = finished_record(note)
    if known is None or not path.exists():
        return False
    try:
        bank = PromptBank.open(path)
        if known != {"recipe": recipe, "content": bank.content_hash}:
            return False
        if not verify_bank(path).problems:  # the footer alone was read so far
            step(f"{path} is up to date ({len(bank):,} prompts).")
            return True
    except UserError:
        pass  # said below
    step(f"{path} is damaged and is written again.")
    return False


def bank_rows(drafts: Sequence[Draft], encoder: Encoder) -> list[PromptRow]:
    """Return the rows of judged drafts, with their embeddings."""
    from ..bank import PromptRow
    from ..embed.texts import encode_texts

    embeddings = encode_texts(encoder, [draft.text for draft in drafts])  # (n, d)
    rows = []
    for draft, embedding in zip(drafts, embeddings):
        request, answer = draft.request, draft.answer
        assert answer is not None
        created = datetime.fromisoformat(answer.created_at) if answer.created_at else None
        rows.append(
            PromptRow(
                prompt_id=request.key,
                dataset=request.dataset,
                class_id=request.class_id,
                class_name=request.class_name,
                text=draft.text,
                embedding=embedding,
                query_id=request.query_id,
                query_template=request.query_template,
                llm=draft.model.name,
                llm_revision=draft.model.revision,
                engine=answer.engine,
                engine_version=answer.engine_version,
                sampling=_sampling(request),
                seed=request.seed,
                sample_index=request.sample_index,
                finish_reason=answer.finish_reason,
                n_tokens_llm=answer.n_tokens,
                n_tokens_clip=draft.tokens,
                verdict=draft.verdict,
                created_at=created,
            )
        )
    return rows


def _sampling(request: Request) -> dict | None:
    """Return the settings in the columns of the bank; what has no column goes to ``other``."""
    if not request.sampling:
        return None
    values = dict(request.sampling)
    known = {name: values.pop(name, None) for name in ("temperature", "top_p", "max_tokens")}
    rest = {name: value for name, value in values.items() if value}
    return {**known, "other": json.dumps(rest, ensure_ascii=False, sort_keys=True)}


def bank_metadata(manifest: Manifest, encoder: Encoder) -> BankMetadata:
    """Return what a bank of ``manifest`` in the space of ``encoder`` says about itself."""
    from ..bank import BankMetadata

    versions = {"python": platform.python_version(), **installed_versions(_TOOLS)}
    return BankMetadata(
        dataset=manifest.name,
        manifest_hash=manifest.hash,
        class_names=manifest.class_names,
        encoder_id=encoder.id,
        encoder_fingerprint=encoder.fingerprint,
        dim=encoder.dim,
        preprocessing=encoder.preprocessing,
        tool_versions=versions,
    )
