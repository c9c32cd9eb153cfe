"""A log of records: added in parts, read whole, and no damage passes silently."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from aape.pipeline.errors import UserError
from aape.pipeline.record_log import RecordLog
from aape.pipeline.store import read_lines, write_lines


def opened(folder: Path) -> RecordLog[int]:
    def to_json(key: str, number: int) -> dict[str, Any]:
        return {"key": key, "number": number}

    def from_json(row: Any) -> tuple[str, int] | None:
        return (row["key"], row["number"]) if isinstance(row.get("number"), int) else None

    return RecordLog(folder, to_json, from_json)


def test_records_come_back_and_the_first_of_a_key_stays(tmp_path: Path) -> None:
    log = opened(tmp_path / "log")
    assert len(log) == 0
    assert not (tmp_path / "log").exists()  # reading writes nothing
    log.add({"a": 1, "b": 2})
    log.add({"a": 9, "\ud83d": 3})
    again = opened(tmp_path / "log")
    assert {key: again[key] for key in ("a", "b", "\ud83d")} == {"a": 1, "b": 2, "\ud83d": 3}
    again.add({"a": 7})
    assert len(list((tmp_path / "log").iterdir())) == 2


def test_names_hold_the_hash_of_the_content_as_ever(tmp_path: Path) -> None:
    opened(tmp_path).add({"a": 1})
    (path,) = tmp_path.iterdir()
    wanted = hashlib.sha256(b'{"key": "a", "number": 1}\n').hexdigest()[:16]
    assert path.name == f"000000-{wanted}.jsonl"


@pytest.mark.parametrize("damage", ["flip", "cut", "binary"])
def test_a_damaged_file_is_removed_and_the_others_stay(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = opened(tmp_path)
    log.add({"a": 1})
    log.add({"b": 2})
    first, second = sorted(tmp_path.iterdir())
    content = first.read_bytes()
    flipped = content.replace(b"1", b"3")
    first.write_bytes({"flip": flipped, "cut": content[:-3], "binary": b"\xff\xfe"}[damage])
    again = opened(tmp_path)
    assert "a" not in again
    assert again["b"] == 2
    assert "damaged" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [second]
    again.add({"a": 1})
    assert len(opened(tmp_path)) == 2


def test_malformed_records_and_strange_names_are_passed_over(tmp_path: Path) -> None:
    write_lines(tmp_path, "000000", [{"key": "a", "number": 1}, {"key": "b", "number": "2"}])
    for name in ("0abc-1.jsonl", "notes.txt", "000001.jsonl", "000003-zz.jsonl"):
        (tmp_path / name).write_text("not ours")
    log = opened(tmp_path)
    assert len(log) == 1
    log.add({"b": 2})
    assert (tmp_path / "notes.txt").exists()
    assert opened(tmp_path)["b"] == 2


def test_lines_that_are_not_what_their_name_says(tmp_path: Path) -> None:
    path = write_lines(tmp_path, "x", [{"a": 1}, {"b": [2.5, None]}])
    assert read_lines(path) == [{"a": 1}, {"b": [2.5, None]}]
    other = path.rename(tmp_path / "x-0000000000000000.jsonl")
    with pytest.raises(UserError, match="checksum does not agree"):
        read_lines(other)
    with pytest.raises(UserError, match="does not exist"):
        read_lines(path)
