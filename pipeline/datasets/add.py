"""A user's own data without code: a manifest is written that can be edited."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..counts import counted
from ..errors import UserError
from ..files import write_text
from .catalogue import shipped_manifests, user_manifests
from .check import SHOWN, check_dataset, lines_of_counts
from .dataset import Dataset
from .hints import Hints
from .manifest import DEFAULT_QUERIES, Manifest
from .readers.recognise import look_at
from .splits import FEW, FEW_SHARES, OWN_SHARES

HEADER = """\
# Written by `aape datasets add`. The class names below are what the language model and the encoder
# read: make the names readable ("long-sleeved shirt", not "longsleeve"); keep folders and order.
"""


@dataclass(frozen=True)
class Added:
    """A manifest just written, and what it makes of the files."""

    manifest: Manifest
    path: Path
    counts: dict[str, dict[str, int]]
    remarks: tuple[str, ...]
    unreadable: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return what was found, for ``--json``."""
        manifest = self.manifest
        return {
            "name": manifest.name,
            "manifest": str(self.path),
            "root": manifest.installed[0],
            "layout": manifest.layouts[0].title,
            "tasks": manifest.tasks,
            "classes": manifest.class_names,
            "counts": self.counts,
            "remarks": list(self.remarks),
            "unreadable": list(self.unreadable),
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """Return what was found, for people."""
        manifest = self.manifest
        n = len(manifest.classes)
        classes = f", {n:,} {'class' if n == 1 else 'classes'}" if n else ""
        return [
            f"{manifest.layouts[0].title}{classes}; for {', '.join(manifest.tasks)}",
            *lines_of_counts(self.counts),
            *self._left_out(),
            *(f"warning: {warning}" for warning in self.warnings),
            *(f"note: {remark}" for remark in self.remarks),
            f"wrote {self.path}: edit the class names there",
        ]

    def _left_out(self) -> list[str]:
        if not self.unreadable:
            return []
        n = len(self.unreadable)
        more = [f"… and {n - SHOWN:,} more: aape datasets check {self.manifest.name} --decode"]
        return [
            f"left out: {counted(n, 'photo', 'photos')} that cannot be read",
            *(f"  {entry}" for entry in self.unreadable[:SHOWN]),
            *(more if n > SHOWN else []),
        ]


def add_dataset(
    source: str | Path,
    name: str,
    *,
    out: str | Path | None = None,
    force: bool = False,
    shares: tuple[float, float, float] | None = OWN_SHARES,
    hints: Hints | None = None,
    strict: bool = False,
) -> Added:
    """Write a manifest for a folder of images, a table of paths, or a Hugging Face folder.

    Args:
        source: one folder a class (with or without split folders), images with text files, COCO
            annotations, a CSV, TSV, JSON lines or Parquet file, or a data set folder with images
            in Parquet or Arrow files.
        name: how to ask for it later.
        out: where the manifest goes; by default among the user's manifests, where
            :func:`load_manifest` finds it by name.
        force: overwrite a manifest of that name, edits and all.
        shares: of train, val and test, where the images have no split of their own; None goes by
            their number, so that classes of few images keep some to train on and to test.
        hints: what the names of columns, splits and configurations do not tell.
        strict: stop at a photo that cannot be read, instead of leaving it out.

    Raises:
        UserError: the name is taken or not usable, ``source`` holds no images, none of them can be
            read, or with ``strict`` one cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            f"{name!r} cannot be the name of a data set.",
            "Use letters, digits, hyphens, underscores and dots.",
        )
    if (shipped_manifests() / f"{name}.yaml").exists():
        raise UserError(f"{name!r} is the name of a known data set.", "Choose another with --name.")
    path = Path(out) if out is not None else user_manifests() / f"{name}.yaml"
    if path.exists() and not force:
        raise UserError(f"{path} exists already.", "With force it is written anew; edits are lost.")
    found = look_at(Path(source).expanduser().resolve(), hints)
    manifest = Manifest.parse(
        {
            "name": name,
            "title": name,
            "tasks": found.tasks,
            "classes": found.classes,
            "layouts": [found.layout],
            "installed": [str(found.root)],
            "shares": shares or OWN_SHARES,
            "licence": "not stated: write the terms of your data here",
        },
        "The data set",
    )
    if shares is None:
        manifest = _with_fitting_shares(Dataset(manifest, found.root, found.layout))
    check = check_dataset(manifest, found.root, decode=True)
    if check.missing:
        raise UserError(
            f"{len(check.missing):,} of the images that {source} lists are not there,"
            f" the first: {check.missing[0]}.",
            "Put them in place, or leave them out with --skip-missing.",
        )
    if check.unreadable and (strict or not check.counts):
        n = len(check.unreadable)
        raise UserError(
            f"{counted(n, 'photo', 'photos')} in {source} cannot be read, the first:"
            f" {check.unreadable[0]}.",
            "Repair or remove them" + (", or leave out --strict." if check.counts else "."),
        )
    write_text(path, HEADER + to_yaml(manifest))
    remarks = (*found.remarks, *check.remarks)
    unreadable, warnings = tuple(check.unreadable), tuple(check.warnings)
    return Added(manifest, path, check.counts, remarks, unreadable, warnings)


def _with_fitting_shares(dataset: Dataset) -> Manifest:
    items = (item for some in dataset.contents.items.values() for item in some)
    sizes = sorted(Counter(item.label for item in items).values())
    if not sizes or sizes[len(sizes) // 2] >= FEW:
        return dataset.manifest
    return dataset.manifest.model_copy(update={"shares": FEW_SHARES})


def to_yaml(manifest: Manifest) -> str:
    """Return a manifest as YAML with what one may want to edit, and without other defaults."""
    values = manifest.model_dump(mode="json", exclude_defaults=True)
    values["category"] = manifest.category
    values["classes"] = [entry.model_dump(exclude_defaults=True) for entry in manifest.classes]
    values["templates"] = manifest.templates
    values["queries"] = [query.model_dump() for query in manifest.queries or DEFAULT_QUERIES]
    # in the order of the fields, which is how people read it
    ordered = {key: values[key] for key in Manifest.model_fields if key in values}
    options: dict[str, Any] = {"sort_keys": False, "width": 100, "default_flow_style": None}
    text = yaml.safe_dump(ordered, allow_unicode=True, **options)
    if yaml.safe_load(text) == ordered:
        return text
    # unescaped, PyYAML loses line separators such as U+0085 in names
    return yaml.safe_dump(ordered, **options)
