"""Which kind of model lies in a folder or behind a hub's name, and where.

``local-dir:FOLDER`` and ``hf-hub:ORG/NAME`` are open_clip's own schemes; a folder of transformers,
or one of sentence-transformers with such a folder inside, is known by its configuration.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

from ..errors import UserError
from ..files import read_json
from ..hub_errors import is_of_hub, is_offline
from .clip_sources import CONFIG

SCHEMES = ("hf-hub:", "local-dir:", "transformers:")
_CONFIGURATION = ("*.json", "*.txt", "*.model")
_WEIGHTS = (("*.safetensors",), ("open_clip_pytorch_model.bin", "pytorch_model*.bin"))
_PROBE_SECONDS = 3.0


class FoundFolder(NamedTuple):
    """A folder with a model: the library it is for, and the name its encoder goes by."""

    path: Path
    library: str
    """``open_clip`` or ``transformers``."""
    id: str


def has_scheme(name: str) -> bool:
    """Say whether an encoder's name begins with a scheme, such as ``hf-hub:``."""
    return name.startswith(SCHEMES)


def names_folder(name: str) -> bool:
    """Say whether an encoder's name leads to files of this machine rather than to known weights."""
    scheme, _, rest = name.rpartition(":")
    if name in ("lite", "auto"):
        return False
    return scheme == "local-dir" or (scheme in ("transformers", "") and Path(rest).is_dir())


def find_folder(name: str, checkpoint: str = "") -> FoundFolder:
    """Find the model that a scheme or a bare folder names; ``checkpoint`` says where it is now.

    Raises:
        UserError: it is not here and no hub is reachable, or it is no model of either library.
    """
    scheme, _, rest = name.rpartition(":")
    place = Path(checkpoint or rest).expanduser()
    if not place.is_dir():
        if checkpoint or scheme == "local-dir" or not _is_repository(rest):
            raise UserError(
                f"The encoder {name} is no folder on this machine"
                f"{f': {checkpoint} is not there' if checkpoint else ''}.",
                "Give the folder of the model with --checkpoint.",
            )
        return _known(snapshot(rest), name if scheme else f"transformers:{rest}", scheme)
    place = place.resolve()
    # a bank remembers the name; where the folder lies is the business of this machine
    known = _known(place, "", scheme)
    label = "local-dir" if known.library == "open_clip" else "transformers"
    own = rest if checkpoint and scheme and rest else place.name
    return known._replace(id=f"{label}:{Path(own).name}")


def _is_repository(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(part and not part.startswith(".") for part in parts)


def _known(folder: Path, id: str, scheme: str) -> FoundFolder:
    """Tell the library of a folder by the configuration in it."""
    if (folder / CONFIG).is_file() and scheme != "transformers":
        return FoundFolder(folder, "open_clip", id)
    if scheme == "local-dir":
        raise UserError(
            f"{folder} has no {CONFIG}, so it is no model of open_clip.",
            f"For a model of transformers write transformers:{folder}.",
        )
    if (folder / "modules.json").is_file():
        folder = _inside_sentence_transformers(folder)
    if (folder / "config.json").is_file():
        return FoundFolder(folder, "transformers", id)
    raise UserError(
        f"{folder} holds no model: neither {CONFIG} nor config.json is in it.",
        "Name the folder that open_clip or transformers saved.",
    )


def _inside_sentence_transformers(folder: Path) -> Path:
    """Return the folder of the model itself; what stands behind it may only set the length to 1.

    Raises:
        UserError: other layers follow, or the list of modules leads out of the folder.
    """
    modules = read_json(folder / "modules.json")
    rows = [row for row in modules if isinstance(row, dict)] if isinstance(modules, list) else []
    kinds = [str(row.get("type", "")).rpartition(".")[2] for row in rows]
    if not rows or kinds[0] not in ("CLIPModel", "Transformer"):
        raise UserError(f"{folder / 'modules.json'} does not begin with a model of transformers.")
    if extra := [kind for kind in kinds[1:] if kind != "Normalize"]:
        raise UserError(
            f"{folder} puts the layer {extra[0]!r} behind its model, which is not supported.",
            "A CLIP of sentence-transformers has its model alone.",
        )
    inside = (folder / str(rows[0].get("path", ""))).resolve()
    if not inside.is_relative_to(folder.resolve()):
        raise UserError(f"{folder / 'modules.json'} leads out of its folder.")
    # until version 3 the files of a CLIP lay in a folder of their own below the module's
    deeper = inside / "0_CLIPModel"
    return deeper if not (inside / "config.json").is_file() and deeper.is_dir() else inside


def snapshot(repository: str) -> Path:
    """Return the folder of a hub's model: from the cache, else downloaded, never any code of it.

    Raises:
        UserError: it is not in the cache, and the hub is out of reach or has no such model.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
        if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
            return folder
    except (OSError, ValueError):  # not in the cache, or no name that a hub could have
        pass
    address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        if is_offline():
            raise OSError("HF_HUB_OFFLINE is set")
        socket.create_connection(
            (address.hostname or "", address.port or 443), _PROBE_SECONDS
        ).close()
        folder = Path(snapshot_download(repository, allow_patterns=[*_CONFIGURATION, *_WEIGHTS[0]]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(repository, allow_patterns=list(_WEIGHTS[1])))
        return folder
    except Exception as error:
        if not is_of_hub(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The model {repository} is not on this machine and cannot be had from "
            f"{address.hostname} ({reason}).",
            "Give a folder with --checkpoint, or use --encoder lite.",
        ) from error
