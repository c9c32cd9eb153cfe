"""The verb ``encode`` as a function: fill the caches with all that a data set needs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import EncoderConfig
from ..settings import Assignments, Source, origin_of, read_source, settle

if TYPE_CHECKING:
    from ..datasets import Dataset


@dataclass(frozen=True)
class Encoding:
    """What was encoded of a data set, by how many, and what was there before."""

    dataset: str
    encoder: str
    images: int
    computed: int
    """Of the images; the others were in the cache."""
    texts: int
    seconds: float
    processes: int = 1
    nodes: int = 0
    """Of a Ray cluster that have encoded."""
    unreadable: list[str] = field(default_factory=list)
    """Photos that are left out, and why."""

    def line(self) -> str:
        """Return it as a sentence."""
        by = f"{self.processes} processes" if self.processes > 1 else ""
        by = f"{self.nodes} Ray node{'s' * (self.nodes > 1)}" if self.nodes else by
        return (
            f"{self.dataset}: {self.images:,} images, {self.computed:,} of them encoded now, and "
            f"{self.texts:,} texts by {self.encoder} in {self.seconds:.1f} s"
            f"{' on ' * bool(by)}{by}."
        )


def encode(
    dataset: str,
    root: str | Path = "",
    tokens: bool = False,
    encoder: str = "",
    checkpoint: str | Path = "",
    device: str = "",
    config: Source = None,
    settings: Assignments = (),
    strict: bool = False,
) -> Encoding:
    """Encode all images and texts of a data set, so that what comes after finds them.

    The processes of ``torchrun`` share the work; with ``encoder.ray.actors`` a Ray cluster does it.

    Args:
        dataset: name, alias or manifest file. root: folder of its files.
        tokens: the features of images before pooling, too, which captions and answers need.
        encoder, checkpoint, device: the dual encoder; its local weights; where it runs.
        config: a file, or values, of the section ``encoder``. settings: of it; they win.
        strict: stop at a photo that cannot be read; else it is left out, counted and named.

    Raises:
        UserError: the data set or the weights are not here, or a node of the cluster has others.
    """
    from ..datasets import open_dataset
    from ..ranks import joined
    from .images import image_features
    from .left_out import check_there, say_left_out
    from .spread import actors_of, open_encoder
    from .texts import encode_texts

    given = {
        "name": encoder or None, "checkpoint": str(checkpoint) or None,
        "device": device or None, "strict": strict or None,
    }  # fmt: skip
    values = read_source(config, "encoder")
    made = settle(
        EncoderConfig, values, given, settings, section="encoder", origin=origin_of(config)
    )
    with joined() as processes:
        opened = open_dataset(dataset, Path(root) if root else None)
        loaded = open_encoder(made)
        paths, texts = images_of(opened), texts_of(opened)
        since = time.monotonic()
        computed, left_out = 0, ()
        if paths:
            found = image_features(
                loaded, paths, tokens=tokens, workers=made.workers, batch_size=made.batch_size,
                strict=made.strict,
            )  # fmt: skip
            check_there(found.unreadable, len(paths))
            say_left_out(found.unreadable, len(paths), "photos")
            computed, left_out = found.computed, found.unreadable
        encode_texts(loaded, texts)
        actors = actors_of(loaded)
        return Encoding(
            opened.manifest.name,
            loaded.id,
            len(paths) - len(left_out),
            computed,
            len(texts),
            time.monotonic() - since,
            processes.size,
            len(actors.nodes) if actors else 0,
            [str(entry) for entry in left_out],
        )


def images_of(dataset: Dataset) -> list[Path]:
    """Return the files of all images of a data set, each once, in order."""
    contents = dataset.contents
    kinds = (contents.items, contents.captions, contents.questions, contents.contrasts)
    rows = [row for kind in kinds for split in kind.values() for row in split]
    return list(dict.fromkeys(row.path for row in rows))


def texts_of(dataset: Dataset) -> list[str]:
    """Return all texts of a data set, each once: class names in its templates, and captions."""
    manifest, contents = dataset.manifest, dataset.contents
    templates = dict.fromkeys([*manifest.templates, *manifest.ensemble])
    texts = [t.replace("{}", name) for name in dataset.class_names for t in templates]
    for captions in contents.captions.values():
        texts += [text for image in captions for text in image.captions if text.strip()]
    for contrasts in contents.contrasts.values():
        texts += [text for row in contrasts for text in (row.caption, row.negative_caption)]
    return list(dict.fromkeys(texts))
