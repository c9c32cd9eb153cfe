"""Training takes a folder of parts as it takes a file, and the run finds it again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import unit_rows
from safetensors.numpy import load_file
from toy_features import C, D, feature_file

from aape.adapter.bank_of_run import bank_of_run
from aape.adapter.classification.verbs import train
from aape.adapter.share.contents import lay_out
from aape.pipeline.bank import BankMetadata, PromptBank, PromptRow, write_bank
from aape.pipeline.bank.merge import merge_banks
from aape.pipeline.errors import UserError


def test_a_run_of_a_folder_is_that_of_a_file(tmp_path: Path) -> None:
    names = [f"thing {number}" for number in range(C)]
    features = feature_file(tmp_path / "f.safetensors", header={"encoder_fingerprint": "toy@0"})
    near = load_file(features)["class_text.features"].repeat(4, 0)
    noise = np.random.default_rng(3).normal(size=(C * 4, D))
    made = [
        PromptRow(f"p{row:03}", "things", row // 4, names[row // 4], f"text {row}", vector)
        for row, vector in enumerate(unit_rows(near + 0.2 * noise).astype(np.float32))
    ]
    metadata = BankMetadata(
        dataset="things", class_names=names, encoder_id="toy", encoder_fingerprint="toy@0", dim=D
    )
    one = write_bank(tmp_path / "things.bank.parquet", made, metadata)
    parts = merge_banks([one.path], tmp_path / "things.bank", parts=3)
    runs = [tmp_path / "a", tmp_path / "b"]
    for bank, run in zip((one, parts), runs, strict=True):
        train(bank=bank.path, features=features, shots=4, seeds=1, baselines="none",
              protocol="fewshot", out=run)  # fmt: skip
    about = json.loads((runs[1] / "adapter_config.json").read_text())
    weights = [load_file(run / "adapter.safetensors") for run in runs]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        np.testing.assert_array_equal(tensor, weights[1][name])
    assert len(bank_of_run(runs[1], about).files) == 3
    (parts.path / "bank.json").write_text("{}")
    with pytest.raises(UserError, match="its content differs"):
        bank_of_run(runs[1], about, parts.path)
    with pytest.raises(UserError, match=r"bank\.json"):
        PromptBank.open(parts.path)
    with pytest.raises(UserError, match="is a bank in parts"):
        lay_out(parts.path, tmp_path / "pushed")
