"""Finished work: what was written is read again, and no damage passes silently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aape.pipeline.config import EncoderConfig
from aape.pipeline.errors import UserError
from aape.pipeline.store import (
    finished,
    read_record,
    read_shapes,
    read_tensors,
    write_record,
    write_tensors,
)


def write(path: Path) -> bytes:
    write_tensors(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}, {"note": "ü"})
    return path.read_bytes()


@pytest.mark.parametrize("framework", ["np", "pt"])
def test_tensors_and_notes_come_back(tmp_path: Path, framework) -> None:
    path = tmp_path / "x.safetensors"
    write(path)
    tensors, notes = read_tensors(path, framework)
    assert np.array_equal(np.asarray(tensors["a"]), np.arange(6.0).reshape(2, 3))
    assert notes == {"note": "ü"}


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    content = write(path)
    right = read_tensors(path, "np")
    for position in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        found = finished(path, "np")
        # only the word "sha256" itself may change without harm: then all that is read is right
        if found is not None:
            assert found[0].keys() == right[0].keys()
            assert all(np.array_equal(found[0][name], right[0][name]) for name in right[0])
            assert found[1]["note"] == "ü"


def test_every_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    content = write(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert finished(path) is None


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "old.safetensors"
    save_file({"a": np.ones(2, np.float32)}, path, metadata={"facts": "{}"})
    tensors, notes = read_tensors(path, "np")
    assert tensors["a"].tolist() == [1, 1]
    assert notes == {"facts": "{}"}


def test_absent_and_foreign_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_tensors(tmp_path / "absent")
    (tmp_path / "text").write_text("hello, this is text")
    with pytest.raises(UserError, match="is damaged"):
        read_tensors(tmp_path / "text")
    assert finished(tmp_path / "absent") is None


def test_a_record_notices_any_change(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_record(path, {"a": 1.5, "b": ["ü", float("nan")]})
    assert read_record(path) == {"a": 1.5, "b": ["ü", None]}
    content = path.read_text()
    path.write_text(content.replace("1.5", "1.6"))
    with pytest.raises(UserError, match="checksum"):
        read_record(path)
    path.write_text('{"a": 1}')
    assert read_record(path) == {"a": 1}


def test_a_configuration_cut_at_the_end_of_a_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    lines = EncoderConfig(name="lite", device="cpu").to_yaml().splitlines(keepends=True)
    path.write_text("".join(lines))
    assert EncoderConfig.from_yaml(path).name == "lite"
    for number in range(1, len(lines)):
        path.write_text("".join(lines[:number]))
        with pytest.raises(UserError, match="cut short"):
            EncoderConfig.from_yaml(path)


def test_the_same_work_is_the_same_bytes(tmp_path: Path) -> None:
    """safetensors writes notes in an order of chance."""
    notes = {f"note {n}": f"é {n}" for n in range(12)}
    tensors = {"b": np.ones((3, 2), np.float32), "a": np.arange(5)}
    for number in range(8):
        write_tensors(tmp_path / f"{number}.safetensors", tensors, notes)
    written = {path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    assert len(written) == 1
    found, said = read_tensors(tmp_path / "0.safetensors", "np")
    assert said == notes
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "header",
    [
        b'{"__metadata__": 5}', b"[" * 100_000,
        b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}',  # not of numpy
    ],
)  # fmt: skip
def test_a_header_that_says_anything_is_one_sentence(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="is damaged"):
        read_tensors(path, "np")
    if b"F8" not in header and b"meta" not in header:
        with pytest.raises(UserError, match="is damaged"):
            read_shapes(path)
