"""Gathering the rows of a table into photos: one item a photo, its captions, its one split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ...counts import counted
from ...errors import UserError
from ..copies import same_content
from ..hints import LEFT_OUT, SplitOrNone
from ..manifest import Manifest
from ..records import CaptionedImage, Contents, Item, Split
from ..splits import OWN_SPLIT_NOTE, own_split
from .cells import several_labels
from .labels import split_by_class


@dataclass
class _Photo:
    path: Path
    image_id: str
    key: str
    label: int | None
    split: Split | None  # None until it is known
    captions: list[str] = field(default_factory=list)


class Photos:
    """Photos by what tells them apart, in the order in which they were first seen.

    Args:
        manifest: its classes, and the shares where there is no split.
        source: the file or folder, for what is said about it.
        labelled: whether there should be labels; photos without one are counted.
        captioned: whether there should be captions; photos without one are counted.
    """

    def __init__(
        self, manifest: Manifest, source: object, *, labelled: bool, captioned: bool
    ) -> None:
        self.manifest = manifest
        self.source = source
        self.labelled = labelled
        self.captioned = captioned
        self.remarks: list[str] = []
        self._photos: dict[Hashable, _Photo] = {}
        self._several: dict[str, list[int]] = {}
        self._left_out = 0

    def add(
        self,
        path: Path,
        *,
        labels: Iterable[int] = (),
        captions: Iterable[str] = (),
        split: SplitOrNone | None = None,
        image_id: str,
        key: str = "",
        group: Hashable = None,
    ) -> None:
        """Add one row.

        Args:
            path: where the photo lies.
            labels: class ids; more than one are refused in :meth:`contents`.
            captions: added to those of the photo's other rows.
            split: none: split here. ``"none"``: left out.
            image_id: names the photo among captions.
            key: decides an own split; by default ``image_id``.
            group: rows with the same are one photo; by default its path.

        Raises:
            UserError: another row put the photo into another split.
        """
        if split == LEFT_OUT:
            self._left_out += 1
            return
        group = path if group is None else group
        photo = self._photos.get(group)
        if photo is None:
            photo = _Photo(path, image_id, key or image_id, None, split)
            self._photos[group] = photo
        if photo.split != split:
            raise UserError(
                f"{self.source} has {image_id} both in {photo.split} and in {split}.",
                "Keep one split a photo.",
            )
        for label in labels:
            if photo.label is not None and photo.label != label:
                self._several.setdefault(image_id, [photo.label]).append(label)
            photo.label = label if photo.label is None else photo.label
        photo.captions += captions

    def contents(self) -> Contents:
        """Return the photos by split.

        Raises:
            UserError: photos have more than one label.
        """
        if self._several:
            first, ids = next(iter(self._several.items()))
            names = [self.manifest.class_names[i] for i in dict.fromkeys(ids)]
            raise several_labels(self.source, len(self._several), first, names)
        photos = list(self._photos.values())
        items, note = self._split(photos)
        captions: dict[Split, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
        for photo in photos:
            if photo.split is None:
                continue
            if photo.captions:
                captions[photo.split].append(
                    CaptionedImage(photo.image_id, photo.path, tuple(photo.captions))
                )
        remarks = (*dict.fromkeys(self.remarks), *self._counted(photos))
        return Contents(items, captions, split_note=note, remarks=remarks)

    def _split(self, photos: list[_Photo]) -> tuple[dict[Split, list[Item]], str]:
        """Return the labelled photos by split, and a note; give every photo the split it lacks."""
        seen: set[Split | None] = {photo.split for photo in photos if self._used(photo)}
        if "val" in seen and "test" not in seen:
            self.remarks.append("there is no test split: the validation split is the test split")
            for photo in photos:
                if photo.split == "val":
                    photo.split = "test"
        if seen - {None, "train"}:
            items: dict[Split, list[Item]] = {"train": [], "val": [], "test": []}
            for photo in photos:
                if photo.label is not None and photo.split is not None:
                    items[photo.split].append(Item(photo.path, photo.label))
            return items, ""
        keys = {photo.path: photo.key for photo in photos}
        by_class: defaultdict[int, list[Item]] = defaultdict(list)
        for photo in photos:
            if photo.label is not None:
                by_class[photo.label].append(Item(photo.path, photo.label))
        found = split_by_class(
            Path(), by_class, self.manifest.shares, key=lambda _, item: keys[item.path]
        )
        chosen: dict[tuple[Path, int], Split] = {
            (item.path, item.label): split for split, some in found.items() for item in some
        }
        for photo in photos:
            if photo.label is not None:
                photo.split = chosen[photo.path, photo.label]
        others = [photo for photo in photos if photo.label is None]
        first = same_content(photo.path for photo in photos)
        placed: dict[Hashable, Split] = {first[path]: split for (path, _), split in chosen.items()}
        groups = [first[photo.path] for photo in others]
        named = [photo.key for photo in others]
        splits = own_split(named, self.manifest.shares, groups, placed)
        for photo, split in zip(others, splits):
            photo.split = split
        return found, OWN_SPLIT_NOTE

    def _used(self, photo: _Photo) -> bool:
        return photo.label is not None or bool(photo.captions)

    def _counted(self, photos: list[_Photo]) -> list[str]:
        """Say how much was left out, and why."""
        remarks = []
        if self._left_out:
            what = "of no split that is used"
            remarks.append(
                counted(self._left_out, f"row {what} was", f"rows {what} were") + " left out"
            )
        unlabelled = sum(photo.label is None for photo in photos) if self.labelled else 0
        if unlabelled:
            what = counted(unlabelled, "photo without a label was", "photos without a label were")
            remarks.append(f"{what} left out")
        silent = sum(not photo.captions for photo in photos) if self.captioned else 0
        if silent:
            remarks.append(counted(silent, "photo has", "photos have") + " no caption")
        return remarks
