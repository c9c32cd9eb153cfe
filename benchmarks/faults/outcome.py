"""What a command left: every file by a fingerprint of what it says, without times and versions."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

# what says when and how, not what: never part of an outcome
_VOLATILE = re.compile(
    r"seconds|created|.*_at|.*time.*|.*version.*|packages|engine|commit|sha256|checksum"
    r"|finish_reason|n_tokens_llm|environment|command"
)
_LEFT = re.compile(r"\..*\.~[0-9a-f]{8}-[0-9]+-\w+|tmp\w{8}")


def leftovers(place: Path) -> list[str]:
    """Temporary files that nobody will take away."""
    return [str(p.relative_to(place)) for p in place.rglob("*") if _LEFT.fullmatch(p.name)]


def outcome(place: Path) -> dict[str, str]:
    """Return a fingerprint of each file in a room, the cache left out: it only saves time."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if not path.is_file() or name.startswith("home/") or _LEFT.search(name):
            continue
        try:
            text = _content(path)
        except Exception:  # a damaged file that the command did not touch: as it is
            text = path.read_bytes()
        if text is not None:
            found[name] = hashlib.sha256(text).hexdigest()
    return found


def _content(path: Path) -> bytes | None:
    """Return what a file says, or nothing where it says only when and how it was made."""
    if path.suffix == ".lock" or path.name in (
        "environment.json", "metrics.jsonl", "stages.json", "report.html",
    ):  # fmt: skip
        return None
    if ".answers/" in str(path):  # chunks are cut where the interruption was; the bank holds all
        return None
    if path.suffix == ".parquet":
        return _table(path)
    if path.suffix == ".faiss":  # what follows the index itself is about the bank: see there
        data = path.read_bytes()
        return data[: -48 - int.from_bytes(data[-16:-8], "little")]
    if path.suffix in (".json", ".jsonl"):
        return _json(path)
    if path.suffix == ".safetensors":
        return _tensors(path)
    return path.read_bytes()


def _table(path: Path) -> bytes:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    kept = [name for name in table.column_names if not _VOLATILE.fullmatch(name)]
    return repr(table.select(kept).to_pylist()).encode()


def printed(text: str) -> str:
    """Return what a command printed, without seconds where it is JSON."""
    try:
        return json.dumps(_lasting(json.loads(text)), sort_keys=True)
    except ValueError:
        return text


def _json(path: Path) -> bytes:
    lines = path.read_text(encoding="utf-8").splitlines()
    whole = [json.loads(line) for line in lines] if path.suffix == ".jsonl" else json.loads(
        "\n".join(lines)
    )  # fmt: skip
    return json.dumps(_lasting(whole), sort_keys=True).encode()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if not _VOLATILE.fullmatch(str(k))}
    if isinstance(value, list):
        return [_lasting(item) for item in value]
    return value


def _tensors(path: Path) -> bytes:
    from safetensors import safe_open

    digest = hashlib.sha256()
    with safe_open(path, framework="np") as opened:
        for name in sorted(opened.keys()):
            array = opened.get_tensor(name)
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.digest()
