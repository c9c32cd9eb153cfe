"""Arrays beyond memory: in a file without a name, and a full disk is one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from random_bank import metadata, rows

from aape.pipeline import large_array
from aape.pipeline.bank import write_bank
from aape.pipeline.errors import UserError
from aape.pipeline.large_array import large_zeros


def test_large_ones_lie_in_a_file_that_nobody_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not isinstance(large_zeros((2, 8), np.float32, tmp_path), np.memmap)
    monkeypatch.setattr(large_array, "_IN_MEMORY", 64)
    array = large_zeros((2, 8), np.float32, tmp_path)
    assert isinstance(array, np.memmap)
    assert not list(tmp_path.iterdir())
    assert not array.any()
    array[1] = 7
    assert array.sum() == 56


def test_a_full_disk_is_said_before_the_array_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(large_array, "_IN_MEMORY", 64)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match="No space left on the disk"):
        large_zeros((2, 8), np.float32, tmp_path)


def test_prompts_of_a_large_bank_do_not_live_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    bank = write_bank(tmp_path / "toy.bank.parquet", rows(31), metadata())
    small, mask = bank.reference_embeddings([2, 0, 1])
    assert sorted(mask.sum(1)) == [8, 8, 8]
    monkeypatch.setattr(large_array, "_IN_MEMORY", 64)
    large, again = bank.reference_embeddings([2, 0, 1])
    assert isinstance(large, np.memmap)
    np.testing.assert_array_equal(large, small)
    np.testing.assert_array_equal(again, mask)
