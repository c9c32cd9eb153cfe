"""Readers of captions: COCO, Karpathy's splits, NoCaps, SugarCrepe, images with text files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path, PurePosixPath
from typing import Any

from ...counts import counted
from ...errors import UserError
from ...paths import inside_data
from ..copies import same_content
from ..images import choose_pattern, fill, look_through
from ..manifest import Manifest
from ..records import CaptionedImage, Contents, Contrast, Item, Split
from ..splits import OWN_SPLIT_NOTE, own_split
from .cells import text_of
from .labels import split_by_class
from .layouts import CaptionedFolders, CocoCaptions, Karpathy, NoCaps, SugarCrepe
from .text_tables import decode, read_json_text

# what reading JSON raises whose values are of other types than the format says
_WRONG_TYPES = (TypeError, KeyError, ValueError, AttributeError, IndexError, RecursionError)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def read_coco(root: Path, layout: CocoCaptions, manifest: Manifest) -> Contents:
    """Read COCO's annotation files. An image without captions is left out."""
    captions: dict[Split, list[CaptionedImage]] = {}
    for split, file in layout.annotations.items():
        if (root / file).is_file():
            captions[split] = _joined(root, root / file, layout.images, PurePosixPath(file).stem)
    return Contents(captions=captions)


def read_nocaps(root: Path, layout: NoCaps, manifest: Manifest) -> Contents:
    """Read NoCaps. The Open Images id, which names the downloaded file, is ``{stem}``."""
    return Contents(
        captions={
            split: _joined(root, root / file, layout.images, "")
            for split, file in layout.annotations.items()
        }
    )


def _joined(root: Path, file: Path, patterns: list[str], stem: str) -> list[CaptionedImage]:
    """Join images and annotations by image id; ``{release}`` is the last part of ``stem``."""
    release = stem.rpartition("_")[2]
    content = read_json_text(file)
    try:
        by_image: defaultdict[str, list[str]] = defaultdict(list)
        for row in content["annotations"]:
            if _is_text(row["caption"]):
                by_image[str(row["image_id"])].append(row["caption"])
        rows = [row for row in content["images"] if str(row["id"]) in by_image]
        if not rows:
            raise UserError(
                f"{file} has captions for none of its {len(content['images']):,} images.",
                "The image_id of a caption must be the id of an image.",
            )
        names = [_coco_name(row) for row in rows]
        more = {"release": release}
        pattern = choose_pattern(root, patterns, [(name, None, more) for name in names[:50]])
        return [
            CaptionedImage(
                str(row["id"]),
                inside_data(root, fill(pattern, name, **more)),
                tuple(by_image[str(row["id"])]),
                str(row.get("domain", "")),
            )
            for row, name in zip(rows, names)
        ]
    except _WRONG_TYPES as error:
        raise UserError(f"{file} is not a caption file in COCO's format.") from error


def _coco_name(row: dict[str, Any]) -> str:
    """Return the file name of an image; NoCaps' images are named by their Open Images id."""
    if "open_images_id" in row:
        return f"{row['open_images_id']}.jpg"
    return str(row["file_name"])


def read_karpathy(root: Path, layout: Karpathy, manifest: Manifest) -> Contents:
    """Read a ``dataset_*.json``; ``restval``, the rest of COCO's val2014, is for training."""
    file = root / layout.file
    captions: dict[Split, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
    parts: dict[str, Split] = {"restval": "train", "train": "train", "val": "val", "test": "test"}
    try:
        rows = read_json_text(file)["images"]
        first = [(row["filename"], row.get("filepath", "."), {}) for row in rows[:50]]
        pattern = choose_pattern(root, layout.images, first)
        for row in rows:
            folder = row.get("filepath", ".")
            raw = [sentence["raw"] for sentence in row["sentences"]]
            image = CaptionedImage(
                str(row["cocoid"] if "cocoid" in row else row.get("imgid", row["filename"])),
                inside_data(root, fill(pattern, row["filename"], folder)),
                tuple(text.strip() for text in raw if _is_text(text)),
            )
            captions[parts[row["split"]]].append(image)
    except _WRONG_TYPES as error:
        raise UserError(f"{file} is not a split file of Karpathy and Fei-Fei.") from error
    return Contents(captions=captions)


def read_sugarcrepe(root: Path, layout: SugarCrepe, manifest: Manifest) -> Contents:
    """Read the categories that are there; all of it is test data."""
    contrasts: list[Contrast] = []
    for category, name in layout.files.items():
        if not (root / name).is_file():
            continue
        rows = read_json_text(root / name)
        try:
            first = [(row["filename"], None, {}) for row in list(rows.values())[:1]]
            pattern = choose_pattern(root, layout.images, first)
            contrasts += [
                Contrast(
                    PurePosixPath(row["filename"]).stem,
                    inside_data(root, fill(pattern, row["filename"])),
                    _text(row["caption"]),
                    _text(row["negative_caption"]),
                    category,
                )
                for row in rows.values()
            ]
        except _WRONG_TYPES as error:
            raise UserError(f"{root / name} is not a file of SugarCrepe.") from error
    return Contents(contrasts={"test": contrasts})


def read_captioned_folders(root: Path, layout: CaptionedFolders, manifest: Manifest) -> Contents:
    """Read images with text files; captions and classes share one split, made here."""
    root = root / layout.folder
    folders = sorted(
        ((PurePosixPath(entry.folder), i) for i, entry in enumerate(manifest.classes)),
        key=lambda pair: -len(pair[0].parts),
    )
    by_class: defaultdict[int, list[Item]] = defaultdict(list)
    captioned: list[CaptionedImage] = []
    without = 0
    inside = look_through(root)
    inside.others.clear()  # the text files themselves
    for path in inside.images:
        lines = _captions_beside(path)
        if not lines:
            without += 1
            continue
        relative = PurePosixPath(path.relative_to(root).as_posix())
        captioned.append(CaptionedImage(str(relative.with_suffix("")), path, lines))
        label = next((i for folder, i in folders if folder in relative.parents), None)
        if label is not None:
            by_class[label].append(Item(path, label))
    items = split_by_class(root, dict(sorted(by_class.items())), manifest.shares)
    chosen: dict[Path, Split] = {item.path: split for split, some in items.items() for item in some}
    others = [image for image in captioned if image.path not in chosen]
    first = same_content(image.path for image in captioned)
    placed: dict[Hashable, Split] = {first[path]: split for path, split in chosen.items()}
    keys = [image.image_id for image in others]
    groups = [first[image.path] for image in others]
    for image, split in zip(others, own_split(keys, manifest.shares, groups, placed)):
        chosen[image.path] = split
    captions: dict[Split, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
    for image in captioned:
        captions[chosen[image.path]].append(image)
    what = counted(without, "image without a caption was", "images without a caption were")
    remarks = (f"{what} left out",) if without else ()
    remarks += inside.remarks()
    return Contents(items, captions, split_note=OWN_SPLIT_NOTE, remarks=remarks)


def _captions_beside(path: Path) -> tuple[str, ...]:
    """Return the lines of the text file of an image, if there is one; empty ones are none."""
    text = path.with_suffix(".txt")
    if not text.is_file():
        return ()
    return tuple(line for line in map(text_of, decode(text).split("\n")) if line)
