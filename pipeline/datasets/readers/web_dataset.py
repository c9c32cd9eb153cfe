"""Reader of WebDataset tars, https://github.com/webdataset/webdataset#the-webdataset-format.

Files of one key, which is the name up to the first dot of its last part, are one sample. No member
is ever extracted under its own name: links, devices and names that lead out of a folder have no
effect, and what is too large for a photo is refused.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import UserError
from ...files import cache_folder, hash_value, read_json, require_regular, write_json
from ..archives import DAMAGED, TOO_LARGE, members_of, open_tar
from ..images import ClassIndex
from ..manifest import Manifest
from ..records import IMAGE_SUFFIXES, Contents
from .cells import captions_of, labels_of, several_labels
from .embedded_images import MAX_BYTES, write_image
from .gather import Photos
from .layouts import WebDataset
from .tables import label_id

LABEL_MEMBERS = ("cls", "cls.txt", "label", "label.txt", "class")
CAPTION_MEMBERS = ("txt", "caption", "caption.txt", "text", "captions.txt")
_TEXTS = ("json", *LABEL_MEMBERS, *CAPTION_MEMBERS)
_MAX_TEXT = 1 << 22
_CHUNK = 1 << 20


def read_web_dataset(root: Path, layout: WebDataset, manifest: Manifest) -> Contents:
    """Read the samples of every tar; a sample without an image is left out and counted."""
    photos = Photos(manifest, root, labelled=bool(layout.label), captioned=bool(layout.caption))
    index = ClassIndex(manifest)
    without = 0
    for split, files in layout.files.items():
        for file in files:
            for name, sample in samples(root / file):
                image = sample.get("image")
                if not image:
                    without += 1
                    continue
                said = labels_of(part(sample, layout.label)) if layout.label else []
                if len(said) > 1:
                    raise several_labels(root / file, 1, name, said)
                photos.add(
                    Path(image),
                    labels=[_id(text, layout, index, manifest, root / file) for text in said],
                    captions=_captions(sample, layout.caption),
                    split=split,
                    image_id=name,
                    group=(image, split, *said),
                )
    if without:
        photos.remarks.append(f"{without:,} samples without an image were left out")
    return photos.contents()


def _id(said: str, layout: WebDataset, index: ClassIndex, manifest: Manifest, file: Path) -> int:
    if not layout.label_ids:
        return label_id(said, index, manifest, file)
    if not said.isdecimal() or len(said) > 9 or int(said) >= len(manifest.classes):
        raise UserError(f"{file} has the label {said!r}, which is no class of {manifest.name!r}.")
    return int(said)


def _captions(sample: dict[str, Any], member: str) -> list[str]:
    value = part(sample, member) if member else None
    if isinstance(value, str) and ":" not in member:
        return [text for line in value.split("\n") for text in captions_of(line)]
    return captions_of(value)


def part(sample: dict[str, Any], member: str) -> Any:
    """Return one part of a sample: ``cls``, or ``json:label`` for a key of its JSON."""
    name, colon, key = member.partition(":")
    value = sample.get(name)
    if not colon:
        return value
    try:
        content = json.loads(value) if value else {}
    except (ValueError, RecursionError):
        return None
    return content.get(key) if isinstance(content, dict) else None


def samples(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield key and texts of every sample of a tar; ``image`` is the path of its image.

    The images are written to the cache once; the index, written last, says that all are there.

    Raises:
        UserError: the file is absent or damaged.
    """
    try:
        require_regular(file)
        status = file.stat()
    except OSError as error:
        raise UserError(f"{file} does not exist.") from error
    key = [1, str(file.resolve()), status.st_size, status.st_mtime_ns]
    folder = cache_folder("images", f"{file.stem[:40]}-{hash_value(key)[:16]}")
    index = folder / "index.json"
    if not index.exists():
        found: dict[str, dict[str, Any]] = {}
        try:
            with open_tar(file) as archive:
                for member in members_of(archive):
                    _take(archive, member, folder, found)
        except (*DAMAGED, OSError) as error:
            why = str(error) or TOO_LARGE
            raise UserError(f"{file} cannot be read as a tar file: {why}.") from error
        write_json(index, found)
    for name, sample in read_json(index).items():
        image = sample.get("image")
        yield name, sample | {"image": str(folder / image) if image else ""}


def _take(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    folder: Path,
    found: dict[str, dict[str, Any]],
) -> None:
    """Add one member to its sample; links, folders and hidden files are passed over."""
    pure = PurePosixPath(member.name)
    stem, _, extension = pure.name.partition(".")
    extension = extension.lower()
    if not member.isfile() or not stem or not extension:
        return
    image = f".{extension.rpartition('.')[2]}" in IMAGE_SUFFIXES
    if not image and extension not in _TEXTS:
        return
    if member.size > (MAX_BYTES if image else _MAX_TEXT):
        raise UserError(f"The member {member.name[:80]!r} is too large.")
    stream = archive.extractfile(member)
    content = b"".join(iter(lambda: stream.read(_CHUNK), b"")) if stream else b""
    sample = found.setdefault(str(pure.with_name(stem)), {})
    if image:
        sample.setdefault("image", write_image(content, folder).name)
    else:
        sample[extension] = content.decode("utf-8", "replace").lstrip("\ufeff").strip()
