"""The verbs of ``aape datasets`` as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..one_or_many import one_or_many, several

if TYPE_CHECKING:
    from .add import Added
    from .check import Check
    from .remove import Removed

HALF_FIFTH_REST = (0.5, 0.2, 0.3)  # of train, val and test


def datasets_list() -> list[dict[str, Any]]:
    """Return the data sets that have a manifest: name, title, tasks, classes, licence, place.

    ``root`` is empty where the data set is not on this machine.
    """
    from .catalogue import known_datasets, load_manifest
    from .dataset import candidate_roots, find_layout

    rows = []
    for name in known_datasets():
        manifest = load_manifest(name)
        found = (find_layout(root, manifest) for root in candidate_roots(manifest))
        here = next((str(place[0]) for place in found if place is not None), "")
        rows.append(
            {
                "name": manifest.name,
                "title": manifest.title,
                "tasks": manifest.tasks,
                "classes": len(manifest.classes),
                "licence": manifest.licence,
                "root": here,
            }
        )
    return rows


def datasets_show(name: str) -> dict[str, Any]:
    """Return a manifest with its hash and the places where its files are looked for.

    Raises:
        UserError: no data set has that name, or a file is no manifest.
    """
    from .catalogue import load_manifest
    from .check import where_to_get
    from .dataset import candidate_roots

    manifest = load_manifest(name)
    return {
        **manifest.model_dump(mode="json"),
        "hash": manifest.hash,
        "where_to_get": where_to_get(manifest),
        "looked_for_in": [str(root) for root in candidate_roots(manifest)],
    }


def datasets_check(name: str, root: str | Path | None = None, decode: bool = False) -> Check:
    """Return what is missing or unreadable, and whether the counts are the published ones.

    Args:
        root: folder of the data set, if not a usual place.
        decode: read every photo whole, not its header and end alone.

    Raises:
        UserError: no data set has that name.
    """
    from .catalogue import load_manifest
    from .check import check_dataset

    return check_dataset(load_manifest(name), Path(root) if root else None, decode=decode)


def datasets_fetch(name: str, root: str | Path | None = None) -> dict[str, Any]:
    """Download what is free to download: resumed, verified, extracted.

    Returns:
        Its ``name``, the ``root`` folder and the ``files``.

    Raises:
        UserError: there is nothing to download, a server fails or a checksum differs.
    """
    from .catalogue import load_manifest
    from .fetch import default_root, fetch_dataset

    manifest = load_manifest(name)
    folder = Path(root) if root else default_root(manifest)
    files = [str(path) for path in fetch_dataset(manifest, folder)]
    return {"name": manifest.name, "root": str(folder), "files": files}


@one_or_many("shares", "caption_column", "split_as")
def datasets_add(
    source: str | Path,
    name: str,
    out: str | Path | None = None,
    force: bool = False,
    shares: float | Sequence[float] = HALF_FIFTH_REST,
    path_column: str = "",
    label_column: str = "",
    caption_column: str | Sequence[str] = (),
    split_column: str = "",
    split_as: str | Sequence[str] = (),
    configuration: str = "",
    skip_missing: bool = False,
    strict: bool = False,
) -> Added:
    """Write a manifest for your own images: a folder, a table of paths, a Hugging Face folder.

    Args:
        name: how to ask for it later. out: where the manifest goes. force: overwrite one.
        shares: of train, val and test, where the images have no split.
        path_column, label_column, caption_column, split_column: of a table, if their names are not
            found; ``none`` where there is none.
        split_as: ``NAME=SPLIT``, what a split is: train, val, test or none.
        configuration: which of several. skip_missing: leave out rows whose photo is not there.
        strict: stop at a photo that cannot be read.

    Raises:
        UserError: nothing is found, or the manifest exists.
    """
    from .add import add_dataset
    from .hints import Hints

    train, val, test = several(shares)
    hints = Hints(
        path_column=path_column,
        label_column=label_column,
        caption_columns=tuple(caption_column),
        split_column=split_column,
        split_as=Hints.parse_split_as(split_as),
        configuration=configuration,
        skip_missing=skip_missing,
    )
    return add_dataset(
        source, name, out=out, force=force, shares=(train, val, test), hints=hints, strict=strict
    )


def datasets_remove(name: str) -> Removed:
    """Forget a data set of your own: its manifest goes, its photos and tables stay.

    Raises:
        UserError: no data set has that name, or it came with the package.
    """
    from .remove import remove_dataset

    return remove_dataset(name)
