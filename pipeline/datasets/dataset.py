"""A data set on disk: its manifest, its root, and its splits read by the layout that fits."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import util
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import cache_folder
from .catalogue import load_manifest
from .manifest import Manifest
from .readers.captions import (
    read_captioned_folders,
    read_coco,
    read_karpathy,
    read_nocaps,
    read_sugarcrepe,
)
from .readers.hub import read_hugging_face
from .readers.labels import read_coop_split, read_cub, read_image_folders, read_listing
from .readers.layouts import Layout
from .readers.matlab import read_matlab
from .readers.questions import read_question_table, read_vqa
from .readers.shapes import read_shapes
from .readers.tables import read_table
from .readers.web_dataset import read_web_dataset
from .records import CaptionedImage, Contents, Contrast, Item, Question, Split

# The reader of each layout kind; each takes its own section of the union ``Layout``.
READERS: dict[str, Callable[[Path, Any, Manifest], Contents]] = {
    "captioned_folders": read_captioned_folders,
    "coco_captions": read_coco,
    "coop_split": read_coop_split,
    "cub": read_cub,
    "easy_vqa": read_shapes,
    "hugging_face": read_hugging_face,
    "image_folders": read_image_folders,
    "karpathy": read_karpathy,
    "listing": read_listing,
    "matlab": read_matlab,
    "nocaps": read_nocaps,
    "question_table": read_question_table,
    "sugarcrepe": read_sugarcrepe,
    "table": read_table,
    "vqa": read_vqa,
    "web_dataset": read_web_dataset,
}


@dataclass(frozen=True)
class Dataset:
    """A data set whose root exists. Its files are read at the first use of a split."""

    manifest: Manifest
    root: Path
    layout: Layout

    @property
    def class_names(self) -> list[str]:
        """Class names in the order of their ids."""
        return self.manifest.class_names

    @cached_property
    def contents(self) -> Contents:
        """All splits, read once."""
        return READERS[self.layout.kind](self.root, self.layout, self.manifest)

    @property
    def split_note(self) -> str:
        """Empty, or how the split was made here since the data set publishes none."""
        return self.contents.split_note

    def items(self, split: Split) -> list[Item]:
        """Return the labelled images of a split, in the order of the split file.

        Raises:
            UserError: the data set has no labelled images in that split.
        """
        return self._some("labelled images", self.contents.items.get(split), split)

    def captions(self, split: Split) -> list[CaptionedImage]:
        """Return the captioned images of a split.

        Raises:
            UserError: the data set has no captions in that split.
        """
        return self._some("captions", self.contents.captions.get(split), split)

    def questions(self, split: Split) -> list[Question]:
        """Return the questions of a split.

        Raises:
            UserError: the data set has no questions in that split.
        """
        return self._some("questions", self.contents.questions.get(split), split)

    def contrasts(self, split: Split) -> list[Contrast]:
        """Return the images with a true and a false caption.

        Raises:
            UserError: the data set has none in that split.
        """
        return self._some("caption contrasts", self.contents.contrasts.get(split), split)

    def _some(self, what: str, found: list | None, split: Split) -> list:
        if not found:
            raise UserError(
                f"Data set {self.manifest.name!r} has no {what} in its {split} split"
                f" (looked in {self.root}).",
                f"`aape datasets check {self.manifest.name}` lists what is there.",
            )
        return found


def open_dataset(name: str | Path | Manifest, root: Path | None = None) -> Dataset:
    """Open a data set by name or manifest.

    Without ``root`` these are tried in turn: its folder (by name, alias or usual folder name) in
    ``$AAPE_DATA``, in the cache, and where a package installs it.

    Raises:
        UserError: the data set is unknown, its root is absent, or holds no layout that is known.
    """
    manifest = name if isinstance(name, Manifest) else load_manifest(name)
    roots = [Path(root)] if root is not None else candidate_roots(manifest)
    for folder in roots:
        found = find_layout(folder, manifest)
        if found is not None:
            return Dataset(manifest, *found)
    existing = [folder for folder in roots if folder.is_dir()]
    if existing:
        titles = ", ".join(layout.title for layout in manifest.layouts)
        raise UserError(
            f"{existing[0]} is not in a layout known for {manifest.name!r} ({titles}).",
            f"`aape datasets check {manifest.name} --root {existing[0]}` lists what is missing.",
        )
    raise UserError(
        f"The files of data set {manifest.name!r} are not here"
        f" (looked in {', '.join(map(str, roots))}).",
        f"`aape datasets show {manifest.name}` says where to get them; if you have them, give"
        " --root or set AAPE_DATA.",
    )


def candidate_roots(manifest: Manifest) -> list[Path]:
    """Return where the data set may lie, most wanted first."""
    names = list(dict.fromkeys([manifest.name, *manifest.folders, *manifest.aliases]))
    data = os.environ.get("AAPE_DATA")
    roots = [Path(data) / name for name in names] if data else []
    roots.append(cache_folder("data") / manifest.name)
    for place in manifest.installed:
        kind, _, rest = place.partition(":")
        if kind != "python":
            roots.append(Path(place))
            continue
        package, _, folder = rest.partition("/")
        found = util.find_spec(package)
        if found is not None and found.origin is not None:
            roots.append(Path(found.origin).parent / folder)
    return roots


def find_layout(root: Path, manifest: Manifest) -> tuple[Path, Layout] | None:
    """Return the first layout that a root has, itself or in a folder named like the data set."""
    names = [manifest.name, *manifest.folders, *manifest.aliases]
    for folder in (root, *(root / name for name in dict.fromkeys(names))):
        for layout in manifest.layouts if folder.is_dir() else []:
            marks = layout.marks(folder)
            if marks and all((folder / mark).exists() for mark in marks):
                return folder, layout
    return None
