"""A pipe that nobody writes to never answers: no reader of a named file waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aape.pipeline.bank import PromptBank
from aape.pipeline.config import read_yaml
from aape.pipeline.datasets.own import _content
from aape.pipeline.datasets.readers.arrow_files import read_arrow, read_schema
from aape.pipeline.datasets.readers.hub_files import _front_matter
from aape.pipeline.datasets.readers.text_tables import read_text_table
from aape.pipeline.datasets.readers.web_dataset import samples
from aape.pipeline.errors import UserError
from aape.pipeline.files import read_json
from aape.pipeline.prompts.requests import read_queries

READERS: dict[str, Callable[[Path], object]] = {
    "x.json": read_json,
    "x.yaml": read_yaml,
    "x.csv": read_text_table,
    "queries.txt": read_queries,
    "x.parquet": read_schema,
    "x.arrow": read_arrow,
    "x.bank.parquet": PromptBank.open,
    "x.tar": lambda path: list(samples(path)),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    # a writer at hand, so that a reader without the check ends here instead of waiting for ever
    end = os.open(tmp_path / name, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(end, b"{}")
        with pytest.raises(UserError, match="is a pipe or a device"):
            READERS[name](tmp_path / name)
    finally:
        os.close(end)


def test_what_is_only_looked_at_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "README.md")
    assert _front_matter(tmp_path / "README.md") == []
    assert _content(tmp_path / "README.md") == b""


def test_what_the_shell_opened_is_read() -> None:
    read, write = os.pipe()
    os.write(write, b"a: [1, 2]\n")
    os.close(write)
    try:
        assert read_yaml(f"/dev/fd/{read}") == {"a": [1, 2]}
    finally:
        os.close(read)
