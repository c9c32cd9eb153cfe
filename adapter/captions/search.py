"""Photos by a sentence, or by another photo.

A sentence is compared with what validation chose of a run (see :mod:`.choose_query`), or with plain
features where there is no run. Photo to photo is always by plain features: both sides are photos,
and nothing was validated for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.encoders import load_encoder
from ...pipeline.errors import UserError, require_text
from ...pipeline.files import hash_file
from ...pipeline.paths import is_file
from ...pipeline.progress import step
from ..run import RunFolder, own_weights
from .choose_query import MixedFeature, PlainFeature, query_of_run
from .listed_photos import open_photos
from .photo_index import Compared, PhotoIndex
from .run import open_adapters

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder


@dataclass(frozen=True)
class Hit:
    """A photo that was found, with its cosine."""

    path: Path
    cosine: float

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return {"path": str(self.path), "cosine": round(self.cosine, 4)}


class PhotoSearch:
    """Photos that can be searched again and again; indexes are opened at first use.

    Attributes:
        encoder: what sees photos and sentences.
        compared: what of a photo a sentence is compared with.
        says: how that was chosen, in a sentence.
    """

    def __init__(
        self,
        photos: Sequence[str | Path],
        *,
        run: str | Path | None = None,
        encoder: Encoder | str = "auto",
        checkpoint: str = "",
    ) -> None:
        """Open encoder and run; see :func:`search`."""
        self.photos = photos
        self.compared: Compared = PlainFeature()
        if run is None:
            self.encoder = (
                load_encoder(encoder, checkpoint) if isinstance(encoder, str) else encoder
            )
            self.says = f"Photos as {self.encoder.id} sees them; no run was given."
            return
        folder = RunFolder(run)
        config, adapters = open_adapters(folder)
        place = config.encoder
        if isinstance(encoder, str):
            weights = own_weights(place.name, place.checkpoint, checkpoint)
            encoder = load_encoder(place.name, weights, place.device)
        self.encoder = encoder
        for adapter in adapters:
            adapter.check_encoder(encoder)
        chosen = query_of_run(folder, encoder, adapters, config.dataset, config.root)
        self.says = chosen.sentence()
        if chosen.weight:
            adapter = next(one for one in adapters if one.config.seed == chosen.seed)
            self.compared = MixedFeature(adapter, chosen.weight)

    @cached_property
    def by_text(self) -> PhotoIndex:
        """The index that sentences are looked up in."""
        return PhotoIndex(self.photos, self.encoder, self.compared)

    @cached_property
    def by_photo(self) -> PhotoIndex:
        """The index that photos are looked up in."""
        plain = isinstance(self.compared, PlainFeature)
        return self.by_text if plain else PhotoIndex(self.photos, self.encoder, PlainFeature())

    def text(self, sentence: str, k: int = 10) -> list[Hit]:
        """Return the ``k`` photos nearest to a sentence, best first.

        Raises:
            UserError: the sentence is empty, or there are no photos.
        """
        if not sentence.strip():
            raise UserError("There is nothing to search for.", 'Say it: "two dogs on a beach".')
        require_text(sentence, "The sentence")
        index = self.by_text
        query = self.encoder.encode_text([sentence.strip()])[0]
        return [Hit(*found) for found in index.search(query, k)]

    def like(self, photo: str | Path, k: int = 10) -> list[Hit]:
        """Return the ``k`` photos nearest to another one, best first; never itself or a copy.

        Raises:
            UserError: the photo cannot be read, or there are no others.
        """
        path = Path(photo)
        if not is_file(path):
            raise UserError(f"There is no photo {path}.")
        opened = open_photos(self.encoder, [path])
        if opened.unreadable:
            raise UserError(f"The photo {path} cannot be read: {opened.unreadable[0]}.")
        index = self.by_photo
        return [Hit(*found) for found in index.search(opened.x[0], k, leave_out=hash_file(path))]


def search(
    photos: str | Path | Sequence[str | Path],
    text: str = "",
    *,
    like: str | Path | None = None,
    k: int = 10,
    run: str | Path | None = None,
    encoder: Encoder | str = "",
    checkpoint: str = "",
) -> list[Hit]:
    """Search photos by a sentence, or by another photo.

    The index is kept in the cache folder: the first search of a folder encodes its photos, the next
    ones look at what was added, changed or removed.

    Args:
        photos: files, or folders that are searched at any depth.
        text: what to look for, or
        like: a photo that the others should resemble.
        k: how many to return.
        run: a run trained on captions; its ``h(x)`` is used as validation chose.
        encoder: without a run: a name (see ``aape encoders``; empty is auto), or an open one.
        checkpoint: local weights of the encoder.

    Raises:
        UserError: there is not exactly one thing to look for, no photo can be read, the run was not
            trained on captions, or it belongs to another encoder.
    """
    if bool(text) == (like is not None):
        raise UserError("Search for one thing: a sentence, or a photo (like).")
    listed = [photos] if isinstance(photos, str | Path) else list(photos)
    opened = PhotoSearch(listed, run=run, encoder=encoder or "auto", checkpoint=checkpoint)
    if like is None:
        found = opened.text(text, k)
        step(opened.says)
        step(str(opened.by_text.update))
        return found
    found = opened.like(like, k)
    step(f"Photo to photo, as {opened.encoder.id} sees them.")
    step(str(opened.by_photo.update))
    return found
