"""YAML of strangers: what no value can be made of is one sentence, and in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aape.pipeline.config import load_yaml, read_yaml
from aape.pipeline.datasets.readers.hub_files import _front_matter
from aape.pipeline.errors import UserError


@pytest.mark.parametrize(
    "value",
    [
        "!!bool perhaps", "!!int ''", "!!int '-'", "!!int _", "!!float _", "!!timestamp soon",
        "!!float far", "2026-99-99", "!!binary é", "!!omap [1]", "!!int {=: 1}", "!!float [1]",
        "1" + ":1" * 100_000,  # in base 60: a minute and more
        "1" + ":1" * 1_000 + ".5",  # more than a float holds
        "0x" + "f" * 10_000,  # more than Python writes out
        "0b" + "1" * 10_000, "0" + "7" * 10_000, "9" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_value_is_one_sentence(tmp_path: Path, value: str) -> None:
    (tmp_path / "x.yaml").write_text(f"a: {value}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.yaml is not valid YAML"):
        read_yaml(tmp_path / "x.yaml")
    (tmp_path / "README.md").write_text(f"---\nconfigs: [{value}]\n---\n", encoding="utf-8")
    assert _front_matter(tmp_path / "README.md") == []


def test_what_is_a_value_stays_one() -> None:
    text = "[0x1f, 1:30, 1e-3, .inf, '0', !!bool yes, !!int '7', 2026-01-02]"
    assert load_yaml(text)[:5] == [31, 90, "1e-3", float("inf"), "0"]
    assert load_yaml("{<<: {a: 1}, b: 2}") == {"a": 1, "b": 2}
    assert load_yaml(f"'{'9' * 10_000}'") == "9" * 10_000  # a text may be long
    with pytest.raises(yaml.YAMLError, match="more than 100 digits"):
        load_yaml("9" * 101)
