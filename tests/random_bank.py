"""Small banks of random unit vectors, for tests that need a bank but no encoder."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from aape.pipeline.bank import BankMetadata, PromptRow

DIM = 8
NAMES = ["cat", "dog", "cat", "no prompts"]


def random_unit(n: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def metadata(**changes) -> BankMetadata:
    values = {
        "dataset": "toy",
        "class_names": NAMES,
        "encoder_id": "random",
        "encoder_fingerprint": "random@0",
        "dim": DIM,
    }
    return BankMetadata.model_validate({**values, **changes})


def rows(n: int = 30, seed: int = 0, names: list[str] = NAMES, **changes) -> list[PromptRow]:
    """Rows over the first three classes; every fifth is a duplicate."""
    vectors = random_unit(n, seed=seed)
    return [
        PromptRow(
            **{
                "prompt_id": f"p{i}",
                "dataset": "toy",
                "class_id": i % 3,
                "class_name": names[i % 3],
                "text": f"text {i}",
                "embedding": vectors[i],
                "verdict": "kept" if i % 5 else "duplicate",
                "sampling": {"temperature": 0.99, "top_p": 1.0, "max_tokens": 60},
                "created_at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc),
                **changes,
            }
        )
        for i in range(n)
    ]
