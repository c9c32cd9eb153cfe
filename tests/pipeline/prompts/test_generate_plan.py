"""The words of `generate-prompts` and `import-prompts`: what they mean, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from aape.pipeline.datasets import load_manifest
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.plan import import_file, plan


def test_words_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("samples: 3\nengine: vllm\nvllm: {dtype: float16}\n")
    made = plan(
        ["pets"],
        config=file,
        out=tmp_path,
        options={"engine": "openai", "model": "", "samples": None, "vllm.quantization": "fp8"},
    )
    assert (made.config.engine, made.config.samples, made.config.model) == ("openai", 3, "auto")
    assert (made.config.vllm.dtype, made.config.vllm.quantization) == ("float16", "fp8")
    assert made.banks == [tmp_path / "pets.bank.parquet"]


def test_a_whole_configuration_has_a_section(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("generation: {samples: 3}\n")
    assert plan(["pets"], config=tmp_path / "c.yaml").config.samples == 3


def test_banks_of_several_and_of_all(tmp_path: Path) -> None:
    made = plan(["pets", "cars", "pets"], out=tmp_path)
    assert [bank.name for bank in made.banks] == ["pets.bank.parquet", "cars.bank.parquet"]
    everything = plan([], every=True, control="waffle")
    assert all(manifest.classes for manifest in everything.manifests)
    assert all(bank.name.endswith(".waffle.bank.parquet") for bank in everything.banks)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"datasets": []}, "Which data set"),
        ({"datasets": ["pets"], "every": True}, "exclude"),
        ({"datasets": ["petz"]}, "Did you mean 'pets'"),
        ({"datasets": ["pets"], "control": "wafle"}, "Did you mean 'waffle'"),
        ({"datasets": ["pets"], "out": Path("bank.json")}, "no name for a bank"),
        ({"datasets": ["pets", "cars"], "out": Path("x.parquet")}, "must be a folder"),
        ({"datasets": ["pets"], "options": {"engine": "import"}}, "--from"),
        ({"datasets": ["pets"], "source": Path("x.json")}, "--engine import"),
        ({"datasets": ["pets"], "options": {"engine": "vlm"}}, "What was set is not valid: engine"),
        ({"datasets": ["pets"], "config": Path("absent.yaml")}, "does not exist"),
        ({"datasets": ["pets"], "config": Path()}, "is a folder"),
        ({"datasets": ["pets"], "queries": Path("absent.txt")}, "does not exist"),
        ({"datasets": ["pets"], "queries": Path()}, "is a folder"),
    ],
)
def test_words_that_do_not_fit(words: dict, message: str) -> None:
    datasets = words.pop("datasets")
    with pytest.raises(UserError, match=message):
        plan(datasets, **words)


def test_an_import_is_written_as_a_bank_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text('{"cat": ["A cat is small."]}')
    with pytest.raises(UserError, match="no name for a bank"):
        import_file(file, load_manifest("pets"), file, "auto", False, "auto", "")
    assert file.read_text().startswith("{")  # the file itself would have been overwritten
    with pytest.raises(UserError, match="is a folder"):
        import_file(tmp_path, load_manifest("pets"), None, "auto", False, "auto", "")
