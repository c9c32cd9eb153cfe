"""Texts to embeddings: each distinct text once, in batches of like length, resumable.

n texts, c classes, d width of the joint space.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError, require_text
from ..files import cache_folder, hash_value
from ..progress import bar, step
from .shards import SECONDS_AT_RISK, RowStore, row_key
from .spread import Unencoded, Work, actors_of, everywhere, fill_store

if TYPE_CHECKING:
    from ..encoders.base import Encoder

_ROWS_AT_RISK = 16384
_VERSION = 1


def encode_texts(
    encoder: Encoder, texts: Sequence[str], *, batch_size: int = 256, cache: bool = True
) -> np.ndarray:
    """Encode texts in the order given: (n, d), float32, unit length.

    With ``cache``, finished batches are kept under the encoder's fingerprint, and the same text is
    never encoded twice by the same weights, not even after a kill.
    """
    unique = sorted(dict.fromkeys(texts), key=lambda text: (len(text), text))
    for text in unique:
        require_text(text, "A text to encode")
    if not cache:
        rows = [
            encoder.encode_text(unique[start : start + batch_size])
            for start in range(0, len(unique), batch_size)
        ]
        table = np.concatenate(rows) if rows else np.zeros((0, encoder.dim), np.float32)
        places = {text: row for row, text in enumerate(unique)}
        return table[[places[text] for text in texts]] if len(texts) else table
    store = RowStore(_folder(encoder), (encoder.dim,), np.float32)
    keys = {text: row_key(text) for text in unique}
    work = _work(encoder, store, unique, keys, batch_size)
    for _ in range(2):  # a second time if a damaged shard was found on reading
        fill_store(work)
        try:
            found = store.gather([keys[text] for text in texts])
        except KeyError:
            found = None
        if everywhere(found is not None) and found is not None:
            return found
        store.refresh()
    raise UserError(
        f"The cache of text embeddings in {store.folder} cannot be read.", "Delete that folder."
    )


def class_embeddings(
    encoder: Encoder, class_names: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """Return the zero-shot class vectors: mean over the templates, unit length, (c, d).

    Args:
        templates: texts with one ``{}`` for the class name; braces in names stay as they are.

    Raises:
        UserError: there is no template, or one has no place for the name.
    """
    if not templates:
        raise UserError("There are no templates to fill with the class names.")
    for template in templates:
        if "{}" not in template:
            raise UserError(
                f"The template {template!r} has no place for the class name.", "Write it as {}."
            )
    texts = [template.replace("{}", name) for name in class_names for template in templates]
    rows = encode_texts(encoder, texts)
    means = rows.reshape(len(class_names), len(templates), encoder.dim).mean(1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def count_cut(encoder: Encoder, texts: Sequence[str]) -> int:
    """Return how many texts are longer than what the encoder reads of them.

    A token is a byte at least, so a text of few bytes is not counted token by token.
    """
    limit = encoder.context_length
    long = [text for text in texts if len(text.encode("utf-8", "replace")) + 2 > limit]
    return sum(count > limit for count in encoder.count_tokens(long)) if long else 0


def _say_cut(encoder: Encoder, texts: Sequence[str]) -> None:
    if cut := count_cut(encoder, texts):
        step(
            f"{cut:,} of {len(texts):,} texts are longer than the {encoder.context_length} "
            f"tokens that {encoder.id} reads: their ends are not seen."
        )


def _folder(encoder: Encoder) -> Path:
    key = hash_value(["texts", _VERSION, encoder.fingerprint])
    from ..encoders.base import folder_name

    return cache_folder("texts", f"{folder_name(encoder.id)}-{key[:16]}")


def _work(
    encoder: Encoder,
    store: RowStore,
    unique: Sequence[str],
    keys: dict[str, bytes],
    batch_size: int,
) -> Work[str]:
    """Return what is to be done, for whoever does it."""
    numbers = {text: number for number, text in enumerate(unique)}
    actors = actors_of(encoder)

    def lacking() -> list[str]:
        return [text for text in unique if keys[text] not in store]

    @contextmanager
    def writing() -> Iterator[None]:
        with store.writing():
            _say_cut(encoder, lacking())
            yield
            store.merge()

    def fill(missing: Sequence[str], size: int) -> Unencoded:
        if actors and actors.pay(len(missing), size):
            actors.fill_texts(store, missing, keys, size)
        else:
            _fill(encoder, store, missing, keys, size)
        return {}

    def text(number: int) -> str:
        return unique[number]

    return Work(
        lacking=lacking,
        refresh=store.refresh,
        writing=writing,
        fill=fill,
        batch_size=batch_size,
        views=lambda _: 1,
        number=lambda text: numbers[text],
        piece=text,
        about=[encoder.fingerprint],
    )


def _fill(
    encoder: Encoder,
    store: RowStore,
    missing: Sequence[str],
    keys: dict[str, bytes],
    batch_size: int,
) -> None:
    """Encode what the store lacks; a shard is written every few seconds of work."""
    done: list[np.ndarray] = []
    first, since = 0, time.monotonic()
    display = bar()
    display.disable = len(missing) <= batch_size
    with display:
        task = display.add_task("Encoding texts", total=len(missing))
        try:
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                done.append(encoder.encode_text(batch))
                display.advance(task, len(batch))
                end = start + len(batch)
                late = time.monotonic() - since > SECONDS_AT_RISK
                if late or end - first >= _ROWS_AT_RISK:
                    store.add([keys[text] for text in missing[first:end]], np.concatenate(done))
                    done, first, since = [], end, time.monotonic()
        finally:
            if done:
                end = first + sum(map(len, done))
                store.add([keys[text] for text in missing[first:end]], np.concatenate(done))
